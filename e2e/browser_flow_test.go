package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"golang.org/x/oauth2"
)

func (s *scene) oauthConfig(clientID, secret, redirectURI string, scopes ...string) *oauth2.Config {
	style := oauth2.AuthStyleInParams
	return &oauth2.Config{
		ClientID: clientID, ClientSecret: secret, RedirectURL: redirectURI, Scopes: scopes,
		Endpoint: oauth2.Endpoint{
			AuthURL:   s.Base + "/oauth/authorize",
			TokenURL:  s.Base + "/oauth/token",
			AuthStyle: style,
		},
	}
}

// A person goes from an authorize link through sign-in and consent to a token
// that opens /jobs and nothing more, and an operator in psql takes it away.
// The client is golang.org/x/oauth2, the browser Chromium.
func TestPersonConnectsAClientAndOperatorCutsItOff(t *testing.T) {
	s := newScene(t, "")
	browser, back := newChromium(t), newCallback(t)
	config := s.oauthConfig("demo-public", "", back.URI, "jobs:read")
	verifier, state := oauth2.GenerateVerifier(), randomHex(8)
	link := config.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier))

	if err := chromedp.Do(browser, chromedp.Navigate(link), chromedp.WaitVisible(field("Email"))); err != nil {
		t.Fatal(err)
	}
	screenshot(t, browser, "sign-in")
	signIn(t, browser)
	if err := chromedp.Do(browser, chromedp.WaitVisible(button("Allow"))); err != nil {
		t.Fatal(err)
	}
	screenshot(t, browser, "consent")
	text := pageText(t, browser)
	for _, want := range []string{"Demo CLI", "Search jobs and view job details", email} {
		if !strings.Contains(text, want) {
			t.Errorf("the consent page does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Submit applications") {
		t.Error("the consent page names a scope that was not asked for")
	}
	if err := chromedp.Do(browser, chromedp.Click(button("Allow"))); err != nil {
		t.Fatal(err)
	}
	answer := back.await(t)
	if answer.Get("state") != state || answer.Get("iss") != s.Base || answer.Get("error") != "" {
		t.Fatalf("authorization response: %v", answer)
	}
	token, err := config.Exchange(t.Context(), answer.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}

	if status, _ := s.api(http.MethodGet, "/jobs", token.AccessToken); status != http.StatusOK {
		t.Errorf("GET /jobs: %d", status)
	}
	received := s.Upstream.Last(t)
	claims := payload(t, token.AccessToken)
	if got := received.Header.Get("X-User-Id"); got == "" || got != claims["sub"] {
		t.Errorf("upstream saw X-User-Id %q, token has sub %v", got, claims["sub"])
	}
	if received.Header.Get("Authorization") != "" {
		t.Error("the access token was forwarded")
	}
	status, header := s.api(http.MethodPost, "/applications", token.AccessToken)
	if status != http.StatusForbidden || !strings.Contains(header.Get("WWW-Authenticate"), `scope="applications:write"`) {
		t.Errorf("POST /applications: %d %q", status, header.Get("WWW-Authenticate"))
	}

	expired := *token
	expired.Expiry = expired.Expiry.AddDate(-1, 0, 0)
	refreshed, err := config.TokenSource(t.Context(), &expired).Token()
	if err != nil {
		t.Fatalf("refresh: %v", err)
	}
	if refreshed.AccessToken == token.AccessToken || refreshed.RefreshToken == token.RefreshToken {
		t.Error("refresh rotated nothing")
	}

	s.sql(`UPDATE gpt_sessions SET revoked_at = now()`)
	for revoked := time.Now(); ; { // session_check live: within max_staleness, usually at once
		late := time.Since(revoked)
		status, header := s.api(http.MethodGet, "/jobs", refreshed.AccessToken)
		if status == http.StatusUnauthorized && strings.Contains(header.Get("WWW-Authenticate"), `error="invalid_token"`) {
			break
		}
		if late > time.Second {
			t.Fatalf("%s after the revocation: %d %q", late, status, header.Get("WWW-Authenticate"))
		}
	}
	expired.RefreshToken = refreshed.RefreshToken
	if _, err := config.TokenSource(t.Context(), &expired).Token(); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
		t.Errorf("refresh after the revocation: %v", err)
	}
}

func TestPersonDenies(t *testing.T) {
	s := newScene(t, "")
	browser, back := newChromium(t), newCallback(t)
	link := s.oauthConfig("demo-public", "", back.URI, "jobs:read").
		AuthCodeURL("s-1", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	if err := chromedp.Do(browser, chromedp.Navigate(link)); err != nil {
		t.Fatal(err)
	}
	signIn(t, browser)
	if err := chromedp.Do(browser, chromedp.WaitVisible(button("Deny")), chromedp.Click(button("Deny"))); err != nil {
		t.Fatal(err)
	}
	answer := back.await(t)
	if answer.Get("error") != "access_denied" || answer.Get("state") != "s-1" || answer.Get("iss") != s.Base || answer.Has("code") {
		t.Errorf("authorization response: %v", answer)
	}
}

// Step-up: the second request asks for one more scope; the page names only
// that one.
func TestConsentAsksOnlyForWhatIsNew(t *testing.T) {
	s := newScene(t, "")
	browser, back := newChromium(t), newCallback(t)
	connect := func(scopes ...string) string {
		config := s.oauthConfig("demo-public", "", back.URI, scopes...)
		verifier := oauth2.GenerateVerifier()
		if err := chromedp.Do(browser, chromedp.Navigate(config.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)))); err != nil {
			t.Fatal(err)
		}
		if len(scopes) == 1 {
			signIn(t, browser)
		}
		if err := chromedp.Do(browser, chromedp.WaitVisible(button("Allow"))); err != nil {
			t.Fatal(err)
		}
		text := pageText(t, browser)
		if err := chromedp.Do(browser, chromedp.Click(button("Allow"))); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Exchange(t.Context(), back.await(t).Get("code"), oauth2.VerifierOption(verifier)); err != nil {
			t.Fatal(err)
		}
		return text
	}
	connect("jobs:read")
	text := connect("jobs:read", "applications:write")
	if !strings.Contains(text, "Submit applications for you") {
		t.Errorf("the page does not ask for the new scope:\n%s", text)
	}
}

// The pages on a phone, in the dark, and what a person sees when something is
// wrong: screenshots kept as artefacts, and no horizontal scrolling.
func TestPagesFitAPhone(t *testing.T) {
	s := newScene(t, "")
	browser, back := newChromium(t), newCallback(t)
	link := s.oauthConfig("demo-public", "", back.URI, "jobs:read", "applications:write", "resume:read").
		AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	fits := func(page string) {
		t.Helper()
		overflow, err := chromedp.Run(browser, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`))
		if err != nil {
			t.Fatal(err)
		}
		if overflow {
			t.Errorf("%s scrolls sideways at 360 px", page)
		}
		screenshot(t, browser, page)
	}
	if err := chromedp.Do(browser, phone(), dark(), chromedp.Navigate(link), chromedp.WaitVisible(field("Email"))); err != nil {
		t.Fatal(err)
	}
	fits("sign-in-phone-dark")
	signIn(t, browser)
	if err := chromedp.Do(browser, chromedp.WaitVisible(button("Allow"))); err != nil {
		t.Fatal(err)
	}
	fits("consent-phone-dark")
	if err := chromedp.Do(browser, chromedp.Navigate(s.Base+"/oauth/authorize?client_id=nobody&redirect_uri=https://evil.example/")); err != nil {
		t.Fatal(err)
	}
	fits("error-phone-dark")
}
