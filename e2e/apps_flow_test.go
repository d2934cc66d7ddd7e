package e2e

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/oauth2"
)

// person is somebody at a browser, and a client that they connect.
type person struct {
	*scene
	browser  context.Context
	back     *callback
	config   *oauth2.Config
	verifier string
}

// optionalResume lets users leave the last scope out.
const optionalResume = `scope jobs:read          "Search jobs and view job details"
		scope applications:write "Submit applications for you"
		scope resume:read        "Read your resume" {
			optional
		}
		scope applications:read  "See your applications"`

func newPerson(t *testing.T) *person {
	t.Helper()
	p := &person{scene: newSceneWith(t, sceneConfig{Scopes: optionalResume}), browser: newChromium(t), back: newCallback(t), verifier: oauth2.GenerateVerifier()}
	p.config = p.oauthConfig("demo-public", "", p.back.URI, "jobs:read", "resume:read")
	return p
}

// link begins an authorization.
func (p *person) link(state string) string {
	return p.config.AuthCodeURL(state, oauth2.S256ChallengeOption(p.verifier))
}

func (p *person) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.browser, steps...); err != nil {
		p.t.Fatalf("%v; the page says: %s", err, pageText(p.t, p.browser))
	}
}

// consent comes to the consent page and signs in on the way.
func (p *person) consent(state string) {
	p.t.Helper()
	p.do(chromedp.Navigate(p.link(state)))
	signIn(p.t, p.browser)
	p.do(chromedp.WaitVisible(button("Allow")))
}

func (p *person) exchange(code string) *oauth2.Token {
	p.t.Helper()
	token, err := p.config.Exchange(p.t.Context(), code, oauth2.VerifierOption(p.verifier))
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

// wantCodes asserts how many codes were made.
func (p *person) wantCodes(want int) {
	p.t.Helper()
	if got := p.count("SELECT count(*) FROM gpt_authorization_codes"); got != want {
		p.t.Errorf("%d codes, want %d", got, want)
	}
}

// noScript keeps pages from running any script.
func noScript() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	})
}

// PAG-03, PAG-06, PAG-13: no page needs JavaScript. A person signs in, leaves a scope out and
// allows the rest, sees on the page of connected apps what the client did, and
// disconnects it there: the very next request gets 401, and the refresh token
// invalid_grant. Nobody else is asked for anything.
func TestPersonConnectsAndDisconnectsWithoutScript(t *testing.T) {
	p := newPerson(t)
	asked := requests(t, p.browser)
	p.do(noScript())
	p.consent("s")
	p.do(chromedp.Click(`//input[@type="checkbox"]`), chromedp.Click(button("Allow")))
	token := p.exchange(p.back.await(t).Get("code"))
	if scope := token.Extra("scope"); scope != "jobs:read" {
		t.Errorf("granted %v", scope)
	}
	for range 3 {
		if status, _ := p.api(http.MethodGet, "/jobs", token.AccessToken); status != http.StatusOK {
			t.Fatalf("GET /jobs: %d", status)
		}
	}
	if status, _ := p.api(http.MethodGet, "/resume", token.AccessToken); status != http.StatusForbidden {
		t.Errorf("GET /resume, which was left out: %d", status)
	}

	// Counts are written every ten seconds at the latest.
	for deadline := time.Now().Add(30 * time.Second); ; {
		p.do(chromedp.Navigate(p.Base+"/oauth/apps"), chromedp.WaitVisible(button("Disconnect Demo CLI")))
		if text := pageText(t, p.browser); strings.Contains(text, "Search jobs and view job details 3 calls") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the page does not say what was called: %s", text)
		}
		time.Sleep(200 * time.Millisecond)
	}
	p.do(chromedp.Click(button("Disconnect Demo CLI")), chromedp.WaitVisible(`//div[@role="status"]`))
	revoked := time.Now()
	status, header := p.api(http.MethodGet, "/jobs", token.AccessToken)
	if status != http.StatusUnauthorized || !strings.Contains(header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		t.Errorf("%s after the revocation: %d %q", time.Since(revoked), status, header.Get("WWW-Authenticate"))
	}
	token.Expiry = time.Now().Add(-time.Hour)
	if _, err := p.config.TokenSource(t.Context(), token).Token(); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
		t.Errorf("refresh after the revocation: %v", err)
	}
	if text := pageText(t, p.browser); !strings.Contains(text, "Demo CLI is disconnected.") || !strings.Contains(text, "cannot be undone") {
		t.Errorf("the page says %s", text)
	}
	p.do(chromedp.Click(button("Not you? Sign out")), chromedp.WaitVisible(`//h1[normalize-space()="You are signed out"]`))
	callback, _ := url.Parse(p.back.URI)
	for _, address := range asked() {
		if u, _ := url.Parse(address); !strings.HasPrefix(address, p.Base) && u.Host != callback.Host && u.Scheme != "data" {
			t.Errorf("the browser asked for %s", address)
		}
	}
}

// PAG-15, PROTOCOL 6, trap 19: one request, one code, however often the button is hit.
func TestDoubleClickOnAllowMakesOneCode(t *testing.T) {
	p := newPerson(t)
	p.consent("s")
	p.do(chromedp.DoubleClick(button("Allow")))
	code := p.back.await(t).Get("code")
	p.wantCodes(1)
	p.exchange(code)
}

// PAG-15: the page that the back button shows again leads to the same code, and the
// client that uses it twice gets no second session.
func TestBackButtonAfterAllowMakesNoSecondCode(t *testing.T) {
	p := newPerson(t)
	p.consent("s")
	p.do(chromedp.Click(button("Allow")))
	first := p.back.await(t).Get("code")
	p.exchange(first)
	p.do(chromedp.WaitVisible(`//body[contains(., "You can close this window.")]`), // the browser has left
		chromedp.NavigateBack(), chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Allow")))
	if second := p.back.await(t).Get("code"); second != first {
		t.Errorf("another code: %s", second)
	}
	p.wantCodes(1)
	if n := p.count("SELECT count(*) FROM gpt_sessions"); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// PAG-15: two requests side by side: each tab ends with its own code and its own state,
// and a sign-in in one serves the other.
func TestTwoTabsGoEachItsWay(t *testing.T) {
	p := newPerson(t)
	p.do(chromedp.Navigate(p.link("first")), chromedp.WaitVisible(field("Email")))
	other, cancel := chromedp.NewContext(p.browser)
	defer cancel()
	if err := chromedp.Do(other, chromedp.Navigate(p.link("second"))); err != nil {
		t.Fatal(err)
	}
	signIn(t, other)
	if err := chromedp.Do(other, chromedp.WaitVisible(button("Allow"))); err != nil {
		t.Fatal(err)
	}
	signIn(t, p.browser) // the form that was open before
	p.do(chromedp.WaitVisible(button("Allow")))
	codes := map[string]string{}
	p.do(chromedp.Click(button("Allow")))
	answer := p.back.await(t)
	codes[answer.Get("state")] = answer.Get("code")
	// The first tab's sign-in has ended the login that the other tab's form belongs
	// to: as the page says, its user starts again from the app.
	do(t, other, chromedp.Click(button("Allow")), chromedp.WaitVisible(`//h1[normalize-space()="This did not come from our page"]`))
	p.wantCodes(1)
	do(t, other, chromedp.Navigate(p.link("second")), chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Allow")))
	answer = p.back.await(t)
	codes[answer.Get("state")] = answer.Get("code")
	if len(codes) != 2 || codes["first"] == codes["second"] || codes["first"] == "" || codes["second"] == "" {
		t.Fatalf("codes %v", codes)
	}
	p.exchange(codes["first"])
	p.exchange(codes["second"])
}

// PAG-15: signed out in another tab, the open consent page allows nothing: it leads to
// signing in, and asks again.
func TestSigningOutWhileConsentingAllowsNothing(t *testing.T) {
	p := newPerson(t)
	p.consent("s")
	other, cancel := chromedp.NewContext(p.browser)
	defer cancel()
	if err := chromedp.Do(other, chromedp.Navigate(p.Base+"/oauth/apps"), chromedp.WaitVisible(button("Not you? Sign out")),
		chromedp.Click(button("Not you? Sign out")), chromedp.WaitVisible(`//h1[normalize-space()="You are signed out"]`)); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.Click(button("Allow")), chromedp.WaitVisible(field("Email")))
	p.wantCodes(0)
	signIn(t, p.browser)
	p.do(chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Allow")))
	p.exchange(p.back.await(t).Get("code"))
}

// count runs a query that yields one number.
func (s *scene) count(query string) (n int) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.DSN)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(s.t.Context())) }()
	if err := conn.QueryRow(s.t.Context(), query).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return n
}
