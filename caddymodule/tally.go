package caddymodule

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// What the authorization server did. The counters are made once; Caddy has a
// fresh registry for each configuration, into which they are put again.
var (
	grantCount = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_oauth_token_grants_total",
		Help: "Requests for tokens of clients that are authenticated, by grant type and outcome.",
	}, []string{"grant_type", "outcome"})
	refusalCount = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_oauth_refusals_total",
		Help: "Requests that an endpoint of the authorization server did not do, by endpoint and reason.",
	}, []string{"endpoint", "reason"})
	signInCount = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_oauth_sign_ins_total",
		Help: "Attempts to sign in by method and outcome.",
	}, []string{"method", "outcome"})
	eventsDelivered = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_oauth_events_delivered_total",
		Help: "Events that webhooks took from this node.",
	})
	eventsFailed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_oauth_events_failures_total",
		Help: "Attempts of this node to deliver an event that a webhook did not take.",
	})
)

// tally implements issuer.Tally, which says what the values may be.
type tally struct{}

func (tally) Granted(grantType, outcome string) {
	grantCount.WithLabelValues(grantType, outcome).Inc()
}

func (tally) Refused(endpoint, reason string) {
	refusalCount.WithLabelValues(endpoint, reason).Inc()
}

func (tally) SignedIn(method, outcome string) {
	signInCount.WithLabelValues(method, outcome).Inc()
}

// EventDelivered and EventFailed implement issuer.WebhookTally.
func (tally) EventDelivered() { eventsDelivered.Inc() }
func (tally) EventFailed()    { eventsFailed.Inc() }

// startAtZero shows what an alert asks about before it comes for the first time,
// so that its first increase is seen.
func (tally) startAtZero() {
	for _, grant := range issuer.GrantTypes() {
		grantCount.WithLabelValues(grant, "issued")
	}
	grantCount.WithLabelValues("refresh_token", "replayed")
	grantCount.WithLabelValues("authorization_code", "replayed")
	for _, reason := range []string{"invalid_client", "throttled", "temporarily_unavailable"} {
		refusalCount.WithLabelValues("/oauth/token", reason)
	}
	for _, outcome := range []string{"succeeded", "failed"} {
		signInCount.WithLabelValues("password", outcome)
	}
}

func init() { tally{}.startAtZero() }
