//go:build linux

package e2e

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/dpop/dpoptest"
)

// startAPI is the reader's API at localhost:9001.
func startAPI(t *testing.T) *recorder {
	t.Helper()
	api := &recorder{}
	serveAt(t, "127.0.0.1:9001", nil, api)
	return api
}

// TUT-01, DOC-02: docs/tutorial-custom-gpt.md, followed to the letter; the GPT does what its builder does:
// no PKCE, no resource, the secret in the form.
func TestTutorialCustomGPT(t *testing.T) {
	m := onReadersMachine(t)
	if m == nil {
		return
	}
	api := startAPI(t)
	f := follow(t, m, "tutorial-custom-gpt.md")
	f.section("1. Build")
	f.section("2. Say what may be done")
	f.section("3. Start")
	builder := f.section("4. Fill in the GPT builder")
	secret := f.print(`printf %s "$GPT_CLIENT_SECRET"`)
	gpt := &wire{
		t: t, http: m.http(t), clientID: builder.value(t, "Client ID"), redirect: "https://chatgpt.com/aip/g-456/oauth/callback",
		server:       serverFacts{Authorize: builder.value(t, "Authorization URL"), Token: builder.value(t, "Token URL")},
		authenticate: func(form url.Values) { form.Set("client_secret", secret) },
	}
	browser := newChromium(t)
	asked := gpt.authorization(builder.value(t, "Scope"))
	pages := strings.Join(allow(t, browser, asked.url), "\n")
	for _, want := range []string{"Career Copilot", "Search jobs and view job details", "Submit applications for you", email} {
		if !strings.Contains(pages, want) {
			t.Errorf("the pages do not say %q:\n%s", want, pages)
		}
	}
	held := gpt.redeem(asked, m.product.back(t))
	try := f.section("5. Try it")
	try.mentions(t, "GET /jobs", "X-User-Id", "X-Client-Id", "X-Scopes")
	if res := gpt.call(http.MethodGet, "https://api.example.com/jobs", held.Access); res.StatusCode != http.StatusOK {
		t.Fatalf("GET /jobs: %s", res.Status)
	}
	seen := api.Last(t).Header
	if seen.Get("X-User-Id") == "" || seen.Get("X-Client-Id") != "career-copilot" || seen.Get("X-Scopes") == "" || seen.Get("Authorization") != "" {
		t.Errorf("the API saw %v", seen)
	}
	held = gpt.refresh(held)
	if res := gpt.call(http.MethodPost, "https://api.example.com/applications", held.Access); res.StatusCode != http.StatusOK {
		t.Errorf("POST /applications: %s", res.Status)
	}

	f.section("6. Switch it off")
	gpt.cutOff("https://api.example.com/jobs", held)

	wrong := f.section("What can go wrong")
	f.end()
	wrong.mentions(t, "not registered for it", "invalid_client", "access_denied", "insufficient_scope")
	gpt.redirect = strings.Replace(gpt.redirect, "g-456", "g-789", 1)
	if pages := allow(t, browser, gpt.authorization("jobs:read").url); !strings.Contains(pages[0], wrong.quoted(t, 0)) {
		t.Errorf("another GPT: %s", pages)
	}
	gpt.authenticate = func(form url.Values) { form.Set("client_secret", secret+" ") }
	if got := gpt.refresh(held); got.Error != "invalid_client" {
		t.Errorf("another secret: %+v", got)
	}
}

// cutOff: the API answers 401 from now on, within max_staleness, and there is no
// way back but to ask the user.
func (c *wire) cutOff(api string, held tokens) {
	c.t.Helper()
	for until := time.Now().Add(5 * time.Second); ; {
		res := c.call(http.MethodGet, api, held.Access)
		if challenge := res.Header.Get("WWW-Authenticate"); res.StatusCode == http.StatusUnauthorized && strings.Contains(challenge, `error="invalid_token"`) {
			break
		}
		if time.Now().After(until) {
			c.t.Fatalf("the API still answers %s", res.Status)
		}
	}
	if got := c.refresh(held); got.Error != "invalid_grant" || got.status != http.StatusBadRequest {
		c.t.Errorf("refresh: %+v", got)
	}
}

// quoted is the text in quotes of a row of the section's table.
func (s tutorialSection) quoted(t *testing.T, row int) string {
	t.Helper()
	_, rest, _ := strings.Cut(s.table()[row][0], `"`)
	text, _, closed := strings.Cut(rest, `"`)
	if !closed {
		t.Fatalf("row %d of %q quotes nothing", row, s.title)
	}
	return text
}

// TUT-05: docs/tutorial-device.md, followed to the letter: the program is the tutorial's, the person
// enters in Chromium what it prints.
func TestTutorialDevice(t *testing.T) {
	m := onReadersMachine(t)
	if m == nil {
		return
	}
	api := startAPI(t)
	f := follow(t, m, "tutorial-device.md")
	f.section("1. Build")
	f.section("2. Declare the program")
	f.section("3. Start")
	f.section("4. Write the program")

	browser := newChromium(t)
	var pages string
	f.line = func(line string) {
		if words := strings.Fields(line); len(words) == 5 && words[0] == "Open" {
			pages = strings.Join(enterCode(t, browser, words[1], words[4]), "\n")
		}
	}
	f.section("5. Try it").mentions(t, "Your device is connected")
	f.line = nil
	for _, want := range []string{"jobs, on the command line", "Search jobs and view job details", "Your device is connected"} {
		if !strings.Contains(pages, want) {
			t.Errorf("the pages do not say %q:\n%s", want, pages)
		}
	}
	if seen := api.Last(t); seen.RequestURI != "/jobs" || seen.Header.Get("X-Client-Id") != "jobs-cli" || seen.Header.Get("X-User-Id") == "" {
		t.Errorf("the API saw %v", seen)
	}
	before := api.Count()
	f.section("6. The next time")
	if api.Count() != before+1 {
		t.Errorf("the API was called %d times", api.Count()-before)
	}
	f.section("7. Sign out")
	cli := &wire{t: t, http: m.http(t), clientID: "jobs-cli", server: serverFacts{Token: "https://api.example.com/oauth/token"}}
	refresh, access := f.print("cat jobs.token"), f.print(`sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p' answer`)
	cli.cutOff("https://api.example.com/jobs", tokens{Access: access, Refresh: refresh})

	wrong := f.section("What can go wrong")
	f.end()
	wrong.mentions(t, "expired_token", "access_denied") // e2e.TestFlowsGoOnOnAnotherNodeAfterAReload has slow_down
	poll := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}}
	started := f.print("curl -s https://api.example.com/oauth/device_authorization -d client_id=jobs-cli -d scope=jobs:read")
	_, code, _ := strings.Cut(started, `"device_code":"`)
	code, _, _ = strings.Cut(code, `"`)
	poll.Set("device_code", code)
	for row, want := range []string{"authorization_pending", "slow_down"} {
		if got := cli.token(poll); got.Error != want || wrong.code(t, row) != want {
			t.Errorf("poll %d: %s, the table has %s", row, got.Error, wrong.code(t, row))
		}
	}
	if pages := enterCode(t, browser, "https://api.example.com/oauth/device", "BBBB-BBBB"); !strings.Contains(pages[len(pages)-1], wrong.quoted(t, 2)) {
		t.Errorf("a wrong code: %s", pages)
	}
}

// TUT-06, DOC-02: docs/tutorial-partner.md, followed to the letter; each command prints what is shown.
func TestTutorialPartner(t *testing.T) {
	m := onReadersMachine(t)
	if m == nil {
		return
	}
	api := startAPI(t)
	f := follow(t, m, "tutorial-partner.md")
	f.section("1. Build")
	f.section("2. Declare the partner")
	f.section("3. Start")
	f.section("4. What the partner does").mentions(t, "`X-Client-Id: acme`", "`X-Scopes: jobs:read`", "no `X-User-Id`")
	if seen := api.Last(t).Header; seen.Get("X-Client-Id") != "acme" || seen.Get("X-Scopes") != "jobs:read" || seen.Get("X-User-Id") != "" {
		t.Errorf("the API saw %v", seen)
	}
	if api.Count() != 1 {
		t.Errorf("the API was called %d times", api.Count())
	}
	f.section("5. Replace the secret")
	acme := &wire{t: t, http: m.http(t), clientID: "acme", server: serverFacts{Token: "https://api.example.com/oauth/token"}}
	ask := func(change func(url.Values)) tokens {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {"jobs:read"}}
		change(form)
		return acme.token(form)
	}
	same := func(url.Values) {}
	for _, variable := range []string{"ACME_SECRET", "ACME_SECRET_2"} {
		secret := f.print(`printf %s "$` + variable + `"`)
		acme.authenticate = func(form url.Values) { form.Set("client_secret", secret) }
		if got := ask(same); got.Access == "" {
			t.Errorf("%s: %+v", variable, got)
		}
	}

	// With a key: what is shown replaces the client in the Caddyfile.
	withKey := f.section("6. A key instead of a secret")
	key := dpoptest.NewKey(t, "ES256")
	jwk := key.JWK()
	jwk["kid"] = "1"
	writeFile(t, filepath.Join(m.dir, "acme.jwks.json"), mustJSON(t, map[string]any{"keys": []any{jwk}}))
	client := fenced.FindStringSubmatch(withKey.text)[2]
	caddyfile, err := os.ReadFile(filepath.Join(m.dir, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	replaced := regexp.MustCompile(`(?s)\t\tclient acme \{.*?\n\t\t\}\n`).ReplaceAllLiteralString(string(caddyfile), strings.ReplaceAll(client, "/etc/caddy/acme.jwks.json", filepath.Join(m.dir, "acme.jwks.json")))
	writeFile(t, filepath.Join(m.dir, "Caddyfile"), replaced)
	if out, err := f.shell("./caddy reload --config Caddyfile", false); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, audience, _ := strings.Cut(withKey.text, "the audience of its assertions is `")
	audience, _, _ = strings.Cut(audience, "`")
	signed := &product{key: key}
	acme.authenticate = signed.assertion("acme", audience)
	held := ask(same)
	if res := acme.call(http.MethodGet, "https://api.example.com/jobs", held.Access); res.StatusCode != http.StatusOK {
		t.Errorf("with a key: %+v %s", held, res.Status)
	}

	f.section("7. Switch it off")
	for until := time.Now().Add(5 * time.Second); acme.call(http.MethodGet, "https://api.example.com/jobs", held.Access).StatusCode != http.StatusUnauthorized; {
		if time.Now().After(until) {
			t.Fatal("the token still works")
		}
	}

	wrong := f.section("What can go wrong")
	f.end()
	provoke := []func(url.Values){
		func(form url.Values) { acme.authenticate = func(f url.Values) { f.Set("client_secret", "x") } },
		func(form url.Values) {
			acme.authenticate = signed.assertion("acme", audience)
			form.Set("scope", "jobs:write")
		},
		func(form url.Values) { form.Set("grant_type", "authorization_code"); form.Set("code", "x") },
	}
	for row, change := range provoke {
		if got := ask(change); got.Error != wrong.code(t, row) {
			t.Errorf("row %d: %+v, the table has %s", row, got, wrong.code(t, row))
		}
	}
}

// code is the text in backquotes of a row of the section's table.
func (s tutorialSection) code(t *testing.T, row int) string {
	t.Helper()
	_, rest, _ := strings.Cut(s.table()[row][0], "`")
	text, _, closed := strings.Cut(rest, "`")
	if !closed {
		t.Fatalf("row %d of %q names nothing", row, s.title)
	}
	return text
}

// print runs a command and returns what it prints.
func (f *tutorial) print(command string) string {
	f.t.Helper()
	out, err := f.shell(command, false)
	if err != nil {
		f.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}
