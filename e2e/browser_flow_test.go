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

// CLI-06: a person goes from an authorize link through sign-in and consent to a token
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

// STEP-06, trap 17: a client is refused for want of a scope, asks for what the
// challenge names and what it had, and goes on; the page names only what is new,
// who may write may read, and the session before is as it was.
func TestConsentAsksOnlyForWhatIsNew(t *testing.T) {
	s := newScene(t, "")
	browser, back := newChromium(t), newCallback(t)
	connect := func(scopes ...string) (page string, token *oauth2.Token) {
		t.Helper()
		config := s.oauthConfig("demo-public", "", back.URI, scopes...)
		verifier := oauth2.GenerateVerifier()
		do(t, browser, chromedp.Navigate(config.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier))))
		if len(scopes) == 1 {
			signIn(t, browser)
		}
		do(t, browser, chromedp.WaitVisible(button("Allow")))
		page = pageText(t, browser)
		do(t, browser, chromedp.Click(button("Allow")))
		return page, s.redeem(config, back.await(t).Get("code"), verifier)
	}
	_, first := connect("jobs:read")
	status, header := s.api(http.MethodPost, "/applications", first.AccessToken)
	challenge := header.Get("WWW-Authenticate")
	_, rest, _ := strings.Cut(challenge, ` scope="`)
	needed, _, ok := strings.Cut(rest, `"`)
	if status != http.StatusForbidden || !ok {
		t.Fatalf("POST /applications: %d %s", status, challenge)
	}

	page, second := connect(append([]string{"jobs:read"}, strings.Fields(needed)...)...)
	asked, held, _ := strings.Cut(page, "What it can do already")
	if !strings.Contains(page, "wants more access") || !strings.Contains(asked, "Submit applications for you") || strings.Contains(asked, "Search jobs") {
		t.Errorf("the page asks for what is not new, or not for what is: %s | %s", asked, held)
	}
	for _, c := range []struct {
		name, method, path string
		token              *oauth2.Token
		want               int
	}{
		{"new", http.MethodPost, "/applications", second, http.StatusOK},
		{"new, by the hierarchy", http.MethodGet, "/applications", second, http.StatusOK},
		{"new, what it had", http.MethodGet, "/jobs", second, http.StatusOK},
		{"old", http.MethodGet, "/jobs", first, http.StatusOK},
		{"old, no wider", http.MethodPost, "/applications", first, http.StatusForbidden},
	} {
		if status, _ := s.api(c.method, c.path, c.token.AccessToken); status != c.want {
			t.Errorf("%s: %s %s: %d, want %d", c.name, c.method, c.path, status, c.want)
		}
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
