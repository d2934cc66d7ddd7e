package login_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
)

const (
	appSecret = "what the app signs its sessions with, long enough for each algorithm"
	appCookie = "__session"
)

// ownersApp is the app whose users are signed in there: by a cookie with a token,
// or with a value that only it understands.
type ownersApp struct {
	*httptest.Server
	keys *provider // publishes and signs
	now  func() time.Time

	mu     sync.Mutex
	answer func(http.ResponseWriter, *http.Request) // of /whoami
	asked  []http.Header
}

func newOwnersApp(t *testing.T) *ownersApp {
	a := &ownersApp{keys: newProvider(t)}
	a.answer = func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("sid")
		if err != nil || !strings.HasPrefix(c.Value, "session-of-") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		name := strings.TrimPrefix(c.Value, "session-of-")
		w.Header().Set("X-User", name)
		w.Header().Set("X-Email", name+"@app.example")
		w.Header().Set("X-Roles", "recruiter, admin")
	}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked = append(a.asked, r.Header.Clone())
		a.answer(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

// set changes the app between requests.
func (a *ownersApp) set(answer func(http.ResponseWriter, *http.Request)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func (a *ownersApp) lastAsked() http.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.asked) == 0 {
		return nil
	}
	return a.asked[len(a.asked)-1]
}

func (a *ownersApp) timesAsked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

// claims are those of a session of ada, after change.
func (a *ownersApp) claims(change ...func(map[string]any)) map[string]any {
	claims := map[string]any{
		"iss": a.URL, "sub": "ada-1", "azp": "https://app.example", "iat": a.now().Unix(), "nbf": a.now().Unix(), "exp": a.now().Add(time.Minute).Unix(),
		"email": "ada@app.example", "roles": []string{"recruiter"},
	}
	for _, f := range change {
		f(claims)
	}
	return claims
}

// newJWTScene is an authorization server whose only login is the app's token.
func newJWTScene(t *testing.T, a *ownersApp, change ...func(*login.JWTConfig)) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		if a.now == nil { // the earliest: each clock stands still
			a.now = cfg.Now
		}
		config := login.JWTConfig{
			Cookie: appCookie, Issuer: a.URL, JWKS: a.keys.URL + "/keys", Claims: login.Claims{Keep: []string{"roles"}},
			Return: login.Return{SignIn: a.URL + "/sign-in"}, Now: cfg.Now,
		}
		for _, f := range change {
			f(&config)
		}
		app, err := login.NewJWT(config)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Password = false
		cfg.Methods = []issuer.LoginMethod{{Name: "app", Label: "Job Board", App: app}}
	}))
}

// newForwardScene is an authorization server whose only login asks the app.
func newForwardScene(t *testing.T, a *ownersApp, change ...func(*login.ForwardConfig)) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		config := login.ForwardConfig{
			URL: a.URL + "/whoami", User: "X-User", Name: "X-Email", ClaimHeaders: map[string]login.ClaimHeader{"roles": {Header: "X-Roles", List: true}},
			Return: login.Return{SignIn: a.URL + "/sign-in?from=oauth", Parameter: "next"},
		}
		for _, f := range change {
			f(&config)
		}
		app, err := login.NewForward(config)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Password = false
		cfg.Methods = []issuer.LoginMethod{{Name: "app", Label: "Job Board", App: app}}
	}))
}

// comeBack is what the app's sign-in page was given as the address to come back
// to.
func comeBack(t *testing.T, page *issuertest.Page, parameter string) string {
	t.Helper()
	back := page.Query().Get(parameter)
	if page.Status != http.StatusSeeOther || back == "" {
		t.Fatalf("not sent to the app's sign-in page: %d %s %s", page.Status, page.Location(), page.Text())
	}
	return back
}

func signedInAt(t *testing.T, scene *issuertest.Scene, b *issuertest.Browser) bool {
	t.Helper()
	return b.Cookie("oauth_login") != "" || scene.Count(t, `SELECT count(*) FROM gpt_logins`) != 0
}

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

// APP-02: whoever is not goes to the app's sign-in page and comes back.
func TestBrowserGoesToTheAppAndComesBack(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newForwardScene(t, a)
	b := scene.Browser(t)
	page := b.Authorize("cli")
	if !strings.HasPrefix(page.Location(), a.URL+"/sign-in?from=oauth&next=") {
		t.Fatalf("%d %s", page.Status, page.Location())
	}
	back := comeBack(t, page, "next")
	if !strings.HasPrefix(back, scene.URL+"/oauth/login/app?state=") {
		t.Fatalf("the app is told to come back to %s", back)
	}
	if a.timesAsked() != 0 {
		t.Error("the app was asked about a browser that sent nothing")
	}
	b.SetCookie("sid", "session-of-ada")
	b.Get(back).Follow().Allow().Code()
}

// APP-03: a browser that comes back without being signed in is told so, with a
// button. Nothing sends it round again by itself.
func TestComingBackSignedOutIsNoLoop(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	b := scene.Browser(t)
	page := b.Get(comeBack(t, b.Authorize("cli"), "redirect_url"))
	if page.Status != http.StatusOK || page.Location() != "" || !strings.Contains(page.Text(), "you came back without being signed in there") {
		t.Fatalf("%d %s %s", page.Status, page.Location(), page.Text())
	}
	if signedInAt(t, scene, b) {
		t.Error("signed in")
	}
	// By then the cookie is there: it is SameSite=Strict, or the user did it.
	b.SetCookie(appCookie, a.keys.signed(a.claims()))
	page.Press("Continue with Job Board").Follow().Allow().Code()
}

// APP-04: no parameter of anybody leads elsewhere than to the app's page and
// back to ours.
func TestReturnAddressIsNeverOfAForeignHost(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	b := scene.Browser(t)
	b.Header.Set("X-Forwarded-Host", "evil.example")
	b.Header.Set("Referer", "https://evil.example/")
	back := comeBack(t, b.Authorize("cli", issuertest.Set("redirect_url", "https://evil.example"), issuertest.Set("next", "//evil.example")), "redirect_url")
	if strings.Contains(back, "evil") || !strings.HasPrefix(back, scene.URL+"/oauth/login/app?state=") {
		t.Fatalf("the app is told to come back to %s", back)
	}
	b.SetCookie(appCookie, a.keys.signed(a.claims()))
	for _, more := range []string{"", "&redirect_url=https://evil.example/", "&next=//evil.example", "&redirect_uri=https://evil.example", "&return_to=%5c%5cevil.example"} {
		page := b.Get(back + more)
		if strings.Contains(page.Location(), "evil") || !strings.HasPrefix(page.Location(), scene.URL+"/oauth/consent?") {
			t.Errorf("%q leads to %s", more, page.Location())
		}
	}
}

// APP-05: what the app did not sign, or signed for something else, signs nobody
// in. RFC 8725.
func TestTokensOfTheAppThatDoNotHoldSignNobodyIn(t *testing.T) {
	t.Parallel()
	type change = func(map[string]any)
	set := func(name string, value any) change { return func(c map[string]any) { c[name] = value } }
	without := func(name string) change { return func(c map[string]any) { delete(c, name) } }
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	audience := newJWTScene(t, a, func(c *login.JWTConfig) {
		c.Audience, c.AuthorizedParties = []string{"authenticated"}, []string{"https://app.example"}
	})
	shared := newJWTScene(t, a, func(c *login.JWTConfig) { c.JWKS, c.Secret = "", appSecret })
	bySecret := func(key string, algorithm jose.SignatureAlgorithm, changes ...change) string {
		return signWith(t, algorithm, []byte(key), "", a.claims(changes...))
	}
	public, _ := x509.MarshalPKIXPublicKey(&a.keys.key.PublicKey)
	good := a.keys.signed(a.claims())
	header, rest, _ := strings.Cut(good, ".")
	crit := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","crit":["x"],"x":1}`))
	for name, c := range map[string]struct {
		scene *issuertest.Scene
		token string
		good  bool
	}{
		"as it should be":             {scene, good, true},
		"audience and party":          {audience, a.keys.signed(a.claims(set("aud", []string{"authenticated"}))), true},
		"shared key":                  {shared, bySecret(appSecret, jose.HS256), true},
		"cookie of supabase":          {scene, "base64-" + base64.RawURLEncoding.EncodeToString([]byte(`{"access_token":"`+good+`","refresh_token":"x"}`)), true},
		"unsigned":                    {scene, unsigned(a.claims()), false},
		"HMAC by the public key":      {scene, signWith(t, jose.HS256, public, a.keys.keys[0].KeyID, a.claims()), false},
		"HMAC by the public JWK":      {scene, bySecret(string(must(json.Marshal(a.keys.keys[0]))), jose.HS256), false},
		"another key":                 {scene, newProvider(t).signed(a.claims()), false},
		"another shared key":          {shared, bySecret(strings.Repeat("x", 40), jose.HS256), false},
		"other HMAC than is allowed":  {shared, bySecret(appSecret, jose.HS512), false},
		"asymmetric, with shared key": {shared, good, false},
		"no key, unsigned":            {shared, unsigned(a.claims()), false},
		"unknown critical header":     {scene, crit + "." + rest, false},
		"two signatures":              {scene, good + "." + rest, false},
		"header of another token":     {scene, header + "A." + rest, false},
		"another issuer":              {scene, a.keys.signed(a.claims(set("iss", "https://evil.example"))), false},
		"no issuer":                   {scene, a.keys.signed(a.claims(without("iss"))), false},
		"audience that was not asked": {scene, a.keys.signed(a.claims(set("aud", "another"))), false},
		"another audience":            {audience, a.keys.signed(a.claims(set("aud", "another"))), false},
		"no audience":                 {audience, a.keys.signed(a.claims()), false},
		"another party":               {audience, a.keys.signed(a.claims(set("aud", "authenticated"), set("azp", "https://evil.example"))), false},
		"no party":                    {audience, a.keys.signed(a.claims(set("aud", "authenticated"), without("azp"))), false},
		"expired":                     {scene, a.keys.signed(a.claims(set("exp", time.Now().Add(-time.Minute).Unix()))), false},
		"without end":                 {scene, a.keys.signed(a.claims(without("exp"))), false},
		"end is a text":               {scene, a.keys.signed(a.claims(set("exp", "4102444800"))), false},
		"end is beyond all time":      {scene, a.keys.signed(a.claims(set("exp", 1e300))), false},
		"not valid yet":               {scene, a.keys.signed(a.claims(set("nbf", time.Now().Add(time.Hour).Unix()))), false},
		"nbf is a text":               {scene, a.keys.signed(a.claims(set("nbf", "now"))), false},
		"of the future":               {scene, a.keys.signed(a.claims(set("iat", time.Now().Add(time.Hour).Unix()))), false},
		"no subject":                  {scene, a.keys.signed(a.claims(set("sub", ""))), false},
		"subject with a line end":     {scene, a.keys.signed(a.claims(set("sub", "ada\n1"))), false},
		"too large":                   {scene, a.keys.signed(a.claims(set("x", strings.Repeat("x", 20<<10)))), false},
		"no token at all":             {scene, "x", false},
		"as JSON":                     {scene, `{"payload":"e30","signatures":[]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := c.scene.Browser(t)
			b.SetCookie(appCookie, url.PathEscape(c.token))
			page := b.Authorize("cli").Follow()
			if got := b.Cookie("oauth_login") != "" && page.Has("Allow"); got != c.good {
				t.Errorf("signed in: %v; %d %s %s", got, page.Status, page.Location(), page.Text())
			}
		})
	}
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

// APP-06: two cookies of one name are nobody's word: one of them was planted.
func TestCookieThatCameTwiceSignsNobodyIn(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	b := scene.Browser(t)
	other := a.claims(func(c map[string]any) { c["sub"] = "eve" })
	b.Header["Cookie"] = []string{appCookie + "=" + a.keys.signed(other) + "; " + appCookie + "=" + a.keys.signed(a.claims())}
	if page := b.Authorize("cli"); !strings.HasPrefix(page.Location(), a.URL+"/sign-in?") {
		t.Errorf("%d %s %s", page.Status, page.Location(), page.Text())
	}
	// In pieces, as browsers need it of large ones.
	b = scene.Browser(t)
	token := a.keys.signed(a.claims())
	b.SetCookie(appCookie+".0", token[:100])
	b.SetCookie(appCookie+".1", token[100:])
	b.Authorize("cli").Follow().Allow().Code()
}

// APP-07: the app's keys are read anew when they change, and not for every bad
// token; while they cannot be had, a page says so and nobody is signed in.
func TestKeysOfTheAppMayRotateAndFail(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	a.keys.set(func(p *provider) { p.down = true })
	b := scene.Browser(t)
	b.SetCookie(appCookie, a.keys.signed(a.claims()))
	page := b.Authorize("cli")
	page.WantPage(http.StatusServiceUnavailable, "Job Board does not answer")
	if page.Header.Get("Retry-After") == "" || signedInAt(t, scene, b) {
		t.Errorf("Retry-After %q", page.Header.Get("Retry-After"))
	}
	a.keys.set(func(p *provider) { p.down = false })
	scene.Clock.Advance(11 * time.Second)
	b.SetCookie(appCookie, a.keys.signed(a.claims()))
	b.Authorize("cli").Follow().Allow().Code()

	a.keys.set(func(p *provider) { p.rotate() })
	scene.Clock.Advance(11 * time.Second)
	b = scene.Browser(t)
	b.SetCookie(appCookie, a.keys.signed(a.claims()))
	b.Authorize("cli").Follow().Allow().Code()

	stranger := newProvider(t)
	before := a.keys.reads
	for range 20 {
		b := scene.Browser(t)
		b.SetCookie(appCookie, stranger.signed(a.claims()))
		b.Authorize("cli")
	}
	if n := a.keys.reads - before; n > 2 {
		t.Errorf("20 bad tokens made us read the keys %d times", n)
	}
}

// APP-08: the app is told what is configured, and never how browsers are known
// to us.
func TestQuestionToTheAppHoldsWhatIsConfigured(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newForwardScene(t, a, func(c *login.ForwardConfig) { c.Copy = []string{"Cookie", "X-Device"} })
	b := scene.Browser(t)
	b.SetCookie("sid", "session-of-ada")
	for name, value := range map[string]string{"X-Device": "1", "X-User": "root", "X-Email": "root@app.example", "Authorization": "Bearer x", "Connection": "X-Device", "Te": "trailers"} {
		b.Header.Set(name, value)
	}
	b.Authorize("cli").Follow()
	b.Authorize("cli") // with our cookies
	asked := a.lastAsked()
	if asked.Get("X-Device") != "1" || asked.Get("Cookie") != "sid=session-of-ada" {
		t.Errorf("asked with %v", asked)
	}
	for _, name := range []string{"X-User", "X-Email", "Authorization", "Te", "Connection", "User-Agent"} {
		if asked.Get(name) != "" {
			t.Errorf("%s was sent on: %q", name, asked.Get(name))
		}
	}
	if scene.Count(t, `SELECT count(*) FROM gpt_users WHERE id <> 'ada'`) != 1 { // the scene's own
		t.Error("the browser named the user")
	}
}

// APP-09: only an answer of success that names one user is about a user.
func TestAnswersOfTheAppThatSignNobodyIn(t *testing.T) {
	t.Parallel()
	answer := func(status int, headers ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(headers); i += 2 {
				w.Header().Add(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
		}
	}
	gone, down := "", "Job Board does not answer"
	for name, c := range map[string]struct {
		answer  func(http.ResponseWriter, *http.Request)
		heading string // empty: to the app's sign-in page
		status  int
	}{
		"401 with a user":     {answer(401, "X-User", "ada"), gone, 303},
		"redirect":            {answer(302, "X-User", "ada", "Location", "https://evil.example/"), gone, 303},
		"200 without a user":  {answer(200), gone, 303},
		"200, user is empty":  {answer(200, "X-User", ""), gone, 303},
		"403":                 {answer(403, "X-User", "ada"), "Sign in", 200},
		"404":                 {answer(404, "X-User", "ada"), down, 503},
		"500":                 {answer(500, "X-User", "ada"), down, 503},
		"two users":           {answer(200, "X-User", "ada", "X-User", "eve"), down, 503},
		"user too long":       {answer(200, "X-User", strings.Repeat("a", 300)), "This account cannot sign in here", 403},
		"user of wrong bytes": {answer(200, "X-User", "ada\xff"), "This account cannot sign in here", 403},
		"not the role":        {answer(200, "X-User", "ada", "X-Roles", "guest"), "Sign in", 200},
		"header too large":    {answer(200, "X-User", "ada", "X-Roles", strings.Repeat("recruiter,", 10000)), down, 503},
		"body without end": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User", "ada")
			_, _ = w.Write(make([]byte, 1<<20))
		}, down, 503},
		"no answer in time": {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, down, 503},
		"connection broken": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, down, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newOwnersApp(t)
			a.set(c.answer)
			scene := newForwardScene(t, a, func(f *login.ForwardConfig) {
				f.Require, f.Timeout = map[string][]string{"roles": {"recruiter"}}, 2*time.Second
			})
			if strings.HasPrefix(name, "user ") {
				scene = newForwardScene(t, a)
			}
			b := scene.Browser(t)
			b.SetCookie("sid", "session-of-ada")
			page := b.Authorize("cli")
			if page.Status != c.status || page.Heading() != c.heading || strings.Contains(page.Location(), "evil") {
				t.Errorf("%d %q %s, want %d %q", page.Status, page.Heading(), page.Location(), c.status, c.heading)
			}
			if c.heading == gone && !strings.HasPrefix(page.Location(), a.URL+"/sign-in?") {
				t.Errorf("sent to %s", page.Location())
			}
			if signedInAt(t, scene, b) {
				t.Error("signed in")
			}
			if strings.Contains(page.Body, a.URL) {
				t.Error("the page tells where the app is asked")
			}
		})
	}
}

// APP-10: the state is the browser's that it was given to, of its age, and of
// its method.
func TestAddressToComeBackToHoldsInOneBrowser(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	attacker, victim := scene.Browser(t), scene.Browser(t)
	back := comeBack(t, attacker.Authorize("cli"), "redirect_url")
	victim.SetCookie(appCookie, a.keys.signed(a.claims()))
	if page := victim.Get(back); page.Status != http.StatusBadRequest || victim.Cookie("oauth_login") != "" {
		t.Errorf("a browser without our cookie: %d", page.Status)
	}
	victim.Authorize("cli")
	if page := victim.Get(back); page.Status != http.StatusForbidden {
		t.Errorf("another browser: %d", page.Status)
	}
	attacker.SetCookie(appCookie, a.keys.signed(a.claims()))
	for _, broken := range []string{"/oauth/login/app", "/oauth/login/app?state=x", "/oauth/login/app?state=x&state=y"} {
		attacker.Get(broken).WantPage(http.StatusBadRequest, "This request cannot be read")
	}
	// Once used, it leads on and makes no second login.
	consent := attacker.Get(back).Follow()
	signedIn := attacker.Cookie("oauth_login")
	if page := attacker.Get(back).Follow(); !page.Has("Allow") || attacker.Cookie("oauth_login") != signedIn {
		t.Errorf("a second time: %d %s", page.Status, page.Text())
	}
	consent.Allow().Code()
	scene.Clock.Advance(11 * time.Minute)
	attacker.Get(back).WantPage(http.StatusBadRequest, "This took too long")
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
