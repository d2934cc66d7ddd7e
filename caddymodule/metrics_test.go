package caddymodule

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// gather returns our metrics that have no labels.
func gather(t *testing.T) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(nodeMetrics{})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	metrics := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			metrics[family.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return metrics
}

// TestEveryMetricIsDocumented, so that an operator knows what to watch. MET-04.
func TestEveryMetricIsDocumented(t *testing.T) {
	document, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	descriptions := make(chan *prometheus.Desc, 100)
	for _, collector := range collectors {
		collector.Describe(descriptions)
	}
	close(descriptions)
	for d := range descriptions {
		name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]
		if !bytes.Contains(document, []byte("`"+name+"`")) {
			t.Errorf("operations.md does not tell of %s", name)
		}
	}
}

// series returns what Caddy's registry tells of a metric, by the values of its
// labels, joined by |. Zeros are left out.
func series(t *testing.T, name string, labels ...string) map[string]float64 {
	t.Helper()
	ctx := caddy.ActiveContext()
	families, err := ctx.GetMetricsRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]float64)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			values := make(map[string]string)
			for _, pair := range m.GetLabel() {
				values[pair.GetName()] = pair.GetValue()
			}
			var key []string
			for _, label := range labels {
				key = append(key, values[label])
			}
			if n := m.GetCounter().GetValue(); n != 0 {
				found[strings.Join(key, "|")] += n
			}
		}
	}
	return found
}

func decisionSeries(t *testing.T) map[string]float64 {
	t.Helper()
	return series(t, "caddy_oauth_gate_decisions_total", "rule", "outcome")
}

// increase is what was added; series that are no more are left out.
func increase(before, after map[string]float64) map[string]float64 {
	grown := make(map[string]float64)
	for key, n := range after {
		if n != before[key] {
			grown[key] = n - before[key]
		}
	}
	return grown
}

// TestDecisionsAreCountedByRuleAndOutcome, and nothing of a request becomes a
// label. MET-01.
func TestDecisionsAreCountedByRuleAndOutcome(t *testing.T) {
	s := newGateScene(t, `@own header X-Own yes
	oauth_protect {
		GET  /jobs     jobs:read
		GET  /jobs/*   jobs:read
		POST /jobs     jobs:write roles=recruiter
		GET  /health   public
		observe GET /new jobs:read
		bypass @own
	}
	reverse_proxy UPSTREAM`)
	const authorized = "Host: api.example.com\nConnection: close\nAuthorization: Bearer TOKEN\n\n"
	for name, tc := range map[string]struct {
		request string
		want    string
		down    bool
		narrow  bool
	}{
		"allowed":            {request: "GET /jobs/7?q=secret HTTP/1.1\n" + authorized, want: "GET /jobs/* jobs:read|allowed"},
		"public":             {request: "GET /health HTTP/1.1\nHost: a\n\n", want: "GET /health public|allowed"},
		"preflight":          {request: "OPTIONS /jobs HTTP/1.1\nHost: a\nOrigin: https://b.example\nAccess-Control-Request-Method: GET\n\n", want: "GET /jobs jobs:read|preflight"},
		"bypass":             {request: "GET /jobs HTTP/1.1\nHost: a\nX-Own: yes\n\n", want: "none|bypass"},
		"no rule":            {request: "DELETE /jobs/7 HTTP/1.1\nHost: a\n\n", want: "none|no_rule"},
		"no credentials":     {request: "GET /jobs HTTP/1.1\nHost: a\n\n", want: "GET /jobs jobs:read|no_credentials"},
		"invalid token":      {request: "GET /jobs HTTP/1.1\nHost: a\nAuthorization: Bearer x\n\n", want: "GET /jobs jobs:read|invalid_token"},
		"no proof":           {request: "GET /jobs HTTP/1.1\nHost: a\nAuthorization: DPoP TOKEN\n\n", want: "GET /jobs jobs:read|invalid_proof"},
		"two credentials":    {request: "GET /jobs?access_token=a HTTP/1.1\n" + authorized, want: "GET /jobs jobs:read|invalid_request"},
		"ambiguous path":     {request: "GET /jobs//7 HTTP/1.1\n" + authorized, want: "none|invalid_request"},
		"user not allowed":   {request: "POST /jobs HTTP/1.1\n" + authorized, want: "POST /jobs jobs:write roles=recruiter|user_not_allowed"},
		"observed":           {request: "GET /new HTTP/1.1\nHost: a\n\n", want: "GET /new jobs:read|observed"},
		"unavailable":        {request: "GET /jobs HTTP/1.1\n" + authorized, want: "GET /jobs jobs:read|unavailable", down: true},
		"insufficient scope": {request: "GET /jobs HTTP/1.1\n" + authorized, want: "GET /jobs jobs:read|insufficient_scope", narrow: true},
	} {
		t.Run(name, func(t *testing.T) {
			s.sessions.down.Store(tc.down)
			s.sessions.restore()
			if tc.narrow {
				s.sessions.narrow(testSession)
			}
			before := decisionSeries(t)
			s.raw(tc.request)
			if got, want := increase(before, decisionSeries(t)), map[string]float64{tc.want: 1}; !maps.Equal(got, want) {
				t.Errorf("counted %v, want %v", got, want)
			}
		})
	}
}

// TestDecisionsGoOnOverReloadsAndGoWithTheirRules, so that a gateway that is
// reloaded for years does not gather the rules of all of them. MET-02.
func TestDecisionsGoOnOverReloadsAndGoWithTheirRules(t *testing.T) {
	site := func(second string) string {
		return "oauth_protect {\nGET /jobs jobs:read\nGET /" + second + " jobs:read\n}\nreverse_proxy UPSTREAM"
	}
	s := newGateScene(t, site("first"))
	before := decisionSeries(t)["GET /jobs jobs:read|allowed"]
	for n := range 20 {
		name := fmt.Sprintf("reload-%d", n)
		s.load("", site(name))
		if got := s.get("/jobs"); got.status != 200 {
			t.Fatalf("%+v", got)
		}
		s.get("/" + name)
	}
	if got := decisionSeries(t)["GET /jobs jobs:read|allowed"] - before; got != 20 {
		t.Errorf("%v requests are counted over 20 reloads", got)
	}
	// The last configuration's gates are given back once its requests have ended.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var rules []string // of this test: rehearsals of others, which never end, have theirs
		for key := range decisionSeries(t) {
			if rule, _, _ := strings.Cut(key, "|"); strings.Contains(rule, "/reload-") {
				rules = append(rules, rule)
			}
		}
		if slices.Equal(rules, []string{"GET /reload-19 jobs:read"}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("counted are %v", rules)
		}
	}
}

// TestToolsAreCountedByTheirRule, and several in one request by that of their
// path. MET-01.
func TestToolsAreCountedByTheirRule(t *testing.T) {
	s := newGateScene(t, "oauth_protect {\nPOST /mcp authenticated\ntool search jobs:read\ntool post jobs:write\n}\nreverse_proxy UPSTREAM")
	call := func(tools ...string) string {
		var calls []string
		for i, tool := range tools {
			calls = append(calls, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"%s"}}`, i, tool))
		}
		if len(calls) == 1 {
			return calls[0]
		}
		return "[" + strings.Join(calls, ",") + "]"
	}
	for name, tc := range map[string]struct{ body, want string }{
		"a tool":        {call("search"), "tool search jobs:read|allowed"},
		"several tools": {call("search", "post"), "POST /mcp authenticated|allowed"},
		"no tool":       {`{"jsonrpc":"2.0","id":1,"method":"ping"}`, "POST /mcp authenticated|allowed"},
		"unknown tool":  {call("drop_all"), "POST /mcp authenticated|no_rule"},
	} {
		t.Run(name, func(t *testing.T) {
			before := decisionSeries(t)
			s.raw(fmt.Sprintf("POST /mcp HTTP/1.1\nHost: a\nConnection: close\nAuthorization: Bearer TOKEN\nContent-Type: application/json\nContent-Length: %d\n\n%s", len(tc.body), tc.body))
			if got, want := increase(before, decisionSeries(t)), map[string]float64{tc.want: 1}; !maps.Equal(got, want) {
				t.Errorf("counted %v, want %v", got, want)
			}
		})
	}
}
