package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

const rateSite = `oauth_protect {
	GET /jobs jobs:read
	POST /jobs jobs:write {
		rate 3/h per user
	}
}` + proxied

// caller signs a token of a session of its own.
func (s *gateScene) caller(user, client, session string) (token string) {
	s.t.Helper()
	id := fmt.Sprintf("33333333-3333-4333-8333-%012s", session)
	s.sessions.mu.Lock()
	s.sessions.live[id] = &validator.Session{UserID: user, ClientID: client, Scopes: oauth.NewScopeSet("jobs:read", "jobs:write")}
	s.sessions.mu.Unlock()
	return s.token(func(c map[string]any) { c["sub"], c["client_id"], c["sid"] = user, client, id })
}

// ask sends a request with the token; lines are further header fields.
func (s *gateScene) ask(method, path, token string, lines ...string) answer {
	s.t.Helper()
	if token != "" {
		lines = append(lines, "Authorization: Bearer "+token)
	}
	return s.raw(method + " " + path + " HTTP/1.1\nHost: api.example.com\nConnection: close\nContent-Length: 0\n" + strings.Join(append(lines, "", ""), "\n"))
}

// RATE-03, RATE-05: TestRateOfARuleBoundsItsCallers: by number, in the headers of every
// answer, and in the answer to who comes too often, which the upstream does not see.
func TestRateOfARuleBoundsItsCallers(t *testing.T) {
	s := newGateScene(t, rateSite)
	token := s.token()
	for left := 2; left >= 0; left-- {
		got := s.ask("POST", "/jobs", token)
		if want := fmt.Sprintf(`"3/h per user";r=%d;t=`, left); got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("RateLimit"), want) ||
			got.header.Get("RateLimit-Policy") != `"3/h per user";q=3;w=3600` || got.header.Get("Retry-After") != "" {
			t.Errorf("%d %v, want %s", got.status, got.header, want)
		}
	}
	s.upstream.take()
	got := s.ask("POST", "/jobs", token)
	var body struct{ Error, Error_description string }
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.status != http.StatusTooManyRequests || body.Error != "rate_limited" || body.Error_description == "" {
		t.Errorf("%d %s", got.status, got.body)
	}
	wait, err := time.ParseDuration(got.header.Get("Retry-After") + "s")
	if err != nil || wait < 15*time.Minute || wait > 20*time.Minute {
		t.Errorf("Retry-After %q, want about 20 minutes", got.header.Get("Retry-After"))
	}
	if want := `"3/h per user";r=0;t=` + got.header.Get("Retry-After"); got.header.Get("RateLimit") != want || got.header.Get("RateLimit-Policy") == "" {
		t.Errorf("RateLimit %s, want %s", got.header.Get("RateLimit"), want)
	}
	if got.header.Get("WWW-Authenticate") != "" || got.header.Get("X-Request-Id") == "" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", got.header)
	}
	if seen := s.upstream.take(); len(seen) != 0 {
		t.Errorf("the upstream received %d requests", len(seen))
	}
	// What has no rate says nothing of one, and is open to whoever has exhausted
	// another.
	if got := s.ask("GET", "/jobs", token); got.status != http.StatusOK || got.header.Get("RateLimit") != "" {
		t.Errorf("%d %v", got.status, got.header)
	}
}

// RATE-04: TestRateIsCountedByWhomItSays.
func TestRateIsCountedByWhomItSays(t *testing.T) {
	type from struct{ user, client, session, address string }
	first := from{"u", "gpt", "1", "198.51.100.7"}
	for per, c := range map[string]struct{ same, other []from }{
		"user": {
			[]from{{"u", "gpt", "2", "203.0.113.1"}, {"u", "claude", "3", "203.0.113.1"}},
			[]from{{"v", "gpt", "4", "198.51.100.7"}, {"", "u", "5", "198.51.100.7"}},
		},
		"client": {
			[]from{{"v", "gpt", "2", "203.0.113.1"}},
			[]from{{"u", "claude", "3", "198.51.100.7"}},
		},
		"session": {
			[]from{{"u", "gpt", "1", "203.0.113.1"}},
			[]from{{"u", "gpt", "2", "198.51.100.7"}},
		},
		"address": {
			[]from{{"v", "claude", "2", "198.51.100.7"}, {"v", "claude", "2", "::ffff:198.51.100.7"}},
			[]from{{"u", "gpt", "1", "198.51.100.8"}, {"u", "gpt", "1", "2001:db8:0:1::1"}},
		},
	} {
		s := newGateScene(t, "respond 404", "client claude {\nredirect_uri https://claude.ai/cb\n}", "client u {\nredirect_uri https://u.example/cb\n}")
		s.load("servers {\ntrusted_proxies static 127.0.0.1/32\n}", strings.ReplaceAll(rateSite, "per user", "per "+per))
		post := func(f from) int {
			if f.user == "" { // a client that acts for itself
				f.user = f.client
			}
			return s.ask("POST", "/jobs", s.caller(f.user, f.client, f.session), "X-Forwarded-For: "+f.address).status
		}
		for range 3 {
			if got := post(first); got != http.StatusOK {
				t.Fatalf("%s: %d", per, got)
			}
		}
		for _, f := range append(c.same, first) {
			if got := post(f); got != http.StatusTooManyRequests {
				t.Errorf("per %s: %+v: %d, want 429, as it is counted with %+v", per, f, got, first)
			}
		}
		for _, f := range c.other {
			if got := post(f); got != http.StatusOK {
				t.Errorf("per %s: %+v: %d, want 200: it is not %+v", per, f, got, first)
			}
		}
	}
}

// RATE-04, H-07: TestRateByAddressBelievesNoHeader: but what trusted_proxies make of one;
// and an IPv6 subscriber has one count.
func TestRateByAddressBelievesNoHeader(t *testing.T) {
	site := "oauth_protect {\nGET /jobs public {\nrate 2/h per address\n}\n}" + proxied
	s := newGateScene(t, site)
	passed := 0
	for i := range 6 {
		got := s.ask("GET", "/jobs", "", fmt.Sprintf("X-Forwarded-For: 203.0.113.%d", i), fmt.Sprintf("X-Real-IP: 203.0.113.%d", i), fmt.Sprintf("Forwarded: for=203.0.113.%d", i))
		if got.status == http.StatusOK {
			passed++
		}
	}
	if passed != 2 {
		t.Errorf("%d passed with forged addresses, want 2", passed)
	}
	s.load("servers {\ntrusted_proxies static 127.0.0.1/32\n}", site)
	passed = 0
	for i := range 6 {
		if s.ask("GET", "/jobs", "", fmt.Sprintf("X-Forwarded-For: 2001:db8:0:9::%d", i+1)).status == http.StatusOK {
			passed++
		}
	}
	if passed != 2 {
		t.Errorf("%d passed from one /64, want 2", passed)
	}
}

// RATE-03: TestRateOfAGateIsOverAllItsRules: and beside theirs; what is refused, for any
// reason, costs nothing of it.
func TestRateOfAGateIsOverAllItsRules(t *testing.T) {
	s := newGateScene(t, `oauth_protect {
		rate 5/h per session
		GET /jobs jobs:read
		POST /jobs jobs:write {
			rate 2/h per user
		}
		DELETE /jobs jobs:write roles=admin
		GET /health public
	}`+proxied)
	token := s.token()
	want := func(method, path string, status int) answer {
		t.Helper()
		got := s.ask(method, path, token)
		if got.status != status {
			t.Fatalf("%s %s: %d %v, want %d", method, path, got.status, got.header, status)
		}
		return got
	}
	want("POST", "/jobs", http.StatusOK)
	if got := want("POST", "/jobs", http.StatusOK); !strings.HasPrefix(got.header.Get("RateLimit"), `"2/h per user";r=0;t=`) || !strings.Contains(got.header.Get("RateLimit"), `, "gate 5/h per session";r=3;t=`) {
		t.Errorf("RateLimit: %s", got.header.Get("RateLimit"))
	}
	for range 10 {
		want("POST", "/jobs", http.StatusTooManyRequests) // by the rule's
		want("DELETE", "/jobs", http.StatusForbidden)
	}
	for range 3 {
		want("GET", "/jobs", http.StatusOK)
	}
	if got := want("GET", "/jobs", http.StatusTooManyRequests); got.header.Get("RateLimit-Policy") != `"gate 5/h per session";q=5;w=3600` {
		t.Errorf("%v", got.header)
	}
	want("GET", "/health", http.StatusOK) // nobody is known there
}

// RATE-03: TestCallsOfAToolAreCounted: each of a batch, and the answer is one of the
// protocol, with the id.
func TestCallsOfAToolAreCounted(t *testing.T) {
	s := newGateScene(t, `oauth_protect {
		POST /mcp authenticated
		tool search_jobs jobs:read {
			rate 3/h per user
		}
		tool whoami authenticated
	}`+proxied)
	call := func(ids ...int) answer {
		calls := make([]string, len(ids))
		for i, id := range ids {
			calls[i] = fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"search_jobs"}}`, id)
		}
		body := calls[0]
		if len(calls) > 1 {
			body = "[" + strings.Join(calls, ",") + "]"
		}
		return s.raw(fmt.Sprintf("POST /mcp HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: Bearer TOKEN\nContent-Type: application/json\nContent-Length: %d\n\n%s", len(body), body))
	}
	if got := call(1, 2); got.status != http.StatusOK || !strings.Contains(got.header.Get("RateLimit"), `"tool search_jobs 3/h per user";r=1`) {
		t.Fatalf("two calls: %d %v", got.status, got.header)
	}
	if got := call(3, 4); got.status != http.StatusTooManyRequests {
		t.Errorf("two calls where one is left: %d", got.status)
	}
	if got := call(5); got.status != http.StatusOK {
		t.Errorf("the last one: %d", got.status)
	}
	got := call(6)
	var answered struct {
		ID    int
		Error struct{ Code int }
	}
	if err := json.Unmarshal([]byte(got.body), &answered); err != nil || got.status != http.StatusTooManyRequests || answered.ID != 6 || answered.Error.Code == 0 || got.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// RATE-03: TestRatesAroundToolsBoundTheirCalls: a call is a request under the rule of
// its path and at its gate, whether or not the tool has a rate of its own, also when
// several tools are called at once, and when only the tool asks who it is.
func TestRatesAroundToolsBoundTheirCalls(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		tools []string
	}{
		"path, several tools":              {"POST /mcp authenticated {\nrate 3/h per user\n}", []string{"search_jobs", "whoami"}},
		"gate, several tools":              {"POST /mcp authenticated\nrate 3/h per user", []string{"search_jobs", "whoami"}},
		"gate, public path":                {"POST /mcp public\nrate 3/h per user", []string{"search_jobs"}},
		"gate, public path, several tools": {"POST /mcp public\nrate 3/h per user", []string{"search_jobs", "whoami"}},
	} {
		s := newGateScene(t, "oauth_protect {\n"+c.path+"\ntool search_jobs jobs:read\ntool whoami authenticated\n}"+proxied)
		var calls []string
		for id, tool := range c.tools {
			calls = append(calls, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"%s"}}`, id, tool))
		}
		body := strings.Join(calls, ",")
		if len(calls) > 1 {
			body = "[" + body + "]"
		}
		for n, want := range []int{http.StatusOK, http.StatusOK, http.StatusOK, http.StatusTooManyRequests} {
			got := s.raw(fmt.Sprintf("POST /mcp HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: Bearer TOKEN\nContent-Type: application/json\nContent-Length: %d\n\n%s", len(body), body))
			if got.status != want {
				t.Errorf("%s: request %d: %d, want %d", name, n+1, got.status, want)
			}
		}
	}
}

// RATE-09, OBS-01: TestObservedRateRefusesNobody: and is counted for the report.
func TestObservedRateRefusesNobody(t *testing.T) {
	startCounting(t)
	s := newGateScene(t, strings.Replace(rateSite, "POST /jobs", "observe POST /jobs", 1))
	for range 5 {
		if got := s.ask("POST", "/jobs", s.token()); got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	rows := observed.Report().Rows
	if len(rows) != 1 || rows[0].Count != 2 || rows[0].Status != http.StatusTooManyRequests || rows[0].Code != "rate_limited" || rows[0].Client != "gpt" {
		t.Errorf("%+v", rows)
	}
}

// RATE-10: TestReloadGivesNoQuotaBack, also when another rule is new.
func TestReloadGivesNoQuotaBack(t *testing.T) {
	s := newGateScene(t, rateSite)
	for range 3 {
		s.ask("POST", "/jobs", s.token())
	}
	s.load("", strings.Replace(rateSite, "GET /jobs jobs:read", "GET /jobs jobs:read\nGET /jobs/* jobs:read", 1))
	if got := s.ask("POST", "/jobs", s.token()); got.status != http.StatusTooManyRequests {
		t.Errorf("%d after a reload", got.status)
	}
}

// RATE-08: TestExhaustedCallerIsLoggedOnce: a line for each caller and window, a count for
// each request.
func TestExhaustedCallerIsLoggedOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	s := newGateSceneWith(t, "log rates {\noutput file "+file+"\ninclude http.handlers.oauth_protect\n}", rateSite)
	before := outcomeCount("POST /jobs jobs:write", outcomeRateLimited)
	for range 9 {
		s.ask("POST", "/jobs", s.token())
	}
	if n := outcomeCount("POST /jobs jobs:write", outcomeRateLimited) - before; n != 6 {
		t.Errorf("%v requests are counted as rate_limited, want 6", n)
	}
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(written), "rate exhausted"); n != 1 {
		t.Errorf("%d lines, want one:\n%s", n, written)
	}
	for _, want := range []string{`"rate":"3/h per user"`, `"rule":"POST /jobs jobs:write"`, `"client_id":"gpt"`, `"session_id":"` + testSession, `"address":"127.0.0.1"`} {
		if !strings.Contains(string(written), want) {
			t.Errorf("%s is not in %s", want, written)
		}
	}
}

// outcomeCount is what a rule of the running configuration counted.
func outcomeCount(rule string, o outcome) (n uint64) {
	for _, gate := range running.Load().gates {
		for _, own := range gate.rules {
			if own.text == rule {
				n = own.decisions[o].Load()
			}
		}
	}
	return n
}

// RATE-09: TestCommandsTellOfRates.
func TestCommandsTellOfRates(t *testing.T) {
	rated := strings.NewReplacer("DELETE /jobs/{id} jobs:write", "DELETE /jobs/{id} jobs:write {\nrate 30/m per user\n}").Replace(ruledConfig)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"rules"}, "jobs:write at 30/m per user"},
		{[]string{"rules", "--json"}, `"30/m per user"`},
		{[]string{"explain", "--method", "DELETE", "--path", "/jobs/7", "--scope", "jobs:write"}, "not decided here: whether the caller comes too often (30/m per user)"},
		{[]string{"explain", "--method", "DELETE", "--path", "/jobs/7", "--scope", "jobs:write", "--json"}, `"30/m per user"`},
		{[]string{"test"}, "0 failed"},
	} {
		out, err := oauthCommand(t, rated, "", c.args...)
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: %v: %q is not in\n%s", c.args, err, c.want, out)
		}
	}
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	out, _ := diffCommandOutput(t, ruledConfig, rated)
	if want := "~ DELETE /jobs/{id} jobs:write: at 30/m per user, was any rate"; !strings.Contains(out, want) {
		t.Errorf("diff: %q is not in\n%s", want, out)
	}
}
