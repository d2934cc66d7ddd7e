package login_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

func TestProviderSignsUserInAndFirstSightMakesOne(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	for range 2 {
		page := signInAt(t, scene.Browser(t))
		if !strings.Contains(page.Text(), "ada@provider.example") {
			t.Errorf("the consent page does not say who is signed in: %s", page.Text())
		}
		page.Allow().Code()
	}
	rows := scene.SQL(t, `SELECT u.id, u.name, u.email, u.claims::text, i.authority, i.subject FROM gpt_users u JOIN gpt_identities i ON i.user_id = u.id`)
	if len(rows) != 1 || rows[0][0] != "ada-1" || rows[0][2] != nil || rows[0][3] != `{"roles": ["recruiter"]}` || rows[0][4] != p.URL {
		t.Errorf("users: %v", rows)
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_oauth_events WHERE event_type = 'gpt.oauth.user_created' AND user_id = 'ada-1'`); n != 1 {
		t.Errorf("%d events tell of a new user, want 1", n)
	}
	for _, name := range []string{"nonce", "state", "code_challenge"} {
		if p.asked.Get(name) == "" {
			t.Errorf("the request had no %s", name)
		}
	}
}

// What an ID token must be: OpenID Connect Core section 3.1.3.7, RFC 8725. None
// of these makes a login.
func TestProviderAnswersThatDoNotHoldSignNobodyIn(t *testing.T) {
	t.Parallel()
	claim := func(name string, value any) func(*provider) {
		return func(p *provider) { p.lie = func(claims map[string]any) { claims[name] = value } }
	}
	parameter := func(name, value string) func(*provider) {
		return func(p *provider) { p.answer = func(answer url.Values) { answer.Set(name, value) } }
	}
	for name, change := range map[string]func(*provider){
		"nonce of another":        claim("nonce", "another"),
		"no nonce":                func(p *provider) { p.lie = func(claims map[string]any) { delete(claims, "nonce") } },
		"another audience":        claim("aud", "another"),
		"several audiences":       claim("aud", []string{clientID, "another"}),
		"issued to another":       claim("azp", "another"),
		"another issuer":          claim("iss", "https://evil.example"),
		"expired":                 claim("exp", time.Now().Add(-time.Hour).Unix()),
		"of the future":           claim("iat", time.Now().Add(time.Hour).Unix()),
		"no subject":              claim("sub", ""),
		"control character":       claim("sub", "ada\n1"),
		"iss parameter of other":  parameter("iss", "https://evil.example"),
		"iss parameter missing":   func(p *provider) { p.answer = func(answer url.Values) { answer.Del("iss") } },
		"code of nobody":          parameter("code", "stolen"),
		"claims too large":        claim("roles", []string{strings.Repeat("r", 9<<10)}),
		"claim is an object":      claim("roles", map[string]any{"a": 1}),
		"unsigned":                func(p *provider) { p.sign = unsigned },
		"signed with the secret":  func(p *provider) { p.sign = signedWithSecret(t) },
		"signed with public key":  func(p *provider) { p.sign = signedWithPublicKey(t, p) },
		"signed by a stranger":    func(p *provider) { p.sign = newProvider(t).signed },
		"signed by withdrawn key": signedByWithdrawnKey(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			p.set(change)
			scene := newScene(t, p)
			b := scene.Browser(t)
			page := signInAt(t, b)
			if b.Cookie("oauth_login") != "" || page.Has("Allow") || scene.Count(t, `SELECT count(*) FROM gpt_logins`) != 0 {
				t.Fatalf("signed in: %d %s", page.Status, page.Text())
			}
			if page.Location() != "" {
				t.Errorf("sent to %s", page.Location())
			}
		})
	}
}

func unsigned(claims map[string]any) string {
	payload, _ := json.Marshal(claims)
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." + encode(payload) + "."
}

func signedWithSecret(t *testing.T) func(map[string]any) string {
	return func(claims map[string]any) string {
		return signWith(t, jose.HS256, []byte(clientSecret+clientSecret), "", claims)
	}
}

func signedWithPublicKey(t *testing.T, p *provider) func(map[string]any) string {
	return func(claims map[string]any) string {
		public, _ := x509.MarshalPKIXPublicKey(&p.key.PublicKey)
		return signWith(t, jose.HS256, public, p.keys[0].KeyID, claims)
	}
}

func TestUserWhoDeniesAtTheProviderMayTryAgain(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	p.set(func(p *provider) { p.deny = true })
	page := signInAt(t, scene.Browser(t))
	page.WantPage(http.StatusOK, "Sign in")
	if !strings.Contains(page.Text(), "You did not sign in with Their ID") {
		t.Errorf("page: %s", page.Text())
	}
	p.set(func(p *provider) { p.deny = false })
	b := page.Press("Continue with Their ID")
	if !strings.HasPrefix(b.Location(), p.URL) {
		t.Errorf("the button leads to %q", b.Location())
	}
}

func TestProviderThatIsDownIsSaidToBeAndAskedAgain(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	p.set(func(p *provider) { p.down = true })
	b := scene.Browser(t)
	page := b.Authorize("cli")
	page.WantPage(http.StatusServiceUnavailable, "Their ID does not answer")
	if page.Header.Get("Retry-After") == "" || strings.Contains(page.Body, p.URL) {
		t.Errorf("Retry-After %q, page %s", page.Header.Get("Retry-After"), page.Text())
	}
	p.set(func(p *provider) { p.down = false })
	scene.Clock.Advance(3 * time.Second)
	// Down again between there and back: no login, and no blame.
	callback := toProvider(t, b)
	p.set(func(p *provider) { p.down = true })
	b.Get(callback).WantPage(http.StatusServiceUnavailable, "Their ID does not answer")
	p.set(func(p *provider) { p.down = false })
	scene.Clock.Advance(11 * time.Second)
	b.Get(callback).Follow().Allow().Code()
}

// prompt=login and max_age reach the provider, and it is held to them.
func TestProviderIsHeldToAskingAgain(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	b := scene.Browser(t)
	signInAt(t, b)

	page := signInAt(t, b, issuertest.Set("prompt", "login"))
	if p.asked.Get("prompt") != "login" || p.asked.Get("max_age") != "0" || !page.Has("Allow") {
		t.Errorf("asked %v, got %s", p.asked, page.Text())
	}
	old := time.Now().Add(-2 * time.Hour)
	p.set(func(p *provider) { p.lie = func(claims map[string]any) { claims["auth_time"] = old.Unix() } })
	if page := signInAt(t, b, issuertest.Set("prompt", "login")); page.Has("Allow") {
		t.Error("a provider that did not ask again was believed")
	}
	if page := signInAt(t, scene.Browser(t), issuertest.Set("max_age", "3600")); page.Has("Allow") {
		t.Error("max_age 3600 was met by a login of two hours ago")
	}
	if page := signInAt(t, scene.Browser(t), issuertest.Set("max_age", "10800")); !page.Has("Allow") || p.asked.Get("max_age") != "10800" {
		t.Errorf("max_age 10800: %s", page.Text())
	}
	if at := scene.SQL(t, `SELECT min(auth_time) FROM gpt_logins`)[0][0].(time.Time); at.Unix() != old.Unix() {
		t.Errorf("auth_time %s, the provider said %s", at, old)
	}
	p.set(func(p *provider) { p.lie = func(claims map[string]any) { delete(claims, "auth_time") } })
	if page := signInAt(t, b, issuertest.Set("prompt", "login")); page.Has("Allow") {
		t.Error("a provider that does not say when it asked was believed")
	}
}

func TestSignOutAsksTheProviderForCredentialsAgain(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	b := scene.Browser(t)
	page := signInAt(t, b).Press("Not you? Sign out").Follow()
	if u, _ := url.Parse(page.Location()); u.Query().Get("prompt") != "login" {
		t.Errorf("sent to %s: the provider would bring the same user back", page.Location())
	}
}

// Keys are read when they are needed and not for every token that names an
// unknown one; a key that was withdrawn stops to hold.
func TestProviderKeysAreKeptAndRotated(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	for range 3 {
		signInAt(t, scene.Browser(t)).Allow()
	}
	if p.reads != 1 {
		t.Errorf("the keys were read %d times for three sign-ins", p.reads)
	}
	scene.Clock.Advance(11 * time.Second)
	p.set(func(p *provider) { p.rotate() })
	signInAt(t, scene.Browser(t)).Allow().Code()
	if p.reads != 2 {
		t.Errorf("the keys were read %d times after a rotation", p.reads)
	}
	p.set(func(p *provider) { p.sign = newProvider(t).signed })
	for range 5 {
		signInAt(t, scene.Browser(t))
	}
	if p.reads != 2 {
		t.Errorf("tokens with unknown keys made the keys be read %d times", p.reads)
	}
}

func signedByWithdrawnKey(t *testing.T) func(*provider) {
	return func(p *provider) {
		key, kid := p.key, p.keys[0].KeyID
		p.rotate()
		p.sign = func(claims map[string]any) string { return signWith(t, jose.ES256, key, kid, claims) }
	}
}

// OIDC-20: a choice of account, and the languages of the user, go on to the
// provider.
func TestProviderIsToldToLetTheUserChoose(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	b := scene.Browser(t)
	signInAt(t, b, issuertest.Set("prompt", "select_account"), issuertest.Set("ui_locales", "de fr")).Allow().Code()
	if p.asked.Get("prompt") != "select_account" || p.asked.Get("ui_locales") != "de fr" || p.asked.Has("max_age") {
		t.Errorf("%v", p.asked)
	}
	// Signed in already: the page asks here, and only who wants another account
	// goes there.
	page := b.Authorize(issuertest.Public, issuertest.Set("prompt", "select_account"))
	if !page.Has("Continue as ada@provider.example") {
		t.Fatalf("%d %s", page.Status, page.Text())
	}
	there := page.Press("Use another account").Follow()
	if u, err := url.Parse(there.Location()); err != nil || !strings.HasPrefix(there.Location(), p.URL+"/authorize?") || u.Query().Get("prompt") != "select_account" {
		t.Errorf("%d %s", there.Status, there.Location())
	}
	signInAt(t, scene.Browser(t), issuertest.Set("prompt", "login select_account"))
	if p.asked.Get("prompt") != "login select_account" || p.asked.Get("max_age") != "0" {
		t.Errorf("%v", p.asked)
	}
}
