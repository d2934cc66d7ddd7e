package issuer

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// OIDC-26: with the login_hint of the client in the field.
func TestSignInPageHasLabelledFieldsAndOneButton(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	scene.ask.LoginHint = "grace@example.com"
	p := scene.browser().get("/oauth/authorize")
	email, password := p.field("Email"), p.field("Password")
	if email == nil || password == nil || p.button("Sign in") == nil {
		t.Fatalf("page: %s", p.body)
	}
	if attribute(email, "autocomplete") != "username" || attribute(password, "autocomplete") != "current-password" || attribute(password, "type") != "password" {
		t.Error("password managers cannot tell the fields")
	}
	if attribute(email, "value") != "grace@example.com" {
		t.Errorf("login_hint was not put in: %q", attribute(email, "value"))
	}
	if !strings.Contains(p.text(), "Career Copilot") {
		t.Error("the page does not say what for")
	}
}

// No enumeration: whether the account exists, is disabled, or has an unusable
// hash, the answer has the same bytes and took the same work.
func TestFailedSignInTellsNothingAboutTheAccount(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	scene.store.users = append(scene.store.users,
		User{ID: "user-off", Email: "off@example.com", PasswordHash: sceneHash(), Disabled: true},
		User{ID: "user-old", Email: "old@example.com", PasswordHash: "$2y$10$imported"})
	p := scene.browser().get("/oauth/authorize")
	var want string
	for _, attempt := range []struct{ name, email, password string }{
		{"wrong password", "ada@example.com", "wrong password"},
		{"no such account", "eve@example.com", "wrong password"},
		{"disabled, right password", "off@example.com", scenePassword},
		{"unusable hash", "old@example.com", scenePassword},
		{"no address at all", "one-exampl_.com", scenePassword},
	} {
		before := scene.password.verifier.computed.Load()
		got := p.submit("Sign in", "email", attempt.email, "password", attempt.password)
		if n := scene.password.verifier.computed.Load() - before; n != 1 {
			t.Errorf("%s: %d argon2 computations, want 1", attempt.name, n)
		}
		if got.status != http.StatusOK || got.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d, cookie %q", attempt.name, got.status, got.header.Get("Set-Cookie"))
		}
		body := strings.ReplaceAll(got.body, attempt.email, "")
		if want == "" {
			want = body
		}
		if body != want {
			t.Errorf("%s: the page differs:\n%s", attempt.name, body)
		}
	}
	if !strings.Contains(want, `role="alert"`) || strings.Contains(want, scenePassword) {
		t.Error("the page has no alert, or holds a password")
	}
}

func TestEmptySignInIsNotAnAttempt(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	p := scene.browser().get("/oauth/authorize")
	for range accountFailureLimit + 1 {
		if got := p.submit("Sign in", "email", sceneEmail); got.status != http.StatusOK || !strings.Contains(got.text(), "Enter your email") {
			t.Fatalf("%d %s", got.status, got.text())
		}
	}
}

// the sixth wrong password in five minutes.
func TestSixthWrongPasswordIsThrottled(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	p := scene.browser().get("/oauth/authorize")
	for range accountFailureLimit {
		if got := p.submit("Sign in", "email", sceneEmail, "password", "guess"); got.status != http.StatusOK {
			t.Fatalf("refused early: %d", got.status)
		}
	}
	// The right password too: else a guess could be told from the answer. From
	// another browser and in another spelling: both are free to choose.
	before := scene.password.verifier.computed.Load()
	got := scene.browser().get("/oauth/authorize").submit("Sign in", "email", " ADA@example.com", "password", scenePassword)
	if got.status != http.StatusTooManyRequests || !strings.Contains(got.text(), "Try again in 5 minutes") {
		t.Fatalf("%d %s", got.status, got.text())
	}
	if after, _ := strconv.Atoi(got.header.Get("Retry-After")); after < 1 || after > 300 {
		t.Errorf("Retry-After %q", got.header.Get("Retry-After"))
	}
	if scene.password.verifier.computed.Load() != before {
		t.Error("a refused attempt was computed")
	}
	if got := p.submit("Sign in", "email", "eve@example.com", "password", "x"); got.status != http.StatusOK {
		t.Errorf("another account is refused: %d", got.status)
	}
	scene.now.advance(loginFailureWindow)
	if got := p.submit("Sign in", "email", sceneEmail, "password", scenePassword); got.status != http.StatusSeeOther {
		t.Errorf("after the window: %d %s", got.status, got.text())
	}
}

// A-32, over parallel requests.
func TestParallelGuessesAreThrottled(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	var refused atomic.Int32
	var all sync.WaitGroup
	r := &http.Request{RemoteAddr: "192.0.2.1:1"}
	r = r.WithContext(t.Context())
	for range 40 {
		all.Go(func() {
			var throttled *throttledError
			if _, err := scene.authenticate(r, sceneEmail, "guess"); errors.As(err, &throttled) {
				refused.Add(1)
			}
		})
	}
	all.Wait()
	if n := scene.password.verifier.computed.Load(); n != accountFailureLimit || refused.Load() != 40-accountFailureLimit {
		t.Errorf("%d guesses were tried and %d refused, want %d and %d", n, refused.Load(), accountFailureLimit, 40-accountFailureLimit)
	}
}

// One password tried on many accounts: the address is throttled, and signing in
// to an account of one's own in between does not help.
func TestGuessesOverManyAccountsAreThrottled(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	p := scene.browser().get("/oauth/authorize")
	for i := range addressFailureLimit {
		if got := p.submit("Sign in", "email", strconv.Itoa(i)+"@example.com", "password", "123456"); got.status != http.StatusOK {
			t.Fatalf("refused after %d: %d", i, got.status)
		}
		if i%7 == 0 {
			p.submit("Sign in", "email", sceneEmail, "password", scenePassword)
		}
	}
	if got := p.submit("Sign in", "email", "last@example.com", "password", "123456"); got.status != http.StatusTooManyRequests {
		t.Errorf("%d", got.status)
	}
}

func TestNetworkOfCountsAnIPv6SubscriberOnce(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := networkOf(netip.MustParseAddr(address)); got.String() != want {
			t.Errorf("networkOf(%s) = %s, want %s", address, got, want)
		}
	}
	if networkOf(netip.Addr{}).IsValid() {
		t.Error("an unknown address has a network: strangers would share one count")
	}
}

// a form that another site sends.
func TestFormsFromElsewhereAreRefused(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	for name, header := range map[string]http.Header{
		"cross-site":            {"Sec-Fetch-Site": {"cross-site"}},
		"sibling domain":        {"Sec-Fetch-Site": {"same-site"}},
		"foreign origin":        {"Origin": {"https://evil.example"}},
		"other scheme":          {"Origin": {"https" + strings.TrimPrefix(scene.base, "http")}},
		"opaque from elsewhere": {"Origin": {"null"}, "Sec-Fetch-Site": {"cross-site"}},
	} {
		b := scene.browser()
		p := b.get("/oauth/authorize")
		b.header = header
		got := p.submit("Sign in", "email", sceneEmail, "password", scenePassword)
		got.wantPage(http.StatusForbidden, "This did not come from our page")
		if b.cookie(loginCookie) != "" {
			t.Errorf("%s: signed in", name)
		}
		b.header = http.Header{}
		consent := scene.consent(b)
		b.header = header
		consent.submit("Allow").wantPage(http.StatusForbidden, "This did not come from our page")
		consent.submit("Not you? Sign out").wantPage(http.StatusForbidden, "This did not come from our page")
	}
	if len(scene.store.codes) != 0 || len(scene.store.logins) != 5 {
		t.Errorf("%d codes, %d logins", len(scene.store.codes), len(scene.store.logins))
	}
	// What browsers send with our own forms, with and without a referrer policy.
	for _, origin := range []string{"null", scene.base} {
		b := scene.browser()
		b.header = http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {origin}}
		if p := scene.consent(b); p.button("Allow") == nil {
			t.Errorf("Origin %s of our own form: %d %s", origin, p.status, p.text())
		}
	}
}

// a sign-in that began in one browser does not go on in another.
func TestSignInIsBoundToTheBrowser(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	a, b := scene.browser(), scene.browser()
	action, form := a.get("/oauth/authorize").form("Sign in")
	form.Set("email", sceneEmail)
	form.Set("password", scenePassword)

	// a browser that keeps no cookies is told so, at once.
	b.post(action, form).wantPage(http.StatusBadRequest, "Your browser did not keep our cookie")
	b.get(consentPath+"?"+url.Values{"request": {form.Get("request")}}.Encode()).
		wantPage(http.StatusBadRequest, "Your browser did not keep our cookie")

	b.get("/oauth/authorize")
	b.post(action, form).wantPage(http.StatusForbidden, "This was started in another browser")
	if len(scene.store.logins) != 0 {
		t.Error("signed in")
	}
	// The redirect after signing in, carried into the other browser.
	done := a.post(action, form)
	scene.consent(b)
	b.get(done.location()).wantPage(http.StatusForbidden, "This was started in another browser")
}

// nothing but the sealed request says where to go.
func TestSignInIgnoresReturnAddresses(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	b := scene.browser()
	action, form := b.get("/oauth/authorize").form("Sign in")
	for _, name := range []string{"redirect_url", "redirect_uri", "return_to", "next", "client_id", "user_id", "scope"} {
		form.Set(name, "https://evil.example/")
	}
	form.Set("email", sceneEmail)
	form.Set("password", scenePassword)
	got := b.post(action+"?next=https://evil.example/&request=x", form)
	if !strings.HasPrefix(got.location(), scene.base+consentPath+"?request=") {
		t.Fatalf("goes to %s", got.location())
	}
	consent := b.follow(got)
	action, form = consent.form("Not you? Sign out")
	form.Set("redirect_url", "//evil.example")
	if out := b.post(action+"?redirect_url=//evil.example", form); !strings.HasPrefix(out.location(), scene.base+consentPath+"?request=") {
		t.Errorf("sign-out goes to %s", out.location())
	}
}

// prompt=login and max_age are met by signing in for this request, once,
// whatever the clock of the database says.
func TestReauthenticationReallyHappensOnce(t *testing.T) {
	t.Parallel()
	aMoment := time.Duration(0)
	for name, c := range map[string]struct {
		skew   time.Duration
		prompt []string
		maxAge *time.Duration
	}{
		"prompt=login":                        {prompt: []string{"login"}},
		"prompt=login, database behind":       {prompt: []string{"login"}, skew: -10 * time.Minute},
		"prompt=login, database ahead":        {prompt: []string{"login"}, skew: 10 * time.Minute},
		"prompt=login consent":                {prompt: []string{"login", "consent"}},
		"max_age=0":                           {maxAge: &aMoment},
		"max_age=0, database behind":          {maxAge: &aMoment, skew: -10 * time.Minute},
		"max_age=0 and prompt=login together": {maxAge: &aMoment, prompt: []string{"login"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := newPageScene(t)
			scene.store.skew = c.skew
			b := scene.browser()
			scene.consent(b)
			scene.now.advance(time.Second)
			scene.ask.Prompt, scene.ask.MaxAge = pagePrompt(c.prompt...), c.maxAge
			p := b.get("/oauth/authorize")
			if p.heading() != "Sign in again" || attribute(p.field("Email"), "value") != sceneEmail {
				t.Fatalf("a fresh login passed for signing in again: %s", p.text())
			}
			// Not past it by the next address, nor by a consent form.
			action, form := p.form("Sign in")
			if skipped := b.get(strings.Replace(action, loginPath, consentPath, 1) + "?request=" + form.Get("request")); skipped.heading() != "Sign in again" {
				t.Errorf("consent without signing in again: %s", skipped.text())
			}
			req, err := scene.openRequest(form.Get("request"))
			if err != nil {
				t.Fatal(err)
			}
			early := url.Values{"request": {form.Get("request")}, "decision": {"allow"}, "csrf": {formToken(b.cookie(loginCookie), consentPurpose, req.ID)}}
			if got := b.post(consentPath, early); got.heading() != "Sign in again" || len(scene.store.codes) != 0 {
				t.Errorf("allowed without signing in again: %d %s", got.status, got.text())
			}
			if p = b.follow(p.submit("Sign in", "password", scenePassword)); p.button("Allow") == nil {
				t.Fatalf("after signing in: %s", p.text())
			}
			p.submit("Allow").wantCode()
		})
	}
}

// prompt=none shows nothing.
func TestPromptNoneWithoutLoginIsLoginRequired(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	scene.ask.Prompt = pagePrompt("none")
	scene.browser().get("/oauth/authorize").wantError("login_required")
}

func TestSealedRequestEnds(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	p := scene.browser().get("/oauth/authorize")
	scene.now.advance(11 * time.Minute)
	p.submit("Sign in", "email", sceneEmail, "password", scenePassword).wantPage(http.StatusBadRequest, "This took too long")
	for name, sealed := range map[string]string{"missing": "", "garbage": "x.y", "huge": strings.Repeat("A", 50_000)} {
		if got := p.submit("Sign in", "request", sealed); got.status != http.StatusBadRequest || got.heading() != "This request cannot be read" {
			t.Errorf("%s: %d %s", name, got.status, got.heading())
		}
	}
}

func TestMalformedFormsAreRefused(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	b := scene.browser()
	action, form := b.get("/oauth/authorize").form("Sign in")
	form.Set("email", "nobody@example.com")
	form.Set("password", "x")
	good := form.Encode()
	ordinary, _ := http.NewRequest(http.MethodPost, action, strings.NewReader(good))
	ordinary.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if got := b.do(ordinary); got.status != http.StatusOK {
		t.Fatalf("the form as it is: %d", got.status)
	}
	for name, body := range map[string]string{
		"field twice": good + "&email=c", "bad escape": good + "%zz", "megabyte": good + strings.Repeat("x", 1<<20),
		"just too long": good + "&more=" + strings.Repeat("x", maxPageForm-len(good)),
	} {
		r, _ := http.NewRequest(http.MethodPost, action, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if got := b.do(r); got.status != http.StatusBadRequest {
			t.Errorf("%s: %d", name, got.status)
		}
	}
	for _, mediaType := range []string{"", "application/json", "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded-not"} {
		r, _ := http.NewRequest(http.MethodPost, action, strings.NewReader(good))
		r.Header.Set("Content-Type", mediaType)
		if got := b.do(r); got.status != http.StatusBadRequest {
			t.Errorf("%q: %d", mediaType, got.status)
		}
	}
	for _, path := range []string{loginPath, logoutPath} {
		if got := b.get(path); got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != http.MethodPost {
			t.Errorf("GET %s: %d", path, got.status)
		}
	}
}

// the row is gone, so that the old cookie is worth nothing.
func TestSignOutEndsTheLogin(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	b := scene.browser()
	consent := scene.consent(b)
	old := b.cookie(loginCookie)
	if p := b.follow(consent.submit("Not you? Sign out")); p.button("Sign in") == nil {
		t.Fatalf("after sign-out: %d %s", p.status, p.text())
	}
	if len(scene.store.logins) != 0 || b.cookie(loginCookie) != "" {
		t.Error("the login or its cookie is still there")
	}
	b.setCookie(loginCookie, old)
	if p := b.get("/oauth/authorize"); p.button("Sign in") == nil {
		t.Error("the old cookie is signed in")
	}
	// Signed out meanwhile: the consent form asks to sign in and issues nothing.
	if p := consent.submit("Allow"); p.button("Sign in") == nil || len(scene.store.codes) != 0 {
		t.Errorf("consent after sign-out: %d %s", p.status, p.text())
	}
}

func TestSignOutNeedsTheFormOfThisLogin(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	b := scene.browser()
	scene.consent(b)
	for _, token := range []string{"", "x", formToken(newCookieValue(), logoutPurpose, "")} {
		b.post(logoutPath, url.Values{"csrf": {token}}).wantPage(http.StatusForbidden, "This did not come from our page")
	}
	b.post(logoutPath, url.Values{"csrf": {formToken(b.cookie(loginCookie), logoutPurpose, "")}}).wantPage(http.StatusOK, "You are signed out")
}

func TestPagesSayWhenTheStoreIsDown(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	b := scene.browser()
	signIn := b.get("/oauth/authorize")
	consent := scene.consent(b)
	scene.store.down = errors.New("connection refused on 10.0.0.5:5432")
	for name, got := range map[string]*page{
		"sign-in": signIn.submit("Sign in", "email", sceneEmail, "password", scenePassword), "authorize": b.get("/oauth/authorize"),
		"consent": consent.submit("Allow"), "sign-out": consent.submit("Not you? Sign out"),
	} {
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || strings.Contains(got.body, "10.0.0.5") {
			t.Errorf("%s: %d, Retry-After %q: %s", name, got.status, got.header.Get("Retry-After"), got.text())
		}
	}
	// An outage is nobody's failure.
	scene.store.down = nil
	for range accountFailureLimit {
		if got := signIn.submit("Sign in", "email", sceneEmail, "password", "x"); got.status != http.StatusOK {
			t.Errorf("the outage was counted: %d", got.status)
		}
	}
}

func TestNobodySignsInWithoutALoginMethod(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t, func(cfg *Config) { cfg.Password = false })
	b := scene.browser()
	b.get("/oauth/authorize").wantPage(http.StatusForbidden, "Nobody can sign in here")
}

// addresses come from the configuration, whatever the request claims, and
// an issuer with a path has its pages at the root of its origin.
func TestPagesAreAddressedByTheIssuer(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t, func(cfg *Config) { cfg.Issuer += "/tenant" })
	b := scene.browser()
	b.header = http.Header{
		"X-Forwarded-Host": {"evil.example"}, "X-Forwarded-Proto": {"https"}, "X-Original-Url": {"https://evil.example/"},
		"Forwarded": {"host=evil.example;proto=https"},
	}
	p := scene.consent(b)
	if action, _ := p.form("Allow"); action != scene.base+consentPath {
		t.Errorf("the form goes to %s", action)
	}
	if strings.Contains(p.body, "evil.example") {
		t.Errorf("the page repeats what the request claimed: %s", p.body)
	}
	r, _ := http.NewRequest(http.MethodGet, scene.base+"/oauth/authorize", nil)
	r.Host = "evil.example"
	if p := b.do(r); strings.Contains(p.body, "evil.example") {
		t.Errorf("the page repeats the Host: %s", p.body)
	}
	p.submit("Allow").wantCode()
}
