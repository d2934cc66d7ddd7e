package issuer_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// newRoleScene is a server whose resource lets only recruiters submit, and only
// staff read resumes.
func newRoleScene(t *testing.T) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, issuertest.With(func(c *issuer.Config) {
		c.Routes = func(string) []issuer.Route {
			return []issuer.Route{
				{Name: "GET /jobs/*", Scopes: oauth.NewScopeSet("jobs:read")},
				{Name: "DELETE /jobs/*", Scopes: oauth.NewScopeSet("jobs:read"), User: []oauth.UserRequirement{{Claim: "roles", Values: []string{"admin"}}}},
				{Name: "POST /applications", Scopes: oauth.NewScopeSet("applications:write"), User: []oauth.UserRequirement{{Claim: "roles", Values: []string{"recruiter", "admin"}}}},
				{Name: "GET /applications", Scopes: oauth.NewScopeSet("applications:read")},
				{Name: "GET /resume", Scopes: oauth.NewScopeSet("resume:read"), User: []oauth.UserRequirement{{Claim: "staff", Values: []string{"true"}}}},
			}
		}
	}))
}

func scopesOf(t *testing.T, scene *issuertest.Scene) string {
	t.Helper()
	rows := scene.SQL(t, `SELECT array_to_string(scopes, ' ') FROM gpt_authorization_codes ORDER BY created_at DESC LIMIT 1`)
	if len(rows) != 1 {
		t.Fatalf("%v", rows)
	}
	return rows[0][0].(string)
}

// USR-10: a scope that the user cannot have is not offered and not issued; what it
// includes and is open stays.
func TestConsentOffersWhatTheUserCanHave(t *testing.T) {
	t.Parallel()
	scene := newRoleScene(t)
	ask := func(b *issuertest.Browser) *issuertest.Page {
		return b.Authorize(issuertest.Confidential, issuertest.Set("scope", "jobs:read applications:write"))
	}
	b := scene.Browser(t)
	page := ask(b).SignIn()
	wantText(t, page, "It also asked for what your account cannot do, and does not get: Submit applications for you")
	wantText(t, page, "GET /jobs/*")
	wantText(t, page, "GET /applications")
	wantNoText(t, page, "POST /applications")
	wantNoText(t, page, "DELETE /jobs/*") // part of a scope that has other routes
	page.Allow().Code()
	if got := scopesOf(t, scene); got != "applications:read jobs:read" {
		t.Errorf("issued %q", got)
	}
	scene.SQL(t, `UPDATE gpt_users SET claims = '{"roles": ["guest", "recruiter"]}'`)
	page = ask(b)
	wantNoText(t, page, "cannot do")
	wantText(t, page, "POST /applications")
	page.Allow().Code()
	if got := scopesOf(t, scene); !strings.Contains(got, "applications:write") {
		t.Errorf("issued to a recruiter: %q", got)
	}
}

// USR-11: the page does not decide: who loses a role before Allow gets less, who
// gains one no more than was shown.
func TestConsentFollowsTheUserUntilAllow(t *testing.T) {
	t.Parallel()
	scene := newRoleScene(t)
	b := scene.Browser(t)
	page := b.Authorize(issuertest.Confidential, issuertest.Set("scope", "jobs:read applications:write")).SignIn()
	scene.SQL(t, `UPDATE gpt_users SET claims = '{"roles": "recruiter"}'`)
	page.Allow().Code()
	if got := scopesOf(t, scene); got != "applications:read jobs:read" {
		t.Errorf("not shown, and issued: %q", got)
	}
	page = b.Authorize(issuertest.Confidential, issuertest.Set("scope", "jobs:read applications:write"))
	wantText(t, page, "POST /applications")
	scene.SQL(t, `UPDATE gpt_users SET claims = '{}'`)
	page.Allow().Code()
	if got := scopesOf(t, scene); got != "applications:read jobs:read" {
		t.Errorf("lost before Allow, and issued: %q", got)
	}
}

// USR-12: of nothing that is open nothing is asked; the client hears why.
func TestConsentIsNotAskedForNothing(t *testing.T) {
	t.Parallel()
	scene := newRoleScene(t)
	b := scene.Browser(t)
	page := b.Authorize(issuertest.Confidential, issuertest.Set("scope", "resume:read")).SignIn()
	page.WantError("access_denied")
	if page.Query().Get("error_description") != "The user can have none of the requested scopes." {
		t.Errorf("%v", page.Query())
	}
	scene.SQL(t, `UPDATE gpt_users SET claims = '{"staff": true}'`)
	b.Authorize(issuertest.Confidential, issuertest.Set("scope", "resume:read")).Allow().Code()
}

// USR-13: another user who signs in for the same request is offered what they can
// have, not what was left for the one before.
func TestNextUserIsOfferedTheWholeRequest(t *testing.T) {
	t.Parallel()
	scene := newRoleScene(t)
	b := scene.Browser(t)
	page := b.Authorize(issuertest.Confidential, issuertest.Set("scope", "jobs:read applications:write")).SignIn()
	wantText(t, page, "cannot do")
	page = page.Press("Not you? Sign out").Follow()
	scene.SQL(t, `UPDATE gpt_users SET claims = '{"roles": ["admin"]}'`)
	page = page.SignIn()
	wantNoText(t, page, "cannot do")
	wantText(t, page, "POST /applications")
	if _, err := url.Parse(page.Allow().Location()); err != nil {
		t.Error(err)
	}
}
