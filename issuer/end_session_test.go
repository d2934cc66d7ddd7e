package issuer_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

const bye = "https://copilot.example/bye"

// logoutScene is a browser in which ada is signed in, and the ID token that her
// client got.
type logoutScene struct {
	*issuertest.Scene
	t       *testing.T
	browser *issuertest.Browser
	idToken string
	tokens  issuertest.Tokens
}

func newLogoutScene(t *testing.T) *logoutScene {
	t.Helper()
	scene := newOpenIDScene(t)
	scene.Clients.Change(t, issuertest.Confidential, func(c *issuer.Client) {
		c.PostLogoutRedirectURIs = []string{bye, "http://127.0.0.1/bye"}
	})
	s := &logoutScene{Scene: scene, t: t, browser: scene.Browser(t)}
	s.signIn()
	return s
}

func (s *logoutScene) signIn() {
	s.t.Helper()
	query, verifier := s.Authorization(issuertest.Confidential, issuertest.Set("scope", "openid jobs:read"), issuertest.Set("prompt", "login consent"))
	code := s.browser.Get("/oauth/authorize?" + query.Encode()).SignIn().Allow().Code()
	r := s.PostForm("/oauth/token", codeForm(issuertest.Confidential, issuertest.ConfidentialRedirect, code, verifier))
	s.idToken, s.tokens = r.JSON["id_token"].(string), r.Tokens()
}

func (s *logoutScene) logout(pairs ...string) *issuertest.Page {
	s.t.Helper()
	return s.browser.Get("/oauth/end_session?" + values(pairs).Encode())
}

func values(pairs []string) url.Values {
	query := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	return query
}

// signedIn reports whether the browser is.
func (s *logoutScene) signedIn() bool {
	s.t.Helper()
	return !s.browser.Authorize(issuertest.Confidential).Has("Sign in")
}

// OIDC-30, A-31: a client that shows whom it means has its user signed out
// without a question, by GET and POST: login and session are gone, and the
// browser is back at the client with its state.
func TestClientSignsItsUserOut(t *testing.T) {
	t.Parallel()
	const state = "a state & more"
	for name, ask := range map[string]func(s *logoutScene) *issuertest.Page{
		"GET": func(s *logoutScene) *issuertest.Page {
			return s.logout("id_token_hint", s.idToken, "post_logout_redirect_uri", bye, "state", state, "client_id", issuertest.Confidential)
		},
		"POST from the client's site, without cookies": func(s *logoutScene) *issuertest.Page {
			r, _ := http.NewRequest(http.MethodPost, s.URL+"/oauth/end_session", strings.NewReader(values([]string{"id_token_hint", s.idToken, "post_logout_redirect_uri", bye, "state", state}).Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Origin", "https://copilot.example")
			answer := s.Do(r) // a browser sends no SameSite=Lax cookie with it
			if answer.Status != http.StatusSeeOther || strings.Contains(answer.Header.Get("Location"), s.idToken) {
				s.t.Fatalf("%d %s", answer.Status, answer.Header.Get("Location"))
			}
			return s.browser.Get(answer.Header.Get("Location"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newLogoutScene(t)
			old := s.browser.Cookie("oauth_login")
			s.Clock.Advance(24 * time.Hour) // ID tokens are shown long after they have expired
			p := ask(s)
			if p.Status != http.StatusSeeOther || p.Location() != bye+"?state="+url.QueryEscape(state) {
				t.Fatalf("%d %q %s", p.Status, p.Location(), p.Text())
			}
			if s.browser.Cookie("oauth_login") != "" || s.signedIn() {
				t.Error("still signed in")
			}
			s.browser.SetCookie("oauth_login", old)
			if s.signedIn() {
				t.Error("the old cookie is signed in")
			}
			wantInactive(t, "access token", introspect(s.Scene, issuertest.Confidential, s.tokens.Access))
			wantOAuthError(t, refresh(s.Scene, issuertest.Confidential, s.tokens.Refresh), 400, "invalid_grant")
			// Again: there is nobody to sign out.
			if p := s.logout("id_token_hint", s.idToken, "post_logout_redirect_uri", bye); p.Location() != bye {
				t.Errorf("%d %s", p.Status, p.Location())
			}
		})
	}
}

// OIDC-31: what anybody could send is asked about first. OpenID Connect
// RP-Initiated Logout section 2.
func TestSignOutByALinkIsAskedAbout(t *testing.T) {
	t.Parallel()
	s := newLogoutScene(t)
	addGrace(t, s.Scene)
	query, verifier := s.Authorization(issuertest.Confidential, issuertest.Set("scope", "openid"))
	code := s.Browser(t).Get("/oauth/authorize?"+query.Encode()).Press("Sign in", "email", grace, "password", issuertest.Password).Follow().Allow().Code()
	answer := s.PostForm("/oauth/token", codeForm(issuertest.Confidential, issuertest.ConfidentialRedirect, code, verifier))
	theirs, _ := answer.JSON["id_token"].(string)
	for name, pairs := range map[string][]string{
		"nothing":               nil,
		"a client":              {"client_id", issuertest.Confidential, "post_logout_redirect_uri", bye},
		"a hint about another":  {"id_token_hint", theirs, "post_logout_redirect_uri", bye},
		"a hint that is broken": {"id_token_hint", s.idToken[:len(s.idToken)-6] + "AAAAAA", "client_id", issuertest.Confidential},
		"an access token":       {"id_token_hint", s.tokens.Access},
	} {
		t.Run(name, func(t *testing.T) {
			p := s.logout(pairs...)
			p.WantPage(200, "Sign out?")
			if strings.Contains(p.Text(), "Career Copilot asks") != (len(pairs) > 2) || !strings.Contains(p.Text(), issuertest.Email) {
				t.Error(p.Text())
			}
			if !s.signedIn() {
				t.Fatal("signed out without an answer")
			}
			p.Press("Stay signed in").WantPage(200, "You are still signed in")
			if !s.signedIn() {
				t.Fatal("signed out by staying")
			}
		})
	}
	p := s.logout("client_id", issuertest.Confidential, "post_logout_redirect_uri", bye)
	action, form := p.Form("Sign out")
	for name, token := range map[string]string{"no token": "", "another": "x"} {
		changed, _ := url.ParseQuery(form.Encode())
		changed.Set("csrf", token)
		if got := s.browser.Post(action, changed); got.Status != 403 || !s.signedIn() {
			t.Errorf("%s: %d %s", name, got.Status, got.Text())
		}
	}
	s.browser.Header.Set("Sec-Fetch-Site", "cross-site")
	p.Press("Sign out").WantPage(403, "This did not come from our page")
	s.browser.Header.Del("Sec-Fetch-Site")
	if !s.signedIn() {
		t.Fatal("another site's form signed out")
	}
	if got := p.Press("Sign out"); got.Location() != bye || s.signedIn() {
		t.Errorf("%d %s", got.Status, got.Location())
	}
	// The user said so, the client proved nothing: its session goes on; and so does
	// another user's, by whose token the question was asked.
	s.signIn()
	s.logout("id_token_hint", theirs).Press("Sign out").WantPage(200, "You are signed out")
	for _, token := range []string{s.tokens.Access, answer.Tokens().Access} {
		if r := introspect(s.Scene, issuertest.Confidential, token); r.JSON["active"] != true {
			t.Errorf("%s", r.Body)
		}
	}
}

// OIDC-32, A-30: the way back is one that the client registered for it, byte for
// byte, or there is none and nobody is signed out.
func TestSignOutLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	s := newLogoutScene(t)
	for _, uri := range []string{
		"https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "https://copilot.example/bye/", bye + "?x=1", bye + "#x",
		"https://copilot.example@evil.example/bye", "HTTPS://copilot.example/bye", issuertest.ConfidentialRedirect, "https%3A%2F%2Fevil.example", "http://localhost/bye", "http://127.0.0.1:80a/bye",
	} {
		for _, hint := range []string{s.idToken, ""} {
			p := s.logout("id_token_hint", hint, "client_id", issuertest.Confidential, "post_logout_redirect_uri", uri)
			if p.Status != 400 || p.Location() != "" || strings.Contains(p.Body, "evil") {
				t.Errorf("%q: %d %s %s", uri, p.Status, p.Location(), p.Text())
			}
		}
	}
	if !s.signedIn() {
		t.Error("signed out by a request that was refused")
	}
	// Without a client that is known there is no way back.
	p := s.logout("post_logout_redirect_uri", bye)
	p.WantPage(200, "Sign out?")
	p.Press("Sign out").WantPage(200, "You are signed out")
	s.signIn()
	s.logout("id_token_hint", s.idToken, "client_id", issuertest.GPT, "post_logout_redirect_uri", bye).WantPage(400, "This link does not work")
	s.logout("client_id", "nobody", "post_logout_redirect_uri", bye).WantPage(400, "This link does not work")
	if got := s.browser.Get("/oauth/end_session?client_id=a&client_id=b"); got.Status != 400 {
		t.Errorf("twice: %d", got.Status)
	}
	if p := s.logout("id_token_hint", s.idToken, "post_logout_redirect_uri", "http://127.0.0.1:4711/bye"); p.Location() != "http://127.0.0.1:4711/bye" {
		t.Errorf("an app on this computer: %d %s", p.Status, p.Text())
	}
}

// OIDC-33: a client that nobody vouches for cannot make our address lead to its
// own, unless its user has just signed out. RFC 9700 section 4.11.2.
func TestSignOutIsNoRedirectorForUnknownClients(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t, issuertest.SelfRegistration(nil))
	r := scene.SendJSON("POST", "/oauth/register", map[string]any{"redirect_uris": []string{"https://rp.example/cb"}, "post_logout_redirect_uris": []string{"https://rp.example/bye"},
		"token_endpoint_auth_method": "none", "client_name": "Stranger"})
	id, _ := r.JSON["client_id"].(string)
	query := url.Values{"client_id": {id}, "post_logout_redirect_uri": {"https://rp.example/bye"}, "state": {"s"}}
	p := scene.Browser(t).Get("/oauth/end_session?" + query.Encode())
	p.WantPage(200, "You are signed out")
	if !strings.Contains(p.Body, `href="https://rp.example/bye?state=s"`) || !strings.Contains(p.Text(), "Go back to rp.example") {
		t.Error(p.Body)
	}
	b := scene.Browser(t)
	b.Authorize(issuertest.Confidential).SignIn()
	asked := b.Get("/oauth/end_session?" + query.Encode())
	if got := asked.Press("Sign out"); got.Location() != "https://rp.example/bye?state=s" {
		t.Errorf("%d %s", got.Status, got.Location())
	}
}

// OIDC-34: while the store cannot say, nothing is claimed.
func TestSignOutSaysWhenTheStoreIsDown(t *testing.T) {
	t.Parallel()
	s := newLogoutScene(t)
	s.SQL(t, `ALTER TABLE gpt_logins RENAME TO gpt_logins_away`)
	p := s.logout("id_token_hint", s.idToken, "post_logout_redirect_uri", bye)
	if p.Status != 503 || p.Header.Get("Retry-After") == "" || p.Location() != "" {
		t.Errorf("%d %s", p.Status, p.Text())
	}
	s.SQL(t, `ALTER TABLE gpt_logins_away RENAME TO gpt_logins`)
	if p := s.logout("id_token_hint", s.idToken, "post_logout_redirect_uri", bye); p.Location() != bye {
		t.Errorf("%d %s", p.Status, p.Text())
	}
}
