package login_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// Login CSRF: an attacker sends the victim's browser the answer of their own
// sign-in.
func TestStateHoldsOnlyInTheBrowserItWasGivenTo(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	callback := toProvider(t, scene.Browser(t))
	victim := scene.Browser(t)
	if page := victim.Get(callback); page.Status != http.StatusBadRequest || victim.Cookie("oauth_login") != "" {
		t.Errorf("a browser without our cookie: %d", page.Status)
	}
	victim.Authorize("cli") // has a cookie of its own
	if page := victim.Get(callback); page.Status != http.StatusForbidden || victim.Cookie("oauth_login") != "" {
		t.Errorf("another browser: %d", page.Status)
	}
}

func TestStateIsRefusedWhenBrokenOrOld(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	b := scene.Browser(t)
	callback := toProvider(t, b)
	u, _ := url.Parse(callback)
	for name, change := range map[string]func(url.Values){
		"changed":  func(q url.Values) { q.Set("state", "A"+q.Get("state")) },
		"missing":  func(q url.Values) { q.Del("state") },
		"twice":    func(q url.Values) { q.Add("state", q.Get("state")) },
		"two iss":  func(q url.Values) { q.Add("iss", "https://evil.example") },
		"two code": func(q url.Values) { q.Add("code", "another") },
	} {
		q := u.Query()
		change(q)
		if page := b.Get("/oauth/login/theirs?" + q.Encode()); page.Status != http.StatusBadRequest || b.Cookie("oauth_login") != "" {
			t.Errorf("%s: %d", name, page.Status)
		}
	}
	scene.Clock.Advance(11 * time.Minute)
	b.Get(callback).WantPage(http.StatusBadRequest, "This took too long")
}

// A replay makes no second login: with the same code, and with a new one that
// the provider made for the same request (its back button).
func TestStateMakesOneLogin(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	b := scene.Browser(t)
	leaving := b.Authorize("cli").Location()
	callback := b.Get(leaving).Location()
	second := b.Get(leaving).Location() // a fresh code, the same state and nonce
	consent := b.Get(callback).Follow()
	signedIn := b.Cookie("oauth_login")
	for name, again := range map[string]string{"same code": callback, "fresh code": second} {
		if page := b.Get(again).Follow(); !page.Has("Allow") || b.Cookie("oauth_login") != signedIn {
			t.Errorf("%s: whoever is signed in does not go on: %d %s", name, page.Status, page.Text())
		}
	}
	third := b.Get(leaving).Location()
	consent.Press("Not you? Sign out")
	if b.Get(third); b.Cookie("oauth_login") != "" || scene.Count(t, `SELECT count(*) FROM gpt_logins`) != 0 {
		t.Error("signed in again after signing out, by the back button alone")
	}
}

// RFC 9700 section 4.4: an answer of one provider is not taken for another's.
func TestMixedUpProvidersSignNobodyIn(t *testing.T) {
	t.Parallel()
	honest, evil := newProvider(t), newProvider(t)
	scene := issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		cfg.Methods = []issuer.LoginMethod{oidcMethod(t, "honest", "Honest", honest, cfg.Now), oidcMethod(t, "evil", "Evil", evil, cfg.Now)}
	}))
	b := scene.Browser(t)
	answer := func(button string) url.Values {
		page := b.Get(b.Authorize("cli").Press("Continue with " + button).Location())
		return page.Query()
	}
	// 1. The answer of one at the address of the other.
	if page := b.Get("/oauth/login/evil?" + answer("Honest").Encode()); page.Status != http.StatusBadRequest {
		t.Errorf("honest answer at evil's address: %d", page.Status)
	}
	// 2. The honest provider's code in an answer to evil's question.
	mixed := answer("Evil")
	stolen := answer("Honest")
	mixed.Set("code", stolen.Get("code"))
	if page := b.Get("/oauth/login/evil?" + mixed.Encode()).Follow(); page.Has("Allow") {
		t.Error("evil's question was answered with the honest provider's code")
	}
	mixed.Set("iss", honest.URL)
	if page := b.Get("/oauth/login/evil?" + mixed.Encode()).Follow(); page.Has("Allow") {
		t.Error("an answer that names another issuer was taken")
	}
	if b.Cookie("oauth_login") != "" {
		t.Error("signed in")
	}
	// 3. Evil names a user of the honest provider.
	b.Get("/oauth/login/honest?" + answer("Honest").Encode()).Follow().Allow().Code()
	other := scene.Browser(t)
	page := other.Get(other.Get(other.Authorize("cli").Press("Continue with Evil").Location()).Location()).Follow()
	page.WantPage(http.StatusForbidden, "This account cannot sign in here")
	if other.Cookie("oauth_login") != "" {
		t.Error("one provider's user became another's")
	}
}

// a cookie that was planted is not adopted.
func TestPlantedLoginCookieIsNotAdopted(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	attacker := scene.Browser(t)
	signInAt(t, attacker)
	planted := attacker.Cookie("oauth_login")
	victim := scene.Browser(t)
	callback := toProvider(t, victim)
	victim.SetCookie("oauth_login", planted)
	victim.Get(callback)
	if got := victim.Cookie("oauth_login"); got == "" || got == planted {
		t.Errorf("cookie after signing in: %q, planted %q", got, planted)
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_logins`); n != 1 {
		t.Errorf("%d logins, want the victim's alone", n)
	}
}
