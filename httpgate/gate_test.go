package httpgate_test

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/authserver"
	"github.com/caddy-scope/caddy-scope/httpgate"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// scene is a service that gates itself, and the keys and sessions of its issuer.
type scene struct {
	t        *testing.T
	handler  http.Handler
	minter   *validatortest.Minter
	sessions *validatortest.Sessions
}

func newScene(t *testing.T, next http.HandlerFunc) *scene {
	t.Helper()
	s := &scene{t: t, minter: validatortest.NewMinter(t), sessions: validatortest.NewSessions("jobs:read", "jobs:write")}
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(validatortest.JWKS(map[string]*ecdsa.PublicKey{validatortest.KID: &s.minter.Key.PublicKey}))
	}))
	t.Cleanup(keys.Close)
	server, err := authserver.New(authserver.Config{Issuer: validatortest.Issuer, KeysURL: keys.URL})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := httpgate.New(httpgate.Config{
		Issuer: validatortest.Issuer, Resource: validatortest.Resource, Server: server, Sessions: s.sessions,
		Rules: []string{"GET /jobs/* jobs:read", "DELETE /jobs/* jobs:write", "GET /open public", "GET /recruiting authenticated roles=recruiter"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.handler = gate.Handler(next)
	return s
}

func (s *scene) send(method, target, token string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, validatortest.Resource+target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// UPS-17: the middleware decides as the gate in Caddy does, and has handlers know
// who is calling, by the context and by headers that nobody else can set.
func TestMiddlewareDecidesByTheRules(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(w http.ResponseWriter, r *http.Request) {
		caller, ok := httpgate.FromContext(r.Context())
		_ = json.NewEncoder(w).Encode([]any{ok, caller.UserID, caller.ClientID, caller.Scopes, r.Header.Get("X-User-Id"), r.Header.Get("Authorization")})
	})
	read := s.minter.Token(validatortest.Claims("jobs:read"))
	for name, c := range map[string]struct {
		method, target, token string
		status                int
		body                  string
	}{
		"allowed":       {"GET", "/jobs/7", read, 200, `[true,"user-1","client-1","jobs:read","user-1",""]`},
		"public":        {"GET", "/open", "", 200, `[false,"","","","",""]`},
		"no token":      {"GET", "/jobs/7", "", 401, ""},
		"no scope":      {"DELETE", "/jobs/7", read, 403, oauth.CodeInsufficientScope},
		"no rule":       {"GET", "/other", read, 403, oauth.CodeAccessDenied},
		"two readings":  {"GET", "/jobs/%2e%2e/open", read, 400, oauth.CodeInvalidRequest},
		"not this user": {"GET", "/recruiting", read, 403, ""},
		"wrong resource": {"GET", "/jobs/7", s.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "aud", "https://other.example.com")), 401,
			oauth.CodeInvalidToken},
		"wrong issuer": {"GET", "/jobs/7", s.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "iss", "https://other.example.com")), 401,
			oauth.CodeInvalidToken},
		"identity token": {"GET", "/jobs/7", s.minter.Sign(`{"alg":"ES256","kid":"key-1","typ":"upstream-identity+jwt"}`, `{}`), 401, oauth.CodeInvalidToken},
		"unknown key":    {"GET", "/jobs/7", s.minter.Sign(`{"alg":"ES256","kid":"other","typ":"at+jwt"}`, `{}`), 401, oauth.CodeInvalidToken},
	} {
		w := s.send(c.method, c.target, c.token, "X-User-Id", "admin", "X_user_id", "admin")
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if c.status == 401 && !strings.Contains(w.Header().Get("WWW-Authenticate"), oauth.ResourceMetadataURL(validatortest.Resource)) {
			t.Errorf("%s: challenge %q", name, w.Header().Get("WWW-Authenticate"))
		}
	}
	s.sessions.Fail(io.ErrUnexpectedEOF)
	if w := s.send("GET", "/jobs/7", read); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("nobody can say: %d", w.Code)
	}
	w := s.send("GET", "/.well-known/oauth-protected-resource", "")
	var metadata struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers"`
		Scopes   []string `json:"scopes_supported"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &metadata); err != nil || metadata.Resource != validatortest.Resource || metadata.Servers[0] != validatortest.Issuer || len(metadata.Scopes) != 2 {
		t.Errorf("metadata: %s", w.Body)
	}
}

// UPS-17: the context of a request that is still served ends with its session.
func TestRequestEndsWithItsSession(t *testing.T) {
	t.Parallel()
	began, ended := make(chan struct{}), make(chan error, 1)
	s := newScene(t, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		select {
		case <-r.Context().Done():
			ended <- context.Cause(r.Context())
		case <-time.After(30 * time.Second):
			ended <- nil
		}
	})
	go s.send("GET", "/jobs/7", s.minter.Token(validatortest.Claims("jobs:read")))
	<-began
	s.sessions.End(validatortest.SessionID)
	if err := <-ended; err == nil || !strings.Contains(err.Error(), validator.ErrSessionEnded.Error()) {
		t.Errorf("ended by %v", err)
	}
}

// UPS-17: what cannot work is an error at the start.
func TestMistakesAreErrorsAtTheStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*httpgate.Config)
		want   string
	}{
		"no rules":        {func(c *httpgate.Config) { c.Rules = nil }, "no rule"},
		"not a rule":      {func(c *httpgate.Config) { c.Rules = []string{"GET /jobs"} }, "Rules[0]"},
		"unknown method":  {func(c *httpgate.Config) { c.Rules = []string{"GET /a s", "GRAB /b s"} }, "Rules[1]"},
		"two of a kind":   {func(c *httpgate.Config) { c.Rules = []string{"GET /a s", "GET /a t"} }, "Rules[1]"},
		"undeclared":      {func(c *httpgate.Config) { c.Scopes = []oauth.Scope{{Name: "t", Description: "t"}} }, "not declared"},
		"no client":       {func(c *httpgate.Config) { c.ClientID = "" }, "ClientID"},
		"of the user":     {func(c *httpgate.Config) { c.Rules = []string{"GET /a s roles=x"} }, "introspection tells nothing"},
		"resource":        {func(c *httpgate.Config) { c.Resource = "jobs" }, "Resource"},
		"issuer in clear": {func(c *httpgate.Config) { c.Issuer = "http://auth.example.com" }, "issuer"},
		"header":          {func(c *httpgate.Config) { c.Headers.User = "a b" }, "header"},
	} {
		cfg := httpgate.Config{Issuer: "https://auth.example.com", Resource: "https://jobs.example.com", Rules: []string{"GET /a s"}, ClientID: "c", ClientSecret: "s"}
		c.change(&cfg)
		if _, err := httpgate.New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
