package issuer

import (
	"net/http"
	"strings"
	"testing"
)

// attributes of both cookies, with TLS and without.
func TestCookiesCarryTheStrictestAttributesTheIssuerAllows(t *testing.T) {
	t.Parallel()
	for name, tls := range map[string]bool{"https": true, "http loopback": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := startPageScene(t, tls)
			b := scene.browser()
			form := b.get("/oauth/authorize")
			done := form.submit("Sign in", "email", sceneEmail, "password", scenePassword)
			prefix := ""
			if tls {
				prefix = "__Host-"
			}
			for want, answer := range map[string]*page{prefix + "oauth_browser": form, prefix + "oauth_login": done} {
				set := (&http.Response{Header: answer.header}).Cookies()
				if len(set) != 1 {
					t.Fatalf("%d cookies set, want %s alone", len(set), want)
				}
				c := set[0]
				if c.Name != want || !c.HttpOnly || c.Secure != tls || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
					t.Errorf("cookie %s", c)
				}
				if len(c.Value) != 43 {
					t.Errorf("%s has %d characters, want 43 of 32 random bytes", c.Name, len(c.Value))
				}
			}
			if p := b.follow(done); p.button("Allow") == nil {
				t.Errorf("after sign-in: %d %s", p.status, p.text())
			}
		})
	}
}

// a broken cookie is no cookie.
func TestBrokenLoginCookieIsSignedOut(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	for name, value := range map[string]string{
		"malformed": "!!!", "truncated": strings.Repeat("A", 20), "huge": strings.Repeat("A", 6000),
		"unknown": newCookieValue(), "unused bits": strings.Repeat("A", 42) + "B", "empty": "",
	} {
		b := scene.browser()
		b.setCookie(loginCookie, value)
		if p := b.get("/oauth/authorize"); p.status != http.StatusOK || p.button("Sign in") == nil {
			t.Errorf("%s: %d %s", name, p.status, p.text())
		}
	}
	// Two cookies of one name: somebody planted the other.
	b := scene.browser()
	scene.consent(b)
	good, planted := "oauth_login="+b.cookie(loginCookie), "oauth_login="+newCookieValue()
	b.client.Jar = nil
	for _, both := range []string{good + "; " + planted, planted + "; " + good} {
		b.header.Set("Cookie", both)
		if p := b.get("/oauth/authorize"); p.button("Sign in") == nil {
			t.Errorf("ambiguous cookie: %d %s", p.status, p.text())
		}
	}
}

func TestFormTokensHoldForOnePurposeRequestAndLogin(t *testing.T) {
	t.Parallel()
	cookie := newCookieValue()
	token := formToken(cookie, consentPurpose, "request-1")
	if !validFormToken(token, cookie, consentPurpose, "request-1") {
		t.Fatal("a token does not hold for what it was made for")
	}
	if validFormToken(token, cookie, logoutPurpose, "request-1") || validFormToken(token, cookie, consentPurpose, "request-2") ||
		validFormToken(token, newCookieValue(), consentPurpose, "request-1") {
		t.Error("a token holds for something else")
	}
}

// what was planted before signing in is worth nothing after it.
func TestSignInDoesNotAdoptAPlantedCookie(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	attacker := scene.browser()
	scene.consent(attacker)
	planted := attacker.cookie(loginCookie)

	victim := scene.browser()
	scene.ask.Prompt = pagePrompt("login")
	victim.setCookie(loginCookie, planted)
	scene.consent(victim)
	if got := victim.cookie(loginCookie); got == planted || got == "" {
		t.Fatalf("login cookie after sign-in: %q", got)
	}
	scene.ask.Prompt = pagePrompt()
	if p := attacker.get("/oauth/authorize"); p.button("Sign in") == nil {
		t.Errorf("the planted cookie is signed in: %s", p.text())
	}
}
