package caddymodule

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

const (
	alertsFile    = "../examples/monitoring/alerts.yml"
	dashboardFile = "../examples/monitoring/dashboard.json"
)

// scrape is what Prometheus would read from Caddy at one moment.
type scrape map[string]float64 // by labels as Prometheus writes them

// scrapeCaddy reads our metrics from the registry of the running configuration,
// as Prometheus would: it adds the label instance.
func scrapeCaddy(t *testing.T) scrape {
	t.Helper()
	ctx := caddy.ActiveContext()
	families, err := ctx.GetMetricsRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := make(scrape)
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "caddy_oauth_") {
			continue
		}
		for _, m := range family.GetMetric() {
			b := labels.NewBuilder(labels.FromStrings(model.MetricNameLabel, family.GetName(), "instance", "node-1"))
			for _, pair := range m.GetLabel() {
				b.Set(pair.GetName(), pair.GetValue())
			}
			found[b.Labels().String()] = valueOf(m)
		}
	}
	return found
}

func valueOf(m *dto.Metric) float64 { return m.GetGauge().GetValue() + m.GetCounter().GetValue() }

// with returns a copy in which the series of the metric have the value.
func (s scrape) with(t *testing.T, metric string, value float64) scrape {
	t.Helper()
	changed := maps.Clone(s)
	for series := range changed {
		if strings.HasPrefix(series, `{__name__="`+metric+`",`) {
			changed[series] = value
			return changed
		}
	}
	t.Fatalf("no series of %s", metric)
	return nil
}

// monitoredScene is a gateway on a Postgres whose wire can be cut, with traffic
// behind it.
func monitoredScene(t *testing.T) (*gateScene, *postgrestest.Wire) {
	t.Helper()
	s := prepareGateScene(t)
	wire, dsn := postgrestest.NewWire(t, postgrestest.New(t))
	s.dsn, s.real = dsn, true
	receiver := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(receiver.Close)
	s.words = "events_webhook " + receiver.URL + " {\nsecret whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n}"
	s.load("", "route {\noauth_server\noauth_protect {\nGET /jobs jobs:read\nGET /health public\nobserve GET /new jobs:read\n}\nreverse_proxy UPSTREAM\n}")
	if err := running.Load().runtime.upkeep.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !running.Load().runtime.view.State().Fresh; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the view is not fresh")
		}
	}
	for _, path := range []string{"/jobs", "/health", "/new", "/no-rule"} {
		s.get(path)
	}
	s.askForTokens("wrong")
	return s, wire
}

// askForTokens asks with the client's secret.
func (s *gateScene) askForTokens(secret string) answer {
	form := "grant_type=refresh_token&refresh_token=x&client_id=gpt&client_secret=" + secret
	return s.raw(fmt.Sprintf("POST /oauth/token HTTP/1.1\nHost: api.example.com\nConnection: close\nContent-Type: application/x-www-form-urlencoded\nContent-Length: %d\n\n%s", len(form), form))
}

func alertRules(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(alertsFile, false, model.UTF8Validation)
	if errs != nil {
		t.Fatal(errs)
	}
	rules := make(map[string]rulefmt.Rule)
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			rules[rule.Alert] = rule
		}
	}
	return rules
}

// dashboardQueries are the expressions of the dashboard, with the values of its
// variables that Grafana would put in.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := []string{"$__rate_interval", "5m"}
	queries := make(map[string]string)
	for _, v := range dashboard.Templating.List {
		variables = append(variables, "$"+v.Name, ".*")
		if v.Type == "query" { // label_values(metric, label)
			metric, label, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(v.Definition, "label_values("), ")"), ", ")
			if !ok {
				t.Errorf("variable %s: %q", v.Name, v.Definition)
			}
			queries["variable "+v.Name] = fmt.Sprintf("count by (%s) (%s)", label, metric)
		}
	}
	for _, panel := range dashboard.Panels {
		for i, target := range panel.Targets {
			queries[fmt.Sprintf("%s %d", panel.Title, i)] = strings.NewReplacer(variables...).Replace(target.Expr)
		}
	}
	return queries
}

// TestMonitoringAsksForWhatCaddyTells: each metric and label of the dashboard and
// of the alert rules is one that a gateway with traffic exposes, and each value
// that is asked for too; and every metric is on the dashboard. MET-06.
func TestMonitoringAsksForWhatCaddyTells(t *testing.T) {
	monitoredScene(t)
	told := scrapeCaddy(t)
	byMetric := make(map[string][]labels.Labels)
	for series := range told {
		parsed, err := parser.ParseMetric(series)
		if err != nil {
			t.Fatal(err)
		}
		byMetric[parsed.Get(model.MetricNameLabel)] = append(byMetric[parsed.Get(model.MetricNameLabel)], parsed)
	}
	queries := dashboardQueries(t)
	shown := make(map[string]bool)
	for name, rule := range alertRules(t) {
		queries["alert "+name] = rule.Expr
	}
	for name, query := range queries {
		expr, err := parser.ParseExpr(query)
		if err != nil {
			t.Errorf("%s: %s: %v", name, query, err)
			continue
		}
		known := make(map[string]bool) // labels of what the query selects
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			selector, ok := node.(*parser.VectorSelector)
			if !ok {
				return nil
			}
			series := byMetric[selector.Name]
			if len(series) == 0 {
				t.Errorf("%s: nobody tells %s", name, selector.Name)
				return nil
			}
			shown[selector.Name] = shown[selector.Name] || !strings.HasPrefix(name, "alert ")
			series[0].Range(func(l labels.Label) { known[l.Name] = true })
			for _, m := range selector.LabelMatchers {
				if !known[m.Name] {
					t.Errorf("%s: %s has no label %s", name, selector.Name, m.Name)
				}
				for _, value := range m.SetMatches() {
					if !slices.ContainsFunc(series, func(l labels.Labels) bool { return l.Get(m.Name) == value }) && !slices.Contains(outcomeNames[:], value) && value != "throttled" {
						t.Errorf("%s: %s never has %s=%q", name, selector.Name, m.Name, value)
					}
				}
			}
			return nil
		})
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			if aggregate, ok := node.(*parser.AggregateExpr); ok {
				for _, label := range aggregate.Grouping {
					if !known[label] {
						t.Errorf("%s: nothing has the label %s", name, label)
					}
				}
			}
			return nil
		})
	}
	for metric := range byMetric {
		if !shown[metric] {
			t.Errorf("%s is not on the dashboard", metric)
		}
	}
}

// TestAlertsFireWhenTheyShould, and not while all is well. What is cheap to bring
// about is brought about; of the rest the numbers are changed. MET-07.
func TestAlertsFireWhenTheyShould(t *testing.T) {
	s, wire := monitoredScene(t)
	well := scrapeCaddy(t)

	// The database is gone.
	wire.Refuse()
	wire.Cut()
	down := func() bool {
		app := running.Load().runtime
		return !app.pool.State().Answers && !app.view.State().Fresh
	}
	for deadline := time.Now().Add(30 * time.Second); !down(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody notices that the database is gone")
		}
	}
	if got := s.get("/jobs"); got.status != http.StatusServiceUnavailable {
		t.Errorf("without a database: %+v", got)
	}
	if got := s.askForTokens(sceneSecret); got.status != http.StatusServiceUnavailable {
		t.Errorf("without a database: %+v", got)
	}
	gone := scrapeCaddy(t)

	// It is back, and somebody guesses at a client's secret.
	wire.Heal(t)
	for deadline := time.Now().Add(30 * time.Second); s.askForTokens("wrong").status == http.StatusServiceUnavailable; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the database is back, and nobody notices")
		}
	}
	for range 25 {
		s.askForTokens("wrong")
	}
	guessed := scrapeCaddy(t)

	rule := `{__name__="caddy_oauth_gate_decisions_total", instance="node-1", outcome="%s", resource="https://api.example.com", rule="GET /jobs jobs:read"}`
	refusing := maps.Clone(well)
	refusing[fmt.Sprintf(rule, "insufficient_scope")] = 0
	rising := func(name string, by float64) func(scrape, int) scrape {
		return func(s scrape, n int) scrape { c := maps.Clone(s); c[name] += by * float64(n); return c }
	}
	for name, tc := range map[string]struct {
		after scrape
		grow  func(scrape, int) scrape // after n samples; nil: it stays
	}{
		"OAuthMetricsMissing":       {scrape{}, nil},
		"OAuthDatabaseDown":         {gone, nil},
		"OAuthViewStale":            {gone, nil},
		"OAuthRequestsUndecided":    {gone, nil},
		"OAuthServerUnavailable":    {gone, nil},
		"OAuthClientSecretsGuessed": {guessed, nil},
		"OAuthReplay":               {well.with(t, "caddy_oauth_token_grants_total", 0), rising(`{__name__="caddy_oauth_token_grants_total", grant_type="refresh_token", instance="node-1", outcome="replayed"}`, 1)},
		"OAuthPasswordsGuessed":     {well, rising(`{__name__="caddy_oauth_sign_ins_total", instance="node-1", method="password", outcome="failed"}`, 10)},
		"OAuthRuleRefuses":          {refusing, rising(fmt.Sprintf(rule, "insufficient_scope"), 30)},
		"OAuthRuleMissing":          {well, rising(`{__name__="caddy_oauth_gate_decisions_total", instance="node-1", outcome="no_rule", resource="https://api.example.com", rule="none"}`, 30)},
		"OAuthPoolBusy":             {well.with(t, "caddy_oauth_pool_acquired_connections", 10), nil},
		"OAuthViewRestarts":         {well, rising(`{__name__="caddy_oauth_view_restarts_total", instance="node-1"}`, 1)},
		"OAuthClockSkew":            {well.with(t, "caddy_oauth_clock_skew_seconds", -3), nil},
		"OAuthUpkeepStopped":        {well.with(t, "caddy_oauth_upkeep_last_success_timestamp_seconds", float64(time.Now().Add(-time.Hour).Unix())), nil},
		"OAuthEventsLate":           {well, rising(`{__name__="caddy_oauth_events_lag_seconds", instance="node-1"}`, scrapeEvery.Seconds())},
	} {
		alert, ok := alertRules(t)[name]
		if !ok {
			t.Errorf("no alert %s", name)
			continue
		}
		history := newHistory(t, well, tc.after, tc.grow)
		if fired := history.fires(t, alert, history.start, history.change.Add(-time.Second)); fired {
			t.Errorf("%s fires while all is well", name)
		}
		if fired := history.fires(t, alert, history.change, history.end); !fired {
			t.Errorf("%s does not fire", name)
		}
	}
	if rules := alertRules(t); len(rules) != 15 {
		t.Errorf("%d alerts, of which 15 are tried", len(rules))
	}
}

// history is forty minutes of scrapes every 30 seconds, in the middle of which
// something happens.
type history struct {
	start, change, end time.Time
	samples            map[string][]chunks.Sample
}

const scrapeEvery = 30 * time.Second

func newHistory(t *testing.T, before, after scrape, grow func(scrape, int) scrape) *history {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	h := &history{now.Add(-40 * time.Minute), now.Add(-20 * time.Minute), now, make(map[string][]chunks.Sample)}
	n := 0
	for at := h.start; !at.After(h.end); at = at.Add(scrapeEvery) {
		told := before
		if !at.Before(h.change) {
			n++
			if told = after; grow != nil {
				told = grow(after, n)
			}
		}
		for series, value := range told {
			if strings.Contains(series, "last_success_timestamp") && at.Before(h.change) {
				value = float64(at.Unix()) // as it would have been
			}
			h.samples[series] = append(h.samples[series], point{at.UnixMilli(), value})
		}
	}
	return h
}

// fires reports whether the alert would have: its expression held for as long as
// it says, at each evaluation.
func (h *history) fires(t *testing.T, alert rulefmt.Rule, from, to time.Time) bool {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute, LookbackDelta: 2 * scrapeEvery})
	defer engine.Close()
	var since time.Time
	for at := from; !at.After(to); at = at.Add(scrapeEvery) {
		query, err := engine.NewInstantQuery(t.Context(), storage.QueryableFunc(h.querier), nil, alert.Expr, at)
		if err != nil {
			t.Fatal(err)
		}
		result, err := query.Exec(t.Context()).Vector()
		if err != nil {
			t.Fatalf("%s: %v", alert.Alert, err)
		}
		switch {
		case len(result) == 0:
			since = time.Time{}
		case since.IsZero():
			since = at
			fallthrough
		default:
			if at.Sub(since) >= time.Duration(alert.For) {
				return true
			}
		}
		query.Close()
	}
	return false
}

func (h *history) querier(mint, maxt int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		var found []storage.Series
		for series, samples := range h.samples {
			parsed, err := parser.ParseMetric(series)
			if err == nil && !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(parsed.Get(m.Name)) }) {
				found = append(found, storage.NewListSeries(parsed, samples))
			}
		}
		return &seriesList{series: found}
	}}, nil
}

// seriesList implements storage.SeriesSet.
type seriesList struct {
	series []storage.Series
	next   int
}

func (l *seriesList) Next() bool                        { l.next++; return l.next <= len(l.series) }
func (l *seriesList) At() storage.Series                { return l.series[l.next-1] }
func (l *seriesList) Err() error                        { return nil }
func (l *seriesList) Warnings() annotations.Annotations { return nil }

// point implements chunks.Sample.
type point struct {
	at    int64 // ms
	value float64
}

func (p point) T() int64                      { return p.at }
func (p point) F() float64                    { return p.value }
func (p point) H() *histogram.Histogram       { return nil }
func (p point) FH() *histogram.FloatHistogram { return nil }
func (p point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample           { return p }
