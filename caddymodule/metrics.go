package caddymodule

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/validator"
)

// collectors tell everything that is counted.
var collectors = []prometheus.Collector{decisionMetrics{}, grantCount, refusalCount, signInCount, droppedEvents, eventsDelivered, eventsFailed, nodeMetrics{}}

// registerMetrics puts the collectors into the registry, which is a fresh one for
// each configuration; the numbers go on.
func registerMetrics(ctx caddy.Context) error {
	var again prometheus.AlreadyRegisteredError
	for _, collector := range collectors {
		if err := ctx.GetMetricsRegistry().Register(collector); err != nil && !errors.As(err, &again) {
			return err
		}
	}
	return nil
}

// nodeMetrics tell of this node, as far as it has the parts.
type nodeMetrics struct{}

// Describe implements prometheus.Collector.
func (nodeMetrics) Describe(to chan<- *prometheus.Desc) {
	describe(to, viewMetrics)
	describe(to, tokenMetrics)
	describe(to, poolMetrics)
	describe(to, upkeepMetrics)
	describe(to, cleanedMetrics)
	describe(to, webhookMetrics)
	describe(to, clockMetrics)
}

// Collect implements prometheus.Collector.
func (nodeMetrics) Collect(to chan<- prometheus.Metric) {
	app := running.Load()
	if app == nil {
		return
	}
	if view := app.runtime.view; view != nil {
		collect(to, viewMetrics, view.State())
	}
	collect(to, tokenMetrics, app.tokens)
	if pool := app.runtime.pool; pool != nil {
		collect(to, poolMetrics, pool.State())
	}
	if upkeep := app.runtime.upkeep; upkeep != nil {
		state := upkeep.State()
		collect(to, upkeepMetrics, state)
		if !state.Cleaned.IsZero() {
			collect(to, cleanedMetrics, state)
		}
	}
	if senders := app.runtime.senders; len(senders) > 0 {
		collect(to, webhookMetrics, senders)
	}
	if clock := app.runtime.clock; clock != nil {
		collect(to, clockMetrics, clock)
	}
}

// metric is one number of a part of this node, whose state is S.
type metric[S any] struct {
	*prometheus.Desc
	kind  prometheus.ValueType
	value func(S) float64
}

func gauge[S any](name, help string, value func(S) float64) metric[S] {
	return metric[S]{prometheus.NewDesc("caddy_oauth_"+name, help, nil, nil), prometheus.GaugeValue, value}
}

func counter[S any](name, help string, value func(S) float64) metric[S] {
	return metric[S]{prometheus.NewDesc("caddy_oauth_"+name, help, nil, nil), prometheus.CounterValue, value}
}

func describe[S any](to chan<- *prometheus.Desc, of []metric[S]) {
	for _, m := range of {
		to <- m.Desc
	}
}

func collect[S any](to chan<- prometheus.Metric, of []metric[S], state S) {
	for _, m := range of {
		to <- prometheus.MustNewConstMetric(m.Desc, m.kind, m.value(state))
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// viewMetrics are those of session_check live. The promise of a bound on
// revocation is kept as long as staleness stays below max_staleness or requests
// read Postgres, which they do then.
var viewMetrics = []metric[postgres.ViewState]{
	gauge("view_fresh", "1 while the session view decides; 0 while every request reads Postgres.",
		func(s postgres.ViewState) float64 { return oneIf(s.Fresh) }),
	gauge("view_staleness_seconds", "Time since the session view's last completed poll was sent; below max_staleness the view decides.",
		func(s postgres.ViewState) float64 { return s.Staleness.Seconds() }),
	gauge("view_max_staleness_seconds", "The bound: no session is admitted later than this after its revocation.",
		func(s postgres.ViewState) float64 { return s.MaxStaleness.Seconds() }),
	gauge("view_revocations", "Sessions that the view refuses by itself, about.",
		func(s postgres.ViewState) float64 { return float64(s.Revocations) }),
	gauge("view_sessions", "Sessions that the view admits by itself, about.",
		func(s postgres.ViewState) float64 { return float64(s.Known) }),
	gauge("view_session_bytes", "What the sessions weigh that the view admits by itself, about.",
		func(s postgres.ViewState) float64 { return float64(s.KnownBytes) }),
	counter("view_reads_total", "Requests that the view could not decide, so that they read Postgres.",
		func(s postgres.ViewState) float64 { return float64(s.Reads) }),
	counter("view_restarts_total", "How often the view forgot all sessions, as it could not be sure to have heard of everything.",
		func(s postgres.ViewState) float64 { return float64(s.Restarts) }),
	counter("view_poll_failures_total", "Polls for revocations that failed, and connections for them.",
		func(s postgres.ViewState) float64 { return float64(s.Failures) }),
}

var tokenMetrics = []metric[*validator.TokenCache]{
	gauge("tokens", "Verified access tokens that are kept, about.",
		func(c *validator.TokenCache) float64 { return float64(c.Len()) }),
	gauge("token_bytes", "What the verified access tokens weigh that are kept, about.",
		func(c *validator.TokenCache) float64 { return float64(c.Bytes()) }),
	counter("token_verifications_total", "Access tokens that were not known, so that their signature was checked.",
		func(c *validator.TokenCache) float64 { return float64(c.Verified()) }),
	counter("token_evictions_total", "Verified access tokens that had to make room for others before they expired.",
		func(c *validator.TokenCache) float64 { return float64(c.Evicted()) }),
}

var poolMetrics = []metric[postgres.PoolState]{
	gauge("database_up", "1 if the last call was answered by a server that takes writes; it is asked every second.",
		func(s postgres.PoolState) float64 { return oneIf(s.Answers) }),
	counter("database_failures_total", "Calls that the database did not answer, or for which no connection came free in time.",
		func(s postgres.PoolState) float64 { return float64(s.Failures) }),
	gauge("pool_acquired_connections", "Connections in use.",
		func(s postgres.PoolState) float64 { return float64(s.Acquired) }),
	gauge("pool_idle_connections", "Connections that wait for use.",
		func(s postgres.PoolState) float64 { return float64(s.Idle) }),
	gauge("pool_max_connections", "The most connections there may be.",
		func(s postgres.PoolState) float64 { return float64(s.Max) }),
	counter("pool_acquires_total", "How often a connection was taken.",
		func(s postgres.PoolState) float64 { return float64(s.Acquires) }),
	counter("pool_waits_total", "How often no connection was idle.",
		func(s postgres.PoolState) float64 { return float64(s.Waits) }),
	counter("pool_wait_seconds_total", "How long calls waited for a connection.",
		func(s postgres.PoolState) float64 { return s.Waited.Seconds() }),
}

var upkeepMetrics = []metric[postgres.UpkeepState]{
	counter("upkeep_removed_rows_total", "Expired rows that this node removed.",
		func(s postgres.UpkeepState) float64 { return float64(s.Removed) }),
	counter("upkeep_failures_total", "Passes, and writes of what sessions did, that failed.",
		func(s postgres.UpkeepState) float64 { return float64(s.Failures) }),
}

// cleanedMetrics are of an upkeep that has ended a pass.
var cleanedMetrics = []metric[postgres.UpkeepState]{
	gauge("upkeep_last_success_timestamp_seconds", "When the last pass over the tables ended without a failure, by this node or because another was at it.",
		func(s postgres.UpkeepState) float64 { return float64(s.Cleaned.Unix()) }),
}

// webhookMetrics are of a node that has webhooks.
var webhookMetrics = []metric[[]*issuer.WebhookSender]{
	gauge("events_lag_seconds", "For how long the oldest event waits that a webhook has not taken; of the webhook that is furthest behind.",
		func(senders []*issuer.WebhookSender) float64 {
			var lag time.Duration
			for _, sender := range senders {
				lag = max(lag, sender.Lag())
			}
			return lag.Seconds()
		}),
}

var clockMetrics = []metric[*postgres.Clock]{
	gauge("clock_skew_seconds", "How far this node's clock is ahead of the database's.",
		func(c *postgres.Clock) float64 { return c.Skew().Seconds() }),
}
