package issuer_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// A policy caps what clients of a place may get: at consent, at the token
// endpoint, at refresh, also when it came later. It narrows and does not refuse:
// clients ask for all that a resource names.
func TestPolicyCapsWhatClientsMayGet(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	policies := issuer.ClientPolicies{
		{Pattern: "https://" + host.Name() + "/*", Scopes: oauth.NewScopeSet("jobs:read")},
		{Pattern: "https://" + host.Name() + "/denied/*", Deny: true},
		{Pattern: "https://chat.example/*", Scopes: oauth.NewScopeSet("jobs:read", "applications:read")},
	}
	scene := issuertest.New(t, issuertest.SelfRegistration(host), issuertest.With(func(c *issuer.Config) { c.Policies = policies }))
	all := issuertest.Set("scope", "jobs:read applications:write resume:read")
	byDocument := host.Publish("/client.json", nil)
	registered := scene.SendJSON(http.MethodPost, "/oauth/register", map[string]any{
		"redirect_uris": []string{issuertest.ClientHostRedirect}, "token_endpoint_auth_method": "none", "grant_types": []string{"authorization_code", "refresh_token"}})
	byItself, _ := registered.JSON["client_id"].(string)
	scene.Clients.Register(t, issuer.Client{ID: "written-down", AuthMethods: []string{"none"}, Grants: []string{"authorization_code", "refresh_token"}, RedirectURIs: []string{issuertest.ClientHostRedirect}})
	for id, want := range map[string]string{byDocument: "jobs:read", byItself: "jobs:read", "written-down": "jobs:read"} {
		page := scene.Browser(t).Authorize(id, toPublished, all).SignIn()
		if strings.Contains(page.Text(), "Read your resume") || !strings.Contains(page.Text(), "Search jobs") {
			t.Errorf("%s: the consent page says %q", id, page.Text())
		}
		tokens := selfTokens(t, scene, id, all)
		if tokens.Scope != want {
			t.Errorf("%s: got %q, want %q", id, tokens.Scope, want)
		}
		// A session from before the policy.
		scene.SQL(t, "UPDATE gpt_sessions SET scopes = '{jobs:read,resume:read}' WHERE client_id = $1", id)
		if got := refreshAs(scene, id, tokens.Refresh).Tokens(); got.Scope != want {
			t.Errorf("%s: refreshed %q, want %q", id, got.Scope, want)
		}
		// A code from before the policy.
		code, verifier := scene.Code(t, id, toPublished, all, issuertest.Set("prompt", "consent"))
		scene.SQL(t, "UPDATE gpt_authorization_codes SET scopes = '{jobs:read,resume:read}' WHERE client_id = $1 AND used_at IS NULL", id)
		if got := scene.Redeem(t, id, code, url.Values{"code_verifier": {verifier}, "redirect_uri": {issuertest.ClientHostRedirect}}); got.Scope != want {
			t.Errorf("%s: redeemed %q, want %q", id, got.Scope, want)
		}
		// Nothing of what is asked for is left.
		page = scene.Browser(t).Authorize(id, toPublished, issuertest.Set("scope", "resume:read"))
		if id == "written-down" {
			page.WantError("invalid_scope")
		} else {
			page.WantPage(http.StatusBadRequest, "The app that sent you here made a mistake")
		}
	}
	denied := host.Publish("/denied/client.json", nil)
	scene.Browser(t).Authorize(denied, toPublished).WantPage(http.StatusBadRequest, "This link does not work")
	if host.Hits("/denied/client.json") != 0 {
		t.Error("a denied document was fetched")
	}
}

// A document is held against its own URL, not against where it sends its codes.
func TestPolicyPatterns(t *testing.T) {
	t.Parallel()
	policies := issuer.ClientPolicies{
		{Pattern: "*", Scopes: oauth.NewScopeSet("rest")},
		{Pattern: "loopback", Scopes: oauth.NewScopeSet("loopback")},
		{Pattern: "https://*.example.com/*", Scopes: oauth.NewScopeSet("below")},
		{Pattern: "https://a.example.com/*", Scopes: oauth.NewScopeSet("host")},
		{Pattern: "https://a.example.com/app/*", Scopes: oauth.NewScopeSet("path")},
		{Pattern: "https://evil.example/*", Deny: true},
	}
	for place, want := range map[string]string{
		"https://other.example/cb":            "rest",
		"http://127.0.0.1/cb":                 "loopback",
		"com.example.app:/cb":                 "loopback",
		"https://x.example.com/cb":            "below",
		"https://x.y.example.com/cb":          "below",
		"https://example.com/cb":              "rest",
		"https://notexample.com/cb":           "rest",
		"https://a.example.com/cb":            "host",
		"https://a.example.com:8443/cb":       "rest",
		"https://a.example.com/app/cb":        "path",
		"https://a.example.com/apple":         "host",
		"https://a.example.com/app/../cb":     "host",
		"https://a.example.com/app/%2e%2e/cb": "host",
		"https://evil.example/cb":             "denied",
		"https://evil.example.com/cb":         "below",
	} {
		limited, err := policies.Limit(&issuer.Client{Registration: issuer.RegisteredByItself, RedirectURIs: []string{place}})
		got := "denied"
		if err == nil {
			got = limited.Ceiling.String()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", place, got, want)
		}
	}
	// The least of all places counts, and one that is denied denies.
	mixed, err := policies.Limit(&issuer.Client{Registration: issuer.RegisteredByItself, RedirectURIs: []string{"https://a.example.com/cb", "http://localhost/cb"}})
	if err != nil || mixed.Ceiling == nil || len(mixed.Ceiling) != 0 {
		t.Errorf("%v %v", mixed, err)
	}
	if _, err := policies.Limit(&issuer.Client{Registration: issuer.RegisteredByItself, RedirectURIs: []string{"https://a.example.com/cb", "https://evil.example/cb"}}); err == nil {
		t.Error("a client with one denied redirect passes")
	}
	// "*" is for clients that registered themselves.
	if own, err := policies.Limit(&issuer.Client{RedirectURIs: []string{"https://other.example/cb"}}); err != nil || own.Ceiling != nil {
		t.Errorf("%v %v", own, err)
	}
	for _, bad := range []string{"", "https://a.example", "http://a.example/*", "https://a.example/", "https://*/*", "https://*.*.example/*", "https://A.example/*", "https://a.example/*/b/*", "https://a@b.example/*", "https://a.example/b*", "a.example/*", "**"} {
		if issuer.CheckPolicyPattern(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
