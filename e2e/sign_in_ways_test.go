package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/pquerna/otp/totp"
	"golang.org/x/oauth2"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
)

// site is a server at which users sign in in every way there is, each by a place of
// its own that runs as a process: node-oidc-provider, the app of the owner.
type site struct {
	Base     string
	chromium context.Context
	first    *identityProvider
	second   *identityProvider
	appPort  string
	stopApp  func()
	startApp func()
	link     func(redirectURI, state string) string // of an authorization request
	sql      func(statement string, args ...any)
	count    func(query string) int
	now      func() time.Time
	log      func() string

	totp     string         // bob's secret
	recovery []string       // bob's codes
	passkey  map[string]any // carol's, with its private key
}

// Users of `login password`: ada has a password alone.
const (
	withCode    = "bob@example.com"
	withPasskey = "carol@example.com"
)

// visitor is a person at a browser that nobody has used before.
type visitor struct {
	*site
	t    *testing.T
	tab  context.Context
	tap  *tap
	back *callback
}

func (s *site) visitor(t *testing.T) *visitor {
	t.Helper()
	v := &visitor{site: s, t: t, tap: newTap(t), back: newCallback(t)}
	tab, cancelTab := chromedp.NewContext(s.chromium, chromedp.WithNewBrowserContext(func(p *target.CreateBrowserContextParams) {
		p.ProxyServer, p.ProxyBypassList = v.tap.URL, "<-loopback>"
	}))
	v.tab = v.within(tab)
	t.Cleanup(cancelTab)
	v.waitsToBeAsked()
	return v
}

// waitsToBeAsked keeps the tab from offering a passkey in the field for the email: the
// device would answer by itself.
func (v *visitor) waitsToBeAsked() {
	v.t.Helper()
	v.do(chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `PublicKeyCredential.isConditionalMediationAvailable = undefined`})
		return err
	}))
}

func (v *visitor) within(tab context.Context) context.Context {
	bounded, cancel := context.WithTimeout(tab, 2*time.Minute)
	v.t.Cleanup(cancel)
	return bounded
}

// another is another tab of the browser.
func (v *visitor) another() *visitor {
	v.t.Helper()
	other, cancel := chromedp.NewContext(v.tab)
	v.t.Cleanup(cancel)
	same := *v
	same.tab = v.within(other)
	same.waitsToBeAsked()
	return &same
}

func (v *visitor) do(actions ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	if err := chromedp.Do(v.tab, actions...); err != nil {
		v.t.Fatalf("%v; the page says: %s", err, pageText(v.t, v.tab))
	}
}

func (v *visitor) reads(text string) { v.t.Helper(); awaitText(v.t, v.tab, text) }

// arrives comes from a client, with a state.
func (v *visitor) arrives(state string) {
	v.t.Helper()
	v.do(chromedp.Navigate(v.link(v.back.URI, state)))
}

// signsIn goes the way to the end: to the consent page, if nothing is in the way.
func (v *visitor) signsIn(w way) {
	v.t.Helper()
	v.arrives("state")
	w.begin(v)
	w.give(v)
}

// keeps signs in, but keeps the answer from us.
func (v *visitor) keeps(w way) *sent {
	v.t.Helper()
	v.tap.holding(func(s *sent) bool { return s.is(w.method, w.answer) })
	v.signsIn(w)
	answer := v.tap.taken(v.t, v.tab)
	v.reads("held") // else its page could come after the next
	v.tap.holding(nil)
	return answer
}

// brings has the browser send a request as from a page of ours.
func (v *visitor) brings(s *sent) {
	v.t.Helper()
	if s.Method != http.MethodPost {
		v.do(chromedp.Navigate(s.URL.String()))
		return
	}
	form, err := json.Marshal(s.Form)
	if err != nil {
		v.t.Fatal(err)
	}
	v.do(chromedp.Navigate(v.Base+"/oauth/healthz/live"), chromedp.Evaluate[chromedp.Void](`
		const form = Object.assign(document.createElement("form"), {method: "post", action: "`+s.URL.String()+`"});
		for (const [name, [value]] of Object.entries(`+string(form)+`)) {
			form.append(Object.assign(document.createElement("input"), {name, value}));
		}
		document.documentElement.append(form);
		form.submit()`))
}

// allows waits for the consent page, and allows what it asks for.
func (v *visitor) allows() url.Values {
	v.t.Helper()
	v.do(chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Allow")))
	return v.back.await(v.t)
}

// login is the cookie by which the browser is known; empty: none.
func (v *visitor) login() (value string) {
	v.t.Helper()
	v.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		got, err := cdp.Call(ctx, t, network.GetCookies, network.GetCookiesParams{URLs: []string{v.Base}})
		for _, cookie := range got.Cookies {
			if cookie.Name == "oauth_login" {
				value = cookie.Value
			}
		}
		return err
	}))
	return value
}

// plants puts a cookie into the browser that would be that of a login.
func (v *visitor) plants(value string) {
	v.t.Helper()
	v.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, network.SetCookie, network.SetCookieParams{Name: "oauth_login", Value: value, URL: v.Base, Path: "/"})
		return err
	}))
}

// wantLogins asserts how many browsers are signed in.
func (v *visitor) wantLogins(want int) {
	v.t.Helper()
	if got := v.count(`SELECT count(*) FROM gpt_logins`); got != want {
		v.t.Errorf("%d logins, want %d; the page says: %s", got, want, pageText(v.t, v.tab))
	}
}

func (v *visitor) wantCodes(want int) {
	v.t.Helper()
	if got := v.count(`SELECT count(*) FROM gpt_authorization_codes`); got != want {
		v.t.Errorf("%d codes, want %d", got, want)
	}
}

// way is how somebody signs in.
type way struct {
	name string
	// begin goes from our sign-in page to where the person is asked who they are,
	// give says it. Then the browser brings us the answer: by this method, to this
	// path.
	begin, give    func(*visitor)
	method, answer string
}

var ways = []way{
	{"oidc", throughProvider("First ID"), atFirst, http.MethodGet, "/oauth/login/first"},
	{"jwt", throughApp("Job Board"), atApp, http.MethodGet, "/oauth/login/jwt"},
	{"forward", throughApp("Job Board Pro"), atApp, http.MethodGet, "/oauth/login/forward"},
	{"password", atEmail, func(v *visitor) { v.types(email); v.do(chromedp.Click(button("Sign in"))) }, http.MethodPost, "/oauth/login"},
	{"totp", atEmail, withSecondFactor, http.MethodPost, "/oauth/second_factor"},
	{"passkey", atPasskey, func(v *visitor) { v.do(chromedp.Click(button("Sign in with a passkey"))) }, http.MethodPost, "/oauth/login/passkey"},
}

func throughProvider(label string) func(*visitor) {
	through := button("Continue with " + label)
	return func(v *visitor) {
		v.do(chromedp.WaitVisible(through), chromedp.Click(through), chromedp.WaitVisible(providerLogin))
	}
}

// atFirst signs in at the provider, which asks once in a browser whether to go on.
func atFirst(v *visitor) {
	v.do(chromedp.SendKeys(providerLogin, "ada"), chromedp.SendKeys(providerPassword, "anything"), chromedp.Click(button("Sign-in")))
	asks := false
	eventually(v.t, "the provider asks, or has sent back", func() bool {
		text, _ := chromedp.Run(v.tab, chromedp.Evaluate[string](`document.readyState == "complete" ? location.href + document.body.innerText : ""`))
		asks = strings.Contains(text, "Authorize")
		return asks || strings.HasPrefix(text, v.Base)
	})
	if asks {
		v.do(chromedp.Click(button("Continue")))
	}
}

func throughApp(label string) func(*visitor) {
	through := button("Continue with " + label)
	return func(v *visitor) {
		v.do(chromedp.WaitVisible(through), chromedp.Click(through), chromedp.WaitVisible(field("Username")))
	}
}

func atApp(v *visitor) {
	v.do(chromedp.SendKeys(field("Username"), "ada"), chromedp.Click(button("Log in")))
}

func atEmail(v *visitor) { v.do(chromedp.WaitVisible(field("Email"))) }

func (v *visitor) types(email string) {
	v.t.Helper()
	v.do(chromedp.SetValue(field("Email"), email), chromedp.SetValue(field("Password"), password))
}

const codeField = "Code from your authenticator app"

func withSecondFactor(v *visitor) {
	v.sql(`UPDATE gpt_second_factors SET last_step = 0`) // as if the last code had been long ago
	v.givesCode(v.code())
}

func (v *visitor) givesCode(code string) {
	v.t.Helper()
	v.types(withCode)
	v.do(chromedp.Click(button("Sign in")), chromedp.WaitVisible(field(codeField)), chromedp.SetValue(field(codeField), code), chromedp.Click(button("Continue")))
}

func (s *site) code() string {
	code, err := totp.GenerateCode(s.totp, s.now())
	if err != nil {
		panic(err)
	}
	return code
}

// addCredential is webauthn.AddCredential with nothing but what this Chromium knows.
var addCredential = cdp.Command[map[string]any, cdp.Empty]{Method: webauthn.CommandAddCredential}

// atPasskey holds the device of carol to the browser.
func atPasskey(v *visitor) { v.holdsDevice(true) }

// holdsDevice reports it to verify its user, or not to.
func (v *visitor) holdsDevice(verifies bool) {
	v.t.Helper()
	device := addAuthenticator(v.t, v.tab)
	v.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		if _, err := cdp.Call(ctx, t, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: device, IsUserVerified: verifies}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, t, addCredential, map[string]any{"authenticatorId": device, "credential": v.passkey})
		return err
	}), chromedp.WaitVisible(button("Sign in with a passkey")))
}

// clear forgets who was signed in.
func (s *site) clear() {
	for _, table := range []string{"gpt_logins", "gpt_authorization_codes", "gpt_sessions"} {
		s.sql("DELETE FROM " + table)
	}
}

var recoveryCode = regexp.MustCompile(`[A-Z2-7]{4}(-[A-Z2-7]{4}){3}`)

// prepare gives bob a second factor, and carol a passkey, as they would do it.
func (s *site) prepare(t *testing.T) {
	t.Helper()
	hash, err := issuer.HashPassword(t.Context(), password)
	if err != nil {
		t.Fatal(err)
	}
	s.sql(`INSERT INTO gpt_users (email, password_hash) SELECT unnest($1::text[]), $2`, []string{withCode, withPasskey}, hash)

	bob := s.visitor(t)
	bob.do(chromedp.Navigate(s.Base + "/oauth/account"))
	bob.types(withCode)
	bob.do(chromedp.Click(button("Sign in")), chromedp.WaitVisible(button("Set up a second factor")), chromedp.Click(button("Set up a second factor")), chromedp.WaitVisible(button("Turn it on")))
	s.totp = strings.ReplaceAll(regexp.MustCompile(`(?:[A-Z2-7]{4} ){7}[A-Z2-7]{4}`).FindString(pageText(t, bob.tab)), " ", "")
	bob.do(chromedp.SetValue(field("Code that the app shows"), s.code()), chromedp.Click(button("Turn it on")))
	bob.reads("Keep your recovery codes")
	s.recovery = recoveryCode.FindAllString(pageText(t, bob.tab), -1)

	carol := s.visitor(t)
	carol.do(chromedp.Navigate(s.Base + "/oauth/account"))
	device := addAuthenticator(t, carol.tab)
	carol.types(withPasskey)
	carol.do(chromedp.Click(button("Sign in")), chromedp.WaitVisible(button("Add a passkey")), chromedp.Click(button("Add a passkey")))
	carol.reads("is added. From now on you can sign in with it.")
	carol.do(chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		kept, err := cdp.Call(ctx, tab, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: device})
		if err == nil {
			c := kept.Credentials[0]
			s.passkey = map[string]any{ // signCount: one that is on several devices counts nowhere
				"credentialId": c.CredentialID, "isResidentCredential": true, "rpId": c.RpID, "privateKey": c.PrivateKey, "userHandle": c.UserHandle, "signCount": -1,
			}
		}
		return err
	}))
	s.sql(`UPDATE gpt_passkeys SET sign_count = 0`)
	s.clear()
}

// newSite is a gateway with all of them.
func newSite(t *testing.T, chromium context.Context) *site {
	t.Helper()
	ports, app := []string{freePort(t), freePort(t)}, freePort(t)
	provider := func(i int, name, label string) string {
		return `login oidc http://localhost:` + ports[i] + ` {
			name          ` + name + `
			label         "` + label + `"
			client_id     caddy-scope
			client_secret provider-secret
		}
		`
	}
	byToken := func(more string) string {
		return `login jwt {
			issuer  http://localhost:` + app + `
			sign_in http://localhost:` + app + `/sign-in
			return_parameter next
			` + more + `
		}
		`
	}
	sc := newSceneWith(t, sceneConfig{Login: `login password {
			passkeys
			totp optional
		}
		` + provider(0, "first", "First ID") + provider(1, "second", "Second ID") +
		byToken("label \"Job Board\"\ncookie app_session\nsecret \""+appSecret+`"`) +
		byToken("label \"Job Board by key\"\nname key\ncookie app_keys\njwks http://localhost:"+app+"/jwks") + `login forward http://localhost:` + app + `/whoami {
			label       "Job Board Pro"
			user_header X-User
			sign_in     http://localhost:` + app + `/sign-in
			return_parameter next
		}`})
	s := &site{
		Base: sc.Base, chromium: chromium, sql: sc.sql, count: sc.count, now: time.Now, log: sc.Log.String,
		first: startIdentityProvider(t, ports[0], sc.Base, "first"), second: startIdentityProvider(t, ports[1], sc.Base, "second"), appPort: app,
	}
	s.startApp = func() { s.stopApp = startOwnersApp(t, app) }
	s.startApp()
	s.link = func(redirectURI, state string) string {
		return sc.oauthConfig("demo-public", "", redirectURI, "jobs:read").AuthCodeURL(state, oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	}
	s.prepare(t)
	return s
}

// newLateSite is the same without Caddy, whose clock cannot be set: the server is
// the one that Caddy runs, and time passes when advance says so.
func newLateSite(t *testing.T, chromium context.Context) (s *site, advance func(time.Duration)) {
	t.Helper()
	port, app := freePort(t), freePort(t)
	back := login.Return{SignIn: "http://localhost:" + app + "/sign-in", Parameter: "next"}
	oidc, err := login.NewOIDC(login.OIDCConfig{Issuer: "http://localhost:" + port, ClientID: "caddy-scope", ClientSecret: "provider-secret"})
	if err != nil {
		t.Fatal(err)
	}
	jwt, err := login.NewJWT(login.JWTConfig{Cookie: "app_session", Issuer: "http://localhost:" + app, Secret: appSecret, Return: back})
	if err != nil {
		t.Fatal(err)
	}
	forward, err := login.NewForward(login.ForwardConfig{URL: "http://localhost:" + app + "/whoami", User: "X-User", Return: back})
	if err != nil {
		t.Fatal(err)
	}
	sc := issuertest.New(t, issuertest.Passkeys(), issuertest.With(func(c *issuer.Config) {
		c.SecondFactor = issuer.SecondFactorOptional
		c.Methods = []issuer.LoginMethod{
			{Name: "first", Label: "First ID", Provider: oidc}, {Name: "jwt", Label: "Job Board", App: jwt}, {Name: "forward", Label: "Job Board Pro", App: forward},
		}
	}))
	s = &site{
		Base: sc.URL, chromium: chromium, now: sc.Clock.Now,
		sql:   func(statement string, args ...any) { sc.SQL(t, statement, args...) },
		count: func(query string) int { return sc.Count(t, query) },
		link: func(_, state string) string {
			query, _ := sc.Authorization(issuertest.Public, issuertest.Set("state", state))
			return sc.URL + "/oauth/authorize?" + query.Encode()
		},
		first: startIdentityProvider(t, port, sc.URL, "first"), appPort: app, stopApp: startOwnersApp(t, app),
	}
	s.prepare(t)
	return s, sc.Clock.Advance
}
