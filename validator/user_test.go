package validator_test

import (
	"net/http"
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

func ofUser(rule validator.Rule, texts ...string) validator.Rule {
	for _, text := range texts {
		r, err := oauth.ParseUserRequirement(text)
		if err != nil {
			panic(err)
		}
		rule.User = append(rule.User, r)
	}
	return rule
}

func newUserScene(t testing.TB) *scene {
	t.Helper()
	return newScene(t, func(c *validator.Config) {
		c.Rules = []validator.Rule{
			scopeRule("GET", "/jobs", "jobs:read"),
			ofUser(scopeRule("POST", "/jobs", "jobs:read"), "roles=recruiter,admin", "org=acme"),
			ofUser(accessRule("GET", "/admin", validator.AccessAuthenticated), "roles=admin"),
		}
	})
}

func (s *scene) user(claims oauth.UserClaims) {
	s.sessions.Put(validatortest.SessionID, &validator.Session{
		UserID: validatortest.UserID, ClientID: validatortest.ClientID, Scopes: oauth.NewScopeSet("jobs:read"), Claims: claims,
	})
}

// USR-02: the scope alone does not open a route that asks something of the user,
// and no other scope would: the refusal has no challenge.
func TestGateAsksTheUserForWhatTheRuleSays(t *testing.T) {
	s := newUserScene(t)
	token := s.minter.Token(validatortest.Claims("jobs:read"))
	for name, c := range map[string]struct {
		claims       oauth.UserClaims
		method, path string
		status       int
	}{
		"all of it":            {oauth.UserClaims{"roles": {"guest", "recruiter"}, "org": {"acme"}}, "POST", "/jobs", 200},
		"the other value":      {oauth.UserClaims{"roles": {"admin"}, "org": {"acme"}}, "POST", "/jobs", 200},
		"another organisation": {oauth.UserClaims{"roles": {"recruiter"}, "org": {"other"}}, "POST", "/jobs", 403},
		"no organisation":      {oauth.UserClaims{"roles": {"recruiter"}}, "POST", "/jobs", 403},
		"another role":         {oauth.UserClaims{"roles": {"recruiter2"}, "org": {"acme"}}, "POST", "/jobs", 403},
		"nothing known":        {nil, "POST", "/jobs", 403},
		"asks nothing":         {nil, "GET", "/jobs", 200},
		"any session, no role": {nil, "GET", "/admin", 403},
		"any session, role":    {oauth.UserClaims{"roles": {"admin"}}, "GET", "/admin", 200},
	} {
		s.user(c.claims)
		decision, refusal := s.call(c.method, c.path, token)
		switch {
		case c.status == 200 && refusal != nil:
			t.Errorf("%s: %v", name, refusal)
		case c.status == 200 && decision.Identity.UserID != validatortest.UserID:
			t.Errorf("%s: %+v", name, decision)
		case c.status == 403:
			wantRefusal(t, refusal, http.StatusForbidden, oauth.CodeAccessDenied)
			header := http.Header{}
			validator.WriteRefusalHeader(header, refusal)
			if header.Get("WWW-Authenticate") != "" {
				t.Errorf("%s: a challenge that no scope answers: %s", name, header.Get("WWW-Authenticate"))
			}
		}
	}
}

// A client that acts for itself has no claims, whatever a user of its name has.
func TestClientThatActsForItselfMeetsNoRequirementOnUsers(t *testing.T) {
	s := newUserScene(t)
	s.sessions.Put(validatortest.SessionID, &validator.Session{
		UserID: validatortest.ClientID, ClientID: validatortest.ClientID, Scopes: oauth.NewScopeSet("jobs:read"),
		Claims: oauth.UserClaims{"roles": {"admin"}, "org": {"acme"}},
	})
	token := s.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "sub", validatortest.ClientID))
	_, refusal := s.call("POST", "/jobs", token)
	wantRefusal(t, refusal, http.StatusForbidden, oauth.CodeAccessDenied)
}

func TestRequirementsOnUsersThatSayNothingAreRefused(t *testing.T) {
	for name, rule := range map[string]validator.Rule{
		"public":   ofUser(accessRule("GET", "/x", validator.AccessPublic), "roles=a"),
		"no scope": ofUser(validator.Rule{Path: "/x", Access: validator.AccessScopes}, "roles=a"),
		"twice":    ofUser(scopeRule("GET", "/x", "jobs:read"), "roles=a", "roles=b"),
		"no value": {Path: "/x", Access: validator.AccessAuthenticated, User: []oauth.UserRequirement{{Claim: "roles"}}},
		"comma":    {Path: "/x", Access: validator.AccessAuthenticated, User: []oauth.UserRequirement{{Claim: "roles", Values: []string{"a,b"}}}},
	} {
		_, err := validator.New(validator.Config{
			Issuer: validatortest.Issuer, Resource: validatortest.Resource, Catalog: catalog(t), Rules: []validator.Rule{rule},
			Keys: validatortest.NewMinter(t), Sessions: validatortest.NewSessions(),
		})
		if err == nil {
			t.Errorf("%s: %s was taken", name, rule)
		}
	}
}

// USR-03: claims go upstream under their own headers, which nobody else can set,
// and no value passes for two.
func TestClaimsGoUpstreamInHeadersOfTheirOwn(t *testing.T) {
	policy, err := validator.NewHeaderPolicy(validator.IdentityHeaders{Claims: []validator.ClaimHeader{{Claim: "roles", Header: "x-user-roles"}, {Claim: "org", Header: "X-Org"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := request("GET", "/jobs")
	for _, spoofed := range []string{"X-User-Roles", "x_user_roles", "X.USER.ROLES", "X-Org", "x-oRG"} {
		r.Header[spoofed] = []string{"admin"}
	}
	policy.Strip(r)
	if len(r.Header) != 0 {
		t.Errorf("left: %v", r.Header)
	}
	policy.SetIdentity(r.Header, &validator.Identity{UserID: "ada", Claims: oauth.UserClaims{"roles": {"recruiter", "a,b", "line\nend"}, "secret": {"x"}}})
	if got := r.Header["X-User-Roles"]; len(got) != 1 || got[0] != "recruiter,a%2Cb,line%0Aend" || r.Header["X-Org"] != nil {
		t.Errorf("%v", r.Header)
	}
	for name, headers := range map[string][]validator.ClaimHeader{
		"one that is there": {{Claim: "roles", Header: "X_User_Id"}}, "two of one name": {{Claim: "a", Header: "X-A"}, {Claim: "b", Header: "x_a"}},
		"one claim twice": {{Claim: "a", Header: "X-A"}, {Claim: "a", Header: "X-B"}}, "Cookie": {{Claim: "a", Header: "Cookie"}}, "no name": {{Claim: "a", Header: "X A"}},
	} {
		if _, err := validator.NewHeaderPolicy(validator.IdentityHeaders{Claims: headers}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// USR-04: a requirement on the user costs a known token no allocation.
func TestKnownTokenOfAUserWithClaimsAllocatesNothing(t *testing.T) {
	s := newScene(t, func(c *validator.Config) {
		c.Rules = []validator.Rule{ofUser(scopeRule("POST", "/jobs", "jobs:read"), "roles=recruiter,admin")}
		c.Tokens = validator.NewTokenCache(100, 1<<20)
	})
	s.user(oauth.UserClaims{"roles": {"guest", "recruiter"}})
	r := request("POST", "/jobs")
	r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
	if _, err := s.Authorize(r); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = s.Authorize(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// USR-05: a tool asks as a route does, and is not listed to whom it is closed.
func TestToolAsksTheUserForWhatItsLineSays(t *testing.T) {
	s := newScene(t, func(c *validator.Config) {
		path := accessRule("POST", "/mcp", validator.AccessAuthenticated)
		path.Tools = &validator.Tools{Rules: []validator.Rule{
			{Tool: "search", Access: validator.AccessScopes, Scopes: oauth.NewScopeSet("jobs:read")},
			ofUser(validator.Rule{Tool: "post_job", Access: validator.AccessScopes, Scopes: oauth.NewScopeSet("jobs:read")}, "roles=recruiter"),
		}}
		c.Rules = []validator.Rule{path}
	})
	for _, recruiter := range []bool{false, true} {
		claims := oauth.UserClaims{"roles": {"guest"}}
		if recruiter {
			claims["roles"] = []string{"recruiter"}
		}
		s.user(claims)
		_, refusal := s.message(call("post_job"), "jobs:read")
		if recruiter != (refusal == nil) {
			t.Errorf("recruiter %v: %v", recruiter, refusal)
		}
		if _, refusal := s.message(call("search"), "jobs:read"); refusal != nil {
			t.Errorf("recruiter %v: a tool that asks nothing: %v", recruiter, refusal)
		}
	}
}
