package validator

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// RateKey is whom a rate is counted by.
type RateKey string

// The keys of rates.
const (
	PerUser    RateKey = "user"    // whatever client acts for them; a client that acts for itself is counted as one
	PerClient  RateKey = "client"  // whoever it acts for
	PerSession RateKey = "session" // one client for one user
	PerAddress RateKey = "address" // an IPv4 address, or the /64 of an IPv6 one
)

// RateKeys returns every key.
func RateKeys() []RateKey { return []RateKey{PerUser, PerClient, PerSession, PerAddress} }

// Rate bounds how often a caller may come under a rule, or call a tool.
type Rate struct {
	ratelimit.Rate
	Per RateKey
	// Shared marks a rate that is counted over all rules that have it, and not for
	// each. Where nobody is known, on public rules, it is not counted but by
	// address.
	Shared bool
}

// String returns the rate as it is written.
func (r Rate) String() string { return r.Rate.String() + " per " + string(r.Per) }

// RateTexts returns the rates of the rule as they are written, those that it shares
// with others marked so; nil: it has none.
func (r *Rule) RateTexts() (texts []string) {
	for _, rate := range r.Rates {
		text := rate.String()
		if rate.Shared {
			text = "gate " + text
		}
		texts = append(texts, text)
	}
	return texts
}

// rateLimit is a compiled Rate.
type rateLimit struct {
	*ratelimit.Limit
	per RateKey
}

// checkRates reports what is wrong with Rates. nobody: no caller is known under the
// rule.
func (r *Rule) checkRates(nobody bool) error {
	for i, rate := range r.Rates {
		if err := rate.Check(); err != nil {
			return fmt.Errorf("rate %w", err)
		}
		switch {
		case !slices.Contains(RateKeys(), rate.Per):
			return fmt.Errorf("rate %s: it is per user, client, session or address", rate)
		case nobody && rate.Per != PerAddress && !rate.Shared:
			return fmt.Errorf("rate %s: a public rule knows no %s; count per address", rate, rate.Per)
		}
		for _, other := range r.Rates[:i] {
			if other.Per == rate.Per && other.Window == rate.Window && other.Shared == rate.Shared {
				return fmt.Errorf("rate %s: there is one for the same window already, %s", rate, other)
			}
		}
	}
	return nil
}

func sameRates(a, b []Rate) bool { return slices.Equal(a, b) }

// compileRates makes the limits of every rule of a resource.
func (t *ruleTable) compileRates(resource string) error {
	for _, rule := range t.rules {
		limits, err := rule.compileRates(resource)
		if err != nil {
			return err
		}
		rule.limits = limits
		if rule.tools == nil {
			continue
		}
		for _, call := range rule.tools.calls {
			if call.perCall, err = call.compileRates(resource); err != nil {
				return err
			}
			call.limits = slices.Concat(limits, call.perCall)
		}
	}
	return nil
}

func (r *Rule) compileRates(resource string) (limits []rateLimit, err error) {
	for _, rate := range r.Rates {
		thing, name := resource+"\x00"+r.String(), rate.String()
		switch {
		case rate.Shared:
			thing, name = resource, "gate "+name
		case r.Tool != "":
			name = "tool " + r.Tool + " " + name
		}
		limit, err := ratelimit.NewLimit(thing, name, rate.Rate)
		if err != nil {
			return nil, &RuleError{Rule: *r, Problem: err.Error()}
		}
		limits = append(limits, rateLimit{limit, rate.Per})
	}
	return limits, nil
}

// limited returns the rule of a request that calls these tools, with what each call
// is counted by: one request with many calls is no way around a rate.
func (t *toolTable) limited(rule *Rule, tools []string) *Rule {
	var perCall []rateLimit
	for _, tool := range tools {
		perCall = append(perCall, t.calls[tool].perCall...)
	}
	if len(tools) < 2 || perCall == nil {
		return rule
	}
	if !rule.isBundle() {
		rule = &Rule{also: []*Rule{rule}, index: rule.index}
	}
	rule.limits = slices.Concat(t.path.limits, perCall)
	return rule
}

// maxStates is how many rates of a request are counted without an allocation.
const maxStates = 8

// limit counts a request that the rules let through. It takes nothing of any rate
// when one of them is exhausted.
func (r *Resource) limit(req *http.Request, d *Decision) *Refusal {
	limiter := r.cfg.Limits()
	if limiter == nil {
		return nil
	}
	var room [maxStates]ratelimit.Use
	uses := room[:0]
	for _, limit := range d.Rule.limits {
		if caller := r.callerOf(req, limit.per, &d.Identity); caller != "" {
			uses = append(uses, ratelimit.Use{Limit: limit.Limit, Key: limiter.Key(limit.Limit, caller)})
		}
	}
	if len(uses) == 0 {
		return nil
	}
	d.Limits = limiter.Take(uses, make([]ratelimit.State, len(uses)))
	if last := d.Limits[len(d.Limits)-1]; !last.Allowed {
		refusal := rateLimited(last)
		refusal.Identity = d.Identity
		return refusal
	}
	return nil
}

// callerOf is whom a request is counted as; empty: nobody is known, and strangers
// must not share one count.
func (r *Resource) callerOf(req *http.Request, per RateKey, id *Identity) string {
	switch per {
	case PerUser:
		if id.UserID == "" && id.ClientID != "" {
			return "\x00" + id.ClientID // no user is called so
		}
		return id.UserID
	case PerClient:
		return id.ClientID
	case PerSession:
		return id.SessionID
	}
	if network := ratelimit.Network(r.cfg.ClientAddress(req)); network.IsValid() {
		return network.String()
	}
	return ""
}

func rateLimited(state ratelimit.State) *Refusal {
	return &Refusal{
		Status: http.StatusTooManyRequests, Code: oauth.CodeRateLimited,
		Description: "Too many requests. Retry-After says in how many seconds the next one passes.",
		Limits:      []ratelimit.State{state}, Cause: errors.New("exhausted: " + state.Limit.Name),
	}
}
