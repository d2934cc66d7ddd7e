package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
)

const proxied = "\nreverse_proxy UPSTREAM\n"

// rehearse makes a rehearsal of what the scene would load.
func (s *gateScene) rehearse(t require, site string) *rehearsal {
	t.Helper()
	return rehearseCaddyfile(t, s.caddyfile("", site))
}

// require is what *testing.T and *rapid.T share here.
type require interface {
	Helper()
	Fatalf(format string, args ...any)
}

// sentHeaders are the headers of the gate's answers; the others are the
// server's or differ by nature (Date, the request's id).
var sentHeaders = []string{
	"Www-Authenticate", "Content-Type", "Content-Length", "Cache-Control", "Allow", "X-Content-Type-Options",
	"Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Vary",
}

var (
	explainedRequirements = rapid.SampledFrom([]string{"jobs:read", "jobs:write", "jobs:read jobs:write", "any jobs:read jobs:write", "authenticated", "public"})
	explainedSegments     = rapid.SampledFrom([]string{"a", "b", "{x}", "*"})
)

// secondResource has tokens of its own.
const secondResource = testIssuer + "/two"

// drawGate draws a gate in block form, with a word now and then.
func drawGate(t *rapid.T, words ...string) string {
	gate := "oauth_protect {\n" + strings.Join(words, "")
	for range rapid.IntRange(1, 5).Draw(t, "rules") {
		gate += rapid.SampledFrom([]string{"", "", "", "observe "}).Draw(t, "observe")
		gate += fmt.Sprintf("%s /%s %s\n", rapid.SampledFrom([]string{"*", "GET", "POST", "GET,DELETE"}).Draw(t, "methods"),
			strings.Join(rapid.SliceOfN(explainedSegments, 1, 3).Draw(t, "pattern"), "/"), explainedRequirements.Draw(t, "requirement"))
	}
	return gate + rapid.SampledFrom([]string{"", "errors caddy\n", "cors https://app.example\n", "bypass /b/a*\n", "bypass /b/a*\n", "bypass @own\n", "bypass @own\n", "mode observe\n"}).Draw(t, "word") + "}\n"
}

// drawExplainedSite draws all that a gate can stand in: alone, in the short
// forms, in handle blocks beside others and beside none, for two resources, with
// rules of an OpenAPI document.
func drawExplainedSite(t *rapid.T, dir string) string {
	const own = "@own {\nmethod DELETE\npath /a*\n}\n"
	handle := func(matcher, gate string) string {
		return "handle" + matcher + " {\n" + gate + "reverse_proxy UPSTREAM\n}\n"
	}
	switch rapid.SampledFrom([]string{"block", "block", "short", "short with a matcher", "handle", "handle", "two resources", "openapi"}).Draw(t, "form") {
	case "short":
		return "oauth_protect " + explainedRequirements.Draw(t, "requirement") + proxied
	case "short with a matcher":
		return "@some {\nmethod GET POST\npath /a/* /b\n}\noauth_protect " + rapid.SampledFrom([]string{"/a", "/a/*", "/b/*", "@some"}).Draw(t, "matcher") + " " + explainedRequirements.Draw(t, "requirement") + proxied
	case "handle":
		inside := rapid.SampledFrom([]string{"", "", "", "oauth_protect jobs:write\n", "oauth_protect /a/b public\n", "respond /a/c teapot 418\n"}).Draw(t, "inside")
		return own + rapid.SampledFrom([]string{handle(" /a/*", inside), handle(" /B*", inside), handle("_path /a/*", inside), "redir /b/c /a\n"}).Draw(t, "first") + handle("", drawGate(t))
	case "two resources":
		return own + handle(" /b/*", drawGate(t, "resource "+secondResource+"\n")) + handle("", drawGate(t))
	case "openapi":
		document := "openapi: 3.1.0\nservers: [{url: /a}]\ncomponents: {securitySchemes: {oauth: {type: oauth2, flows: {}}}}\npaths:\n"
		for _, path := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"/b", "/{x}", "/{x}/c", "/b/{y}", "/c/", "/c/{z}/a"}), 1, 4, rapid.ID).Draw(t, "paths") {
			document += "  " + path + ":\n"
			for _, method := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"get", "post", "head", "delete"}), 1, 3, rapid.ID).Draw(t, "operations") {
				document += "    " + method + ": {security: " + rapid.SampledFrom([]string{"[{oauth: ['jobs:read']}]", "[{oauth: ['jobs:read', 'jobs:write']}]", "[{oauth: ['jobs:read']}, {oauth: ['jobs:write']}]", "[{oauth: []}]", "[]"}).Draw(t, "security") + "}\n"
			}
		}
		file := filepath.Join(dir, "api.yaml")
		if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
			t.Fatal(err)
		}
		return own + drawGate(t, "openapi "+file+"\n") + proxied
	}
	return own + drawGate(t) + proxied
}

// drawExplainedRequest draws a request, and the bytes of it.
func drawExplainedRequest(t *rapid.T, s *gateScene) (rehearsedRequest, string) {
	method := rapid.SampledFrom([]string{"GET", "GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS", "TRACE", "get"}).Draw(t, "method")
	path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3).Draw(t, "path"), "/")
	path += rapid.SampledFrom([]string{"", "", "", "", "", "", "/", "?x=1", "?access_token=t", "/%61", "//a", "/..", "/a%2fb", "/é", "/A"}).Draw(t, "end")
	held := rapid.SampledFrom([]string{"", "jobs:read", "jobs:write", "jobs:read jobs:write", "none"}).Draw(t, "held")
	q := rehearsedRequest{method: method, path: path, host: "api.example.com", anyone: held == "none"}
	wire := method + " " + path + " HTTP/1.1\nHost: api.example.com\nConnection: close\n"
	if held != "none" {
		audience := rapid.SampledFrom([]string{testIssuer, testIssuer, secondResource}).Draw(t, "audience")
		q.token = s.token(func(c map[string]any) {
			if c["scope"], c["aud"] = held, audience; held == "" { // as tokens are made
				delete(c, "scope")
			}
		})
		wire += "Authorization: Bearer " + q.token + "\n"
	}
	if method == "OPTIONS" && rapid.Bool().Draw(t, "preflight") {
		q.origin, q.preflightFor = rapid.SampledFrom([]string{"https://app.example", "https://other.example"}).Draw(t, "origin"), rapid.SampledFrom([]string{"GET", "POST"}).Draw(t, "for")
		wire += "Origin: " + q.origin + "\nAccess-Control-Request-Method: " + q.preflightFor + "\n"
	}
	return q, wire
}

// RULE-14: TestExplainTellsWhatALiveGateDoes: random sites, rule tables and requests; what
// the rehearsed gate answers, byte for byte, is what the running one does.
func TestExplainTellsWhatALiveGateDoes(t *testing.T) {
	s := newGateScene(t, "oauth_protect {\nGET / public\n}"+proxied)
	dir := t.TempDir()
	outcomes := make(map[explain.Outcome]int)
	loads := 0
	rapid.Check(t, func(t *rapid.T) {
		loads++
		mark := fmt.Sprint("site-", loads)
		site := "header Mark " + mark + "\n" + drawExplainedSite(t, dir)
		if s.tryLoad("", site) != nil {
			return // rules that cannot stand beside each other
		}
		h := s.rehearse(t, site)
		for range 24 {
			q, wire := drawExplainedRequest(t, s)
			told, err := h.explain(q)
			if err != nil {
				t.Fatalf("%s: %v", wire, err)
			}
			outcomes[told.Outcome]++
			got := s.raw(wire + "\n")
			for got.header["Mark"] != nil && got.header.Get("Mark") != mark { // the listener of the configuration before
				s.upstream.take()
				got = s.raw(wire + "\n")
			}
			arrived := s.upstream.take()
			if passes := told.Handler != ""; passes != (len(arrived) == 1) || passes && !told.Passes() {
				t.Fatalf("%s%sexplained as %s, to %q, and %d requests arrived", site, wire, told.Outcome, told.Handler, len(arrived))
			}
			if len(arrived) == 1 {
				for name, want := range told.Forwarded {
					if name == "X-Session-Id" || name == "X-User-Id" { // of a session of its own
						continue
					}
					if !slices.Equal(arrived[0].header[name], want) {
						t.Fatalf("%s%s%s: explained %q, arrived %q", site, wire, name, want, arrived[0].header[name])
					}
				}
				continue
			}
			if told.Answer == nil { // Caddy's, where no route takes the request
				told.Answer = &explain.Answer{Status: http.StatusOK}
			}
			if told.Answer.Status != got.status || told.Answer.Body != got.body {
				t.Fatalf("%s%sexplained %+v, answered %d %s", site, wire, told.Answer, got.status, got.body)
			}
			for _, name := range sentHeaders {
				if name == "Content-Length" && told.Answer.Body == "" || told.Outcome == explain.NotGated {
					continue // the server's
				}
				if !slices.Equal(told.Answer.Header[name], got.header[name]) {
					t.Fatalf("%s%s%s: explained %q, answered %q", site, wire, name, told.Answer.Header[name], got.header[name])
				}
			}
		}
	})
	for _, outcome := range []explain.Outcome{explain.Allowed, explain.Refused, explain.NotGated, explain.Unmatched, explain.Bypass, explain.Preflight, explain.Observed} {
		if outcomes[outcome] < 5 {
			t.Errorf("%d requests were %s: they show too little (%v)", outcomes[outcome], outcome, outcomes)
		}
	}
}

// TestRefusedRequestIsExplainedByItsID
func TestRefusedRequestIsExplainedByItsID(t *testing.T) {
	s := newGateScene(t, "oauth_protect {\nDELETE /jobs/* jobs:read jobs:write\n}"+proxied)
	s.sessions.narrow(testSession) // to jobs:write
	got := s.raw("DELETE /jobs/7 HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: Bearer TOKEN\n\n")
	id := got.header.Get("X-Request-Id")
	if got.status != http.StatusForbidden || id == "" {
		t.Fatalf("%d %v", got.status, got.header)
	}
	admin := adminServer(t)
	out, err := oauthCommand(t, commandConfig("postgres://127.0.0.1:1/none"), "", "explain", "--id", id, "--address", admin, "--json")
	if err == nil {
		t.Error("the exit status of a refused request is 0")
	}
	var told explain.Explanation
	if err := json.Unmarshal([]byte(out), &told); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if told.ID != id || told.Rule == nil || !strings.HasPrefix(told.Rule.Source, "Caddyfile:") || !slices.Equal(told.Missed, []string{"jobs:read"}) ||
		told.Caller.ClientID != "gpt" || told.Answer.Status != got.status || told.Answer.Body != got.body ||
		told.Answer.Header.Get("WWW-Authenticate") != got.header.Get("WWW-Authenticate") {
		t.Errorf("%s", out)
	}
	if strings.Contains(out, strings.Split(s.token(), ".")[0]) {
		t.Error("it holds the access token")
	}
	if _, err := oauthCommand(t, commandConfig("postgres://127.0.0.1:1/none"), "", "explain", "--id", "no-such-id", "--address", admin); err == nil || !strings.Contains(err.Error(), "no refused request has this id") {
		t.Errorf("an unknown id: %v", err)
	}
}

// adminServer serves the admin API's routes.
func adminServer(t *testing.T) (address string) {
	t.Helper()
	mux := http.NewServeMux()
	for _, route := range (adminAPI{}).Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := route.Handler.ServeHTTP(w, r); err != nil {
				w.WriteHeader(http.StatusNotFound)
				_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
			}
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// TestRequestIDHeaderCanBeRenamedAndSwitchedOff
func TestRequestIDHeaderCanBeRenamedAndSwitchedOff(t *testing.T) {
	s := newGateScene(t, "oauth_protect {\nGET /a jobs:read\nrequest_id off\n}"+proxied)
	const nobody = "GET /a HTTP/1.1\nHost: api.example.com\nConnection: close\n\n"
	if got := s.raw(nobody); got.header.Get("X-Request-Id") != "" {
		t.Errorf("off: %v", got.header)
	}
	s.load("", "oauth_protect {\nGET /a jobs:read\nrequest_id Trace-Me\n}"+proxied)
	if got := s.raw(nobody); got.header.Get("Trace-Me") == "" || got.header.Get("X-Request-Id") != "" {
		t.Errorf("renamed: %v", got.header)
	}
}

// TestRefusedRingIsBounded
func TestRefusedRingIsBounded(t *testing.T) {
	ring := &refusedRing{byID: make(map[string]*explain.Explanation)}
	for i := range keptRefusals + 10 {
		ring.put(&explain.Explanation{ID: fmt.Sprint(i)})
	}
	if len(ring.byID) != keptRefusals || ring.get("9") != nil || ring.get("10") == nil || ring.get(fmt.Sprint(keptRefusals+9)) == nil {
		t.Errorf("%d are kept", len(ring.byID))
	}
}

const explainedConfig = `{
	oauth {
		issuer https://api.example.com
		postgres postgres://127.0.0.1:1/none
		secret 0123456789abcdef0123456789abcdef
		scope jobs:read "Search jobs"
		scope jobs:write "Post jobs" {
			implies jobs:read
		}
		client gpt {
			secret a-client-secret-that-is-long-enough
			redirect_uri https://chatgpt.com/cb
		}
		login password
	}
}
api.example.com {
	oauth_server
	oauth_protect {
		GET /jobs/* jobs:read
		DELETE /jobs/{id} jobs:write
		GET /health public
	}
	reverse_proxy 127.0.0.1:1
}
other.example.com {
	forward_auth 127.0.0.1:1 {
		uri /check
	}
	reverse_proxy /up* 127.0.0.1:2
	redir /old /new
}
`

// TestExplainCommandWorksOffline: nothing listens where the configuration says
// that Postgres and the upstreams are.
func TestExplainCommandWorksOffline(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for _, c := range []struct {
		name   string
		args   []string
		refuse bool
		want   []string
	}{
		{"missing scope", []string{"--method", "DELETE", "--path", "/jobs/7", "--scope", "jobs:read"}, true,
			[]string{"Caddyfile:21", "DELETE /jobs/{id} jobs:write", "missing", "403 Forbidden", `error="insufficient_scope"`, `{"error":"insufficient_scope"`}},
		{"implied scope", []string{"--path", "/jobs/7", "--scope", "jobs:write"}, false, []string{"allowed", "jobs:read jobs:write", "reverse_proxy 127.0.0.1:1"}},
		{"nobody", []string{"--path", "/jobs/7"}, true, []string{"401 Unauthorized", `scope="jobs:read"`}},
		{"public", []string{"--path", "/health"}, false, []string{"allowed", "nothing", "reverse_proxy"}},
		{"no rule", []string{"--method", "POST", "--path", "/jobs/7", "--scope", "jobs:write"}, true, []string{"no rule names", "access_denied"}},
		{"ours", []string{"--path", "/oauth/token"}, false, []string{"authorization_server"}},
		{"not gated", []string{"--path", "/up", "--host", "other.example.com"}, false, []string{"not_gated", "reverse_proxy 127.0.0.1:2", "forward_auth"}},
		{"redirected", []string{"--path", "/old", "--host", "other.example.com"}, false, []string{"302 Found", "Location: /new"}},
	} {
		out, err := oauthCommand(t, explainedConfig, "", append([]string{"explain"}, c.args...)...)
		if (err != nil) != c.refuse {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is not in\n%s", c.name, want, out)
			}
		}
	}
	for name, c := range map[string]struct{ want, args string }{
		"undeclared scope": {"jobs:delete is not declared", "--path /jobs/7 --scope jobs:delete"},
		"unknown client":   {"client other is not registered", "--path /jobs/7 --client other --scope jobs:read"},
		"no site":          {"no site listens on the port", "--path /jobs/7 --host api.example.com:9"},
		"no path":          {"at least one of the flags", ""},
	} {
		if _, err := oauthCommand(t, explainedConfig, "", append([]string{"explain"}, strings.Fields(c.args)...)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// RULE-15: TestRulesAreToldWithoutSecrets: where rules are tested, secrets have no
// business. One that is there is used.
func TestRulesAreToldWithoutSecrets(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	config := strings.NewReplacer("postgres postgres://127.0.0.1:1/none", "postgres {env.NO_DSN}", "secret 0123456789abcdef0123456789abcdef", "secret {env.NO_SECRET}\nsecret {file./no/such/file}\nsigning_key {env.NO_KEY}",
		"secret a-client-secret-that-is-long-enough", "secret {env.NO_CLIENT_SECRET}").Replace(explainedConfig)
	out, err := oauthCommand(t, config, "", "explain", "--path", "/jobs/7", "--scope", "jobs:read")
	if err != nil || !strings.Contains(out, "{env.NO_CLIENT_SECRET} holds nothing here; a stand-in is used") || !strings.Contains(out, "{env.NO_KEY}") {
		t.Errorf("%v %s", err, out)
	}
	for _, command := range []string{"rules", "test", "openapi", "doctor"} {
		if out, err := oauthCommand(t, config, "", command); err != nil && strings.Contains(err.Error(), "is empty") {
			t.Errorf("%s: %v %s", command, err, out)
		}
	}
	if _, err := oauthCommand(t, strings.Replace(config, "issuer https://api.example.com", "issuer {env.NO_ISSUER}", 1), "", "rules"); err == nil || !strings.Contains(err.Error(), "set the environment variable NO_ISSUER") {
		t.Errorf("what is no secret is needed: %v", err)
	}
	t.Setenv("NO_KEY", "garbage")
	if _, err := oauthCommand(t, config, "", "rules"); err == nil || !strings.Contains(err.Error(), "signing_key") {
		t.Errorf("a secret that is there and wrong: %v", err)
	}
}

// TestExplainReadsAToken: what it says counts, and that its signature could not
// be checked is told.
func TestExplainReadsAToken(t *testing.T) {
	s := prepareGateScene(t)
	site := "oauth_protect {\nGET /jobs/* jobs:read\n}" + proxied
	config := s.caddyfile("", site)
	file := filepath.Join(t.TempDir(), "token")
	explained := func(config, token string) (string, error) {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return oauthCommand(t, config, "", "explain", "--path", "/jobs/7", "--token", file)
	}
	s.real = true // the kid is that of the configured key
	if out, err := explained(config, s.token()); err != nil || strings.Contains(out, "signature was not checked") || !strings.Contains(out, "allowed") {
		t.Errorf("a good token: %v %s", err, out)
	}
	if out, err := explained(config, s.token()[:len(s.token())-8]+"AAAAAAAA"); err == nil || !strings.Contains(out, "invalid_token") {
		t.Errorf("a forged token: %v %s", err, out)
	}
	s.real = false
	if out, err := explained(config, s.token()); err != nil || !strings.Contains(out, "signature was not checked") {
		t.Errorf("a key that is not in the configuration: %v %s", err, out)
	}
	if out, err := explained(config, s.token(func(c map[string]any) { c["aud"] = "https://other.example.com" })); err == nil || !strings.Contains(out, "issued for another resource") {
		t.Errorf("another audience: %v %s", err, out)
	}
	if _, err := explained(config, "nonsense"); err == nil || !strings.Contains(err.Error(), "holds no access token") {
		t.Errorf("nonsense: %v", err)
	}
}
