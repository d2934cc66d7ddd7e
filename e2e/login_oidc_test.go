package e2e

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"golang.org/x/oauth2"
)

// startProvider runs the OpenID provider of zitadel/oidc as a process of its own
// until the test ends.
func startProvider(t *testing.T, port, redirectURI string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "provider")
	if out, err := exec.Command("go", "build", "-o", binary, "./provider").CombinedOutput(); err != nil {
		t.Fatalf("build the provider: %v\n%s", err, out)
	}
	run := exec.Command(binary, port, "caddy-scope", "provider-secret", redirectURI)
	log := &lockedBuffer{}
	run.Stdout, run.Stderr = log, log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = run.Process.Kill()
		_ = run.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	eventually(t, "the provider is ready", func() bool {
		res, err := http.Get("http://localhost:" + port + "/.well-known/openid-configuration")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return true
	})
}

// newProviderScene is a gateway whose users sign in with a password or at the
// provider.
func newProviderScene(t *testing.T) *scene {
	t.Helper()
	port := freePort(t)
	s := newScene(t, `login oidc http://localhost:`+port+` {
			label         "Example ID"
			client_id     caddy-scope
			client_secret provider-secret
			claims        preferred_username
			userinfo
		}`)
	startProvider(t, port, s.Base+"/oauth/login/oidc")
	return s
}

func do(t *testing.T, browser context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(browser, actions...); err != nil {
		t.Fatal(err)
	}
}

// atProvider signs in on the provider's page.
func atProvider(t *testing.T, browser context.Context) {
	t.Helper()
	do(t, browser,
		chromedp.WaitVisible(field("Username")),
		chromedp.SendKeys(field("Username"), "test-user@localhost"),
		chromedp.SendKeys(field("Password"), "verysecure"),
		chromedp.Click(button("Log in")),
		chromedp.WaitVisible(button("Allow")),
	)
}

func (s *scene) redeem(config *oauth2.Config, code, verifier string) *oauth2.Token {
	s.t.Helper()
	token, err := config.Exchange(s.t.Context(), code, oauth2.VerifierOption(verifier))
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// A person cancels at the provider, tries again, allows, and the API learns who
// they are. The provider is zitadel/oidc in a process of its own.
func TestPersonSignsInAtARealProvider(t *testing.T) {
	s := newProviderScene(t)
	browser, back := newChromium(t), newCallback(t)
	config := s.oauthConfig("demo-public", "", back.URI, "jobs:read")
	verifier := oauth2.GenerateVerifier()
	link := config.AuthCodeURL("state-1", oauth2.S256ChallengeOption(verifier))

	do(t, browser, chromedp.Navigate(link), chromedp.WaitVisible(button("Continue with Example ID")))
	screenshot(t, browser, "sign-in-methods")
	do(t, browser, dark())
	screenshot(t, browser, "sign-in-methods-dark")
	do(t, browser, phone())
	screenshot(t, browser, "sign-in-methods-dark-phone")
	do(t, browser, chromedp.Click(button("Continue with Example ID")), chromedp.WaitVisible(button("Cancel")), chromedp.Click(button("Cancel")),
		chromedp.WaitVisible(button("Continue with Example ID")))
	if text := pageText(t, browser); !strings.Contains(text, "You did not sign in with Example ID") {
		t.Errorf("after cancelling: %s", text)
	}
	screenshot(t, browser, "sign-in-denied-at-provider")
	do(t, browser, chromedp.Click(button("Continue with Example ID")))
	atProvider(t, browser)
	screenshot(t, browser, "consent-after-provider")
	if text := pageText(t, browser); !strings.Contains(text, "test-user@zitadel.ch") {
		t.Errorf("the consent page does not say who is signed in: %s", text)
	}
	do(t, browser, chromedp.Click(button("Allow")))
	answer := back.await(t)
	token, err := config.Exchange(t.Context(), answer.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := s.api(http.MethodGet, "/jobs", token.AccessToken); status != http.StatusOK || s.Upstream.Last(t).Header.Get("X-User-Id") != "id1" {
		t.Errorf("GET /jobs: %d as %q", status, s.Upstream.Last(t).Header.Get("X-User-Id"))
	}

	// Allow, clicked twice, sends the browser back with one code.
	s.sql(`UPDATE gpt_sessions SET revoked_at = now()`)
	do(t, browser, chromedp.Navigate(link), chromedp.WaitVisible(button("Allow")), chromedp.DoubleClick(button("Allow")))
	first := back.await(t)
	do(t, browser, chromedp.WaitVisible(`//body[contains(., "You can close this window.")]`)) // both clicks are answered
	if n := s.count(`SELECT count(*) FROM gpt_authorization_codes WHERE used_at IS NULL`); n != 1 {
		t.Errorf("Allow twice made %d codes", n)
	}
	token = s.redeem(config, first.Get("code"), verifier)

	if status, _ := s.api(http.MethodGet, "/jobs", token.AccessToken); status != http.StatusOK {
		t.Fatalf("GET /jobs: %d", status)
	}
	// The user is deleted, behind the server's back.
	s.sql(`DELETE FROM gpt_users WHERE id = 'id1'`)
	eventually(t, "the token of a deleted user opens nothing", func() bool {
		status, _ := s.api(http.MethodGet, "/jobs", token.AccessToken)
		return status == http.StatusUnauthorized
	})
}

// Two tabs sign in side by side, one signs out while the other shows the consent
// page: the form of the other allows nothing and asks again.
func TestTwoTabsAtTheProvider(t *testing.T) {
	s := newProviderScene(t)
	tab, back := newChromium(t), newCallback(t)
	other, cancel := chromedp.NewContext(tab)
	defer cancel()
	config := s.oauthConfig("demo-public", "", back.URI, "jobs:read")
	link := func(state string) string {
		return config.AuthCodeURL(state, oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	}
	continueWith := button("Continue with Example ID")
	do(t, tab, chromedp.Navigate(link("one")), chromedp.WaitVisible(continueWith), chromedp.Click(continueWith), chromedp.WaitVisible(field("Username")))
	do(t, other, chromedp.Navigate(link("two")), chromedp.WaitVisible(continueWith), chromedp.Click(continueWith))
	atProvider(t, other)
	atProvider(t, tab)
	do(t, tab, chromedp.Click(button("Allow")))
	if answer := back.await(t); answer.Get("state") != "one" || answer.Get("code") == "" {
		t.Errorf("first tab: %v", answer)
	}
	// The second tab's page belongs to the login that the first one's replaced:
	// its form is refused, and nothing is allowed.
	do(t, other, chromedp.Click(button("Allow")), chromedp.WaitVisible(`//h1`))
	if text := pageText(t, other); strings.Contains(text, "You can close this window") {
		t.Errorf("a page of another login was honoured: %s", text)
	}

	// Signing out while a consent page is open elsewhere.
	do(t, tab, chromedp.Navigate(link("three")+"&prompt=consent"), chromedp.WaitVisible(button("Allow")))
	do(t, other, chromedp.Navigate(link("four")+"&prompt=consent"), chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Not you? Sign out")), chromedp.WaitVisible(continueWith))
	do(t, tab, chromedp.Click(button("Allow")), chromedp.WaitVisible(continueWith))
	select {
	case answer := <-back.calls:
		t.Errorf("allowed after signing out: %v", answer)
	default:
	}
}
