package issuer_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// apps opens the page as ada in a new browser.
func apps(t *testing.T, scene *issuertest.Scene) (*issuertest.Browser, *issuertest.Page) {
	t.Helper()
	browser := scene.Browser(t)
	page := browser.Get("/oauth/apps")
	page.WantPage(http.StatusOK, "Sign in")
	page = page.SignIn().Follow()
	page.WantPage(http.StatusOK, "Connected apps")
	return browser, page
}

// called notes calls of the sessions of a client, so many days ago.
func called(t *testing.T, scene *issuertest.Scene, client, scope string, calls, daysAgo int) {
	t.Helper()
	scene.SQL(t, `INSERT INTO gpt_session_calls (session_id, day, scope, calls)
		SELECT id, (now() AT TIME ZONE 'UTC')::date - $4::int, $2, $3 FROM gpt_sessions WHERE client_id = $1`, client, scope, calls, daysAgo)
}

func wantText(t *testing.T, page *issuertest.Page, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(page.Text(), want) {
			t.Errorf("%q is not on the page: %s", want, page.Text())
		}
	}
}

func wantNoText(t *testing.T, page *issuertest.Page, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(page.Text(), text) {
			t.Errorf("%q is on the page: %s", text, page.Text())
		}
	}
}

// PAG-01: who, since when, from where, what it may do, and what it did.
func TestAppsPageTellsWhatEachAppMayDoAndDid(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	query, verifier := scene.Authorization(issuertest.Confidential, issuertest.Set("scope", "jobs:read applications:write resume:read"))
	browser := scene.Browser(t)
	browser.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	code := browser.Get("/oauth/authorize?" + query.Encode()).SignIn().Allow().Code()
	scene.Redeem(t, issuertest.Confidential, code, url.Values{"code_verifier": {verifier}})
	scene.SQL(t, "UPDATE gpt_sessions SET created_at = now() - interval '73 hours', calls_since = now() - interval '73 hours', last_active = now() - interval '330 seconds'")
	called(t, scene, issuertest.Confidential, "jobs:read", 1200, 0)
	called(t, scene, issuertest.Confidential, "jobs:read", 34, 2)
	called(t, scene, issuertest.Confidential, "jobs:read", 500, 30) // too long ago
	called(t, scene, issuertest.Confidential, "applications:read", 1, 1)
	_, page := apps(t, scene)
	wantText(t, page, "Signed in as "+issuertest.Email, "Career Copilot", "Connected through copilot.example.", "Connected 3 days ago",
		"Firefox on Linux · 127.0.0.1 Last used 5 minutes ago", "Runs at Go-http-client/1.1 · 127.0.0.1",
		"Search jobs and view job details 1,234 calls", "See your applications 1 call ", "Submit applications for you not used", "Read your resume not used",
		"Calls are counted over the last 30 days.")
	wantNoText(t, page, "Counted since")
	// Of a session that is older than counting nobody can say more.
	scene.SQL(t, "UPDATE gpt_sessions SET created_at = now() - interval '9 days'")
	page = browser.Get("/oauth/apps")
	wantText(t, page, "Counted since ")
}

// PAG-01: a verified host, or that nobody checked the name.
func TestAppsPageSaysWhoseAppItIs(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Tokens(t, issuertest.Public)
	device := startDevice(t, scene)
	device.enter(device.userCode).Allow()
	device.later()
	_, page := apps(t, scene)
	wantText(t, page, "Job CLI An app on one of your computers.", "Job TV A device whose code you entered.")
	scene.Clients.Remove(issuertest.Public) // the session's name is all that is left
	_, page = apps(t, scene)
	wantText(t, page, issuertest.Public)
}

// PAG-02: at once, said on the page, and nothing else is touched.
func TestUserEndsOneAppFromThePage(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	ended, kept := scene.Tokens(t, issuertest.Confidential), scene.Tokens(t, issuertest.Public)
	_, page := apps(t, scene)
	page = page.Press("Disconnect Career Copilot").Follow()
	wantText(t, page, "Career Copilot is disconnected. Its access has ended, and this cannot be undone.", "Job CLI")
	if page.Has("Disconnect Career Copilot") || !page.Has("Disconnect Job CLI") {
		t.Errorf("left on the page: %s", page.Text())
	}
	if r := refresh(scene, issuertest.Confidential, ended.Refresh); r.Error() != "invalid_grant" {
		t.Errorf("refresh of the ended one: %d %s", r.Status, r.Body)
	}
	if r := refresh(scene, issuertest.Public, kept.Refresh); r.Status != http.StatusOK {
		t.Errorf("refresh of the other one: %d %s", r.Status, r.Body)
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_oauth_events WHERE event_type = 'gpt.oauth.session_revoked' AND metadata->>'reason' = 'ended_by_user'"); n != 1 {
		t.Errorf("%d events", n)
	}
}

// A second tab shows what is gone by now; pressing there says so.
func TestEndingAnAppTwiceSaysThatItWasGone(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Tokens(t, issuertest.Confidential)
	browser, first := apps(t, scene)
	second := browser.Get("/oauth/apps")
	first.Press("Disconnect Career Copilot")
	wantText(t, second.Press("Disconnect Career Copilot").Follow(), "this app is not connected any more", "You have not connected any app.")
}

// PAG-02: all at once, and with them what was allowed and not collected yet.
func TestUserEndsAllApps(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	first, second := scene.Tokens(t, issuertest.Confidential), scene.Tokens(t, issuertest.Public)
	code, verifier := scene.Code(t, issuertest.GPT)
	device := startDevice(t, scene)
	device.enter(device.userCode).Allow()
	foreign := scene.Tokens(t, issuertest.GPT, issuertest.Set("scope", "applications:read"))
	scene.SQL(t, "UPDATE gpt_sessions SET user_id = 'bob' WHERE id = (SELECT id FROM gpt_sessions ORDER BY created_at DESC LIMIT 1)")

	_, page := apps(t, scene)
	page = page.Press("Disconnect all").Follow()
	wantText(t, page, "2 apps are disconnected.", "You have not connected any app.")
	for client, token := range map[string]string{issuertest.Confidential: first.Refresh, issuertest.Public: second.Refresh} {
		if r := refresh(scene, client, token); r.Error() != "invalid_grant" {
			t.Errorf("%s: %d %s", client, r.Status, r.Body)
		}
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {issuertest.GPT}, "client_secret": {issuertest.Secret}, "redirect_uri": {issuertest.GPTRedirect}, "code_verifier": {verifier}}
	if r := scene.PostForm("/oauth/token", form); r.Error() != "invalid_grant" {
		t.Errorf("a code that was not redeemed: %d %s", r.Status, r.Body)
	}
	if r := device.later(); r.Status == http.StatusOK {
		t.Errorf("a device that had not come yet: %s", r.Body)
	}
	if r := refresh(scene, issuertest.GPT, foreign.Refresh); r.Status != http.StatusOK {
		t.Errorf("somebody else's: %d %s", r.Status, r.Body)
	}
}

// PAG-02: what was not used goes at once; what is left works on; the app must ask again.
func TestUserTakesBackWhatAnAppDidNotUse(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	ask := issuertest.Set("scope", "jobs:read applications:write resume:read")
	tokens := scene.Tokens(t, issuertest.Confidential, ask)
	const drop = "Take back what it did not use Career Copilot"
	browser, page := apps(t, scene)
	if page.Has(drop) {
		t.Error("an app that did nothing is to lose all")
	}
	called(t, scene, issuertest.Confidential, "jobs:read", 5, 0)
	called(t, scene, issuertest.Confidential, "applications:read", 5, 0)
	page = browser.Get("/oauth/apps")
	called(t, scene, issuertest.Confidential, "resume:read", 1, 0) // after the user looked
	page = page.Press(drop).Follow()
	wantText(t, page, "Career Copilot has lost 1 permission that it did not use.", "See your applications", "Read your resume 1 call")
	wantNoText(t, page, "Submit applications for you")

	r := refresh(scene, issuertest.Confidential, tokens.Refresh)
	if got := r.Tokens().Scope; got != "applications:read jobs:read resume:read" {
		t.Errorf("after that it may %q: %s", got, r.Body)
	}
	consent := browser.Authorize(issuertest.Confidential, ask)
	wantText(t, consent, "wants more access", "Submit applications for you")
	if n := scene.Count(t, "SELECT count(*) FROM gpt_oauth_events WHERE event_type = 'gpt.oauth.session_narrowed'"); n != 1 {
		t.Errorf("%d events", n)
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_revocations WHERE NOT ended"); n != 1 {
		t.Errorf("%d notes for the gates, want 1", n)
	}
	// A form of before, or names that nobody was shown, take nothing that is in use.
	action, form := page.Form("Disconnect Career Copilot")
	form.Set("drop", form.Get("end"))
	form.Del("end")
	for _, unused := range []string{"jobs:read", "applications:write", "*", "", "nonsense\n"} {
		form.Set("unused", unused)
		wantText(t, browser.Post(action, form).Follow(), "Nothing was changed")
	}
}

// The page is told apart from every other user's, whatever the form says.
func TestAppsOfOthersAreOutOfReach(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Tokens(t, issuertest.Confidential, issuertest.Set("scope", "jobs:read resume:read"))
	called(t, scene, issuertest.Confidential, "jobs:read", 1, 0)
	scene.SQL(t, "UPDATE gpt_sessions SET user_id = 'bob'")
	id := fmt.Sprint(scene.SQL(t, "SELECT id::text FROM gpt_sessions")[0][0])
	scene.Tokens(t, issuertest.Public)
	browser, page := apps(t, scene)
	wantNoText(t, page, "Career Copilot")
	action, form := page.Form("Disconnect Job CLI")
	for _, change := range []url.Values{{"end": {id}}, {"drop": {id}, "unused": {"resume:read"}}, {"end": {"' OR true --"}}, {"end": {""}}} {
		body := url.Values{"csrf": form["csrf"]}
		for name, values := range change {
			body[name] = values
		}
		wantText(t, browser.Post(action, body).Follow(), "Nothing was changed", "Job CLI")
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NULL AND scopes @> granted_scopes"); n != 2 {
		t.Errorf("%d sessions are as they were, want 2", n)
	}
}

// the form of this login, from this page.
func TestAppsChangeOnlyByOurForm(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Tokens(t, issuertest.Public)
	browser, page := apps(t, scene)
	action, form := page.Form("Disconnect Job CLI")
	_, signOut := page.Form("Not you? Sign out")
	other, _ := apps(t, scene) // ada once more, in another browser
	_, otherForm := other.Get("/oauth/apps").Form("Disconnect Job CLI")
	for name, csrf := range map[string]string{"none": "", "that of signing out": signOut.Get("csrf"), "another browser's": otherForm.Get("csrf")} {
		body := url.Values{"end": form["end"], "csrf": {csrf}}
		browser.Post(action, body).WantPage(http.StatusForbidden, "This did not come from our page")
		if t.Failed() {
			t.Fatalf("with the token: %s", name)
		}
	}
	browser.Header.Set("Sec-Fetch-Site", "cross-site")
	browser.Post(action, form).WantPage(http.StatusForbidden, "This did not come from our page")
	browser.Header.Del("Sec-Fetch-Site")
	browser.Get(action+"?"+form.Encode()).WantPage(http.StatusOK, "Connected apps")
	browser.Post(action+"?end="+form.Get("end"), url.Values{"csrf": form["csrf"]}).WantPage(http.StatusBadRequest, "This request cannot be read")
	wantAlive(t, scene, true)

	// Signed out meanwhile: the form changes nothing, and leads to signing in.
	page.Press("Not you? Sign out")
	browser.Post(action, form).WantPage(http.StatusOK, "Sign in")
	wantAlive(t, scene, true)
}

// What was done is said to who did it, for a moment, and in our words only.
func TestNoticeCannotBeMadeUp(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Tokens(t, issuertest.Public)
	browser, page := apps(t, scene)
	address := page.Press("Disconnect Job CLI").Location()
	wantText(t, browser.Get(address), "Job CLI is disconnected.")
	other, _ := apps(t, scene)
	wantNoText(t, other.Get(address), "is disconnected")
	for _, done := range []string{"Job+CLI+is+disconnected", "AAAA", strings.Repeat("A", 500)} {
		wantNoText(t, browser.Get("/oauth/apps?done="+done), "is disconnected")
	}
	scene.Clock.Advance(61 * time.Second)
	wantNoText(t, browser.Get(address), "is disconnected")
}

// A list of any length is shown in pages, each session once, also where many were
// made in one moment.
func TestAppsArePaged(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.SQL(t, `INSERT INTO gpt_sessions (user_id, client_id, resource, redirect_uri, created_at, expires_at)
		SELECT $1, $2, 'https://api.test', 'https://copilot.example/cb', now() - make_interval(mins => n / 30), now() + interval '1 day' FROM generate_series(1, 45) n`,
		scene.User.ID, issuertest.Confidential)
	browser, page := apps(t, scene)
	seen := map[string]int{}
	var pages int
	for pages = 1; ; pages++ {
		for _, id := range page.Values("end") {
			seen[id]++
		}
		next := page.Link("Older")
		if next == "" {
			break
		}
		page = browser.Get(next)
	}
	if pages != 3 || len(seen) != 45 {
		t.Errorf("%d sessions on %d pages", len(seen), pages)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s is shown %d times", id, n)
		}
	}
	browser.Get(page.Link("Newest")).WantPage(http.StatusOK, "Connected apps")
	for _, after := range []string{"x", "1", "-1.x", "99999999999999999999.x", "1." + strings.Repeat("x", 100)} {
		browser.Get("/oauth/apps?after="+after).WantPage(http.StatusBadRequest, "This request cannot be read")
	}
	wantText(t, browser.Get("/oauth/apps?after=1.11111111-1111-4111-8111-111111111111"), "There are no more apps.")
}

// D-03: names and agents are whoever's; they are cleaned, cut and escaped.
func TestAppsPageEscapesWhatOthersSay(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Clients.Change(t, issuertest.Public, func(c *issuer.Client) {
		c.Name = `<script>alert(1)</script>"' ` + "\u202e" + strings.Repeat("x", 300)
	})
	scene.Tokens(t, issuertest.Public)
	scene.SQL(t, `UPDATE gpt_sessions SET client_agent = '<img src=x onerror=alert(1)>', consent_agent = 'Mozilla/5.0 "><script>'`)
	browser, page := apps(t, scene)
	if strings.Contains(page.Body, "<script") || strings.Contains(page.Body, "<img") || strings.Contains(page.Body, "\u202e") || strings.Contains(page.Text(), strings.Repeat("x", 61)) {
		t.Errorf("page: %s", page.Body)
	}
	for _, button := range page.Buttons() {
		if strings.HasPrefix(button, "Disconnect <script>") {
			page = page.Press(button).Follow()
		}
	}
	wantText(t, page, "is disconnected")
	if strings.Contains(page.Body, "<script") {
		t.Errorf("page: %s", page.Body)
	}
	browser.Get("/oauth/apps").WantPage(http.StatusOK, "Connected apps")
}

// A sign-in for a page of ours is nobody's consent.
func TestSignInForOurPageAllowsNothing(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	browser := scene.Browser(t)
	page := browser.Get("/oauth/apps")
	_, form := page.Form("Sign in")
	page.SignIn()
	for _, path := range []string{"/oauth/consent", "/oauth/account"} {
		for _, decision := range []url.Values{{"decision": {"allow"}}, {"account": {"same"}}, {"end": {"x"}}} {
			decision.Set("request", form.Get("request"))
			browser.Post(path, decision).WantPage(http.StatusBadRequest, "This request cannot be read")
		}
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_authorization_codes"); n != 0 {
		t.Errorf("%d codes", n)
	}
	browser.Get("/oauth/consent?request="+form.Get("request")).Follow().WantPage(http.StatusOK, "Connected apps")
}

// Narrowing a session that changed since it was looked at changes nothing.
func TestNarrowingNeedsTheSessionAsItWas(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Tokens(t, issuertest.Confidential, issuertest.Set("scope", "jobs:read resume:read"))
	list, err := scene.Store.ConnectedApps(context.Background(), scene.User.ID, issuer.AppPosition{}, 5)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	scene.SQL(t, "UPDATE gpt_sessions SET scopes = '{jobs:read,applications:read}'")
	err = scene.Store.NarrowSession(context.Background(), scene.User.ID, list[0].ID, list[0].Scopes, list[0].Scopes[:1], issuer.Origin{})
	if err == nil || scene.Count(t, "SELECT cardinality(scopes) FROM gpt_sessions") != 2 {
		t.Errorf("narrowed all the same: %v", err)
	}
}
