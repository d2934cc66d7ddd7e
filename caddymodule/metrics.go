package caddymodule

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// gateDecisions is made once; Caddy has a fresh registry for each
// configuration. Its label has a fixed set of values: nothing of a request
// becomes one.
var gateDecisions = prometheus.NewCounterVec(prometheus.CounterOpts{
	Namespace: "caddy",
	Subsystem: "oauth",
	Name:      "gate_decisions_total",
	Help:      "Requests at oauth_protect by outcome.",
}, []string{"outcome"})

// outcomes are the values of the label.
var outcomes = []string{
	"allowed", "preflight", "bypass", "unmatched",
	"no_rule", "no_credentials", "invalid_token", "insufficient_scope", "invalid_request", "unavailable",
}

// decisionCounter is gateDecisions with its children looked up.
type decisionCounter struct{ byOutcome map[string]prometheus.Counter }

func newDecisionCounter(ctx caddy.Context) (*decisionCounter, error) {
	var again prometheus.AlreadyRegisteredError
	if err := ctx.GetMetricsRegistry().Register(gateDecisions); err != nil && !errors.As(err, &again) {
		return nil, err
	}
	c := &decisionCounter{make(map[string]prometheus.Counter, len(outcomes))}
	for _, outcome := range outcomes {
		c.byOutcome[outcome] = gateDecisions.WithLabelValues(outcome)
	}
	return c, nil
}

func (c *decisionCounter) count(outcome string) { c.byOutcome[outcome].Inc() }

// refusalOutcome is the label of a refusal.
func refusalOutcome(refusal *validator.Refusal) string {
	switch {
	case refusal.Status >= http.StatusInternalServerError:
		return "unavailable"
	case refusal.Code == oauth.CodeAccessDenied:
		return "no_rule"
	case refusal.Code == oauth.CodeInvalidToken, refusal.Code == oauth.CodeInsufficientScope:
		return refusal.Code
	case refusal.Status == http.StatusUnauthorized:
		return "no_credentials"
	}
	return "invalid_request"
}
