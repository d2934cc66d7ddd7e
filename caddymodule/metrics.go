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
	"allowed", "preflight", "bypass", "unmatched", "stream_ended",
	"no_rule", "no_credentials", "invalid_token", "insufficient_scope", "invalid_request", "unavailable",
}

// nodeMetrics are the gauges of this node. Those of the view are of
// session_check live; there are none with strict. The promise of a bound on revocation is kept as long as staleness
// stays below max_staleness or requests read Postgres, which they do then.
type nodeMetrics struct{}

var (
	viewFresh       = prometheus.NewDesc("caddy_oauth_view_fresh", "1 while the session view decides; 0 while every request reads Postgres.", nil, nil)
	viewStaleness   = prometheus.NewDesc("caddy_oauth_view_staleness_seconds", "Time since the session view's last completed poll was sent.", nil, nil)
	viewRevocations = prometheus.NewDesc("caddy_oauth_view_revocations", "Sessions that the view refuses or would read again.", nil, nil)
	viewSessions    = prometheus.NewDesc("caddy_oauth_view_sessions", "Sessions that the view decides by itself, about.", nil, nil)

	clockSkew = prometheus.NewDesc("caddy_oauth_clock_skew_seconds", "How far this node's clock is ahead of the database's.", nil, nil)
)

// Describe implements prometheus.Collector.
func (nodeMetrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{viewFresh, viewStaleness, viewRevocations, viewSessions, clockSkew} {
		descriptions <- d
	}
}

// Collect implements prometheus.Collector.
func (nodeMetrics) Collect(metrics chan<- prometheus.Metric) {
	app := running.Load()
	if app == nil {
		return
	}
	if clock := app.runtime.clock; clock != nil {
		metrics <- prometheus.MustNewConstMetric(clockSkew, prometheus.GaugeValue, clock.Skew().Seconds())
	}
	if app.runtime.view == nil {
		return
	}
	state := app.runtime.view.State()
	fresh := 0.0
	if state.Fresh {
		fresh = 1
	}
	for d, value := range map[*prometheus.Desc]float64{
		viewFresh: fresh, viewStaleness: state.Staleness.Seconds(), viewRevocations: float64(state.Revocations), viewSessions: float64(state.Known),
	} {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
}

// decisionCounter is gateDecisions with its children looked up.
type decisionCounter struct{ byOutcome map[string]prometheus.Counter }

func newDecisionCounter(ctx caddy.Context) (*decisionCounter, error) {
	var again prometheus.AlreadyRegisteredError
	for _, collector := range []prometheus.Collector{gateDecisions, nodeMetrics{}} {
		if err := ctx.GetMetricsRegistry().Register(collector); err != nil && !errors.As(err, &again) {
			return nil, err
		}
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
