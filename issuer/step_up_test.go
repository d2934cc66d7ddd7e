package issuer_test

import (
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// STEP-01, STEP-02, STEP-03: a client whose token is not enough asks again, for
// more or for the missing scope alone. The user is asked for what is new; the
// session before goes on as it was, and the new one has what was asked for.
func TestStepUpIsANewSession(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	const copilot = issuertest.Confidential
	b := scene.Browser(t)
	connect := func(scope string) (page string, tokens issuertest.Tokens) {
		t.Helper()
		query, verifier := scene.Authorization(copilot, issuertest.Set("scope", scope), issuertest.Set("prompt", "consent"))
		p := b.Get("/oauth/authorize?" + query.Encode())
		if p.Has("Sign in") {
			p = p.SignIn()
		}
		r := scene.PostForm("/oauth/token", codeForm(copilot, issuertest.ConfidentialRedirect, p.Allow().Code(), verifier))
		return p.Text(), r.Tokens()
	}
	asked := func(page string) string {
		before, _, _ := strings.Cut(page, "What it can do already")
		return before
	}
	_, first := connect("jobs:read")

	// The union, as MCP 2026-07-28 has it.
	page, second := connect("jobs:read applications:write")
	if !strings.Contains(page, "wants more access") || strings.Contains(asked(page), "Search jobs") || !strings.Contains(asked(page), "Submit applications") {
		t.Errorf("asked for what is not new, or not for what is: %s", page)
	}
	if second.Scope != "applications:write jobs:read" {
		t.Errorf("the new session has %q", second.Scope)
	}
	// The missing scope alone, as clients before that have it.
	page, third := connect("resume:read")
	if !strings.Contains(asked(page), "Read your resume") || third.Scope != "resume:read" {
		t.Errorf("%q: %s", third.Scope, page)
	}
	// The session before is as it was: alive, no wider, and no refresh widens it.
	next := refresh(scene, copilot, first.Refresh)
	if next.Status != 200 || next.Tokens().Scope != "jobs:read" || claimsOf(t, next.Tokens().Access)["sid"] == claimsOf(t, second.Access)["sid"] {
		t.Errorf("%d %s", next.Status, next.Body)
	}
	wantOAuthError(t, refresh(scene, copilot, next.Tokens().Refresh, issuertest.Set("scope", "jobs:read applications:write")), 400, "invalid_scope")

	// STEP-03: the hierarchy, at consent and at issue. Who may write may read.
	page, reading := connect("applications:read")
	if !strings.Contains(page, "It asks for nothing new") || reading.Scope != "applications:read" {
		t.Errorf("%q: %s", reading.Scope, page)
	}
	if r := refresh(scene, copilot, second.Refresh, issuertest.Set("scope", "applications:read")); r.Tokens().Scope != "applications:read" {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	// And not the other way round.
	wantOAuthError(t, refresh(scene, copilot, reading.Refresh, issuertest.Set("scope", "applications:write")), 400, "invalid_scope")
	// Nothing is left to ask: no page at all, where nobody insists on one.
	b.Authorize(copilot, issuertest.Set("scope", "applications:read jobs:read resume:read"), issuertest.Set("prompt", "none")).Code()
}

// STEP-04, A-24: what was allowed for one resource, or to be sent to one address,
// is not allowed for another by allowing something else there. An attacker who
// can receive codes at one of a client's addresses would otherwise get, unseen,
// all that the user ever allowed at the others.
func TestApprovalDoesNotCarryOverByAnother(t *testing.T) {
	t.Parallel()
	none := issuertest.Set("prompt", "none")
	for name, c := range map[string]struct {
		client              string
		allowed, then, last []issuertest.Param
	}{
		"another address": {
			issuertest.GPT,
			[]issuertest.Param{issuertest.Set("scope", "applications:write"), issuertest.Set("redirect_uri", issuertest.GPTRedirect)},
			[]issuertest.Param{issuertest.Set("scope", "jobs:read"), issuertest.Set("redirect_uri", issuertest.GPTOtherRedirect)},
			[]issuertest.Param{issuertest.Set("scope", "applications:write"), issuertest.Set("redirect_uri", issuertest.GPTOtherRedirect)},
		},
		"another resource": {
			issuertest.Confidential,
			[]issuertest.Param{issuertest.Set("scope", "applications:write"), issuertest.Set("resource", "BASE")},
			[]issuertest.Param{issuertest.Set("scope", "mcp:tools"), issuertest.Set("resource", "BASE/mcp")},
			[]issuertest.Param{issuertest.Set("scope", "applications:write"), issuertest.Set("resource", "BASE/mcp")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := issuertest.New(t)
			b := scene.Browser(t)
			here := func(v map[string][]string) {
				for i, resource := range v["resource"] {
					v["resource"][i] = strings.Replace(resource, "BASE", scene.URL, 1)
				}
			}
			authorize := func(params []issuertest.Param, more ...issuertest.Param) (*issuertest.Page, string, string) {
				query, verifier := scene.Authorization(c.client, append(append([]issuertest.Param{}, params...), more...)...)
				here(query)
				return b.Get("/oauth/authorize?" + query.Encode()), verifier, query.Get("redirect_uri")
			}
			for _, params := range [][]issuertest.Param{c.allowed, c.then} {
				p, verifier, redirect := authorize(params)
				if p.Has("Sign in") {
					p = p.SignIn()
				}
				if r := scene.PostForm("/oauth/token", codeForm(c.client, redirect, p.Allow().Code(), verifier)); r.Status != 200 {
					t.Fatalf("%d %s", r.Status, r.Body)
				}
			}
			p, _, _ := authorize(c.last, none)
			p.WantError("consent_required")
			// Where it was allowed it still is.
			p, _, _ = authorize(c.allowed, none)
			p.Code()
			// Beside something new it is asked for, and not said to be held.
			if name == "another address" {
				scene.Clients.Change(t, c.client, func(c *issuer.Client) { c.Scopes = nil })
				p, _, _ = authorize([]issuertest.Param{issuertest.Set("scope", "applications:write resume:read jobs:read"), issuertest.Set("redirect_uri", issuertest.GPTOtherRedirect)})
				asked, held, _ := strings.Cut(p.Text(), "What it can do already")
				if !strings.Contains(asked, "Submit applications") || !strings.Contains(asked, "Read your resume") || strings.Contains(held, "Submit applications") || !strings.Contains(held, "Search jobs") {
					t.Errorf("%s", p.Text())
				}
			}
		})
	}
}

// STEP-05: at session_limit a step-up is one session too many, and the page says
// which to end.
func TestStepUpAtTheSessionLimit(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.With(func(c *issuer.Config) { c.SessionLimit = 1 }))
	scene.Tokens(t, issuertest.Confidential)
	b := scene.Browser(t)
	p := b.Authorize(issuertest.Confidential, issuertest.Set("scope", "jobs:read resume:read")).SignIn()
	p.WantPage(200, "You have connected as many apps as you can")
	p = p.Press("End access of Career Copilot").Follow()
	if asked := p.Text(); !p.Has("Allow") || !strings.Contains(asked, "Read your resume") {
		t.Fatalf("%d %s", p.Status, p.Text())
	}
	p.Allow().Code()
	wantAlive(t, scene, false)
}
