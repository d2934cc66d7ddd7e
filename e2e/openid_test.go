package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// relyingParty is an app that people sign in to with their account here, made of
// coreos/go-oidc and golang.org/x/oauth2: it knows the issuer, its own id and
// secret, and nothing else.
type relyingParty struct {
	t        *testing.T
	provider *oidc.Provider
	config   oauth2.Config
	verifier *oidc.IDTokenVerifier
	endURL   string // end_session_endpoint
	back     *callback
}

const relyingPartyWords = `openid
		client forum {
			name "The forum"
			secret {env.DEMO_CLIENT_SECRET}
			redirect_uri http://127.0.0.1/callback
			post_logout_redirect_uri http://127.0.0.1/callback
		}`

func newRelyingParty(t *testing.T, issuer string, scopes ...string) *relyingParty {
	t.Helper()
	provider, err := oidc.NewProvider(t.Context(), issuer)
	if err != nil {
		t.Fatal(err)
	}
	var more struct {
		EndSession string   `json:"end_session_endpoint"`
		Challenges []string `json:"code_challenge_methods_supported"`
	}
	if err := provider.Claims(&more); err != nil || !slices.Contains(more.Challenges, "S256") {
		t.Fatalf("%v %+v", err, more)
	}
	back := newCallback(t)
	return &relyingParty{t: t, provider: provider, back: back, endURL: more.EndSession,
		config:   oauth2.Config{ClientID: "forum", ClientSecret: clientSecret, Endpoint: provider.Endpoint(), RedirectURL: back.URI, Scopes: scopes},
		verifier: provider.VerifierContext(t.Context(), &oidc.Config{ClientID: "forum"})}
}

// link is where a sign-in begins; finish ends it with the answer that the
// browser brought back.
func (rp *relyingParty) link(options ...oauth2.AuthCodeOption) (link string, finish func() (*oauth2.Token, *oidc.IDToken)) {
	state, nonce, verifier := randomHex(8), randomHex(16), oauth2.GenerateVerifier()
	link = rp.config.AuthCodeURL(state, append(options, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier))...)
	return link, func() (*oauth2.Token, *oidc.IDToken) {
		rp.t.Helper()
		answer := rp.back.await(rp.t)
		if answer.Get("state") != state {
			rp.t.Fatalf("answer %v", answer)
		}
		token, err := rp.config.Exchange(rp.t.Context(), answer.Get("code"), oauth2.VerifierOption(verifier))
		if err != nil {
			rp.t.Fatal(err)
		}
		idToken := rp.verify(token)
		if idToken.Nonce != nonce {
			rp.t.Errorf("nonce %q, want %q", idToken.Nonce, nonce)
		}
		return token, idToken
	}
}

// verify checks the ID token beside an access token.
func (rp *relyingParty) verify(token *oauth2.Token) *oidc.IDToken {
	rp.t.Helper()
	raw, _ := token.Extra("id_token").(string)
	idToken, err := rp.verifier.Verify(rp.t.Context(), raw)
	if err != nil {
		rp.t.Fatal(err)
	}
	if err := idToken.VerifyAccessToken(token.AccessToken); err != nil {
		rp.t.Error(err)
	}
	return idToken
}

// logout is the link that signs the user of the ID token out.
func (rp *relyingParty) logout(token *oauth2.Token) string {
	raw, _ := token.Extra("id_token").(string)
	return rp.endURL + "?" + url.Values{"id_token_hint": {raw}, "post_logout_redirect_uri": {rp.back.URI}, "state": {"bye"}}.Encode()
}

// OIDC-40: a person signs in to an app with their account here, chooses it again,
// and signs out. What the app gets says who they are, and opens no API. The app is
// coreos/go-oidc, the browser Chromium.
func TestPersonSignsInToAnApp(t *testing.T) {
	s := newScene(t, relyingPartyWords)
	rp := newRelyingParty(t, s.Base, oidc.ScopeOpenID, "profile", "email")
	browser := newChromium(t)

	link, finish := rp.link()
	do(t, browser, chromedp.Navigate(link))
	signIn(t, browser)
	do(t, browser, chromedp.WaitVisible(button("Allow")))
	text := pageText(t, browser)
	for _, want := range []string{"The forum", "Know that it is you", "See your profile", "See your email address"} {
		if !strings.Contains(text, want) {
			t.Errorf("the consent page does not say %q: %s", want, text)
		}
	}
	screenshot(t, browser, "consent-identity")
	do(t, browser, chromedp.Click(button("Allow")))
	token, idToken := finish()
	info, err := rp.provider.UserInfo(t.Context(), oauth2.StaticTokenSource(token))
	if err != nil || info.Subject != idToken.Subject || info.Email != email || info.EmailVerified {
		t.Errorf("UserInfo %+v, %v", info, err)
	}
	s.sql(`UPDATE gpt_users SET profile = '{"email_verified": true}'`)
	if info, err = rp.provider.UserInfo(t.Context(), oauth2.StaticTokenSource(token)); err != nil || !info.EmailVerified {
		t.Errorf("UserInfo %+v, %v", info, err)
	}

	// Who they are is no key: neither to a scope, nor to `authenticated`. OIDC-13, OIDC-15
	raw, _ := token.Extra("id_token").(string)
	for _, path := range []string{"/jobs", "/me"} {
		for name, presented := range map[string]string{"the access token": token.AccessToken, "the ID token": raw} {
			if status, _ := s.api(http.MethodGet, path, presented); status != http.StatusUnauthorized {
				t.Errorf("%s of an app for sign-in opens %s: %d", name, path, status)
			}
		}
	}

	// A refresh says the same of the sign-in.
	expired := *token
	expired.Expiry = time.Now().Add(-time.Hour)
	refreshed, err := rp.config.TokenSource(t.Context(), &expired).Token()
	if err != nil {
		t.Fatal(err)
	}
	if again := rp.verify(refreshed); again.Subject != idToken.Subject || again.Nonce != "" {
		t.Errorf("after a refresh: %+v", again)
	}

	// Once more, with a choice of account.
	link, finish = rp.link(oauth2.SetAuthURLParam("prompt", "select_account"))
	do(t, browser, chromedp.Navigate(link), chromedp.WaitVisible(button("Continue as "+email)))
	screenshot(t, browser, "account")
	do(t, browser, dark(), phone())
	screenshot(t, browser, "account-dark-phone")
	do(t, browser, chromedp.Click(button("Use another account")))
	signIn(t, browser)
	do(t, browser, chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Allow")))
	second, _ := finish()

	// A link that says nothing about the user is asked about.
	do(t, browser, chromedp.Navigate(rp.endURL+"?client_id=forum"), chromedp.WaitVisible(button("Stay signed in")))
	screenshot(t, browser, "sign-out-dark-phone")
	do(t, browser, chromedp.Click(button("Stay signed in")), chromedp.WaitVisible(`//h1[contains(., "still signed in")]`))
	// The app's own link is not.
	do(t, browser, chromedp.Navigate(rp.logout(second)))
	if answer := rp.back.await(t); answer.Get("state") != "bye" {
		t.Errorf("back from signing out with %v", answer)
	}
	if _, err := rp.provider.UserInfo(t.Context(), oauth2.StaticTokenSource(second)); err == nil {
		t.Error("the session of the app outlived signing out")
	}
	if _, err := rp.provider.UserInfo(t.Context(), oauth2.StaticTokenSource(refreshed)); err != nil {
		t.Errorf("another session of the app ended: %v", err)
	}
	link, _ = rp.link()
	do(t, browser, chromedp.Navigate(link), chromedp.WaitVisible(field("Email")))
}

// OIDC-41: who also asks for an API gets one token for both, and the API does
// not hear what it is not for.
func TestAppMayAskForIdentityAndAPI(t *testing.T) {
	s := newScene(t, relyingPartyWords)
	rp := newRelyingParty(t, s.Base, oidc.ScopeOpenID, "email", "jobs:read")
	browser := newChromium(t)
	link, finish := rp.link(oauth2.SetAuthURLParam("resource", s.Base))
	do(t, browser, chromedp.Navigate(link))
	signIn(t, browser)
	do(t, browser, chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Allow")))
	token, idToken := finish()
	if status, _ := s.api(http.MethodGet, "/jobs", token.AccessToken); status != http.StatusOK {
		t.Fatalf("GET /jobs: %d", status)
	}
	if header := s.Upstream.Last(t).Header; header.Get("X-Scopes") != "jobs:read" || header.Get("X-User-Id") != idToken.Subject {
		t.Errorf("the upstream got %v", header)
	}
	if status, _ := s.api(http.MethodGet, "/resume", token.AccessToken); status != http.StatusForbidden {
		t.Errorf("GET /resume: %d", status)
	}
	if info, err := rp.provider.UserInfo(t.Context(), oauth2.StaticTokenSource(token)); err != nil || info.Email != email {
		t.Errorf("UserInfo %+v, %v", info, err)
	}
}

// OIDC-42: begun on one node, ended on another, with reloads between; and what
// one node signs out is over on both.
func TestSignInToAnAppAcrossNodes(t *testing.T) {
	n := newTwoNodes(t, relyingPartyWords)
	same := func(config string) string { return config }
	const redirect = "http://127.0.0.1:4711/callback"
	verifier := oauth2.GenerateVerifier()
	query := url.Values{"response_type": {"code"}, "client_id": {"forum"}, "redirect_uri": {redirect}, "scope": {"openid email"}, "nonce": {"n-1"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"}, "prompt": {"select_account"}}
	_, page := n.send(n.second, http.MethodGet, "/oauth/authorize?"+query.Encode(), "")
	n.reload(same)
	fields := form(page)
	fields.Set("email", email)
	fields.Set("password", password)
	res, _ := n.send(n.first, http.MethodPost, "/oauth/login", fields.Encode())
	_, page = n.send(n.second, http.MethodGet, res.Header.Get("Location"), "")
	fields = form(page)
	fields.Set("decision", "allow")
	res, text := n.send(n.first, http.MethodPost, "/oauth/consent", fields.Encode())
	back, err := url.Parse(res.Header.Get("Location"))
	if err != nil || back.Query().Get("code") == "" {
		t.Fatalf("%d %s", res.StatusCode, text)
	}
	n.reload(same)
	_, text = n.send(n.second, http.MethodPost, "/oauth/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {"forum"}, "client_secret": {clientSecret},
		"code": {back.Query().Get("code")}, "code_verifier": {verifier}, "redirect_uri": {redirect}}.Encode())
	var tokens struct {
		Access  string `json:"access_token"`
		IDToken string `json:"id_token"`
	}
	if err := json.Unmarshal([]byte(text), &tokens); err != nil {
		t.Fatal(err)
	}
	// The keys are those of both nodes.
	keys := oidc.NewRemoteKeySet(context.Background(), n.first.Base+"/oauth/jwks.json")
	if idToken, err := oidc.NewVerifier(n.Base, keys, &oidc.Config{ClientID: "forum", SupportedSigningAlgs: []string{oidc.ES256}}).Verify(t.Context(), tokens.IDToken); err != nil || idToken.Nonce != "n-1" {
		t.Errorf("%v %s", err, text)
	}
	bearer := "Bearer " + tokens.Access
	for _, node := range []*scene{n.first, n.second} {
		if _, info := n.send(node, http.MethodGet, "/oauth/userinfo", "", "Authorization", bearer); !strings.Contains(info, email) {
			t.Errorf("UserInfo: %s", info)
		}
	}
	end := "/oauth/end_session?" + url.Values{"id_token_hint": {tokens.IDToken}, "post_logout_redirect_uri": {redirect}}.Encode()
	if res, text := n.send(n.second, http.MethodGet, end, ""); res.Header.Get("Location") != redirect {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	for _, node := range []*scene{n.first, n.second} {
		if res, info := n.send(node, http.MethodGet, "/oauth/userinfo", "", "Authorization", bearer); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("UserInfo: %d %s", res.StatusCode, info)
		}
	}
	// Off again: there is nothing half.
	n.reload(func(config string) string {
		return strings.NewReplacer("openid\n", "\n", "post_logout_redirect_uri http://127.0.0.1/callback", "").Replace(config)
	})
	for _, path := range []string{"/.well-known/openid-configuration", "/oauth/userinfo", "/oauth/end_session"} {
		if res, text := n.send(n.second, http.MethodGet, path, ""); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, res.StatusCode, text)
		}
	}
}
