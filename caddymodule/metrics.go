package caddymodule

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-scope/caddy-scope/postgres"
)

// nodeMetrics tell of this node. Those of the view are of session_check live;
// there are none with strict. The promise of a bound on revocation is kept as
// long as staleness stays below max_staleness or requests read Postgres, which
// they do then.
type nodeMetrics struct{}

// nodeMetric is one of them. value reports false where there is none.
type nodeMetric struct {
	*prometheus.Desc
	kind  prometheus.ValueType
	value func(*nodeState) (float64, bool)
}

// nodeState is what they are taken from, at one moment.
type nodeState struct {
	*App
	view   *postgres.ViewState // nil: session_check strict
	pool   *postgres.PoolState
	upkeep *postgres.UpkeepState
}

func gauge(name, help string, value func(*nodeState) (float64, bool)) nodeMetric {
	return nodeMetric{prometheus.NewDesc("caddy_oauth_"+name, help, nil, nil), prometheus.GaugeValue, value}
}

func counter(name, help string, value func(*nodeState) float64) nodeMetric {
	return nodeMetric{prometheus.NewDesc("caddy_oauth_"+name, help, nil, nil), prometheus.CounterValue,
		func(n *nodeState) (float64, bool) { return value(n), true }}
}

func ofPool(kind prometheus.ValueType, name, help string, value func(*postgres.PoolState) float64) nodeMetric {
	return nodeMetric{prometheus.NewDesc("caddy_oauth_"+name, help, nil, nil), kind, func(n *nodeState) (float64, bool) {
		if n.pool == nil {
			return 0, false
		}
		return value(n.pool), true
	}}
}

func ofUpkeep(kind prometheus.ValueType, name, help string, value func(*postgres.UpkeepState) (float64, bool)) nodeMetric {
	return nodeMetric{prometheus.NewDesc("caddy_oauth_upkeep_"+name, help, nil, nil), kind, func(n *nodeState) (float64, bool) {
		if n.upkeep == nil {
			return 0, false
		}
		return value(n.upkeep)
	}}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func ofView(kind prometheus.ValueType, name, help string, value func(*postgres.ViewState) float64) nodeMetric {
	return nodeMetric{prometheus.NewDesc("caddy_oauth_view_"+name, help, nil, nil), kind, func(n *nodeState) (float64, bool) {
		if n.view == nil {
			return 0, false
		}
		return value(n.view), true
	}}
}

var allNodeMetrics = []nodeMetric{
	ofView(prometheus.GaugeValue, "fresh", "1 while the session view decides; 0 while every request reads Postgres.", func(s *postgres.ViewState) float64 { return oneIf(s.Fresh) }),
	ofView(prometheus.GaugeValue, "staleness_seconds", "Time since the session view's last completed poll was sent; below max_staleness the view decides.",
		func(s *postgres.ViewState) float64 { return s.Staleness.Seconds() }),
	ofView(prometheus.GaugeValue, "max_staleness_seconds", "The bound: no session is admitted later than this after its revocation.",
		func(s *postgres.ViewState) float64 { return s.MaxStaleness.Seconds() }),
	ofView(prometheus.GaugeValue, "revocations", "Sessions that the view refuses by itself, about.",
		func(s *postgres.ViewState) float64 { return float64(s.Revocations) }),
	ofView(prometheus.GaugeValue, "sessions", "Sessions that the view admits by itself, about.",
		func(s *postgres.ViewState) float64 { return float64(s.Known) }),
	ofView(prometheus.GaugeValue, "session_bytes", "What the sessions weigh that the view admits by itself, about.",
		func(s *postgres.ViewState) float64 { return float64(s.KnownBytes) }),
	ofView(prometheus.CounterValue, "reads_total", "Requests that the view could not decide, so that they read Postgres.",
		func(s *postgres.ViewState) float64 { return float64(s.Reads) }),
	ofView(prometheus.CounterValue, "restarts_total", "How often the view forgot all sessions, as it could not be sure to have heard of everything.",
		func(s *postgres.ViewState) float64 { return float64(s.Restarts) }),
	ofView(prometheus.CounterValue, "poll_failures_total", "Polls for revocations that failed, and connections for them.",
		func(s *postgres.ViewState) float64 { return float64(s.Failures) }),

	gauge("tokens", "Verified access tokens that are kept, about.",
		func(n *nodeState) (float64, bool) { return float64(n.tokens.Len()), true }),
	gauge("token_bytes", "What the verified access tokens weigh that are kept, about.",
		func(n *nodeState) (float64, bool) { return float64(n.tokens.Bytes()), true }),
	counter("token_verifications_total", "Access tokens that were not known, so that their signature was checked.",
		func(n *nodeState) float64 { return float64(n.tokens.Verified()) }),
	counter("token_evictions_total", "Verified access tokens that had to make room for others before they expired.",
		func(n *nodeState) float64 { return float64(n.tokens.Evicted()) }),

	ofPool(prometheus.GaugeValue, "database_up", "1 if the last call was answered by a server that takes writes; it is asked every second.",
		func(s *postgres.PoolState) float64 { return oneIf(s.Answers) }),
	ofPool(prometheus.CounterValue, "database_failures_total", "Calls that the database did not answer, or for which no connection came free in time.",
		func(s *postgres.PoolState) float64 { return float64(s.Failures) }),
	ofPool(prometheus.GaugeValue, "pool_acquired_connections", "Connections in use.",
		func(s *postgres.PoolState) float64 { return float64(s.Acquired) }),
	ofPool(prometheus.GaugeValue, "pool_idle_connections", "Connections that wait for use.",
		func(s *postgres.PoolState) float64 { return float64(s.Idle) }),
	ofPool(prometheus.GaugeValue, "pool_max_connections", "The most connections there may be.",
		func(s *postgres.PoolState) float64 { return float64(s.Max) }),
	ofPool(prometheus.CounterValue, "pool_acquires_total", "How often a connection was taken.",
		func(s *postgres.PoolState) float64 { return float64(s.Acquires) }),
	ofPool(prometheus.CounterValue, "pool_waits_total", "How often no connection was idle.",
		func(s *postgres.PoolState) float64 { return float64(s.Waits) }),
	ofPool(prometheus.CounterValue, "pool_wait_seconds_total", "How long calls waited for a connection.",
		func(s *postgres.PoolState) float64 { return s.Waited.Seconds() }),

	ofUpkeep(prometheus.GaugeValue, "last_success_timestamp_seconds", "When the last pass over the tables ended without a failure, by this node or because another was at it.",
		func(s *postgres.UpkeepState) (float64, bool) { return float64(s.Cleaned.Unix()), !s.Cleaned.IsZero() }),
	ofUpkeep(prometheus.CounterValue, "removed_rows_total", "Expired rows that this node removed.",
		func(s *postgres.UpkeepState) (float64, bool) { return float64(s.Removed), true }),
	ofUpkeep(prometheus.CounterValue, "failures_total", "Passes, and writes of what sessions did, that failed.",
		func(s *postgres.UpkeepState) (float64, bool) { return float64(s.Failures), true }),

	gauge("events_lag_seconds", "For how long the oldest event waits that a webhook has not taken; of the webhook that is furthest behind.", func(n *nodeState) (float64, bool) {
		var lag time.Duration
		for _, sender := range n.runtime.senders {
			lag = max(lag, sender.Lag())
		}
		return lag.Seconds(), len(n.runtime.senders) > 0
	}),

	gauge("clock_skew_seconds", "How far this node's clock is ahead of the database's.", func(n *nodeState) (float64, bool) {
		if n.runtime.clock == nil {
			return 0, false
		}
		return n.runtime.clock.Skew().Seconds(), true
	}),
}

// Describe implements prometheus.Collector.
func (nodeMetrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, m := range allNodeMetrics {
		descriptions <- m.Desc
	}
}

// Collect implements prometheus.Collector.
func (nodeMetrics) Collect(metrics chan<- prometheus.Metric) {
	app := running.Load()
	if app == nil {
		return
	}
	now := &nodeState{App: app}
	if view := app.runtime.view; view != nil {
		state := view.State()
		now.view = &state
	}
	if pool := app.runtime.pool; pool != nil {
		state := pool.State()
		now.pool = &state
	}
	if upkeep := app.runtime.upkeep; upkeep != nil {
		state := upkeep.State()
		now.upkeep = &state
	}
	for _, m := range allNodeMetrics {
		if value, ok := m.value(now); ok {
			metrics <- prometheus.MustNewConstMetric(m.Desc, m.kind, value)
		}
	}
}

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
