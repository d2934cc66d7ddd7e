package caddymodule

import (
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// outcome is what became of a request at a gate.
type outcome uint8

const (
	outcomeAllowed outcome = iota
	outcomePreflight
	outcomeBypass
	outcomeUnmatched
	outcomeObserved
	outcomeStreamEnded
	outcomeNoRule
	outcomeNoCredentials
	outcomeInvalidToken
	outcomeInvalidProof
	outcomeInsufficientScope
	outcomeUserNotAllowed
	outcomeRateLimited
	outcomeInvalidRequest
	outcomeUnavailable
	outcomes // how many there are
)

// outcomeNames are the values of the label.
var outcomeNames = [outcomes]string{
	"allowed", "preflight", "bypass", "unmatched", "observed", "stream_ended",
	"no_rule", "no_credentials", "invalid_token", "invalid_proof", "insufficient_scope", "user_not_allowed", "rate_limited", "invalid_request", "unavailable",
}

// ruleNone stands for the rule of a request that comes under none.
const ruleNone = "none"

// decisions count what became of the requests of one rule. A gate has them at
// hand: a request adds to a number and looks nothing up.
type decisions [outcomes]atomic.Uint64

func (d *decisions) count(o outcome) { d[o].Add(1) }

// Destruct implements caddy.Destructor.
func (*decisions) Destruct() error { return nil }

// decisionKey has nothing of a request, so that there are no more of them than
// the configuration has rules.
type decisionKey struct{ resource, rule string }

// keptDecisions hold the counters of each rule for as long as a configuration
// has it: they go on over a reload, and go with the last gate that has the rule.
var keptDecisions = caddy.NewUsagePool()

// gateRule is a rule as the gate keeps it.
type gateRule struct {
	rule *validator.Rule
	text string // as it is written
	*decisions
}

// provisionDecisions takes the counters of every rule of the gate.
func (p *Protect) provisionDecisions() {
	p.ruleless = takeDecisions(p.decisionKey(ruleNone))
	for _, rule := range p.resource.AllRules() {
		text := rule.String()
		p.rules = append(p.rules, gateRule{rule, text, takeDecisions(p.decisionKey(text))})
	}
}

func (p *Protect) decisionKey(rule string) decisionKey {
	return decisionKey{p.resource.Identifier(), strings.ToValidUTF8(rule, "\uFFFD")} // labels must be
}

func takeDecisions(key decisionKey) *decisions {
	value, _, _ := keptDecisions.LoadOrNew(key, func() (caddy.Destructor, error) { return new(decisions), nil })
	return value.(*decisions)
}

// releaseDecisions gives back what provisionDecisions took.
func (p *Protect) releaseDecisions() {
	if p.ruleless == nil {
		return
	}
	for _, own := range p.rules {
		_, _ = keptDecisions.Delete(p.decisionKey(own.text)) // nothing to destruct
	}
	_, _ = keptDecisions.Delete(p.decisionKey(ruleNone))
}

// decisionsOf returns the counters of a rule; of nil, those of no rule.
func (p *Protect) decisionsOf(rule *validator.Rule) *decisions {
	if rule == nil {
		return p.ruleless
	}
	return p.rules[rule.Index()].decisions
}

// outcomeOf is what a refusal counts as.
func outcomeOf(refusal *validator.Refusal) outcome {
	switch {
	case refusal.Status >= http.StatusInternalServerError:
		return outcomeUnavailable
	case refusal.Code == oauth.CodeAccessDenied && refusal.Identity.SessionID != "":
		return outcomeUserNotAllowed
	case refusal.Code == oauth.CodeAccessDenied:
		return outcomeNoRule
	case refusal.Limits != nil:
		return outcomeRateLimited
	case refusal.Code == oauth.CodeInvalidToken:
		return outcomeInvalidToken
	case refusal.Code == oauth.CodeInsufficientScope:
		return outcomeInsufficientScope
	case refusal.Code == oauth.CodeInvalidDPoPProof, refusal.Code == oauth.CodeUseDPoPNonce:
		return outcomeInvalidProof
	case refusal.Status == http.StatusUnauthorized:
		return outcomeNoCredentials
	}
	return outcomeInvalidRequest
}

// decisionMetrics are the decisions of every rule that a configuration has.
type decisionMetrics struct{}

var decisionsDesc = prometheus.NewDesc("caddy_oauth_gate_decisions_total",
	"Requests at oauth_protect by resource, rule as it is configured, and outcome.", []string{"resource", "rule", "outcome"}, nil)

// Describe implements prometheus.Collector.
func (decisionMetrics) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- decisionsDesc }

// Collect implements prometheus.Collector.
func (decisionMetrics) Collect(metrics chan<- prometheus.Metric) {
	keptDecisions.Range(func(key, value any) bool {
		k := key.(decisionKey)
		for o := range value.(*decisions) {
			if n := value.(*decisions)[o].Load(); n > 0 || k.startsAtZero(outcome(o)) {
				metrics <- prometheus.MustNewConstMetric(decisionsDesc, prometheus.CounterValue, float64(n), k.resource, k.rule, outcomeNames[o])
			}
		}
		return true
	})
}

// startsAtZero reports whether the outcome is told before it came: what an alert
// asks about must be there for its first increase to be seen, and all outcomes of
// ten thousand rules would be too much.
func (k decisionKey) startsAtZero(o outcome) bool {
	switch o {
	case outcomeUnavailable:
		return true
	case outcomeAllowed:
		return k.rule != ruleNone
	case outcomeNoRule:
		return k.rule == ruleNone
	}
	return false
}
