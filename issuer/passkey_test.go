package issuer_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	addPasskey = "Add a passkey"
	usePasskey = "Sign in with a passkey"
)

// account opens the page of what ada signs in with, in a new browser.
func account(t *testing.T, scene *issuertest.Scene) *issuertest.Page {
	t.Helper()
	p := scene.Browser(t).Get("/oauth/account").SignIn().Follow()
	if p.Heading() != "How you sign in" {
		t.Fatalf("%d %s", p.Status, p.Text())
	}
	return p
}

// add registers the passkey under the name, on the page.
func add(t *testing.T, p *issuertest.Page, a *issuertest.Authenticator, name string) *issuertest.Page {
	t.Helper()
	return p.Press(addPasskey, "credential", a.Create(t, p.Data(addPasskey, "options")), "name", name).Follow()
}

// use signs in with the passkey, on the sign-in page.
func use(t *testing.T, p *issuertest.Page, a *issuertest.Authenticator) *issuertest.Page {
	t.Helper()
	return p.Press(usePasskey, "credential", a.Get(t, p.Data(usePasskey, "options")))
}

// LOG-01: two passkeys of one user sign in; one is renamed, removed, and signs in no
// more, and what it had signed in elsewhere has ended.
func TestUserSignsInWithPasskeysAndManagesThem(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	phone, key := scene.Authenticator(t), scene.Authenticator(t)
	key.Uncounted, key.Synced = true, true
	p := add(t, account(t, scene), phone, "My phone")
	if !strings.Contains(p.Text(), "My phone is added.") {
		t.Fatal(p.Text())
	}
	p = add(t, p, key, "Key\u202e ring")
	if !strings.Contains(p.Text(), "Key ring is added.") || !strings.Contains(p.Text(), "Also on your other devices.") {
		t.Fatal(p.Text())
	}
	for range 2 { // the counter of one moves, the other has none
		for _, a := range []*issuertest.Authenticator{phone, key} {
			use(t, scene.Browser(t).Authorize(issuertest.Confidential), a).Follow().Allow().Code()
		}
	}
	elsewhere := use(t, scene.Browser(t).Get("/oauth/account"), phone).Follow().Follow()
	if !strings.Contains(elsewhere.Text(), "Signed in as "+issuertest.Email) {
		t.Fatalf("a passkey did not open the page: %d %s", elsewhere.Status, elsewhere.Text())
	}

	names := p.Values("rename")
	p = p.Press("Save the name My phone", "name", " Old phone ").Follow()
	if !strings.Contains(p.Text(), "now called Old phone.") || !slices.Equal(names, p.Values("rename")) {
		t.Fatal(p.Text())
	}
	p = p.Press("Remove Old phone").Follow()
	if !strings.Contains(p.Text(), "The passkey is removed.") || len(p.Values("rename")) != 1 {
		t.Fatal(p.Text())
	}
	if got := elsewhere.Browser().Get("/oauth/account"); got.Heading() != "Sign in" {
		t.Errorf("the login that the removed passkey made goes on: %d %s", got.Status, got.Heading())
	}
	if got := use(t, scene.Browser(t).Authorize(issuertest.Confidential), phone); got.Status != http.StatusOK || !strings.Contains(got.Text(), "Nobody signs in here with this passkey") {
		t.Errorf("the removed passkey: %d %s", got.Status, got.Text())
	}
	use(t, scene.Browser(t).Authorize(issuertest.Confidential), key).Follow().Allow().Code()
	for event, want := range map[string]int{"passkey_added": 2, "passkey_removed": 1, "login": 7} {
		if n := scene.Count(t, `SELECT count(*) FROM gpt_oauth_events WHERE event_type = $1 AND user_id = $2`, "gpt.oauth."+event, scene.User.ID); n != want {
			t.Errorf("%d events %s, want %d", n, event, want)
		}
	}
}

// LOG-02: an answer counts for what this browser was asked, by this origin, lately
// and once, of a user who was verified.
func TestPasskeyAnswersThatSignNobodyIn(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	eve, err := scene.Store.CreateUser(context.Background(), "eve@example.com", "x", issuer.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	tampered := func(answer string) string { return strings.Replace(answer, `"signature":"`, `"signature":"AA`, 1) }
	for name, attempt := range map[string]struct {
		change func(a *issuertest.Authenticator)
		answer func(string) string
		want   string
	}{
		"another site":          {change: func(a *issuertest.Authenticator) { a.Origin = "https://evil.example" }},
		"a subdomain":           {change: func(a *issuertest.Authenticator) { a.Origin = strings.Replace(a.Origin, "//", "//x.", 1) }},
		"another port":          {change: func(a *issuertest.Authenticator) { a.Origin = "http://localhost:1" }},
		"another relying party": {change: func(a *issuertest.Authenticator) { a.RPID = "evil.example" }},
		"user not verified":     {change: func(a *issuertest.Authenticator) { a.Unverified = true }},
		"user not present":      {change: func(a *issuertest.Authenticator) { a.Absent = true }},
		"in a frame":            {change: func(a *issuertest.Authenticator) { a.CrossOrigin = true }},
		"not a sign-in":         {change: func(a *issuertest.Authenticator) { a.Type = "webauthn.create" }},
		"another user":          {change: func(a *issuertest.Authenticator) { a.Handle = []byte("user-eve") }},
		"no user":               {change: func(a *issuertest.Authenticator) { a.Handle = nil }},
		"became a synced one":   {change: func(a *issuertest.Authenticator) { a.Synced = true }},
		"counter stands still":  {change: func(a *issuertest.Authenticator) { a.Counter-- }, want: "seems to have been copied"},
		"counter is back at 0":  {change: func(a *issuertest.Authenticator) { a.Uncounted, a.Counter = true, 0 }, want: "seems to have been copied"},
		"another signature":     {answer: tampered},
		"nothing":               {answer: func(string) string { return "" }},
		"no JSON":               {answer: func(string) string { return `{"id":` }},
		"unknown passkey":       {change: func(a *issuertest.Authenticator) { a.CredentialID = []byte("unknown") }, want: "Nobody signs in here"},
	} {
		t.Run(name, func(t *testing.T) {
			a := scene.Authenticator(t)
			added := add(t, account(t, scene), a, name)
			use(t, scene.Browser(t).Authorize(issuertest.Confidential), a).Follow().Allow().Code()
			p := scene.Browser(t).Authorize(issuertest.Confidential)
			good := *a
			if attempt.change != nil {
				attempt.change(a)
			}
			answer := a.Get(t, p.Data(usePasskey, "options"))
			if attempt.answer != nil {
				answer = attempt.answer(answer)
			}
			got := p.Press(usePasskey, "credential", answer)
			want := attempt.want
			if want == "" {
				want = "This passkey could not be checked."
			}
			if got.Status != http.StatusOK || got.Browser().Cookie("oauth_login") != "" || !strings.Contains(got.Text(), want) {
				t.Fatalf("%d %s", got.Status, got.Text())
			}
			good.Counter = max(good.Counter, a.Counter) + 1
			use(t, got, &good).Follow().Allow().Code() // the page that says so is good for another attempt
			added.Press("Remove " + name)
		})
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_oauth_events WHERE event_type = 'gpt.oauth.passkey_copied'`); n != 2 {
		t.Errorf("%d events of copied passkeys, want 2", n)
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_logins WHERE user_id = $1`, eve.ID); n != 0 {
		t.Error("somebody else is signed in")
	}
}

// LOG-03: a challenge counts once, in the browser that it was given to, for ten
// minutes, and for what it was given for.
func TestPasskeyChallengeIsOfOneBrowserAndOneUse(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	a := scene.Authenticator(t)
	a.Uncounted = true
	page := account(t, scene)
	offered, offer := page.Form(addPasskey)
	add(t, page, a, "key")
	refused := func(t *testing.T, got *issuertest.Page) {
		t.Helper()
		if got.Status != http.StatusOK || !strings.Contains(got.Text(), "This took too long, or the page was used before.") {
			t.Errorf("%d %s %s", got.Status, got.Location(), got.Text())
		}
	}

	p := scene.Browser(t).Authorize(issuertest.Confidential)
	action, form := p.Form(usePasskey)
	form.Set("credential", a.Get(t, p.Data(usePasskey, "options")))
	if got := p.Browser().Post(action, form); got.Status != http.StatusSeeOther {
		t.Fatalf("%d %s", got.Status, got.Text())
	}
	t.Run("replayed", func(t *testing.T) { refused(t, p.Browser().Post(action, form)) })
	t.Run("another browser", func(t *testing.T) {
		// The victim's own request, with what the attacker's browser was asked.
		victim := scene.Browser(t).Authorize(issuertest.Confidential)
		attacker := scene.Browser(t).Authorize(issuertest.Confidential)
		_, asked := attacker.Form(usePasskey)
		refused(t, victim.Press(usePasskey, "ceremony", asked.Get("ceremony"), "credential", a.Get(t, attacker.Data(usePasskey, "options"))))
	})
	t.Run("challenge of another page", func(t *testing.T) {
		p, other := scene.Browser(t).Authorize(issuertest.Confidential), scene.Browser(t).Authorize(issuertest.Confidential)
		if got := p.Press(usePasskey, "credential", a.Get(t, other.Data(usePasskey, "options"))); !strings.Contains(got.Text(), "could not be checked") {
			t.Errorf("%d %s", got.Status, got.Text())
		}
	})
	t.Run("made for a registration", func(t *testing.T) {
		p := page.Browser().Get("/oauth/account")
		_, asked := p.Form(addPasskey)
		sign := page.Browser().Authorize(issuertest.Confidential, issuertest.Set("prompt", "login"))
		refused(t, sign.Press(usePasskey, "ceremony", asked.Get("ceremony"), "credential", a.Get(t, p.Data(addPasskey, "options"))))
	})
	t.Run("registered again", func(t *testing.T) {
		b := scene.Authenticator(t)
		_, now := page.Browser().Get("/oauth/account").Form(addPasskey)
		got := page.Browser().Post(offered, url.Values{"csrf": now["csrf"], "ceremony": offer["ceremony"], "name": {"b"}, "credential": {b.Create(t, page.Data(addPasskey, "options"))}})
		refused(t, got)
	})
	t.Run("late", func(t *testing.T) {
		p := scene.Browser(t).Authorize(issuertest.Confidential)
		_, old := p.Form(usePasskey)
		answer := a.Get(t, p.Data(usePasskey, "options"))
		scene.Clock.Advance(10*time.Minute + time.Second)
		fresh := p.Browser().Authorize(issuertest.Confidential)
		refused(t, fresh.Press(usePasskey, "ceremony", old.Get("ceremony"), "credential", answer))
	})
}

// LOG-04: what a new passkey must be, and who may add it.
func TestPasskeysThatAreNotAdded(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	for name, change := range map[string]func(a *issuertest.Authenticator){
		"another site":          func(a *issuertest.Authenticator) { a.Origin = "https://evil.example" },
		"another relying party": func(a *issuertest.Authenticator) { a.RPID = "evil.example" },
		"user not verified":     func(a *issuertest.Authenticator) { a.Unverified = true },
		"user not present":      func(a *issuertest.Authenticator) { a.Absent = true },
		"in a frame":            func(a *issuertest.Authenticator) { a.CrossOrigin = true },
	} {
		a := scene.Authenticator(t)
		change(a)
		if got := add(t, account(t, scene), a, name); !strings.Contains(got.Text(), "The new passkey could not be checked.") {
			t.Errorf("%s: %d %s", name, got.Status, got.Text())
		}
	}

	// Somebody else's offer, in their name.
	hash := scene.SQL(t, `SELECT password_hash FROM gpt_users`)[0][0].(string)
	if _, err := scene.Store.CreateUser(context.Background(), "eve@example.com", hash, issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
	ada := account(t, scene)
	a := scene.Authenticator(t)
	_, adas := ada.Form(addPasskey)
	eves := ada.Browser().Authorize(issuertest.Confidential, issuertest.Set("prompt", "login")).
		Press("Sign in", "email", "eve@example.com", "password", issuertest.Password).Browser().Get("/oauth/account")
	_, form := eves.Form(addPasskey)
	answer := a.Create(t, ada.Data(addPasskey, "options"))
	if got := eves.Press(addPasskey, "ceremony", adas.Get("ceremony"), "credential", answer); !strings.Contains(got.Text(), "could not be checked") {
		t.Errorf("eve takes what ada was offered: %d %s", got.Status, got.Text())
	}
	if got := eves.Press(addPasskey, "csrf", adas.Get("csrf"), "credential", a.Create(t, eves.Data(addPasskey, "options"))); got.Status != http.StatusForbidden {
		t.Errorf("a form of another login: %d", got.Status)
	}
	if form.Get("csrf") == adas.Get("csrf") {
		t.Error("two logins have one form token")
	}
	if got := add(t, eves, a, "eve's"); !strings.Contains(got.Text(), "is added") {
		t.Fatalf("%d %s", got.Status, got.Text())
	}
	if got := add(t, account(t, scene), a, "ada's"); !strings.Contains(got.Text(), "This device has a passkey of yours already") {
		t.Errorf("a credential that is somebody's already: %d %s", got.Status, got.Text())
	}

	// Signed in too long ago: whoever finds the browser open must show who they are.
	stale := account(t, scene)
	scene.SQL(t, `UPDATE gpt_logins SET auth_time = auth_time - interval '16 minutes'`)
	if got := add(t, stale, scene.Authenticator(t), "late"); got.Heading() != "Sign in again" || !strings.Contains(got.Text(), "to see and change how you sign in") {
		t.Errorf("%d %s", got.Status, got.Heading())
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_passkeys`); n != 1 {
		t.Errorf("%d passkeys, want 1", n)
	}
}

func TestUserHasAtMostTwentyPasskeys(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	last := account(t, scene)
	scene.SQL(t, `INSERT INTO gpt_passkeys (credential_id, user_id, name, public_key, sign_count, backup_eligible, backed_up)
		SELECT decode(lpad(to_hex(n), 4, '0'), 'hex'), $1, 'key ' || n, '\x00', 0, false, false FROM generate_series(1, 20) n`, scene.User.ID)
	if got := add(t, last, scene.Authenticator(t), "one more"); !strings.Contains(got.Text(), "You have as many passkeys as you can.") || got.Has(addPasskey) {
		t.Errorf("%d %s", got.Status, got.Text())
	}
}

// LOG-05: nobody changes what is not theirs.
func TestPasskeysOfOthersStay(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	eve, err := scene.Store.CreateUser(context.Background(), "eve@example.com", "x", issuer.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	id := scene.SQL(t, `INSERT INTO gpt_passkeys (credential_id, user_id, name, public_key, sign_count, backup_eligible, backed_up)
		VALUES ('\x01', $1, 'eve''s', '\x00', 0, false, false) RETURNING id::text`, eve.ID)[0][0].(string)
	p := add(t, account(t, scene), scene.Authenticator(t), "mine")
	_, form := p.Form("Remove mine")
	for _, change := range []url.Values{{"remove": {id}}, {"rename": {id}, "name": {"x"}}, {"remove": {"no uuid"}}, {"rename": {"'"}, "name": {"x"}}} {
		change.Set("csrf", form.Get("csrf"))
		if got := p.Browser().Post("/oauth/account", change).Follow(); !strings.Contains(got.Text(), "this passkey is not there any more") {
			t.Errorf("%v: %d %s", change, got.Status, got.Text())
		}
	}
	if got := p.Browser().Post("/oauth/account", url.Values{"remove": {id}}); got.Status != http.StatusForbidden {
		t.Errorf("without a form token: %d", got.Status)
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_passkeys WHERE name = 'eve''s'`); n != 1 {
		t.Error("eve's passkey is gone or has another name")
	}
}

func TestPasskeyOfADisabledUserSignsNobodyIn(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	a := scene.Authenticator(t)
	add(t, account(t, scene), a, "key")
	scene.SQL(t, `UPDATE gpt_users SET disabled_at = now()`)
	if got := use(t, scene.Browser(t).Authorize(issuertest.Confidential), a); got.Status != http.StatusOK || !strings.Contains(got.Text(), "Nobody signs in here") {
		t.Errorf("%d %s", got.Status, got.Text())
	}
}

// A-32 for passkeys: whoever fails thirty times from an address waits.
func TestFailedPasskeysAreThrottled(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	a := scene.Authenticator(t)
	p := scene.Browser(t).Authorize(issuertest.Confidential)
	for range 30 {
		if got := use(t, p, a); got.Status != http.StatusOK {
			t.Fatalf("refused early: %d", got.Status)
		}
	}
	if got := use(t, p, a); got.Status != http.StatusTooManyRequests || got.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", got.Status, got.Text())
	}
}

// OIDC-04: the ID token tells that a passkey was used, and the metadata that it can
// be.
func TestIDTokenTellsOfThePasskey(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys(), issuertest.With(func(c *issuer.Config) { c.OpenID = true }))
	a := scene.Authenticator(t)
	add(t, account(t, scene), a, "key")
	claims := idTokenAfter(t, scene, func(p *issuertest.Page) *issuertest.Page { return use(t, p, a).Follow() })
	if claims["acr"] != scene.URL+"/oauth/login/passkey" || fmt.Sprint(claims["amr"]) != "[pop user mfa]" {
		t.Errorf("acr %v, amr %v", claims["acr"], claims["amr"])
	}
	if got := fmt.Sprint(scene.Get("/.well-known/openid-configuration").JSON["acr_values_supported"]); !strings.Contains(got, "/oauth/login/passkey") {
		t.Error(got)
	}
}

// idTokenAfter has ada sign in, and returns the claims of the ID token that the
// client then gets.
func idTokenAfter(t *testing.T, scene *issuertest.Scene, signIn func(*issuertest.Page) *issuertest.Page) map[string]any {
	t.Helper()
	query, verifier := scene.Authorization(issuertest.Confidential, issuertest.Set("scope", "openid"))
	code := signIn(scene.Browser(t).Get("/oauth/authorize?" + query.Encode())).Allow().Code()
	r := scene.PostForm("/oauth/token", url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier},
		"client_id": {issuertest.Confidential}, "client_secret": {issuertest.Secret}, "redirect_uri": {issuertest.ConfidentialRedirect}})
	token, _ := r.JSON["id_token"].(string)
	if token == "" {
		t.Fatalf("no ID token: %d %s", r.Status, r.Body)
	}
	return claimsOf(t, token)
}

// LOG-06: the one script is our own file, and only the two pages that need it let it
// run; they say so to whoever has none.
func TestOnlyPasskeyPagesRunTheScript(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	page := account(t, scene)
	pages := map[string]*issuertest.Page{
		"sign-in": scene.Browser(t).Authorize(issuertest.Confidential),
		"account": page,
		"consent": page.Browser().Authorize(issuertest.Confidential),
		"apps":    page.Browser().Get("/oauth/apps"),
		"error":   page.Browser().Get("/oauth/authorize"),
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		p := pages[name]
		policy := p.Header.Get("Content-Security-Policy")
		allowed := strings.Contains(policy, "; script-src "+scene.URL+"/oauth/passkey.js")
		if needs := name == "sign-in" || name == "account"; allowed != needs || strings.Contains(p.Body, "<script") != needs || strings.Contains(p.Body, "<noscript>") != needs {
			t.Errorf("%s: policy %q, page %s", name, policy, p.Body)
		}
		if strings.Contains(policy, "unsafe") || strings.Count(p.Body, "<script") != strings.Count(p.Body, `<script src="`+scene.URL+`/oauth/passkey.js" defer></script>`) {
			t.Errorf("%s: %s", name, p.Body)
		}
	}
	script := scene.Browser(t).Get("/oauth/passkey.js")
	if script.Status != http.StatusOK || !strings.HasPrefix(script.Header.Get("Content-Type"), "text/javascript") || script.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("script: %d %v", script.Status, script.Header)
	}
	again := scene.Get("/oauth/passkey.js", issuertest.Header("If-None-Match", script.Header.Get("ETag")))
	if again.Status != http.StatusNotModified {
		t.Errorf("script that the browser has: %d", again.Status)
	}
}

func TestWithoutPasskeysNothingOfThemIsThere(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	b := scene.Browser(t)
	p := b.Authorize(issuertest.Confidential)
	if p.Has(usePasskey) || strings.Contains(p.Body, "data-passkey") || strings.Contains(p.Header.Get("Content-Security-Policy"), "script") {
		t.Error(p.Body)
	}
	for path, want := range map[string]int{"/oauth/passkey.js": http.StatusNotFound, "/oauth/account": http.StatusMethodNotAllowed, "/oauth/login/passkey": http.StatusNotFound} {
		if got := b.Get(path); got.Status != want {
			t.Errorf("%s: %d", path, got.Status)
		}
	}
}

func TestPasskeysNeedAHostName(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	catalog, err := oauth.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = issuer.New(issuer.Config{Issuer: scene.URL, Catalog: catalog, Clients: scene.Clients, Store: scene.Store, Keys: scene.Keys, Secrets: scene.Secrets,
		Resources: func() []issuer.ProtectedResource { return nil }, Password: true, Passkeys: true})
	if err == nil || !strings.Contains(err.Error(), "passkeys belong to a host name") {
		t.Error(err)
	}
}
