package issuer_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

const grace = "grace@example.com"

// addGrace makes a second user, with ada's password.
func addGrace(t *testing.T, scene *issuertest.Scene) {
	t.Helper()
	scene.SQL(t, `INSERT INTO gpt_users (email, password_hash) SELECT $1, password_hash FROM gpt_users`, grace)
}

// OIDC-20: prompt=select_account lets the user go on, or be somebody else; until
// they have signed in they stay who they are.
func TestUserSelectsTheAccount(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	addGrace(t, scene)
	b := scene.Browser(t)
	selecting := issuertest.Set("prompt", "select_account")
	// Whoever is not signed in selects by signing in.
	if p := b.Authorize(issuertest.Confidential, selecting).SignIn(); !p.Has("Allow") {
		t.Fatalf("%d %s", p.Status, p.Text())
	}
	p := b.Authorize(issuertest.Confidential, selecting)
	p.WantPage(200, "Choose an account")
	if !p.Has("Continue as "+issuertest.Email) || !strings.Contains(p.Text(), "Career Copilot") {
		t.Error(p.Text())
	}
	if same := p.Press("Continue as " + issuertest.Email).Follow(); !same.Has("Allow") || !strings.Contains(same.Text(), issuertest.Email) {
		t.Errorf("%d %s", same.Status, same.Text())
	}
	other := p.Press("Use another account").Follow()
	if !other.Has("Sign in") || strings.Contains(other.Body, issuertest.Email) {
		t.Fatalf("%d %s", other.Status, other.Text())
	}
	if p := b.Authorize(issuertest.Confidential); !strings.Contains(p.Text(), issuertest.Email) {
		t.Errorf("turning an account down ended it: %s", p.Text())
	}
	allowed := other.Press("Sign in", "email", grace, "password", issuertest.Password).Follow()
	if !strings.Contains(allowed.Text(), grace) {
		t.Fatalf("%s", allowed.Text())
	}
	allowed.Allow().Code()

	// Not past the page: by the next address, by a form without a token, by one of
	// another page.
	p = b.Authorize(issuertest.Confidential, selecting)
	action, form := p.Form("Use another account")
	if skipped := b.Get("/oauth/consent?" + url.Values{"request": {form.Get("request")}}.Encode()); skipped.Heading() != "Choose an account" {
		t.Errorf("%d %s", skipped.Status, skipped.Text())
	}
	for name, change := range map[string]string{"csrf": "", "account": "root"} {
		_, form := p.Form("Use another account")
		form.Set(name, change)
		if got := b.Post(action, form); got.Status != 403 && got.Status != 400 {
			t.Errorf("%s: %d %s", name, got.Status, got.Text())
		}
	}
	scene.Browser(t).Authorize(issuertest.Confidential, issuertest.Set("prompt", "none select_account")).WantError("invalid_request")
}

// OIDC-21: id_token_hint names whom the client expects: nobody else is answered
// for. OpenID Connect Core section 3.1.2.1.
func TestClientIsAnsweredAboutTheUserItExpects(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	addGrace(t, scene)
	idToken := func(email, client, redirect string) string {
		t.Helper()
		query, verifier := scene.Authorization(client, issuertest.Set("scope", "openid"))
		code := scene.Browser(t).Get("/oauth/authorize?"+query.Encode()).Press("Sign in", "email", email, "password", issuertest.Password).Follow().Allow().Code()
		token, _ := scene.PostForm("/oauth/token", codeForm(client, redirect, code, verifier)).JSON["id_token"].(string)
		return token
	}
	ada := idToken(issuertest.Email, issuertest.Confidential, issuertest.ConfidentialRedirect)
	theirs := idToken(grace, issuertest.Confidential, issuertest.ConfidentialRedirect)
	foreign := idToken(issuertest.Email, issuertest.Public, issuertest.PublicRedirect)
	scene.Clock.Advance(24 * time.Hour) // an expired one will do
	hint := func(token string) issuertest.Param { return issuertest.Set("id_token_hint", token) }
	none, openid := issuertest.Set("prompt", "none"), issuertest.Set("scope", "openid")

	b := scene.Browser(t)
	b.Authorize(issuertest.Confidential, openid).SignIn()
	b.Authorize(issuertest.Confidential, openid, none, hint(ada)).Code()
	b.Authorize(issuertest.Confidential, openid, none, hint(theirs)).WantError("login_required")
	for name, unknown := range map[string]string{"garbage": "x.y.z", "another client's": foreign, "an access token": scene.Tokens(t, issuertest.GPT).Access} {
		b.Authorize(issuertest.Confidential, openid, none, hint(unknown)).WantError("login_required")
		// A person may answer.
		if p := b.Authorize(issuertest.Confidential, openid, hint(unknown)); p.Query().Get("code") == "" {
			t.Errorf("%s: %d %s", name, p.Status, p.Text())
		}
	}
	// Somebody else is signed in: the expected one may sign in.
	p := b.Authorize(issuertest.Confidential, openid, hint(theirs))
	if !p.Has("Sign in") || strings.Contains(p.Body, issuertest.Email) {
		t.Fatalf("%d %s", p.Status, p.Text())
	}
	if got := p.Press("Sign in", "email", grace, "password", issuertest.Password).Follow(); got.Query().Get("code") == "" {
		t.Errorf("%d %s", got.Status, got.Text())
	}
	// Or another one does, and the client hears that it was not the expected one.
	b.Authorize(issuertest.Confidential, openid, hint(ada)).Press("Sign in", "email", grace, "password", issuertest.Password).Follow().WantError("login_required")
}

// OIDC-22: max_age and prompt=login show in auth_time, and an old sign-in does
// too.
func TestAuthTimeIsThatOfTheSignIn(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	b := scene.Browser(t)
	authTime := func(page *issuertest.Page, verifier string) any {
		t.Helper()
		r := scene.PostForm("/oauth/token", codeForm(issuertest.Confidential, issuertest.ConfidentialRedirect, page.Code(), verifier))
		_, claims := idTokenOf(t, scene, issuertest.Confidential, r)
		return claims["auth_time"]
	}
	ask := func(params ...issuertest.Param) (*issuertest.Page, string) {
		query, verifier := scene.Authorization(issuertest.Confidential, append([]issuertest.Param{issuertest.Set("scope", "openid")}, params...)...)
		return b.Get("/oauth/authorize?" + query.Encode()), verifier
	}
	p, verifier := ask()
	authTime(p.SignIn().Allow(), verifier)
	scene.SQL(t, `UPDATE gpt_logins SET auth_time = auth_time - interval '1 hour'`)
	p, verifier = ask(issuertest.Set("max_age", "7200"))
	old := authTime(p, verifier)
	if p, _ := ask(issuertest.Set("max_age", "600")); !p.Has("Sign in") {
		t.Errorf("an hour old, and taken for newer than ten minutes: %d", p.Status)
	}
	p, verifier = ask(issuertest.Set("prompt", "login"))
	fresh := authTime(p.SignIn(), verifier)
	if fresh.(float64)-old.(float64) < 3599 {
		t.Errorf("auth_time was %v and is %v", old, fresh)
	}
}

// OIDC-23: what OpenID Connect lets a server pass over does no harm.
func TestOpenIDParametersThatAreNotSupported(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	set := issuertest.Set
	p := scene.Browser(t).Authorize(issuertest.Confidential, set("scope", "openid"), set("display", "popup"), set("ui_locales", "tlh nv-US"), set("claims_locales", "de"),
		set("acr_values", "urn:canary"), set("claims", `{"userinfo":{"email":{"essential":true}}}`), set("login_hint", "grace@example.com"))
	if !p.Has("Sign in") || strings.Contains(p.Body, "canary") || !strings.Contains(p.Body, `value="grace@example.com"`) {
		t.Errorf("%d %s", p.Status, p.Body)
	}
	// objects that would change the request are refused by name.
	for name, code := range map[string]string{"request": "request_not_supported", "request_uri": "request_uri_not_supported", "registration": "registration_not_supported"} {
		scene.Browser(t).Authorize(issuertest.Confidential, set("scope", "openid"), set(name, "https://169.254.169.254/x")).WantError(code)
	}
	huge := scene.Browser(t).Authorize(issuertest.Confidential, set("ui_locales", strings.Repeat("tlh ", 1000)))
	if !huge.Has("Sign in") {
		t.Errorf("%d %s", huge.Status, huge.Text())
	}
}

// OIDC-24: a client that registers itself hears by what its ID tokens are
// signed, and where its users may be sent.
func TestRegistrationAnswersForOpenID(t *testing.T) {
	t.Parallel()
	document := map[string]any{"redirect_uris": []string{"https://rp.example/cb"}, "post_logout_redirect_uris": []string{"https://rp.example/bye"},
		"id_token_signed_response_alg": "RS256", "token_endpoint_auth_method": "none", "scope": "openid email"}
	on := newOpenIDScene(t, issuertest.SelfRegistration(nil))
	r := on.SendJSON("POST", "/oauth/register", document)
	if list, _ := r.JSON["post_logout_redirect_uris"].([]any); r.Status != 201 || len(list) != 1 || r.JSON["id_token_signed_response_alg"] != "ES256" || r.JSON["scope"] != "email openid" {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	document["post_logout_redirect_uris"] = []string{"javascript:alert(1)"}
	wantOAuthError(t, on.SendJSON("POST", "/oauth/register", document), 400, "invalid_client_metadata")
	off := issuertest.New(t, issuertest.SelfRegistration(nil))
	if r := off.SendJSON("POST", "/oauth/register", document); r.Status != 201 || strings.Contains(r.Body, "post_logout") || strings.Contains(r.Body, "id_token") || r.JSON["scope"] != nil {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// OIDC-25: a posted request is the same as one by GET, and is turned into that,
// since a browser brings no cookies of ours with a form of another site.
func TestAuthorizeTakesPost(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	b := scene.Browser(t)
	b.Authorize(issuertest.Confidential).SignIn()
	query, verifier := scene.Authorization(issuertest.Confidential, issuertest.Set("scope", "openid"), issuertest.Set("nonce", "n-1"))
	b.Header.Set("Sec-Fetch-Site", "cross-site")
	page := b.Post("/oauth/authorize", query)
	if page.Status != 303 || !strings.HasPrefix(page.Location(), scene.URL+"/oauth/authorize?") {
		t.Fatalf("%d %s", page.Status, page.Location())
	}
	page = b.Get(page.Location())
	b.Header.Del("Sec-Fetch-Site")
	r := scene.PostForm("/oauth/token", codeForm(issuertest.Confidential, issuertest.ConfidentialRedirect, page.Allow().Code(), verifier))
	if token, _ := idTokenOf(t, scene, issuertest.Confidential, r); token.Nonce != "n-1" {
		t.Errorf("%+v", token)
	}
	for name, form := range map[string]url.Values{"client twice": {"client_id": {"a", "b"}}, "nothing": {}} {
		if got := b.Post("/oauth/authorize", form); got.Status != 303 || b.Get(got.Location()).Status != 400 {
			t.Errorf("%s: %d %s", name, got.Status, got.Location())
		}
	}
	if got := b.Post("/oauth/authorize?client_id=a", query); got.Status != 400 {
		t.Errorf("in query and body: %d", got.Status)
	}
}
