package login_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
)

// APP-01: whoever is signed in at the app is signed in here, by whichever of
// the two ways; the claims are kept.
func TestUserOfTheAppIsSignedInHere(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	jwt, forward := newJWTScene(t, a), newForwardScene(t, a)
	for name, c := range map[string]struct {
		scene         *issuertest.Scene
		cookie, value string
		user, claims  string
	}{
		"token":   {jwt, appCookie, a.keys.signed(a.claims()), "ada-1", `{"roles": ["recruiter"]}`},
		"forward": {forward, "sid", "session-of-ada", "ada", `{"roles": ["recruiter", "admin"]}`},
	} {
		b := c.scene.Browser(t)
		b.SetCookie(c.cookie, c.value)
		page := b.Authorize("cli").Follow()
		if !strings.Contains(page.Text(), "ada@app.example") {
			t.Fatalf("%s: the consent page does not say who is signed in: %d %s %s", name, page.Status, page.Location(), page.Text())
		}
		page.Allow().Code()
		rows := c.scene.SQL(t, `SELECT u.id, u.claims::text, l.method FROM gpt_users u JOIN gpt_logins l ON l.user_id = u.id`)
		if len(rows) != 1 || rows[0][0] != c.user || rows[0][1] != c.claims || rows[0][2] != "app" {
			t.Errorf("%s: %v", name, rows)
		}
	}
}

// TestUserWhomNoRowCanHoldIsRefused: NUL in what the app says of a user is no fault of
// the database. ADM-11.
func TestUserWhomNoRowCanHoldIsRefused(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	for claim, value := range map[string]any{"sub": "ada\x00", "email": "ada\x00@app.example", "roles": []string{"recruiter", "\x00"}, "sid": "\x00", "given_name": "\x00"} {
		b := scene.Browser(t)
		b.SetCookie(appCookie, a.keys.signed(a.claims(func(claims map[string]any) { claims[claim] = value })))
		page := b.Authorize("cli")
		if want := claim != "given_name"; (page.Status == http.StatusForbidden) != want || page.Status >= http.StatusInternalServerError {
			t.Errorf("%s: %d %s", claim, page.Status, page.Text())
		}
	}
}

// APP-11, A-26: a login cookie that was planted is not adopted.
func TestAppSignsInWithANewCookie(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newForwardScene(t, a)
	attacker, victim := scene.Browser(t), scene.Browser(t)
	attacker.SetCookie("sid", "session-of-eve")
	attacker.Authorize("cli").Follow()
	planted := attacker.Cookie("oauth_login")
	victim.SetCookie("oauth_login", planted)
	victim.SetCookie("sid", "session-of-ada")
	page := victim.Authorize("cli").Follow()
	if got := victim.Cookie("oauth_login"); got == "" || got == planted || !strings.Contains(page.Text(), "ada@app.example") {
		t.Errorf("cookie %q, planted %q: %s", got, planted, page.Text())
	}
}

// APP-12: who has signed out at the app, or signed in there as somebody else, is
// not signed in here as before: the next person at the browser would act for
// them.
func TestLoginFollowsTheApp(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newForwardScene(t, a)
	b := scene.Browser(t)
	b.SetCookie("sid", "session-of-ada")
	b.Authorize("cli").Follow().Allow().Code()

	b.SetCookie("sid", "session-of-eve")
	if page := b.Authorize("cli").Follow(); !strings.Contains(page.Text(), "eve@app.example") {
		t.Errorf("another user of the app: %s", page.Text())
	}
	b.SetCookie("sid", "session-of-ada")
	if page := b.Get("/oauth/apps").Follow().Follow(); !strings.Contains(page.Text(), "ada@app.example") {
		t.Errorf("connected apps: %d %s %s", page.Status, page.Location(), page.Text())
	}
	b.SetCookie("sid", "over")
	if page := b.Authorize("cli"); !strings.HasPrefix(page.Location(), a.URL+"/sign-in?") {
		t.Errorf("signed out at the app: %d %s", page.Status, page.Text())
	}
	b.Authorize("cli", issuertest.Set("prompt", "none")).WantError("login_required")
	if page := b.Get("/oauth/apps"); !strings.HasPrefix(page.Location(), a.URL+"/sign-in?") {
		t.Errorf("connected apps, signed out at the app: %d %s", page.Status, page.Text())
	}
	a.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	b.Authorize("cli").WantPage(http.StatusServiceUnavailable, "Job Board does not answer")
}

// APP-13, A-17: an app cannot be told to ask again. A sign-in counts as new if
// the app says when it was, or had nobody signed in when our page sent the browser
// there.
func TestAppMustShowThatTheUserSignedInAnew(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	again := "You are still signed in at Job Board as before"
	for name, param := range map[string]issuertest.Param{"prompt": issuertest.Set("prompt", "login"), "max_age": issuertest.Set("max_age", "60")} {
		b := scene.Browser(t)
		b.SetCookie(appCookie, a.keys.signed(a.claims()))
		page := b.Authorize("cli", param)
		if page.Location() != "" || !strings.Contains(page.Text(), again) || b.Cookie("oauth_login") != "" {
			t.Fatalf("%s: %d %s", name, page.Status, page.Text())
		}
		// The button, still signed in there.
		if page = page.Press("Continue with Job Board"); !strings.Contains(page.Text(), again) {
			t.Fatalf("%s: %d %s %s", name, page.Status, page.Location(), page.Text())
		}
		b.SetCookie(appCookie, "")
		back := comeBack(t, page.Press("Continue with Job Board"), "redirect_url")
		b.SetCookie(appCookie, a.keys.signed(a.claims()))
		b.Get(back).Follow().Allow().Code()
	}
	// Not known to be signed out before: a browser keeps Strict cookies for itself.
	b := scene.Browser(t)
	page := b.Authorize("cli", issuertest.Set("prompt", "login"))
	if page.Location() != "" || !page.Has("Continue with Job Board") {
		t.Errorf("%d %s", page.Status, page.Location())
	}
	// An app that says when.
	b = scene.Browser(t)
	b.SetCookie(appCookie, a.keys.signed(a.claims(func(c map[string]any) { c["auth_time"] = scene.Clock.Now().Add(-30 * time.Second).Unix() })))
	b.Authorize("cli", issuertest.Set("max_age", "60")).Follow().Allow().Code()
	if page := b.Authorize("cli", issuertest.Set("max_age", "10")); page.Location() != "" || !strings.Contains(page.Text(), again) {
		t.Errorf("older than max_age: %d %s %s", page.Status, page.Location(), page.Text())
	}
}

// APP-14: out here, in there: the page says where to sign out too, and another
// account can be had.
func TestSigningOutHereSaysThatTheAppStillHasTheUser(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newForwardScene(t, a)
	b := scene.Browser(t)
	b.SetCookie("sid", "session-of-ada")
	page := b.Authorize("cli").Follow().Press("Not you? Sign out").Follow()
	if page.Location() != "" || !strings.Contains(page.Text(), "sign out at Job Board first") {
		t.Fatalf("%d %s %s", page.Status, page.Location(), page.Text())
	}
	b.SetCookie("sid", "")
	back := comeBack(t, page.Press("Continue with Job Board"), "next")
	b.SetCookie("sid", "session-of-eve")
	if page := b.Get(back).Follow(); !strings.Contains(page.Text(), "eve@app.example") {
		t.Errorf("%d %s", page.Status, page.Text())
	}
	choice := b.Authorize("cli", issuertest.Set("prompt", "select_account"))
	if !choice.Has("Continue as eve@app.example") {
		t.Errorf("select_account: %d %s %s", choice.Status, choice.Location(), choice.Text())
	}
	fresh := scene.Browser(t)
	fresh.SetCookie("sid", "session-of-ada")
	if page := fresh.Authorize("cli", issuertest.Set("prompt", "select_account")).Follow(); !page.Has("Continue as ada@app.example") {
		t.Errorf("the app's account was chosen without asking: %d %s", page.Status, page.Text())
	}
}

func TestConfigurationOfTheAppIsChecked(t *testing.T) {
	t.Parallel()
	jwt := func(change func(*login.JWTConfig)) error {
		c := login.JWTConfig{Cookie: "c", Issuer: "i", JWKS: "https://app.example/keys", Return: login.Return{SignIn: "https://app.example/in"}}
		change(&c)
		_, err := login.NewJWT(c)
		return err
	}
	forward := func(change func(*login.ForwardConfig)) error {
		c := login.ForwardConfig{URL: "https://app.example/me", User: "X-User", Return: login.Return{SignIn: "https://app.example/in"}}
		change(&c)
		_, err := login.NewForward(c)
		return err
	}
	for want, err := range map[string]error{
		"":                     jwt(func(*login.JWTConfig) {}),
		" ":                    forward(func(c *login.ForwardConfig) { c.URL, c.PlainHTTP = "http://app:9000/me", true }),
		"one of them":          jwt(func(c *login.JWTConfig) { c.Header = "X-Token" }),
		"is not a header name": jwt(func(c *login.JWTConfig) { c.Cookie, c.Header = "", "X Token" }),
		"is not the name of":   jwt(func(c *login.JWTConfig) { c.Cookie = "__Host-oauth_login" }),
		"issuer is missing":    jwt(func(c *login.JWTConfig) { c.Issuer = "" }),
		"jwks <url> or secret": jwt(func(c *login.JWTConfig) { c.Secret = strings.Repeat("s", 32) }),
		"less than 64 bytes": jwt(func(c *login.JWTConfig) {
			c.JWKS, c.Secret, c.Algorithms = "", strings.Repeat("s", 48), []string{"HS512"}
		}),
		"less than 32 bytes":   jwt(func(c *login.JWTConfig) { c.JWKS, c.Secret = "", "short" }),
		"plain http":           jwt(func(c *login.JWTConfig) { c.JWKS = "http://app.example/keys" }),
		`"HS256" does not fit`: jwt(func(c *login.JWTConfig) { c.Algorithms = []string{"HS256"} }),
		`"none" does not fit`:  jwt(func(c *login.JWTConfig) { c.Algorithms = []string{"none"} }),
		`"RS256" does not fit`: jwt(func(c *login.JWTConfig) {
			c.JWKS, c.Secret, c.Algorithms = "", strings.Repeat("s", 32), []string{"RS256"}
		}),
		"sign_in is missing":     jwt(func(c *login.JWTConfig) { c.SignIn = "" }),
		"has a parameter next":   jwt(func(c *login.JWTConfig) { c.SignIn, c.Parameter = "https://app.example/in?next=/", "next" }),
		"is plain http, which":   forward(func(c *login.ForwardConfig) { c.URL = "http://app:9000/me" }),
		"user_header is missing": forward(func(c *login.ForwardConfig) { c.User = "" }),
		`copy "connection"`:      forward(func(c *login.ForwardConfig) { c.Copy = []string{"connection"} }),
		`copy "Host"`:            forward(func(c *login.ForwardConfig) { c.Copy = []string{"Host"} }),
		"no claim of that name":  forward(func(c *login.ForwardConfig) { c.Require = map[string][]string{"roles": {"x"}} }),
		"claim sub comes from":   forward(func(c *login.ForwardConfig) { c.ClaimHeaders = map[string]login.ClaimHeader{"sub": {Header: "X"}} }),
	} {
		if want = strings.TrimSpace(want); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
