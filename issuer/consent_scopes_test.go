package issuer_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// newOptional is a server that lets users leave these scopes out, and knows what
// scopes open.
func newOptional(t *testing.T, optional ...string) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, issuertest.With(func(c *issuer.Config) {
		scopes := c.Catalog.Scopes()
		for i := range scopes {
			scopes[i].Optional = slices.Contains(optional, scopes[i].Name)
			scopes[i].Link = "https://docs.example/" + scopes[i].Name
			scopes[i].In = map[string]string{"de": "auf Deutsch"}
		}
		catalog, err := oauth.NewCatalog(scopes)
		if err != nil {
			t.Fatal(err)
		}
		c.Catalog = catalog
		c.Routes = func(resource string) []issuer.Route {
			return []issuer.Route{
				{Name: "GET /jobs/*", Scopes: oauth.NewScopeSet("jobs:read")},
				{Name: "POST /applications", Scopes: oauth.NewScopeSet("applications:write")},
				{Name: "GET /applications", Scopes: oauth.NewScopeSet("applications:read")},
				{Name: "POST /resume/analyze", Scopes: oauth.NewScopeSet("jobs:read", "resume:read")},
				{Name: "GET /either", Scopes: oauth.NewScopeSet("jobs:read", "resume:read"), Any: true},
				{Name: "search_jobs", Tool: true, Scopes: oauth.NewScopeSet("jobs:read")},
			}
		}
	}))
}

// PAG-05: what the scopes open, from the rules, and no more than that.
func TestConsentShowsWhatBecomesCallable(t *testing.T) {
	t.Parallel()
	scene := newOptional(t)
	page := scene.Browser(t).Authorize(issuertest.Confidential, issuertest.Set("scope", "jobs:read applications:write")).SignIn()
	for _, want := range []string{
		"Search jobs and view job details Learn more Search jobs and view job details What can be called with it Search jobs and view job details GET /jobs/* GET /either the tool search_jobs",
		"Submit applications for you See your applications Learn more", // what it brings
		"POST /applications GET /applications",
		"You can take this back at any time: Connected apps",
	} {
		wantText(t, page, want)
	}
	wantNoText(t, page, "POST /resume/analyze") // needs what was not asked for
	if strings.Contains(page.Body, " open") || page.Link("Learn more Search jobs and view job details") != "https://docs.example/jobs:read" {
		t.Errorf("link %q in %s", page.Link("Learn more Search jobs and view job details"), page.Body)
	}
	for _, attribute := range []string{`target="_blank"`, `rel="noopener noreferrer"`} {
		if !strings.Contains(page.Body, attribute) {
			t.Errorf("a link without %s", attribute)
		}
	}
}

func TestConsentShowsSoManyRoutesAndSaysHowManyMore(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.With(func(c *issuer.Config) {
		c.Routes = func(string) []issuer.Route {
			return slices.Repeat([]issuer.Route{{Name: "GET /jobs/<b>", Scopes: oauth.NewScopeSet("jobs:read")}}, 60)
		}
	}))
	page := scene.Browser(t).Authorize(issuertest.Confidential).SignIn()
	if n := strings.Count(page.Text(), "GET /jobs/<b>"); n != 40 || !strings.Contains(page.Text(), "and 20 more") {
		t.Errorf("%d routes: %s", n, page.Text())
	}
}

// PAG-06: what the user leaves out is not granted, and the answer says so.
func TestScopesThatTheUserLeavesOutAreNotGranted(t *testing.T) {
	t.Parallel()
	const ask = "jobs:read applications:read applications:write resume:read"
	for name, c := range map[string]struct {
		optional []string
		leave    []string
		boxes    string // what can be left out
		granted  string
	}{
		"nothing is left out":           {optional: []string{"resume:read"}, boxes: "resume:read", granted: ask},
		"one is":                        {optional: []string{"resume:read", "jobs:read"}, leave: []string{"resume:read"}, boxes: "jobs:read resume:read", granted: "applications:read applications:write jobs:read"},
		"what another brings":           {optional: []string{"applications:read"}, leave: []string{"applications:read"}, boxes: "", granted: ask}, // applications:write must stay
		"and the other with it":         {optional: []string{"applications:read", "applications:write"}, leave: []string{"applications:read"}, boxes: "applications:read applications:write", granted: "jobs:read resume:read"},
		"the other alone":               {optional: []string{"applications:read", "applications:write"}, leave: []string{"applications:write"}, boxes: "applications:read applications:write", granted: "applications:read jobs:read resume:read"},
		"what must stay, by a form":     {optional: []string{"resume:read"}, leave: []string{"jobs:read"}, boxes: "resume:read", granted: ask},
		"nothing is optional, in short": {boxes: "", granted: ask},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := newOptional(t, c.optional...)
			query, verifier := scene.Authorization(issuertest.Confidential, issuertest.Set("scope", ask))
			page := scene.Browser(t).Get("/oauth/authorize?" + query.Encode()).SignIn()
			action, form := page.Form("Allow")
			var boxes []string
			for field := range form {
				if name, ok := strings.CutPrefix(field, "scope."); ok {
					boxes = append(boxes, name)
				}
			}
			if got := oauth.NewScopeSet(boxes...).String(); got != c.boxes {
				t.Errorf("can be left out: %q, want %q", got, c.boxes)
			}
			for _, name := range c.leave {
				form.Del("scope." + name)
			}
			form.Set("scope.mcp:tools", "yes") // more than was asked for
			code := page.Browser().Post(action, form).Code()
			tokens := scene.Redeem(t, issuertest.Confidential, code, map[string][]string{"code_verifier": {verifier}})
			want, _ := oauth.ParseScope(c.granted)
			if tokens.Scope != want.String() {
				t.Errorf("granted %q, want %q", tokens.Scope, want)
			}
			if r := refresh(scene, issuertest.Confidential, tokens.Refresh); r.Tokens().Scope != want.String() {
				t.Errorf("refreshed to %q", r.Tokens().Scope)
			}
		})
	}
}

func TestLeavingEverythingOutIsNoAnswer(t *testing.T) {
	t.Parallel()
	scene := newOptional(t, "jobs:read")
	page := scene.Browser(t).Authorize(issuertest.Confidential).SignIn()
	action, form := page.Form("Allow")
	form.Del("scope.jobs:read")
	page = page.Browser().Post(action, form)
	page.WantPage(http.StatusOK, "Career Copilot wants access to your account")
	wantText(t, page, "You left everything out.")
	page.Allow().Code()
}

// The first decision stands: a form sent a second time, with other boxes, widens
// nothing.
func TestSecondFormWidensNothing(t *testing.T) {
	t.Parallel()
	scene := newOptional(t, "resume:read")
	query, verifier := scene.Authorization(issuertest.Confidential, issuertest.Set("scope", "jobs:read resume:read"))
	page := scene.Browser(t).Get("/oauth/authorize?" + query.Encode()).SignIn()
	action, form := page.Form("Allow")
	form.Del("scope.resume:read")
	first := page.Browser().Post(action, form).Code()
	if second := page.Allow().Code(); second != first {
		t.Errorf("two codes: %s, %s", first, second)
	}
	if got := scene.Redeem(t, issuertest.Confidential, first, map[string][]string{"code_verifier": {verifier}}).Scope; got != "jobs:read" {
		t.Errorf("granted %q", got)
	}
}

func TestDeviceGetsWhatTheUserLeavesIn(t *testing.T) {
	t.Parallel()
	scene := newOptional(t, "resume:read")
	device := startDevice(t, scene, issuertest.Set("scope", "jobs:read resume:read"))
	page := device.enter(device.userCode)
	action, form := page.Form("Allow")
	form.Del("scope.resume:read")
	for range 2 {
		page.Browser().Post(action, form).WantPage(http.StatusOK, "Your device is connected")
		form.Set("scope.resume:read", "yes") // too late
	}
	if r := device.later(); r.Tokens().Scope != "jobs:read" {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// What was left out is asked for again, and again can be.
func TestScopeThatWasLeftOutIsAskedForAgain(t *testing.T) {
	t.Parallel()
	scene := newOptional(t, "resume:read")
	ask := issuertest.Set("scope", "jobs:read resume:read")
	query, verifier := scene.Authorization(issuertest.Confidential, ask)
	browser := scene.Browser(t)
	page := browser.Get("/oauth/authorize?" + query.Encode()).SignIn()
	action, form := page.Form("Allow")
	form.Del("scope.resume:read")
	scene.Redeem(t, issuertest.Confidential, browser.Post(action, form).Code(), map[string][]string{"code_verifier": {verifier}})
	browser.Authorize(issuertest.Confidential, ask, issuertest.Set("prompt", "none")).WantError("consent_required")
	page = browser.Authorize(issuertest.Confidential, ask)
	page.WantPage(http.StatusOK, "Career Copilot wants more access to your account")
	if _, form := page.Form("Allow"); !form.Has("scope.resume:read") || form.Has("scope.jobs:read") {
		t.Errorf("form %v", form)
	}
}
