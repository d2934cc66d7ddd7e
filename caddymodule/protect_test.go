package caddymodule

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/coder/websocket"
)

// TestGateAnswersAsDocumented is the table "Answers of the gate".
func TestGateAnswersAsDocumented(t *testing.T) {
	s := newGateScene(t, standardSite)
	metadata := `resource_metadata="` + testIssuer + `/.well-known/oauth-protected-resource"`
	bearer := "Authorization: Bearer TOKEN\n"
	for name, c := range map[string]struct {
		request   string
		status    int
		challenge string
		body      string
	}{
		"no credentials":          {"GET /jobs HTTP/1.1\n", 401, "Bearer scope=\"jobs:read\", " + metadata, ""},
		"bad token":               {"GET /jobs HTTP/1.1\nAuthorization: Bearer a.b.c\n", 401, `Bearer error="invalid_token"`, "invalid_token"},
		"two credentials":         {"GET /jobs HTTP/1.1\n" + bearer + bearer, 400, "", "invalid_request"},
		"no rule":                 {"GET /admin HTTP/1.1\n" + bearer, 403, "", "access_denied"},
		"no rule, no token":       {"GET /admin HTTP/1.1\n", 403, "", "access_denied"},
		"public with a bad token": {"GET /open HTTP/1.1\nAuthorization: Bearer nonsense\n", 200, "", "ok"},
		"HEAD by the GET rule":    {"HEAD /jobs HTTP/1.1\n" + bearer, 200, "", ""},
		"cookie is no credential": {"GET /jobs HTTP/1.1\nCookie: __Host-oauth_login=x\n", 401, "Bearer", ""},
	} {
		head, rest, _ := strings.Cut(c.request, "\n")
		got := s.raw(head + "\nHost: api.example.com\nConnection: close\n" + rest + "\n")
		if name == "HEAD by the GET rule" {
			got.body = ""
		}
		if got.status != c.status || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), c.challenge) || !strings.Contains(got.body, c.body) {
			t.Errorf("%s: %d %q %q", name, got.status, got.header.Get("WWW-Authenticate"), got.body)
		}
		if got.status >= 400 {
			if got.header.Get("Cache-Control") != "no-store" || got.header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s: header %v", name, got.header)
			}
		}
	}
	s.upstream.take()
}

// TestRevokedSessionIsRefusedAtOnce and an unknown state is 503, never 401.
func TestRevokedSessionIsRefusedAtOnce(t *testing.T) {
	s := newGateScene(t, standardSite)
	if got := s.get("/jobs"); got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	s.sessions.down.Store(true)
	if got := s.get("/jobs"); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("database down: %+v", got)
	}
	if got := s.get("/open"); got.status != http.StatusOK {
		t.Errorf("public rules need no database: %+v", got)
	}
	s.sessions.down.Store(false)
	s.sessions.revoke(testSession)
	if got := s.get("/jobs"); got.status != http.StatusUnauthorized {
		t.Errorf("revoked: %+v", got)
	}
}

// TestMissingScopeNamesAllScopesOfTheOperation: RFC 6750 section 3.
func TestMissingScopeNamesAllScopesOfTheOperation(t *testing.T) {
	s := newGateScene(t, "oauth_protect jobs:read jobs:write\nreverse_proxy UPSTREAM")
	token := s.token(func(c map[string]any) { c["scope"] = "jobs:read" })
	got := s.rawBytes("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer "+token+"\r\n\r\n", 1)[0]
	if got.status != http.StatusForbidden || !strings.Contains(got.header.Get("WWW-Authenticate"), `error="insufficient_scope"`) ||
		!strings.Contains(got.header.Get("WWW-Authenticate"), `scope="jobs:read jobs:write"`) {
		t.Errorf("%+v", got)
	}
}

// TestShortFormLeavesTheRestAlone but for identity: what its matcher does not
// name passes without a token, and says nothing about who is calling. A
// spelling that only differs in case does not slip past. U-10.
func TestShortFormLeavesTheRestAlone(t *testing.T) {
	s := newGateScene(t, "@write {\nmethod POST\npath /jobs /jobs/*\n}\noauth_protect @write jobs:write\noauth_protect /drafts/* jobs:read\nreverse_proxy UPSTREAM")
	const tail = " HTTP/1.1\nHost: a\nConnection: close\nX-User-Id: admin\nContent-Length: 0\n\n"
	for request, want := range map[string]int{
		"GET /jobs": 200, "POST /jobs": 401, "POST /jobs/1": 401, "GET /drafts/1": 401, "GET /drafts": 200, "POST /JOBS": 403, "POST /jobs//1": 400,
	} {
		if got := s.raw(request + tail); got.status != want {
			t.Errorf("%s: %d, want %d", request, got.status, want)
		}
	}
	for _, got := range s.upstream.take() {
		if got.header.Get("X-User-Id") != "" {
			t.Errorf("%s %s reached the upstream with X-User-Id", got.method, got.uri)
		}
	}
}

// TestOwnTrafficBypassesTheGate
func TestOwnTrafficBypassesTheGate(t *testing.T) {
	s := newGateScene(t, standardSite)
	got := s.raw("GET /admin HTTP/1.1\nHost: a\nConnection: close, X-Own-Cookie\nX-Own-Cookie: yes\nX-User-Id: admin\nAuthorization: Bearer first-party\nCookie: site=1\n\n")
	if got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	r := s.upstream.one(t)
	if r.header.Get("Authorization") != "Bearer first-party" || r.header.Get("Cookie") != "site=1" || r.header.Get("X-User-Id") != "" {
		t.Errorf("%v", r.header)
	}
}

// TestPreflightIsForwardedWithoutCredentials and only where a rule is. N-03,
// N-04.
func TestPreflightIsForwardedWithoutCredentials(t *testing.T) {
	s := newGateScene(t, standardSite)
	const tail = " HTTP/1.1\nHost: a\nConnection: close\nOrigin: https://app.example\nAuthorization: Bearer TOKEN\nCookie: a=b\nX-User-Id: admin\n"
	if got := s.raw("OPTIONS /jobs" + tail + "Access-Control-Request-Method: GET\n\n"); got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	r := s.upstream.one(t)
	for _, name := range append([]string{"Authorization", "Cookie"}, identityNames...) {
		if r.header.Get(name) != "" {
			t.Errorf("forwarded %s: %s", name, r.header.Get(name))
		}
	}
	for _, request := range []string{
		"OPTIONS /admin" + tail + "Access-Control-Request-Method: GET\n\n",
		"OPTIONS /jobs" + tail + "Access-Control-Request-Method: PUT\n\n",
		"OPTIONS /jobs" + tail + "\n",
	} {
		if got := s.raw(request); got.status != http.StatusForbidden {
			t.Errorf("%q: %d", request, got.status)
		}
	}
	if got := s.upstream.take(); len(got) != 0 {
		t.Errorf("%d more reached the upstream", len(got))
	}
}

// TestPreflightIsAnsweredFromConfiguredOrigins. N-03.
func TestPreflightIsAnsweredFromConfiguredOrigins(t *testing.T) {
	s := newGateScene(t, "oauth_protect jobs:read {\n cors https://app.example\n}\nreverse_proxy UPSTREAM")
	s.upstream.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
	})
	for origin, allowed := range map[string]string{
		"https://app.example": "https://app.example", "https://app.example.evil": "", "https://evilapp.example": "", "null": "",
		"http://app.example": "", "https://app.example:8443": "",
	} {
		got := s.raw("OPTIONS /jobs HTTP/1.1\nHost: a\nConnection: close\nOrigin: " + origin + "\nAccess-Control-Request-Method: GET\n\n")
		if got.status != http.StatusNoContent || got.header.Get("Access-Control-Allow-Origin") != allowed || got.header.Get("Access-Control-Allow-Credentials") != "" || !strings.Contains(got.header.Get("Vary"), "Origin") {
			t.Errorf("preflight of %s: %+v", origin, got)
		}
		if len(s.upstream.take()) != 0 {
			t.Errorf("preflight of %s was forwarded", origin)
		}
		got = s.get("/jobs", "Origin: "+origin)
		if got.status != http.StatusOK || got.header.Get("Access-Control-Allow-Origin") != allowed || got.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("request of %s: %+v", origin, got)
		}
		s.upstream.take()
	}
}

// TestAnswersAreNotKeptForOthers: RFC 9111 section 3.5. X-01.
func TestAnswersAreNotKeptForOthers(t *testing.T) {
	s := newGateScene(t, standardSite)
	got := s.get("/jobs")
	if got.header.Get("Cache-Control") != "private" || got.header.Get("Vary") != "Authorization" {
		t.Errorf("%v", got.header)
	}
	s.upstream.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60, private")
		w.Header().Set("Vary", "authorization, accept")
	})
	got = s.get("/jobs")
	if got.header.Get("Cache-Control") != "max-age=60, private" || got.header.Get("Vary") != "authorization, accept" {
		t.Errorf("the upstream's own: %v", got.header)
	}
}

// TestAnswersOfTheUpstreamKeepWhatIsTheirs: one policy per field. H-10.
func TestAnswersOfTheUpstreamKeepWhatIsTheirs(t *testing.T) {
	s := newGateScene(t, standardSite)
	s.upstream.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		for _, cookie := range []string{"__Host-oauth_login=evil; Path=/; Secure", "oauth_login=evil", "OAUTH_browser=evil", " __Host-oauth_browser=evil", "site=1; Path=/"} {
			h.Add("Set-Cookie", cookie)
		}
		h.Set("X-User-Id", "the upstream's own")
		h.Set("WWW-Authenticate", "Basic realm=upstream")
		h.Set("Access-Control-Allow-Origin", "https://app.example")
	})
	for _, path := range []string{"/jobs", "/open"} {
		got := s.get(path)
		if cookies := got.header["Set-Cookie"]; len(cookies) != 1 || cookies[0] != "site=1; Path=/" {
			t.Errorf("%s: Set-Cookie: %q", path, cookies)
		}
		for name, want := range map[string]string{
			"X-User-Id": "the upstream's own", "WWW-Authenticate": "Basic realm=upstream", "Access-Control-Allow-Origin": "https://app.example",
		} {
			if got.header.Get(name) != want {
				t.Errorf("%s: %s: %q", path, name, got.header.Get(name))
			}
		}
	}
}

// TestPanicBehindTheGateEndsTheRequestOnly. X-06.
func TestPanicBehindTheGateEndsTheRequestOnly(t *testing.T) {
	s := newGateScene(t, "oauth_protect jobs:read\noauth_test_panic\nreverse_proxy UPSTREAM")
	if got := s.rawAll("GET /jobs HTTP/1.1\nHost: a\nConnection: close\nAuthorization: Bearer TOKEN\n\n", 1); len(got) == 1 && got[0].status < 500 {
		t.Errorf("%+v", got[0])
	}
	if len(s.upstream.take()) != 0 {
		t.Error("the request went on")
	}
	if got := s.raw("GET /jobs HTTP/1.1\nHost: a\nConnection: close\n\n"); got.status != http.StatusUnauthorized {
		t.Errorf("the next request: %+v", got)
	}
}

// panicking is a handler with a bug.
type panicking struct{}

func (panicking) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.oauth_test_panic", New: func() caddy.Module { return new(panicking) }}
}

func (panicking) ServeHTTP(http.ResponseWriter, *http.Request, caddyhttp.Handler) error {
	panic("injected")
}

func init() {
	caddy.RegisterModule(panicking{})
	httpcaddyfile.RegisterHandlerDirective("oauth_test_panic", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return panicking{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("oauth_test_panic", httpcaddyfile.Before, "reverse_proxy")
}

// TestErrorsCaddyHandsRefusalsToHandleErrors with status and challenge.
func TestErrorsCaddyHandsRefusalsToHandleErrors(t *testing.T) {
	s := newGateScene(t, "oauth_protect jobs:read {\n errors caddy\n}\nreverse_proxy UPSTREAM\nhandle_errors {\n respond \"sorry {err.status_code}\" {err.status_code}\n}")
	got := s.raw("GET /jobs HTTP/1.1\nHost: a\nConnection: close\n\n")
	if got.status != http.StatusUnauthorized || got.body != "sorry 401" || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer ") {
		t.Errorf("%+v", got)
	}
}

// TestPlaceholdersTellWhoIsCallingAfterSuccessOnly
func TestPlaceholdersTellWhoIsCallingAfterSuccessOnly(t *testing.T) {
	s := newGateScene(t, `
	header >X-Seen "{http.auth.user.id}|{http.auth.user.client_id}|{http.auth.user.session_id}|{http.auth.user.scope}|{http.auth.rule}"
	oauth_protect {
		GET /jobs jobs:read
		GET /open public
	}
	reverse_proxy UPSTREAM
`)
	for path, want := range map[string]string{
		"/jobs": "user-1|gpt|" + testSession + "|jobs:read jobs:write|GET /jobs jobs:read",
		// What is not known stays as it is written.
		"/open": "{http.auth.user.id}|{http.auth.user.client_id}|{http.auth.user.session_id}|{http.auth.user.scope}|GET /open public",
		"/none": "{http.auth.user.id}|{http.auth.user.client_id}|{http.auth.user.session_id}|{http.auth.user.scope}|{http.auth.rule}",
	} {
		if got := s.get(path).header.Get("X-Seen"); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// TestWebSocketPassesWithAToken. W-01.
func TestWebSocketPassesWithAToken(t *testing.T) {
	s := newGateScene(t, "oauth_protect jobs:read\nreverse_proxy UPSTREAM")
	s.upstream.answerWith(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		_ = conn.Write(r.Context(), websocket.MessageText, []byte("hello "+r.Header.Get("X-User-Id")))
		_, _, _ = conn.Read(r.Context())
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, resp, err := websocket.Dial(ctx, "ws://"+s.address+"/live", nil); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("without a token: %v", err)
	}
	conn, _, err := websocket.Dial(ctx, "ws://"+s.address+"/live", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + s.token()}}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if _, message, err := conn.Read(ctx); err != nil || string(message) != "hello user-1" {
		t.Errorf("%q %v", message, err)
	}
}

// TestEventStreamIsNotBuffered
func TestEventStreamIsNotBuffered(t *testing.T) {
	s := newGateScene(t, "oauth_protect jobs:read\nreverse_proxy UPSTREAM")
	release := make(chan struct{})
	defer close(release)
	s.upstream.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("data: 1\n\n"))
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/events", nil)
	request.Header.Set("Authorization", "Bearer "+s.token())
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buffer := make([]byte, 9)
	if n, err := resp.Body.Read(buffer); err != nil || string(buffer[:n]) != "data: 1\n\n" {
		t.Errorf("%q %v", buffer[:n], err)
	}
}

// TestBadConfigurationLeavesTheOldOne. X-07.
func TestBadConfigurationLeavesTheOldOne(t *testing.T) {
	s := newGateScene(t, standardSite)
	if err := s.tryLoad("", "oauth_protect {\n GET /jobs jobs:unknown\n}\nreverse_proxy UPSTREAM"); err == nil {
		t.Fatal("loaded")
	}
	if got := s.get("/jobs"); got.status != http.StatusOK {
		t.Errorf("%+v", got)
	}
	s.load("", "oauth_protect {\n GET /jobs jobs:write\n GET /new public\n}\nreverse_proxy UPSTREAM")
	if got := s.get("/new"); got.status != http.StatusOK {
		t.Errorf("the new rules are not in force: %+v", got)
	}
}
