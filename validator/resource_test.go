package validator_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// The table of answers, as one walk. PROTOCOL 7 and 8.10.
func TestResourceAnswersAsTheTableSays(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	jobs := s.minter.Token(validatortest.Claims("jobs:read"))
	for _, c := range []struct {
		name, method, target, token string
		status                      int
		code                        string
	}{
		{"scope held", "GET", "/jobs", jobs, 0, ""},
		{"HEAD follows GET", "HEAD", "/jobs/7", jobs, 0, ""},
		{"public without token", "GET", "/health", "", 0, ""},
		{"public with a bad token", "GET", "/health", "garbage", 0, ""},
		{"authenticated", "PATCH", "/me", jobs, 0, ""},
		{"no credentials", "GET", "/jobs", "", 401, ""},
		{"scope missing", "POST", "/applications", jobs, 403, oauth.CodeInsufficientScope},
		{"one of two scopes missing", "POST", "/resume/analyze", jobs, 403, oauth.CodeInsufficientScope},
		{"no rule, with token", "GET", "/admin", jobs, 403, oauth.CodeAccessDenied},
		{"no rule, without token", "GET", "/admin", "", 403, oauth.CodeAccessDenied},
		{"no rule for the method", "DELETE", "/jobs/7", jobs, 403, oauth.CodeAccessDenied},
		{"trailing slash is another path", "GET", "/jobs/", jobs, 403, oauth.CodeAccessDenied},   // U-09
		{"prefix without border", "GET", "/jobsadmin", jobs, 403, oauth.CodeAccessDenied},        // U-09
		{"other case", "GET", "/JOBS", jobs, 403, oauth.CodeAccessDenied},                        // U-10
		{"query is not looked at", "GET", "/admin?x=/health", jobs, 403, oauth.CodeAccessDenied}, // U-07
		{"plain OPTIONS needs a rule", "OPTIONS", "/jobs", jobs, 403, oauth.CodeAccessDenied},    // N-02
	} {
		t.Run(c.name, func(t *testing.T) {
			_, refusal := s.call(c.method, c.target, c.token)
			if c.status == 0 {
				if refusal != nil {
					t.Errorf("refused: %v", refusal)
				}
				return
			}
			wantRefusal(t, refusal, c.status, c.code)
		})
	}
}

func TestResourceNamesTheCaller(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	decision, refusal := s.call("GET", "/applications", s.minter.Token(validatortest.Claims("applications:write")))
	if refusal != nil {
		t.Fatal(refusal)
	}
	id := decision.Identity
	if id.UserID != validatortest.UserID || id.ClientID != validatortest.ClientID || id.SessionID != validatortest.SessionID ||
		id.Scopes != "applications:read applications:write" {
		t.Errorf("identity: %+v", id)
	}
	if decision, _ = s.call("GET", "/health", s.minter.Token(validatortest.Claims("jobs:read"))); decision.Authenticated() {
		t.Error("a public rule set an identity")
	}
}

// J-24, R-06: an ended session is 401; one that cannot be confirmed is 503,
// never 401 (clients would drop their tokens), never a pass.
func TestResourceAsksTheSession(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	token := s.minter.Token(validatortest.Claims("jobs:read applications:read"))

	s.sessions.Fail(errors.New("connection refused 10.0.0.5"))
	_, refusal := s.call("GET", "/jobs", token)
	wantRefusal(t, refusal, 503, oauth.CodeTemporarilyUnavailable)
	s.sessions.Fail(nil)

	s.sessions.Put(validatortest.SessionID, &validator.Session{
		UserID: validatortest.UserID, ClientID: validatortest.ClientID, Scopes: oauth.NewScopeSet("applications:read"),
	})
	_, refusal = s.call("GET", "/jobs", token) // narrowed after the token was made
	wantRefusal(t, refusal, 403, oauth.CodeInsufficientScope)

	s.sessions.Put(validatortest.SessionID, &validator.Session{UserID: "user-2", ClientID: validatortest.ClientID, Scopes: oauth.NewScopeSet("jobs:read")})
	_, refusal = s.call("GET", "/jobs", token)
	wantRefusal(t, refusal, 401, oauth.CodeInvalidToken)

	s.sessions.End(validatortest.SessionID)
	_, refusal = s.call("GET", "/jobs", token)
	wantRefusal(t, refusal, 401, oauth.CodeInvalidToken)
}

func TestResourceRefusesClientsNoLongerRegistered(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(c *validator.Config) { c.ClientAllowed = func(id string) bool { return id == "other" } })
	_, refusal := s.call("GET", "/jobs", s.minter.Token(validatortest.Claims("jobs:read")))
	wantRefusal(t, refusal, 401, oauth.CodeInvalidToken)
}

// A bad token costs no read of the database: a flood of them must not reach it.
func TestResourceReadsNoSessionForBadTokens(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	token := s.minter.Token(validatortest.Claims("jobs:read"))
	for _, bad := range []string{"x", token + "A", validatortest.HighS(token)} {
		_, refusal := s.call("GET", "/jobs", bad)
		wantRefusal(t, refusal, 401, oauth.CodeInvalidToken)
	}
	if n := s.sessions.Reads(); n != 0 {
		t.Errorf("%d reads", n)
	}
}

// J-25: exact names only.
func TestResourceComparesScopesExactly(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, scope := range []string{"jobs:readall", "jobs:rea", "JOBS:READ", "jobs:*", "*", "jobs", "jobs:read,applications:read"} {
		_, refusal := s.call("GET", "/jobs", s.minter.Token(validatortest.Claims(scope)))
		wantRefusal(t, refusal, 403, oauth.CodeInsufficientScope)
	}
	for _, scope := range []string{"jobs:read\tx", "jobs:read\u00a0x", " jobs:read", "jobs:read  resume:read"} {
		_, refusal := s.call("GET", "/jobs", s.minter.Token(validatortest.Claims(scope)))
		wantRefusal(t, refusal, 401, oauth.CodeInvalidToken)
	}
}

// PROTOCOL 8.10, trap 7: one shape for all challenges.
func TestRefusalsCarryTheChallenge(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	jobs := s.minter.Token(validatortest.Claims("jobs:read"))
	const metadata = `resource_metadata="https://api.example.com/.well-known/oauth-protected-resource"`
	for _, c := range []struct {
		name, method, target, token, challenge, body string
	}{
		{"no credentials", "GET", "/jobs", "", `Bearer scope="jobs:read", ` + metadata,
			`{"error":"invalid_token","error_description":"An access token is needed."}`},
		{"bad token", "GET", "/jobs", "x", `Bearer error="invalid_token", error_description="The access token is invalid, expired or revoked.", ` + metadata,
			`{"error":"invalid_token","error_description":"The access token is invalid, expired or revoked."}`},
		{"all scopes of the operation", "POST", "/resume/analyze", jobs,
			`Bearer error="insufficient_scope", error_description="The access token does not hold every scope that this operation needs.", scope="jobs:read resume:read", ` + metadata,
			`{"error":"insufficient_scope","error_description":"The access token does not hold every scope that this operation needs."}`},
		{"no rule", "GET", "/admin", jobs, "", `{"error":"access_denied","error_description":"Nothing here is open to API clients."}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, refusal := s.call(c.method, c.target, c.token)
			w := httptest.NewRecorder()
			validator.WriteRefusal(w, request(c.method, c.target), refusal)
			if got := w.Header().Get("WWW-Authenticate"); got != c.challenge {
				t.Errorf("challenge\n got %s\nwant %s", got, c.challenge)
			}
			if got := w.Body.String(); got != c.body {
				t.Errorf("body\n got %s\nwant %s", got, c.body)
			}
			if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Access-Control-Allow-Origin") != "*" ||
				w.Header().Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("headers: %v", w.Header())
			}
		})
	}
}

func TestRefusalTellsNothingOfItsCause(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.sessions.Fail(errors.New("canary-cause"))
	_, refusal := s.call("GET", "/jobs", s.minter.Token(validatortest.Claims("jobs:read")))
	w := httptest.NewRecorder()
	validator.WriteRefusal(w, request("GET", "/jobs"), refusal)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || w.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if strings.Contains(w.Body.String(), "canary") {
		t.Error("the cause leaks")
	}
	w = httptest.NewRecorder()
	validator.WriteRefusal(w, request("HEAD", "/jobs"), refusal)
	if w.Body.Len() != 0 {
		t.Error("HEAD has a body")
	}
}

// The short form with a matcher: others pass, but not by spelling.
func TestMatcherTablePassesOnlyWhatNoReaderWouldMatch(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(c *validator.Config) {
		c.PassUnmatched = true
		c.Rules = []validator.Rule{scopeRule("*", "/Jobs/*", "jobs:read")}
	})
	decision, refusal := s.call("GET", "/elsewhere", "")
	if refusal != nil || decision.Rule != nil {
		t.Errorf("unmatched: %+v %v", decision, refusal)
	}
	_, refusal = s.call("GET", "/Jobs/1", "")
	wantRefusal(t, refusal, 401, "")
	for _, target := range []string{"/jobs/1", "/JOBS/1", "/jobs/1/2"} {
		_, refusal = s.call("GET", target, "")
		wantRefusal(t, refusal, 403, oauth.CodeAccessDenied)
	}
	for _, target := range []string{"/x/..;/Jobs/1", "/x/../Jobs/1", "//Jobs/1", "/Jobs%2f1"} {
		_, refusal = s.call("GET", target, "")
		wantRefusal(t, refusal, 400, oauth.CodeInvalidRequest)
	}
}

// N-03, N-04.
func TestPreflights(t *testing.T) {
	t.Parallel()
	preflight := func(target, origin, method string) *http.Request {
		r := request("OPTIONS", target)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", method)
		r.ContentLength = 0
		return r
	}
	s := newScene(t, func(c *validator.Config) { c.CORSOrigins = []string{"https://e.com"} })
	decision, refusal := s.decide(preflight("/jobs/1", "https://e.com", "GET"))
	if refusal != nil || !decision.Preflight || decision.Authenticated() {
		t.Errorf("%+v %v", decision, refusal)
	}
	_, refusal = s.decide(preflight("/admin", "https://e.com", "GET"))
	wantRefusal(t, refusal, 403, oauth.CodeAccessDenied)
	withBody := preflight("/jobs/1", "https://e.com", "GET")
	withBody.ContentLength = 5
	_, refusal = s.decide(withBody)
	wantRefusal(t, refusal, 403, oauth.CodeAccessDenied)

	for origin, allowed := range map[string]bool{
		"https://e.com": true, "https://evile.com": false, "https://e.com.evil": false, "http://e.com": false,
		"https://e.com:8443": false, "null": false,
	} {
		w := httptest.NewRecorder()
		s.AnswerPreflight(w, preflight("/jobs/1", origin, "GET"))
		if got := w.Header().Get("Access-Control-Allow-Origin") == origin; got != allowed {
			t.Errorf("origin %s allowed: %v", origin, got)
		}
		if !strings.Contains(w.Header().Get("Vary"), "Origin") || w.Header().Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("headers: %v", w.Header())
		}
	}
}

func TestBadTokensCostLittleMemory(t *testing.T) {
	s := newScene(t)
	// J-20: a bad token costs at most 16 KiB.
	r := request("GET", "/jobs")
	r.Header.Set("Authorization", "Bearer "+strings.Repeat(".", 100_000))
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.decide(r)
		}
	})
	if result.AllocedBytesPerOp() > 16<<10 {
		t.Errorf("%d bytes per bad token", result.AllocedBytesPerOp())
	}
}
