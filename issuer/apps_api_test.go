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

const (
	appsAPI  = "/oauth/api/apps"
	appsWord = "resume:read" // any declared scope may be the one
)

// newAppsAPI is a server whose client career copilot may list apps.
func newAppsAPI(t *testing.T) *issuertest.Scene {
	scene := issuertest.New(t, issuertest.With(func(c *issuer.Config) { c.AppsScope = appsWord }))
	scene.Clients.Change(t, issuertest.Confidential, func(c *issuer.Client) {
		c.Scopes = oauth.NewScopeSet("jobs:read", "applications:read", appsWord)
	})
	return scene
}

func callAPI(scene *issuertest.Scene, method, path, token string, form url.Values, auth ...issuertest.Auth) issuertest.Response {
	r, _ := http.NewRequest(method, path, strings.NewReader(form.Encode()))
	if strings.HasPrefix(path, "/") {
		r, _ = http.NewRequest(method, scene.URL+path, strings.NewReader(form.Encode()))
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, add := range auth {
		add(r)
	}
	return scene.Do(r)
}

// idOf returns the id that the list has for a client.
func idOf(t *testing.T, list issuertest.Response, client string) string {
	t.Helper()
	for _, app := range list.JSON["apps"].([]any) {
		if app := app.(map[string]any); app["client_id"] == client {
			return app["id"].(string)
		}
	}
	t.Fatalf("%s is not in %s", client, list.Body)
	return ""
}

// PAG-04: the page's contents for an app that has a page of its own.
func TestAppsAPIListsAndEnds(t *testing.T) {
	t.Parallel()
	scene := newAppsAPI(t)
	cli := scene.Tokens(t, issuertest.Public, issuertest.Set("scope", "jobs:read applications:write"))
	gpt := scene.Tokens(t, issuertest.GPT)
	called(t, scene, issuertest.Public, "jobs:read", 7, 0)
	token := scene.Tokens(t, issuertest.Confidential, issuertest.Set("scope", appsWord)).Access

	list := callAPI(scene, http.MethodGet, appsAPI, token, nil)
	if list.Status != http.StatusOK || list.Header.Get("Cache-Control") != "no-store" || list.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Fatalf("%d %v %s", list.Status, list.Header, list.Body)
	}
	id := idOf(t, list, issuertest.Public)
	for _, want := range []string{
		`"client_name":"Job CLI"`, `"redirect_uri":"` + issuertest.PublicRedirect + `"`, `"address":"127.0.0.1"`, `"unverified":false`,
		`{"name":"jobs:read","description":"Search jobs and view job details","calls":7,"unused":false}`,
		`{"name":"applications:write","description":"Submit applications for you","calls":0,"unused":true}`,
		`{"name":"resume:read","description":"Read your resume","unused":false}`, // its own: no gate counts it
	} {
		if !strings.Contains(list.Body, want) {
			t.Errorf("%s is not in the list: %s", want, list.Body)
		}
	}

	drop := appsAPI + "/" + id + "/drop"
	for _, c := range []struct {
		form   url.Values
		status int
		body   string
	}{
		{url.Values{}, http.StatusBadRequest, `"The scope is missing."`},
		{url.Values{"scope": {"jobs:read"}}, http.StatusConflict, `"in_use"`},
		{url.Values{"scope": {"applications:write applications:read jobs:read"}}, http.StatusOK, `{"dropped":2}`},
	} {
		if r := callAPI(scene, http.MethodPost, drop, token, c.form); r.Status != c.status || !strings.Contains(r.Body, c.body) {
			t.Errorf("drop %v: %d %s", c.form, r.Status, r.Body)
		}
	}
	if r := refresh(scene, issuertest.Public, cli.Refresh); r.Tokens().Scope != "jobs:read" {
		t.Errorf("after dropping: %s", r.Body)
	}
	if r := callAPI(scene, http.MethodDelete, appsAPI+"/"+id, token, nil); r.Status != http.StatusOK || r.Body != `{"ended":1}` {
		t.Errorf("end: %d %s", r.Status, r.Body)
	}
	if r := callAPI(scene, http.MethodDelete, appsAPI+"/"+id, token, nil); r.Status != http.StatusNotFound {
		t.Errorf("end again: %d %s", r.Status, r.Body)
	}
	if r := callAPI(scene, http.MethodDelete, appsAPI, token, nil); r.Status != http.StatusOK || r.Body != `{"ended":2}` {
		t.Errorf("end all: %d %s", r.Status, r.Body)
	}
	if r := refresh(scene, issuertest.GPT, gpt.Refresh); r.Error() != "invalid_grant" {
		t.Errorf("after the end of all: %d %s", r.Status, r.Body)
	}
	if r := callAPI(scene, http.MethodGet, appsAPI, token, nil); r.Status != http.StatusUnauthorized { // its own session was among them
		t.Errorf("the caller's token goes on: %d", r.Status)
	}
}

func TestAppsAPIIsPaged(t *testing.T) {
	t.Parallel()
	scene := newAppsAPI(t)
	token := scene.Tokens(t, issuertest.Confidential, issuertest.Set("scope", appsWord)).Access
	scene.SQL(t, `INSERT INTO gpt_sessions (user_id, client_id, expires_at) SELECT $1, $2, now() + interval '1 day' FROM generate_series(1, 40)`, scene.User.ID, issuertest.Public)
	seen, address := 0, appsAPI
	for address != "" {
		list := callAPI(scene, http.MethodGet, address, token, nil)
		seen += len(list.JSON["apps"].([]any))
		address, _ = list.JSON["next"].(string)
	}
	if seen != 41 {
		t.Errorf("%d apps listed, want 41", seen)
	}
	if r := callAPI(scene, http.MethodGet, appsAPI+"?after=x", token, nil); r.Error() != "invalid_request" {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// PAG-04: the list is a resource by itself: no other token opens it, its own opens
// nothing else, and no client gets it that is not told so by name.
func TestAppsAPINeedsATokenOfItsOwn(t *testing.T) {
	t.Parallel()
	scene := newAppsAPI(t)
	alone := issuertest.Set("scope", appsWord)
	token := scene.Tokens(t, issuertest.Confidential, alone).Access
	jobs := scene.Tokens(t, issuertest.Public).Access
	none := callAPI(scene, http.MethodGet, appsAPI, "", nil)
	if want := `Bearer scope="` + appsWord + `", resource_metadata="` + scene.URL + `/.well-known/oauth-protected-resource` + appsAPI + `"`; none.Status != http.StatusUnauthorized || none.Header.Get("WWW-Authenticate") != want {
		t.Errorf("without a token: %d %q, want %q", none.Status, none.Header.Get("WWW-Authenticate"), want)
	}
	if r := scene.Get("/.well-known/oauth-protected-resource" + appsAPI); r.JSON["resource"] != scene.URL+appsAPI {
		t.Errorf("metadata: %s", r.Body)
	}
	if r := scene.Get("/.well-known/oauth-authorization-server"); strings.Contains(r.Body, appsWord) {
		t.Errorf("the scope is offered to everyone: %s", r.Body)
	}
	for name, token := range map[string]string{"another audience": jobs, "nonsense": "x", "a refresh token": scene.Tokens(t, issuertest.GPT).Refresh} {
		if r := callAPI(scene, http.MethodGet, appsAPI, token, nil); r.Status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	browser := scene.Browser(t)
	for name, c := range map[string]struct {
		client string
		params []issuertest.Param
		want   string
	}{
		"with another scope":       {issuertest.Confidential, []issuertest.Param{issuertest.Set("scope", appsWord+" jobs:read")}, "invalid_target"},
		"for another resource":     {issuertest.Confidential, []issuertest.Param{alone, issuertest.Set("resource", scene.URL)}, "invalid_target"},
		"another scope for it":     {issuertest.Confidential, []issuertest.Param{issuertest.Set("scope", "jobs:read"), issuertest.Set("resource", scene.URL+appsAPI)}, "invalid_target"},
		"a client without its own": {issuertest.Public, []issuertest.Param{alone}, "invalid_scope"},
		"the same, by resource":    {issuertest.Public, []issuertest.Param{issuertest.Omit("scope"), issuertest.Set("resource", scene.URL+appsAPI)}, "invalid_scope"},
	} {
		page := browser.Authorize(c.client, c.params...)
		if got := page.Query().Get("error"); got != c.want {
			t.Errorf("%s: %q, want %q (%d %s)", name, got, c.want, page.Status, page.Text())
		}
	}
	// What a client gets that asks for no scope holds no keys to the list.
	if got := scene.Tokens(t, issuertest.Public, issuertest.Omit("scope")).Scope; strings.Contains(got, appsWord) {
		t.Errorf("by default it gets %q", got)
	}
	scene.SQL(t, "UPDATE gpt_sessions SET revoked_at = now()")
	if r := callAPI(scene, http.MethodGet, appsAPI, token, nil); r.Status != http.StatusUnauthorized {
		t.Errorf("a revoked session: %d", r.Status)
	}
	if got := scene.Tokens(t, issuertest.Confidential, issuertest.Omit("scope"), issuertest.Set("resource", scene.URL+appsAPI)).Scope; got != appsWord {
		t.Errorf("by the resource it gets %q", got)
	}
}

func TestAppsAPIIsOffByDefault(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	if r := callAPI(scene, http.MethodGet, appsAPI, scene.Tokens(t, issuertest.Public).Access, nil); r.Status != http.StatusNotFound {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// Clients that register themselves never get it, whatever they name.
func TestAppsAPIIsNotForClientsThatRegisterThemselves(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.With(func(c *issuer.Config) { c.AppsScope = appsWord }), issuertest.SelfRegistration(nil))
	document := map[string]any{"client_name": "X", "redirect_uris": []string{"https://x.example/cb"}, "scope": appsWord, "token_endpoint_auth_method": "none"}
	r := scene.SendJSON(http.MethodPost, "/oauth/register", document)
	if r.Status == http.StatusCreated {
		id, _ := r.JSON["client_id"].(string)
		page := scene.Browser(t).Authorize(id, issuertest.Set("redirect_uri", "https://x.example/cb"), issuertest.Set("scope", appsWord))
		if page.Has("Allow") || page.Has("Sign in") {
			t.Errorf("may ask: %d %s", page.Status, page.Text())
		}
	}
}
