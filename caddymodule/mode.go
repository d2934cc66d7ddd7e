package caddymodule

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/validator"
)

// ModeSettings makes a gate rehearse. A request that it would refuse passes as it
// came, with its own credentials and without identity headers, and is counted and
// logged; one that a rule lets in is forwarded as ever. See docs/rehearsal.md.
type ModeSettings struct {
	// EnforcePercent is the share of callers, from 0 to 100, that are refused in
	// earnest: users where the token tells, else client addresses. Who is among them
	// is the same on all nodes, and remains so when the share grows. Default: 0, the
	// gate only observes.
	EnforcePercent float64 `json:"enforce_percent,omitempty"`
}

// parseMode reads
//
//	mode observe | enforce <percent>
func (p *Protect) parseMode(h httpcaddyfile.Helper) error {
	args := h.RemainingArgs()
	switch {
	case len(args) == 1 && args[0] == "observe":
		p.Mode = new(ModeSettings)
		return nil
	case len(args) == 2 && args[0] == "enforce":
		number, marked := strings.CutSuffix(args[1], "%")
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || !marked {
			return h.Errf("mode enforce: %q is not a share of the callers such as 10%%", args[1])
		}
		p.Mode = &ModeSettings{percent}
		return nil
	}
	return h.Err("mode: observe, or enforce and a share such as 10%, is expected; without the word everything is enforced")
}

// parseObservedRule reads
//
//	observe <methods> <path> <requirement>
func (p *Protect) parseObservedRule(h httpcaddyfile.Helper, short bool) error {
	switch {
	case short:
		return h.Err("observe: the short form has its one requirement; write mode observe")
	case !h.NextArg() || !looksLikeMethods(h.Val()):
		return h.Err("observe: a rule is expected: METHODS PATH REQUIREMENT; for the whole gate write mode observe")
	}
	if err := p.parseRule(h, h.Val()); err != nil {
		return err
	}
	p.Rules[len(p.Rules)-1].Observe = true
	return nil
}

func (m *ModeSettings) check() error {
	switch {
	case m == nil:
		return nil
	case m.EnforcePercent == 100:
		return errors.New("mode: enforce 100% is what a gate does without the word: leave it out")
	case !(m.EnforcePercent >= 0 && m.EnforcePercent < 100):
		return fmt.Errorf("mode: %v is no share of the callers between 0%% and 100%%", m.EnforcePercent)
	}
	return nil
}

// warnAboutMode tells at each start that the gate is a rehearsal.
func (p *Protect) warnAboutMode() {
	switch {
	case p.Mode == nil:
	case p.Mode.EnforcePercent == 0:
		p.logger.Warn("the gate only observes: every request passes", zap.String("gate", p.Source))
	default:
		p.logger.Warn("the gate refuses for a share of the callers only", zap.String("gate", p.Source), zap.Float64("percent", p.Mode.EnforcePercent))
	}
}

// enforces reports whether the caller is of the share that is refused.
func (m *ModeSettings) enforces(resource, caller string) bool {
	digest := sha256.Sum256([]byte(resource + "\x00" + caller)) // at another gate it is others
	return float64(binary.BigEndian.Uint32(digest[:])) < m.EnforcePercent/100*(1<<32)
}

// observes reports whether a request passes although it is refused.
func (p *Protect) observes(r *http.Request, refusal *validator.Refusal) bool {
	return p.lenient(r, refusal.Observe, &refusal.Identity)
}

// observesRule reports whether a request that the rule refused would pass.
func (p *Protect) observesRule(r *http.Request, rule *validator.Rule, identity *validator.Identity) bool {
	return p.lenient(r, rule.Observed(), identity)
}

func (p *Protect) lenient(r *http.Request, observed bool, identity *validator.Identity) bool {
	if h := p.app.rehearsal; h != nil && (h.inEarnest || !observed && p.Mode != nil && p.Mode.EnforcePercent > 0) {
		return false // nobody in particular is asking
	}
	if observed || p.Mode == nil {
		return observed
	}
	caller := identity.UserID
	if caller == "" {
		caller, _ = caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	}
	return !p.Mode.enforces(p.resource.Identifier(), caller)
}
