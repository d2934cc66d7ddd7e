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

// scene is a gate over the rules of the job board.
type scene struct {
	*validator.Resource
	minter   *validatortest.Minter
	sessions *validatortest.Sessions
}

func catalog(t testing.TB) *oauth.Catalog {
	t.Helper()
	c, err := oauth.NewCatalog([]oauth.Scope{
		{Name: "jobs:read", Description: "Search jobs"},
		{Name: "applications:read", Description: "See your applications"},
		{Name: "applications:write", Description: "Submit applications", Implies: []string{"applications:read"}},
		{Name: "resume:read", Description: "Read your resume"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func scopeRule(method, path string, scopes ...string) validator.Rule {
	r := validator.Rule{Path: path, Access: validator.AccessScopes, Scopes: oauth.NewScopeSet(scopes...)}
	if method != "*" {
		r.Methods = strings.Split(method, ",")
	}
	return r
}

func accessRule(method, path string, access validator.Access) validator.Rule {
	r := scopeRule(method, path)
	r.Access = access
	return r
}

func jobBoard() []validator.Rule {
	return []validator.Rule{
		scopeRule("GET", "/jobs", "jobs:read"),
		scopeRule("GET", "/jobs/*", "jobs:read"),
		scopeRule("GET", "/applications", "applications:read"),
		scopeRule("POST", "/applications", "applications:write"),
		scopeRule("POST", "/resume/analyze", "resume:read", "jobs:read"),
		accessRule("GET", "/health", validator.AccessPublic),
		accessRule("*", "/me", validator.AccessAuthenticated),
	}
}

func newScene(t testing.TB, change ...func(*validator.Config)) *scene {
	t.Helper()
	s := &scene{
		minter:   validatortest.NewMinter(t),
		sessions: validatortest.NewSessions("jobs:read", "applications:read", "applications:write", "resume:read"),
	}
	cfg := validator.Config{
		Issuer: validatortest.Issuer, Resource: validatortest.Resource, Catalog: catalog(t),
		Rules: jobBoard(), Keys: s.minter, Sessions: s.sessions,
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if s.Resource, err = validator.New(cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

// request makes a request as a server hands it to a handler.
func request(method, target string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Method = method
	return r
}

// call asks the gate, with the token unless it is empty.
func (s *scene) call(method, target, token string) (validator.Decision, *validator.Refusal) {
	r := request(method, target)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return s.decide(r)
}

func (s *scene) decide(r *http.Request) (validator.Decision, *validator.Refusal) {
	decision, err := s.Authorize(r)
	if err == nil {
		return decision, nil
	}
	var refusal *validator.Refusal
	if !errors.As(err, &refusal) {
		panic(err)
	}
	return decision, refusal
}

func wantRefusal(t *testing.T, refusal *validator.Refusal, status int, code string) {
	t.Helper()
	switch {
	case refusal == nil:
		t.Errorf("let through; want %d %s", status, code)
	case refusal.Status != status || refusal.Code != code:
		t.Errorf("got %d %q, want %d %q (%v)", refusal.Status, refusal.Code, status, code, refusal)
	}
}
