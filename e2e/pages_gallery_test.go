package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/pquerna/otp/totp"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// gallery is one of each page there is, as a server answered, in some languages.
type gallery struct {
	scene     *issuertest.Scene
	host      *issuertest.ClientHost // publishes a client's metadata
	languages []string
	pages     map[string]*issuertest.Page // by "language/name"
}

// nowhere is a provider that nobody reaches.
type nowhere struct{}

func (nowhere) AuthorizationURL(context.Context, issuer.ProviderRequest) (string, error) {
	return "", errors.New("no route to host")
}

func (nowhere) Redeem(context.Context, issuer.ProviderRequest, url.Values) (issuer.ExternalUser, error) {
	return issuer.ExternalUser{}, errors.New("no route to host")
}

// newGallery visits every page of a server that has all that pages can show.
func newGallery(t *testing.T, config issuer.LookConfig, languages ...string) *gallery {
	t.Helper()
	config.Templates = namedTemplates(t)
	look, err := issuer.NewLook(config)
	if err != nil {
		t.Fatal(err)
	}
	g := &gallery{host: issuertest.NewClientHost(t), languages: languages, pages: map[string]*issuertest.Page{}}
	g.scene = issuertest.New(t, issuertest.SelfRegistration(g.host), issuertest.Passkeys(), issuertest.With(func(c *issuer.Config) {
		c.OpenID, c.Look, c.SessionLimit, c.SecondFactor = true, look, 3, issuer.SecondFactorOptional
		c.Methods = []issuer.LoginMethod{{Name: "google", Label: "Google", Provider: nowhere{}}, {Name: "company", Label: "Acme SSO", Provider: nowhere{}}}
		c.SendMail = func(context.Context, issuer.Mail) error { return nil }
		c.Catalog = galleryCatalog(t)
		c.Routes = func(string) []issuer.Route {
			return []issuer.Route{
				{Name: "GET /jobs", Scopes: oauth.NewScopeSet("jobs:read")}, {Name: "GET /jobs/*", Scopes: oauth.NewScopeSet("jobs:read")},
				{Name: "search_jobs", Tool: true, Scopes: oauth.NewScopeSet("jobs:read")},
				{Name: "GET /applications", Scopes: oauth.NewScopeSet("applications:read")}, {Name: "POST /applications", Scopes: oauth.NewScopeSet("applications:write")},
			}
		}
	}))
	for _, language := range languages {
		g.visit(t, language)
		for _, template := range pageTemplates(t) {
			if !g.shows(language, template) {
				t.Errorf("no page of %s is shown: have visit go to one, so that it is looked at and held to WCAG 2.2 AA", template)
			}
		}
	}
	return g
}

// pageTemplates are the files of which each is a page.
func pageTemplates(t *testing.T) []string {
	t.Helper()
	names, err := fs.Glob(issuer.PageFiles(), "*.html")
	if err != nil || len(names) < 10 {
		t.Fatalf("%d templates (%v)", len(names), err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "layout.html" || name == "parts.html" })
}

// namedTemplates are ours, with the name of the file in the page's title, which no
// picture shows.
func namedTemplates(t *testing.T) fs.FS {
	t.Helper()
	named := fstest.MapFS{}
	for _, name := range pageTemplates(t) {
		template, err := fs.ReadFile(issuer.PageFiles(), name)
		title := []byte(`{{define "title"}}`)
		if err != nil || !bytes.Contains(template, title) {
			t.Fatalf("%s has no title (%v)", name, err)
		}
		named[name] = &fstest.MapFile{Data: bytes.Replace(template, title, append(title, name+": "...), 1)}
	}
	return named
}

// shows reports whether a page was made of this template.
func (g *gallery) shows(language, template string) bool {
	for name, page := range g.pages {
		if strings.HasPrefix(name, language+"/") && strings.Contains(page.Body, "<title>"+template+": ") {
			return true
		}
	}
	return false
}

func galleryCatalog(t *testing.T) *oauth.Catalog {
	catalog, err := oauth.NewCatalog([]oauth.Scope{
		{Name: "jobs:read", Description: "Search jobs and view job details", Link: "https://docs.example/jobs", In: map[string]string{"ar": "البحث عن الوظائف وعرض تفاصيلها"}},
		{Name: "applications:read", Description: "See your applications", In: map[string]string{"ar": "عرض طلباتك"}},
		{Name: "applications:write", Description: "Submit applications for you", Implies: []string{"applications:read"}, Optional: true, In: map[string]string{"ar": "تقديم الطلبات نيابةً عنك"}},
		{Name: "resume:read", Description: "Read your resume", Optional: true, In: map[string]string{"ar": "قراءة سيرتك الذاتية"}},
		{Name: "mcp:tools", Description: "Use the tools"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return catalog
}

// visit walks in English, by the names of buttons, and has each page shown in
// the language.
func (g *gallery) visit(t *testing.T, language string) {
	t.Helper()
	scene := g.scene
	scene.SQL(t, "DELETE FROM gpt_sessions")
	browser := scene.Browser(t)
	speak := func(tag string) { browser.Header.Set("Accept-Language", tag) }
	keep := func(name string, page *issuertest.Page) { g.pages[language+"/"+name] = page }
	shown := func(name, address string) {
		speak(language)
		keep(name, browser.Get(address))
		speak("en")
	}
	posted := func(name string, page *issuertest.Page, button string, change func(url.Values)) {
		action, form := page.Form(button)
		if change != nil {
			change(form)
		}
		speak(language)
		keep(name, browser.Post(action, form))
		speak("en")
	}
	ask := func(client string, params ...issuertest.Param) string {
		query, _ := scene.Authorization(client, params...)
		return "/oauth/authorize?" + query.Encode()
	}
	speak("en")
	everything := issuertest.Set("scope", "jobs:read applications:write resume:read")

	shown("sign-in", ask(issuertest.Confidential))
	signIn := browser.Get(ask(issuertest.Confidential, everything))
	posted("sign-in-wrong", signIn, "Sign in", func(form url.Values) { form.Set("email", issuertest.Email); form.Set("password", "guess") })
	shown("sign-in-apps", "/oauth/apps")
	posted("provider-down", signIn, "Continue with Google", nil)
	consent := signIn.SignIn()
	_, form := consent.Form("Allow")
	shown("consent", "/oauth/consent?"+url.Values{"request": form["request"]}.Encode())
	scene.SQL(t, "UPDATE gpt_sessions SET revoked_at = now()")
	optional := browser.Get(ask(issuertest.Confidential, issuertest.Set("scope", "resume:read")))
	posted("consent-left-out", optional, "Allow", func(form url.Values) { form.Del("scope.resume:read") })
	shown("consent-openid", ask(issuertest.Confidential, issuertest.Set("scope", "openid profile email")))
	shown("account", ask(issuertest.Confidential, issuertest.Set("prompt", "select_account")))

	scene.SQL(t, "DELETE FROM gpt_passkeys")
	shown("credentials-none", "/oauth/account")
	scene.SQL(t, `INSERT INTO gpt_passkeys (credential_id, user_id, name, public_key, sign_count, backup_eligible, backed_up, created_at, last_used_at)
		VALUES ('\x01', $1, 'iPhone', '\x00', 0, true, true, now() - interval '40 days', now() - interval '3 hours'), ('\x02', $1, 'Key ring', '\x00', 7, false, false, now(), NULL)`, scene.User.ID)
	shown("credentials", "/oauth/account")
	posted("credentials-done", browser.Get("/oauth/account"), "Remove Key ring", nil)
	shown("credentials-done", g.pages[language+"/credentials-done"].Location())

	posted("enrol", browser.Get("/oauth/account"), "Set up a second factor", nil)
	enrol := browser.Get("/oauth/account").Press("Set up a second factor")
	code := func(code string) func(url.Values) { return func(form url.Values) { form.Set("code", code) } }
	posted("enrol-wrong", enrol, "Turn it on", code("none"))
	secret := strings.ReplaceAll(regexp.MustCompile(`(?:[A-Z2-7]{4} ){7}[A-Z2-7]{4}`).FindString(enrol.Text()), " ", "")
	now, err := totp.GenerateCode(secret, scene.Clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	posted("recovery", enrol, "Turn it on", code(now))
	shown("credentials-factor", "/oauth/account")
	right := func(form url.Values) { form.Set("email", issuertest.Email); form.Set("password", issuertest.Password) }
	again := browser.Get(ask(issuertest.Confidential, issuertest.Set("prompt", "login")))
	posted("code", again, "Sign in", right)
	posted("code-wrong", again.Press("Sign in", "email", issuertest.Email, "password", issuertest.Password), "Continue", code("none"))
	scene.SQL(t, "UPDATE gpt_second_factors SET day_attempts = 30")
	posted("code-many", again.Press("Sign in", "email", issuertest.Email, "password", issuertest.Password), "Continue", code("000000"))
	scene.SQL(t, "DELETE FROM gpt_second_factors")

	query, verifier := scene.Authorization(issuertest.Public)
	browser.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	granted := browser.Get("/oauth/authorize?" + query.Encode()).Allow().Code()
	scene.Redeem(t, issuertest.Public, granted, url.Values{"code_verifier": {verifier}})
	shown("consent-loopback", ask(issuertest.Public))
	shown("consent-more", ask(issuertest.Public, everything))

	registered := scene.SendJSON(http.MethodPost, "/oauth/register", map[string]any{"client_name": "Resume Wizard", "redirect_uris": []string{"https://wizard.example/cb"}})
	wizard, _ := registered.JSON["client_id"].(string)
	redirect := issuertest.Set("redirect_uri", "https://wizard.example/cb")
	shown("consent-unverified", ask(wizard, redirect))
	browser.Get(ask(wizard, redirect)).Allow().Code()
	scene.SQL(t, "UPDATE gpt_client_approvals SET revision = sha256('before') WHERE client_id = $1", wizard)
	shown("consent-changed", ask(wizard, redirect))
	published := g.host.Publish("/client.json", func(document map[string]any) { document["client_name"] = "Chat" })
	shown("consent-published", ask(published, issuertest.Set("redirect_uri", issuertest.ClientHostRedirect)))
	shown("refused", ask(wizard, redirect, issuertest.Set("response_type", "token")))

	shown("apps-empty-page", "/oauth/apps?after=1.11111111-1111-4111-8111-111111111111")
	g.connect(t)
	shown("apps", "/oauth/apps")
	shown("limit", ask(issuertest.GPT, issuertest.Set("scope", "applications:read")))
	posted("apps-done", browser.Get("/oauth/apps"), "Disconnect Career Copilot", nil)
	shown("apps-done", g.pages[language+"/apps-done"].Location())

	device := scene.PostForm("/oauth/device_authorization", url.Values{"client_id": {issuertest.Device}, "scope": {"jobs:read resume:read"}})
	shown("device", "/oauth/device?user_code="+url.QueryEscape(device.JSON["user_code"].(string)))
	posted("device-wrong", browser.Get("/oauth/device"), "Continue", func(form url.Values) { form.Set("user_code", "BBBB-BBBB") })
	deviceConsent := browser.Get("/oauth/device").Press("Continue", "user_code", device.JSON["user_code"].(string))
	posted("consent-device", browser.Get("/oauth/device"), "Continue", func(form url.Values) { form.Set("user_code", device.JSON["user_code"].(string)) })
	posted("device-connected", deviceConsent, "Allow", nil)
	other := scene.PostForm("/oauth/device_authorization", url.Values{"client_id": {issuertest.Device}})
	posted("device-denied", browser.Get("/oauth/device").Press("Continue", "user_code", other.JSON["user_code"].(string)), "Deny", nil)

	shown("error-link", ask("nobody"))
	shown("error-broken", "/oauth/consent?request=x")
	forgetful := scene.Browser(t)
	forgetful.Header.Set("Accept-Language", language)
	keep("error-cookies", forgetful.Get("/oauth/consent?"+url.Values{"request": form["request"]}.Encode()))
	scene.SQL(t, "ALTER TABLE gpt_logins RENAME TO away")
	shown("error-unavailable", "/oauth/apps")
	scene.SQL(t, "ALTER TABLE away RENAME TO gpt_logins")

	shown("end-session", "/oauth/end_session")
	posted("signed-in-still", browser.Get("/oauth/end_session"), "Stay signed in", nil)
	posted("signed-out", browser.Get("/oauth/apps"), "Not you? Sign out", nil)
	link, digest := issuer.NewResetLink(scene.URL)
	if err := scene.Store.CreateReset(t.Context(), digest, issuer.Reset{Email: issuertest.Email, EndSessions: true, RemoveFactors: true}, time.Hour, issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
	shown("reset", link)
	choose := func(form url.Values) {
		form.Set("password", issuertest.Password)
		form.Set("again", issuertest.Password)
	}
	posted("reset-wrong", browser.Get(link), "Change the password", func(form url.Values) { form.Set("again", "x") })
	posted("reset-done", browser.Get(link), "Change the password", choose)
	shown("error-reset", link)
	shown("forgot", "/oauth/forgot")
	posted("forgot-wrong", browser.Get("/oauth/forgot"), "Send the link", func(form url.Values) { form.Set("email", "ada") })
	posted("forgot-sent", browser.Get("/oauth/forgot"), "Send the link", func(form url.Values) { form.Set("email", issuertest.Email) })
	for _, name := range []string{"consent", "consent-more", "apps", "credentials"} {
		opened := *g.pages[language+"/"+name]
		opened.Body = strings.ReplaceAll(opened.Body, "<details", "<details open")
		keep(name+"-opened", &opened)
	}
}

// connect gives ada apps of every kind, with something to tell.
func (g *gallery) connect(t *testing.T) {
	t.Helper()
	g.scene.SQL(t, "DELETE FROM gpt_sessions")
	g.scene.SQL(t, `INSERT INTO gpt_sessions (user_id, client_id, resource, redirect_uri, scopes, granted_scopes, created_at, last_active, calls_since, expires_at,
			consent_address, consent_agent, client_address, client_agent)
		SELECT $1, c.id, 'https://api.example', c.redirect, c.scopes::text[], c.scopes::text[], now() - c.age::interval, now() - c.used::interval, now() - '12 days'::interval, now() + interval '20 days',
			'203.0.113.7', 'Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Version/19.0 Mobile/15E148 Safari/604.1', '198.51.100.2', c.agent
		FROM (VALUES ('copilot', 'https://copilot.example/callback', '{jobs:read,applications:write,resume:read}', '3 days', '5 minutes', 'python-httpx/0.28.1'),
			('cli', 'http://127.0.0.1/callback', '{jobs:read}', '40 days', '2 hours', 'jobs-cli/2.1 (linux)'),
			('tv', NULL, '{jobs:read,resume:read}', '1 hour', '1 hour', 'okhttp/4.12.0')) AS c (id, redirect, scopes, age, used, agent)`, g.scene.User.ID)
	g.scene.SQL(t, `INSERT INTO gpt_session_calls (session_id, day, scope, calls)
		SELECT s.id, (now() AT TIME ZONE 'UTC')::date, scope, n FROM gpt_sessions s JOIN (VALUES ('copilot', 'jobs:read', 1234), ('copilot', 'applications:read', 1), ('cli', 'jobs:read', 56)) AS c (client, scope, n) ON c.client = s.client_id`)
}

// serve answers with the pages as they came.
func (g *gallery) serve(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := g.pages[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		for _, name := range []string{"Content-Type", "Content-Security-Policy", "Content-Language", "Referrer-Policy", "X-Content-Type-Options"} {
			w.Header().Set(name, page.Header.Get(name))
		}
		_, _ = w.Write([]byte(page.Body))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// names are the pages, without their language.
func (g *gallery) names() []string {
	var names []string
	for _, key := range slices.Sorted(maps.Keys(g.pages)) {
		if name, ok := strings.CutPrefix(key, g.languages[0]+"/"); ok {
			names = append(names, name)
		}
	}
	return names
}

// colors makes the tab prefer light or dark ones.
func colors(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

func viewport(kind string) chromedp.Action[chromedp.Void] {
	if kind == "phone" {
		return chromedp.EmulateViewport(390, 780, chromedp.EmulateMobile)
	}
	return chromedp.EmulateViewport(1180, 800)
}

// axe runs axe-core on the page that the tab shows.
func axe(t *testing.T, browser context.Context, script, page string) {
	t.Helper()
	result, err := chromedp.Run(browser, chromedp.Evaluate[string](`if (!window.axe) {`+script+`}
		axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then(r => JSON.stringify(
			r.violations.map(v => v.id + ': ' + v.help + ' ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).join(' | '))))`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", page, err)
	}
	var violations []string
	if err := json.Unmarshal([]byte(result), &violations); err != nil {
		t.Fatal(err)
	}
	for _, violation := range violations {
		t.Errorf("%s: %s", page, violation)
	}
}

func axeScript(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("clients/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatalf("axe-core is not installed: run scripts/deps clients (%v)", err)
	}
	return string(script)
}

// requests collects the addresses that the tab asks for.
func requests(t *testing.T, browser context.Context) func() []string {
	t.Helper()
	seen := make(chan string, 1000)
	if err := chromedp.Listen(browser, func(event any) {
		if request, ok := event.(*network.EventRequestWillBeSent); ok {
			seen <- request.Request.URL
		}
	}); err != nil {
		t.Fatal(err)
	}
	return func() (all []string) {
		for {
			select {
			case address := <-seen:
				all = append(all, address)
			default:
				return all
			}
		}
	}
}

// PAG-12, PAG-13, PAG-16, CLI-20: every page in light and dark, on phone and desktop, in a
// language that runs from left to right and one that does not, all eight: kept as a
// picture, without a violation of WCAG 2.2 AA, without scrolling sideways, and without
// a request to anybody.
func TestEveryPageIsFitToBeSeen(t *testing.T) {
	g := newGallery(t, issuer.LookConfig{}, "en", "ar")
	address, script, browser := g.serve(t), axeScript(t), newChromiumFor(t, 10*time.Minute)
	asked := requests(t, browser)
	for _, language := range g.languages {
		for _, screen := range []string{"desktop", "phone"} {
			do(t, browser, viewport(screen))
			for _, name := range g.names() {
				do(t, browser, chromedp.Navigate(address+"/"+language+"/"+name))
				if wide, err := chromedp.Run(browser, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`)); err != nil || wide {
					t.Errorf("%s in %s scrolls sideways on the %s (%v)", name, language, screen, err)
				}
				if aside, err := chromedp.Run(browser, chromedp.Evaluate[float64](`(({left, right}) => left + right - document.documentElement.clientWidth)(document.querySelector("main").getBoundingClientRect())`)); err != nil || aside < -1 || aside > 1 {
					t.Errorf("%s in %s is not in the middle of the %s: %g px beside it (%v)", name, language, screen, aside/2, err)
				}
				for _, scheme := range []string{"light", "dark"} {
					do(t, browser, colors(scheme))
					picture := fmt.Sprintf("%s-%s-%s-%s", name, language, screen, scheme)
					screenshot(t, browser, picture)
					axe(t, browser, script, picture)
				}
			}
		}
	}
	addresses := asked()
	if want := 4 * len(g.names()); len(addresses) < want {
		t.Errorf("%d requests were seen, want at least %d", len(addresses), want)
	}
	for _, request := range addresses {
		if !strings.HasPrefix(request, address) && !strings.HasPrefix(request, "data:") && request != g.scene.URL+"/oauth/passkey.js" {
			t.Errorf("a page asked for %s", request)
		}
	}
}

// PAG-09, PAG-12, CLI-20: whatever an owner makes of the pages by colors and a logo, they can be read.
func TestThemedPagesHaveNoViolation(t *testing.T) {
	logo, err := issuer.NewLogo([]byte(`<svg xmlns="http://www.w3.org/2000/svg" width="160" height="40"><rect width="40" height="40" rx="10" fill="#e4572e"/><text x="52" y="28" font-family="sans-serif" font-size="22" fill="#777">Acme Jobs</text></svg>`))
	if err != nil {
		t.Fatal(err)
	}
	script, browser := axeScript(t), newChromiumFor(t, 10*time.Minute)
	for theme, config := range map[string]issuer.LookConfig{
		"orange": {Name: "Acme Jobs", Logo: logo, Light: issuer.Colors{Action: "#ff7a00", Background: "#fff4e8"}},
		"pale":   {Name: "Pale Jobs", Light: issuer.Colors{Action: "#ffff99", Background: "#000000"}, Dark: issuer.Colors{Action: "#000033", Background: "#ffffff"}},
	} {
		g := newGallery(t, config, "en")
		address := g.serve(t)
		for _, name := range g.names() {
			do(t, browser, viewport("desktop"), chromedp.Navigate(address+"/en/"+name))
			for _, scheme := range []string{"light", "dark"} {
				do(t, browser, colors(scheme))
				if name == "consent" || name == "apps" || name == "sign-in" {
					screenshot(t, browser, fmt.Sprintf("theme-%s-%s-%s", theme, name, scheme))
				}
				axe(t, browser, script, fmt.Sprintf("%s, theme %s, %s", name, theme, scheme))
			}
		}
	}
}
