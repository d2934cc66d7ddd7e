package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"golang.org/x/oauth2"
)

// identityProvider is examples/identity-provider in a process of its own:
// node-oidc-provider, which nobody here wrote.
type identityProvider struct {
	t    *testing.T
	URL  string
	stop func()
}

// startIdentityProvider runs it for the `login oidc` of that name at base.
func startIdentityProvider(t *testing.T, port, base, name string) *identityProvider {
	t.Helper()
	sameProvider(t)
	dir := t.TempDir()
	program, err := os.ReadFile(filepath.Join(providerExample, "provider.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "provider.mjs"), string(program))
	modules, err := filepath.Abs("clients/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(nodeBinary(t), "provider.mjs")
	run.Dir, run.Env = dir, append(os.Environ(), "PORT="+port, "GATEWAY="+base, "LOGIN="+name)
	log := &lockedBuffer{}
	run.Stdout, run.Stderr = log, log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	p := &identityProvider{t: t, URL: "http://localhost:" + port}
	stopped := false
	p.stop = func() {
		if !stopped {
			stopped = true
			_ = run.Process.Kill()
			_ = run.Wait()
		}
	}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("the provider %s:\n%s", name, log)
		}
	})
	eventually(t, "the provider is ready", func() bool {
		res, err := http.Get(p.URL + "/.well-known/openid-configuration")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return p
}

var providerExample = filepath.Join("..", "examples", "identity-provider")

// sameProvider: the example asks for the version that the tests install.
func sameProvider(t *testing.T) {
	t.Helper()
	var wanted, tested struct{ Dependencies map[string]string }
	readJSON(t, filepath.Join(providerExample, "package.json"), &wanted)
	readJSON(t, filepath.Join("clients", "package.json"), &tested)
	if wanted.Dependencies["oidc-provider"] != tested.Dependencies["oidc-provider"] {
		t.Fatalf("the example is tested with another version: %v and %v", wanted, tested)
	}
}

func readJSON(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s it does not hold that %s", what)
		}
	}
}

const eventSecret = "the secret of those who tell of users"

// newIdentityScene is a gateway with two logins, each with a provider of its own.
func newIdentityScene(t *testing.T) (s *scene, first, second *identityProvider) {
	t.Helper()
	ports := []string{freePort(t), freePort(t)}
	secret := filepath.Join(t.TempDir(), "events-secret")
	writeFile(t, secret, eventSecret)
	login := func(i int, name, label string) string {
		return `login oidc http://localhost:` + ports[i] + ` {
			name          ` + name + `
			label         "` + label + `"
			client_id     caddy-scope
			client_secret provider-secret
			logout        provider sessions
		}
		`
	}
	s = newScene(t, login(0, "first", "First ID")+login(1, "second", "Second ID")+`events hmac {
			secret           {file.`+secret+`}
			signature_header X-Signature
			timestamp_header X-Time
			users_of         first
		}`)
	return s, startIdentityProvider(t, ports[0], s.Base, "first"), startIdentityProvider(t, ports[1], s.Base, "second")
}

// Labels of the provider's own pages, which have none.
const (
	providerLogin    = `//input[@name="login"]`
	providerPassword = `//input[@name="password"]`
)

// signInThere signs in at the provider by its pages, which the tab shows.
func signInThere(t *testing.T, tab context.Context, name string) {
	t.Helper()
	do(t, tab,
		chromedp.WaitVisible(providerLogin), chromedp.SendKeys(providerLogin, name), chromedp.SendKeys(providerPassword, "anything"), chromedp.Click(button("Sign-in")),
		chromedp.WaitVisible(button("Continue")), chromedp.Click(button("Continue")),
	)
}

// CLI-21, LGO-08, EVT-10: a person signs in at node-oidc-provider, cancels there first,
// signs out here and is signed out there, signs out there and is signed out here;
// the app's access goes with it. Then the account ends elsewhere, and the very next
// request is refused; so it is after DELETE FROM gpt_users. At last the provider is
// down.
func TestPersonAndIdentityProviderComeAndGo(t *testing.T) {
	s, first, second := newIdentityScene(t)
	tab, back := newChromium(t), newCallback(t)
	config := s.oauthConfig("demo-public", "", back.URI, "jobs:read")
	with := button("Continue with First ID")
	connect := func(how func()) *oauth2.Token {
		t.Helper()
		verifier := oauth2.GenerateVerifier()
		do(t, tab, chromedp.Navigate(config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier))))
		how()
		do(t, tab, chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Allow")))
		return s.redeem(config, back.await(t).Get("code"), verifier)
	}
	works := func(token *oauth2.Token) bool {
		status, _ := s.api(http.MethodGet, "/jobs", token.AccessToken)
		return status == http.StatusOK
	}

	// The user denies at the provider, then does not.
	cancel := `//a[contains(., "Cancel")]`
	token := connect(func() {
		do(t, tab, chromedp.WaitVisible(with), chromedp.Click(with), chromedp.WaitVisible(cancel), chromedp.Click(cancel), chromedp.WaitVisible(with))
		if text := pageText(t, tab); !strings.Contains(text, "You did not sign in with First ID") {
			t.Errorf("after cancelling: %s", text)
		}
		do(t, tab, chromedp.Click(with))
		signInThere(t, tab, "ada")
	})
	if !works(token) || s.Upstream.Last(t).Header.Get("X-User-Id") != "ada" {
		t.Fatalf("GET /jobs as %q", s.Upstream.Last(t).Header.Get("X-User-Id"))
	}

	// Signing out there signs out here, and ends the app's access. In the same tab:
	// one in the background may not be drawn any more, and is never seen ready.
	yes := `//button[contains(., "Yes, sign me out")]`
	do(t, tab, chromedp.Navigate(first.URL+"/session/end"), chromedp.WaitVisible(yes), chromedp.Click(yes),
		chromedp.WaitVisible(`//h1[contains(., "Sign-out Success")]`))
	eventually(t, "the token is refused after signing out at the provider", func() bool { return !works(token) })
	token = connect(func() {
		do(t, tab, chromedp.WaitVisible(with), chromedp.Click(with))
		signInThere(t, tab, "ada")
	})

	// Signing out here signs out there, and comes back to where the person was.
	do(t, tab, chromedp.Navigate(config.AuthCodeURL("again", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))+"&prompt=consent"),
		chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Not you? Sign out")), chromedp.WaitVisible(yes), chromedp.Click(yes), chromedp.WaitVisible(with))
	if works(token) {
		t.Error("the app's access goes on after signing out")
	}
	do(t, tab, chromedp.Click(with), chromedp.WaitVisible(providerLogin)) // and asks who it is

	// The account ends elsewhere.
	token = connect(func() {
		do(t, tab, chromedp.WaitVisible(with), chromedp.Click(with))
		signInThere(t, tab, "bob")
	})
	s.tell("user.disabled", "bob")
	eventually(t, "the token of a disabled user is refused", func() bool { return !works(token) })
	do(t, tab, chromedp.Navigate(config.AuthCodeURL("bob", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))), chromedp.WaitVisible(with), chromedp.Click(with),
		chromedp.WaitVisible(`//h1[contains(., "account")]`))
	screenshot(t, tab, "disabled-user-comes-back")

	// DELETE FROM gpt_users, from psql.
	s.sql(`UPDATE gpt_users SET disabled_at = NULL WHERE id = 'bob'`)
	token = connect(func() { do(t, tab, chromedp.WaitVisible(with), chromedp.Click(with)) })
	s.sql(`DELETE FROM gpt_users WHERE id = 'bob'`)
	eventually(t, "the token of a deleted user is refused", func() bool { return !works(token) })
	if events := s.count(`SELECT count(*) FROM gpt_oauth_events WHERE user_id = 'bob' AND event_type = 'gpt.oauth.user_ended' AND metadata->>'by' = 'delete'`); events != 1 {
		t.Errorf("%d events tell of it", events)
	}

	// The other provider is down.
	second.stop()
	down := button("Continue with Second ID")
	do(t, tab, chromedp.Navigate(config.AuthCodeURL("down", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))), chromedp.WaitVisible(down), chromedp.Click(down),
		chromedp.WaitVisible(`//h1[normalize-space()="Second ID does not answer"]`))
}

// tell sends an event as an app of the owner's does.
func (s *scene) tell(kind, subject string) {
	s.t.Helper()
	body, stamp := fmt.Sprintf(`{"type":%q,"data":{"id":%q}}`, kind, subject), fmt.Sprint(time.Now().Unix())
	h := hmac.New(sha256.New, []byte(eventSecret))
	h.Write([]byte(stamp + "." + body))
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.Base+"/oauth/events", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("X-Time", stamp)
	r.Header.Set("X-Signature", hex.EncodeToString(h.Sum(nil)))
	res, err := s.HTTP.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(res.Body)
		s.t.Fatalf("event: %s %s", res.Status, text)
	}
}

// surfer is a browser that a test steers address by address: what Chromium follows
// at once can be held, changed, and taken elsewhere.
type surfer struct {
	t    *testing.T
	http *http.Client
}

func newSurfer(t *testing.T) *surfer {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &surfer{t, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// open goes to the address, and on to where that leads, but not to addresses that
// begin with hold.
func (b *surfer) open(address, hold string) (at, page string, status int) {
	b.t.Helper()
	return b.follow(http.MethodGet, address, nil, hold)
}

func (b *surfer) follow(method, address string, form url.Values, hold string) (at, page string, status int) {
	b.t.Helper()
	for range 20 {
		r, err := http.NewRequestWithContext(b.t.Context(), method, address, strings.NewReader(form.Encode()))
		if err != nil {
			b.t.Fatal(err)
		}
		if method == http.MethodPost {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Origin", r.URL.Scheme+"://"+r.URL.Host)
		}
		res, err := b.http.Do(r)
		if err != nil {
			b.t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		location, err := res.Location()
		if err != nil {
			return address, string(text), res.StatusCode
		}
		if hold != "" && strings.HasPrefix(location.String(), hold) {
			return location.String(), "", 0
		}
		method, address, form = http.MethodGet, location.String(), nil
	}
	b.t.Fatal("too many redirects")
	return "", "", 0
}

var providerForm = regexp.MustCompile(`action="([^"]+)"`)

// answerOf signs in at the provider, from the authorization request on, and returns
// the answer that has not been brought back yet.
func (b *surfer) answerOf(p *identityProvider, request, user, callback string) string {
	b.t.Helper()
	at, page, _ := b.open(request, callback)
	for range 3 {
		action := providerForm.FindStringSubmatch(page)
		if action == nil {
			break
		}
		form := url.Values{"prompt": {"consent"}}
		if strings.Contains(page, `name="login"`) {
			form = url.Values{"prompt": {"login"}, "login": {user}, "password": {"anything"}}
		}
		at, page, _ = b.follow(http.MethodPost, strings.ReplaceAll(action[1], "&amp;", "&"), form, callback)
	}
	if !strings.HasPrefix(at, callback) {
		b.t.Fatalf("the provider does not send back: %s\n%s", at, page)
	}
	return at
}

var requestField = regexp.MustCompile(`name="request" value="([^"]+)"`)

// begin goes to sign in with a login and returns the authorization request that is
// to be sent to its provider.
func (b *surfer) begin(s *scene, link, name string, p *identityProvider) string {
	b.t.Helper()
	_, page, status := b.open(link, "")
	field := requestField.FindStringSubmatch(page)
	if field == nil {
		b.t.Fatalf("no sign-in page: %d %s", status, page)
	}
	at, page, status := b.follow(http.MethodPost, s.Base+"/oauth/login/"+name, url.Values{"request": {field[1]}}, p.URL)
	if !strings.HasPrefix(at, p.URL) {
		b.t.Fatalf("not sent to the provider: %d %s", status, page)
	}
	return at
}

// CLI-21, LGO-09: answers of node-oidc-provider that were changed, kept, stolen or taken
// elsewhere sign nobody in. SECURITY-CASES A-26; RFC 9700 section 4.4.
func TestAnswersOfARealProviderSignNobodyElseIn(t *testing.T) {
	s, first, second := newIdentityScene(t)
	back := newCallback(t)
	config := s.oauthConfig("demo-public", "", back.URI, "jobs:read")
	link := config.AuthCodeURL("state", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	callback := func(name string) string { return s.Base + "/oauth/login/" + name }
	logins := func() int { return s.count(`SELECT count(*) FROM gpt_logins`) }
	refused := func(what, page string, status int) {
		t.Helper()
		if n := logins(); n != 0 || strings.Contains(page, `value="allow"`) {
			t.Errorf("%s: signed in (%d logins): %d %s", what, n, status, page)
		}
	}
	changed := func(address string, change func(url.Values)) string {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		change(query)
		u.RawQuery = query.Encode()
		return u.String()
	}

	b := newSurfer(t)
	request := b.begin(s, link, "first", first)
	answer := b.answerOf(first, changed(request, func(q url.Values) { q.Set("nonce", "another") }), "ada", callback("first"))
	_, page, status := b.open(answer, back.URI)
	refused("wrong nonce", page, status)

	b = newSurfer(t)
	answer = b.answerOf(first, changed(b.begin(s, link, "first", first), func(q url.Values) {
		q.Set("code_challenge", oauth2.S256ChallengeFromVerifier("another verifier than ours is in the state"))
	}), "ada", callback("first"))
	_, page, status = b.open(answer, back.URI)
	refused("wrong challenge", page, status)

	b = newSurfer(t)
	answer = b.answerOf(first, b.begin(s, link, "first", first), "ada", callback("first"))
	victim := newSurfer(t)
	_, page, status = victim.open(answer, back.URI)
	refused("a state from another browser", page, status)
	victim.begin(s, link, "first", first)
	_, page, status = victim.open(answer, back.URI)
	refused("a state from another browser, in one that has begun too", page, status)
	_, page, status = b.open(strings.Replace(answer, callback("first"), callback("second"), 1), back.URI)
	refused("mix-up: the answer of one provider at the other's address", page, status)
	_, page, status = b.open(changed(answer, func(q url.Values) { q.Set("iss", second.URL) }), back.URI)
	refused("mix-up: in the name of the other", page, status)
	_, page, status = b.open(changed(answer, func(q url.Values) { q.Del("iss") }), back.URI)
	refused("in nobody's name, though the provider always names itself", page, status)
	_, page, status = b.open(changed(answer, func(q url.Values) { q.Set("state", "A"+q.Get("state")) }), back.URI)
	refused("a changed state", page, status)

	// What only the provider's own code could do now was not used up by all that,
	// but by the tries in its name: it is signed in once, under a cookie that nobody
	// planted.
	b = newSurfer(t)
	base, err := url.Parse(s.Base)
	if err != nil {
		t.Fatal(err)
	}
	b.http.Jar.SetCookies(base, []*http.Cookie{{Name: "oauth_login", Value: strings.Repeat("a", 43), Path: "/"}})
	answer = b.answerOf(first, b.begin(s, link, "first", first), "ada", callback("first"))
	if _, page, status = b.open(answer, back.URI); !strings.Contains(page, `value="allow"`) || logins() != 1 {
		t.Fatalf("not signed in: %d %s", status, page)
	}
	for _, cookie := range b.http.Jar.Cookies(base) {
		if cookie.Name == "oauth_login" && cookie.Value == strings.Repeat("a", 43) {
			t.Error("a planted cookie was adopted")
		}
	}
	thief := newSurfer(t)
	thief.http.Jar.SetCookies(base, []*http.Cookie{{Name: "oauth_login", Value: strings.Repeat("a", 43), Path: "/"}})
	if _, page, _ = thief.open(link, back.URI); strings.Contains(page, `value="allow"`) {
		t.Error("whoever planted the cookie is signed in")
	}
	if _, _, status = b.open(answer, back.URI); logins() != 1 {
		t.Errorf("a replayed state made a login: %d, %d logins", status, logins())
	}
}
