package login_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
)

// logoutScene is newScene for a method that does on sign-out what change says.
func logoutScene(t *testing.T, p *provider, change func(*issuer.LoginMethod)) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		cfg.Password = false
		cfg.Methods = []issuer.LoginMethod{oidcMethod(t, "theirs", "Their ID", p, cfg.Now, func(c *login.OIDCConfig) { c.LogoutHint = true })}
		change(&cfg.Methods[0])
	}))
}

func logsOutOnly(*issuer.LoginMethod)     {}
func endsSessions(m *issuer.LoginMethod)  { m.SignOutEndsSessions = true }
func signsOutThere(m *issuer.LoginMethod) { m.SignOutThere = true }

// logoutToken is one as the standard wants it, about the session and the user of
// the provider's last ID token.
func (p *provider) logoutToken(change func(claims map[string]any)) string {
	claims := map[string]any{
		"iss": p.URL, "aud": clientID, "iat": time.Now().Unix(), "exp": time.Now().Add(2 * time.Minute).Unix(), "jti": rand.Text(),
		"sub": "ada-1", "sid": "their-session", "events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	if change != nil {
		change(claims)
	}
	return signAs(p.t, "logout+jwt", jose.ES256, p.key, p.keys[0].KeyID, claims)
}

func postLogout(scene *issuertest.Scene, token string) issuertest.Response {
	return scene.PostForm("/oauth/login/theirs/logout", url.Values{"logout_token": {token}})
}

// allowed signs a browser in at the provider, in its session of that name, and
// returns the tokens of the client.
func allowed(t *testing.T, scene *issuertest.Scene, p *provider, b *issuertest.Browser, sid string) issuertest.Tokens {
	t.Helper()
	p.set(func(p *provider) { p.lie = func(claims map[string]any) { claims["sid"] = sid } })
	query, verifier := scene.Authorization(issuertest.Public)
	page := b.Get("/oauth/authorize?" + query.Encode())
	code := b.Get(b.Get(page.Location()).Location()).Follow().Allow().Code()
	return scene.Redeem(t, issuertest.Public, code, url.Values{"code_verifier": {verifier}})
}

func signedIn(scene *issuertest.Scene, b *issuertest.Browser) bool {
	return b.Authorize(issuertest.Public, issuertest.Set("prompt", "none")).Query().Get("error") != "login_required"
}

func refreshes(scene *issuertest.Scene, tokens issuertest.Tokens) bool {
	r := scene.PostForm("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens.Refresh}, "client_id": {issuertest.Public}})
	return r.Status == http.StatusOK
}

// LGO-01, LGO-02: a logout token ends the logins of the session that it names, or
// all of its user's; sessions end only where the owner asks for it.
func TestLogoutAtTheProviderEndsLogins(t *testing.T) {
	t.Parallel()
	drop := func(name string) func(map[string]any) {
		return func(claims map[string]any) { delete(claims, name) }
	}
	for name, c := range map[string]struct {
		method                 func(*issuer.LoginMethod)
		claims                 func(map[string]any)
		ends, endsOther, ended bool // the login of the session, of another one, and the sessions
	}{
		"session and user":                  {logsOutOnly, nil, true, false, false},
		"session alone":                     {logsOutOnly, drop("sub"), true, false, false},
		"user alone":                        {logsOutOnly, drop("sid"), true, true, false},
		"session of another user":           {logsOutOnly, func(c map[string]any) { c["sub"] = "eve-1" }, false, false, false},
		"without exp, as some send it":      {logsOutOnly, drop("exp"), true, false, false},
		"session and user, ending sessions": {endsSessions, nil, true, false, true},
		"user alone, ending sessions":       {endsSessions, drop("sid"), true, true, true},
		"nobody, ending sessions":           {endsSessions, func(c map[string]any) { c["sub"], c["sid"] = "eve-1", "hers" }, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			scene := logoutScene(t, p, c.method)
			b, other := scene.Browser(t), scene.Browser(t)
			tokens := allowed(t, scene, p, b, "their-session")
			allowed(t, scene, p, other, "another-session")

			answer := postLogout(scene, p.logoutToken(c.claims))
			if answer.Status != http.StatusOK || answer.Body != "" || answer.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %q %v", answer.Status, answer.Body, answer.Header)
			}
			if signedIn(scene, b) == c.ends || signedIn(scene, other) == c.endsOther || refreshes(scene, tokens) == c.ended {
				t.Errorf("signed in %t, in the other session %t, refreshes %t", signedIn(scene, b), signedIn(scene, other), refreshes(scene, tokens))
			}
			want := 0
			if c.ends {
				want = 1
			}
			if n := scene.Count(t, `SELECT count(*) FROM gpt_oauth_events WHERE event_type = 'gpt.oauth.provider_logout' AND user_id = 'ada-1' AND ((metadata->>'sessions')::int > 0) = $1`, c.ended); n != want {
				t.Errorf("%d events", n)
			}
		})
	}
}

// LGO-03: what a logout token must be. OpenID Connect Back-Channel Logout section
// 2.6. None of these ends anything, and each is told apart from an outage.
func TestLogoutTokensThatDoNotHoldEndNothing(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := logoutScene(t, p, endsSessions)
	b := scene.Browser(t)
	tokens := allowed(t, scene, p, b, "their-session")
	claim := func(name string, value any) string {
		return p.logoutToken(func(claims map[string]any) {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		})
	}
	signed := func(kind string, algorithm jose.SignatureAlgorithm, key any) string {
		var claims map[string]any
		p.logoutToken(func(c map[string]any) { claims = c })
		return signAs(t, kind, algorithm, key, p.keys[0].KeyID, claims)
	}
	public, _ := x509.MarshalPKIXPublicKey(&p.key.PublicKey)
	event := func(value any) map[string]any {
		return map[string]any{"http://schemas.openid.net/event/backchannel-logout": value}
	}
	for name, token := range map[string]string{
		"the ID token":             p.idToken,
		"with a nonce":             claim("nonce", "n"),
		"without events":           claim("events", nil),
		"of another event":         claim("events", map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}),
		"with an event of no JSON": claim("events", event("yes")),
		"of another issuer":        claim("iss", "https://evil.example"),
		"for another":              claim("aud", "another"),
		"without jti":              claim("jti", nil),
		"expired":                  claim("exp", time.Now().Add(-5*time.Minute).Unix()),
		"without iat":              claim("iat", nil),
		"old":                      claim("iat", time.Now().Add(-10*time.Minute).Unix()),
		"of the future":            claim("iat", time.Now().Add(10*time.Minute).Unix()),
		"about a sub no row holds": claim("sub", "a\x00"),
		"about a sid no row holds": claim("sid", "a\x00"),
		"about nobody":             p.logoutToken(func(c map[string]any) { delete(c, "sub"); delete(c, "sid") }),
		"of another type":          signed("at+jwt", jose.ES256, p.key),
		"signed by a stranger":     signed("logout+jwt", jose.ES256, newProvider(t).key),
		"signed with the secret":   signed("logout+jwt", jose.HS256, []byte(clientSecret+clientSecret)),
		"signed with a public key": signed("logout+jwt", jose.HS256, public),
		"unsigned":                 unsigned(map[string]any{"iss": p.URL, "aud": clientID, "iat": time.Now().Unix(), "jti": "1", "sub": "ada-1", "events": event(map[string]any{})}),
		"no token":                 "x",
		"empty":                    "",
	} {
		if r := postLogout(scene, token); r.Status != http.StatusBadRequest || r.Error() != "invalid_request" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	token := p.logoutToken(nil)
	for name, r := range map[string]issuertest.Response{
		"two tokens":      scene.PostForm("/oauth/login/theirs/logout", url.Values{"logout_token": {token, token}}),
		"in the query":    scene.PostForm("/oauth/login/theirs/logout?logout_token="+token, nil),
		"JSON":            scene.SendJSON(http.MethodPost, "/oauth/login/theirs/logout", map[string]any{"logout_token": token}),
		"a large body":    scene.PostForm("/oauth/login/theirs/logout", url.Values{"logout_token": {token}, "filler": {strings.Repeat("f", 1<<20)}}),
		"another method":  scene.PostForm("/oauth/login/others/logout", url.Values{"logout_token": {token}}),
		"the wrong verb":  scene.Get("/oauth/login/theirs/logout"),
		"another's route": scene.PostForm("/oauth/login/theirs/logout/", url.Values{"logout_token": {token}}),
	} {
		if r.Status < 400 || r.Status >= 500 {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	if !signedIn(scene, b) || !refreshes(scene, tokens) {
		t.Error("something has ended")
	}
}

// LGO-04: a logout token counts once, whichever node it comes to; one that a node
// could not check may come again.
func TestLogoutTokenIsUsedOnce(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	var config issuer.Config
	scene := issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		cfg.Password = false
		cfg.Methods = []issuer.LoginMethod{oidcMethod(t, "theirs", "Their ID", p, cfg.Now)}
		config = *cfg
	}))
	config.Methods = []issuer.LoginMethod{oidcMethod(t, "theirs", "Their ID", p, config.Now)}
	other, err := issuer.New(config)
	if err != nil {
		t.Fatal(err)
	}
	atOther := func(token string) int {
		r := httptest.NewRequest(http.MethodPost, scene.URL+"/oauth/login/theirs/logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		other.ServeHTTP(w, r)
		return w.Code
	}
	b := scene.Browser(t)
	allowed(t, scene, p, b, "their-session")
	token := p.logoutToken(func(claims map[string]any) { delete(claims, "sid") })
	p.set(func(p *provider) { p.down = true })
	if status := atOther(token); status != http.StatusServiceUnavailable {
		t.Errorf("a token that cannot be checked: %d", status)
	}
	p.set(func(p *provider) { p.down = false })
	if r := postLogout(scene, token); r.Status != http.StatusOK || signedIn(scene, b) {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	allowed(t, scene, p, b, "their-session-2")
	scene.Clock.Advance(11 * time.Second) // the other node asks the provider again
	if here, there := postLogout(scene, token).Status, atOther(token); here != http.StatusBadRequest || there != http.StatusBadRequest || !signedIn(scene, b) {
		t.Errorf("again: %d and %d, signed in %t", here, there, signedIn(scene, b))
	}
}

// LGO-05: a session of the provider that ended while its user was on the way back
// makes no login here.
func TestSignInUnderWayDoesNotOutliveTheLogout(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := logoutScene(t, p, logsOutOnly)
	b := scene.Browser(t)
	callback := toProvider(t, b)
	if r := postLogout(scene, p.logoutToken(func(claims map[string]any) { delete(claims, "sub") })); r.Status != http.StatusOK {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	if b.Get(callback); b.Cookie("oauth_login") != "" || scene.Count(t, `SELECT count(*) FROM gpt_logins`) != 0 {
		t.Error("signed in by a session that has ended")
	}
	allowed(t, scene, p, scene.Browser(t), "the next one")
}

// LGO-06: who signs out here signs out at the provider, if the owner asks for it,
// and comes back to where they were; the ID token is shown, and kept sealed.
func TestSigningOutHereSignsOutThere(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := logoutScene(t, p, signsOutThere)
	b := scene.Browser(t)
	page := signInAt(t, b)
	if rows := scene.SQL(t, `SELECT logout_hint FROM gpt_logins`); len(rows) != 1 || bytes.Contains(rows[0][0].([]byte), []byte(strings.Split(p.idToken, ".")[1])) {
		t.Error("the ID token is not kept, or in the clear")
	}
	there := page.Press("Not you? Sign out")
	u, _ := url.Parse(there.Location())
	q := u.Query()
	if !strings.HasPrefix(there.Location(), p.URL+"/logout?") || q.Get("realm") != "main" || q.Get("id_token_hint") != p.idToken || q.Get("client_id") != clientID ||
		q.Get("post_logout_redirect_uri") != scene.URL+"/oauth/login/theirs/signed_out" {
		t.Fatalf("sent to %s", there.Location())
	}
	if b.Cookie("oauth_login") != "" || scene.Count(t, `SELECT count(*) FROM gpt_logins`) != 0 {
		t.Error("signed in here still")
	}
	back := q.Get("post_logout_redirect_uri") + "?" + url.Values{"state": {q.Get("state")}}.Encode()
	if page := b.Get(back).Follow(); !strings.HasPrefix(page.Location(), p.URL+"/authorize?") {
		t.Errorf("back from signing out: %d %s %s", page.Status, page.Location(), page.Text())
	}
	if page := scene.Browser(t).Get(back); page.Status != http.StatusBadRequest {
		t.Errorf("in another browser: %d", page.Status)
	}
	b.Get("/oauth/login/theirs/signed_out").WantPage(http.StatusOK, "You are signed out")
	if page := b.Get("/oauth/login/theirs/signed_out?state=forged"); page.Status != http.StatusBadRequest {
		t.Errorf("with a forged state: %d", page.Status)
	}
	// A provider that is down keeps nobody signed in.
	page = signInAt(t, b)
	scene.Clock.Advance(2 * time.Hour)
	p.set(func(p *provider) { p.down = true })
	page.Press("Not you? Sign out")
	if b.Cookie("oauth_login") != "" || scene.Count(t, `SELECT count(*) FROM gpt_logins`) != 0 {
		t.Error("signed in while the provider is down")
	}
}

// LGO-07: a client's logout goes on to the provider and comes back to the client;
// sessions end where the owner asks for it.
func TestClientSignsOutThereAsWell(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		cfg.Password, cfg.OpenID = false, true
		cfg.Methods = []issuer.LoginMethod{oidcMethod(t, "theirs", "Their ID", p, cfg.Now, func(c *login.OIDCConfig) { c.LogoutHint = true })}
		cfg.Methods[0].SignOutThere, cfg.Methods[0].SignOutEndsSessions = true, true
	}))
	scene.Clients.Change(t, issuertest.Public, func(c *issuer.Client) { c.PostLogoutRedirectURIs = []string{"https://client.example/bye"} })
	b := scene.Browser(t)
	tokens := allowed(t, scene, p, b, "their-session")
	page := b.Get("/oauth/end_session?" + url.Values{"client_id": {issuertest.Public}, "post_logout_redirect_uri": {"https://client.example/bye"}, "state": {"s"}}.Encode())
	there := page.Press("Sign out")
	u, _ := url.Parse(there.Location())
	if !strings.HasPrefix(there.Location(), p.URL+"/logout?") || u.Query().Get("id_token_hint") != p.idToken {
		t.Fatalf("%d %s %s", there.Status, there.Location(), there.Text())
	}
	if signedIn(scene, b) || refreshes(scene, tokens) {
		t.Error("the login or the session goes on")
	}
	back := b.Get("/oauth/login/theirs/signed_out?" + url.Values{"state": {u.Query().Get("state")}}.Encode())
	if back.Location() != "https://client.example/bye?state=s" {
		t.Errorf("sent back to %q: %s", back.Location(), back.Text())
	}
}
