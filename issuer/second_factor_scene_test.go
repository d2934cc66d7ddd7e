package issuer_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// secondFactor sets how the users of a scene sign in.
func secondFactor(mode issuer.SecondFactorMode) issuertest.Option {
	return issuertest.With(func(c *issuer.Config) { c.SecondFactor = mode })
}

// app is an authenticator app, by the clock of the scene.
type app struct {
	scene  *issuertest.Scene
	secret string
}

func (a app) code(t *testing.T, later time.Duration) string {
	t.Helper()
	code, err := totp.GenerateCode(a.secret, a.scene.Clock.Now().Add(later))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// wrong is a code that is none of those that count now.
func (a app) wrong(t *testing.T) string {
	t.Helper()
	for n := range 10 {
		guess := fmt.Sprintf("%06d", n)
		if guess != a.code(t, -30*time.Second) && guess != a.code(t, 0) && guess != a.code(t, 30*time.Second) {
			return guess
		}
	}
	return "none"
}

var (
	secretOnPage = regexp.MustCompile(`(?:[A-Z2-7]{4} ){7}[A-Z2-7]{4}`)
	codesOnPage  = regexp.MustCompile(`[A-Z2-7]{4}(?:-[A-Z2-7]{4}){3}`)
)

// scan reads the secret of the page that sets a second factor up.
func scan(t *testing.T, scene *issuertest.Scene, p *issuertest.Page) app {
	t.Helper()
	secret := strings.ReplaceAll(secretOnPage.FindString(p.Text()), " ", "")
	if p.Heading() != "Set up a second factor" || secret == "" {
		t.Fatalf("%d %s", p.Status, p.Text())
	}
	return app{scene, secret}
}

// enrol sets up ada's second factor on the account page, and lets half a minute pass,
// so that the next code is a new one.
func enrol(t *testing.T, scene *issuertest.Scene) (a app, recovery []string, shown *issuertest.Page) {
	t.Helper()
	p := account(t, scene).Press("Set up a second factor")
	a = scan(t, scene, p)
	shown = p.Press("Turn it on", "code", a.code(t, 0))
	if shown.Heading() != "Keep your recovery codes" {
		t.Fatalf("%d %s", shown.Status, shown.Text())
	}
	scene.Clock.Advance(30 * time.Second)
	return a, codesOnPage.FindAllString(shown.Text(), -1), shown
}

// askedForCode signs in with the password in a new browser.
func askedForCode(t *testing.T, scene *issuertest.Scene, params ...issuertest.Param) *issuertest.Page {
	t.Helper()
	p := scene.Browser(t).Authorize(issuertest.Confidential, params...).Press("Sign in", "email", issuertest.Email, "password", issuertest.Password)
	if p.Heading() != "Enter the code" || p.Browser().Cookie("oauth_login") != "" {
		t.Fatalf("%d %s: %s", p.Status, p.Location(), p.Text())
	}
	return p
}

func enterCode(p *issuertest.Page, code string) *issuertest.Page {
	return p.Press("Continue", "code", code)
}

func wantRefusedCode(t *testing.T, what string, got *issuertest.Page) {
	t.Helper()
	if got.Status != http.StatusOK || got.Heading() != "Enter the code" || !strings.Contains(got.Text(), "not right, or was used before") || got.Browser().Cookie("oauth_login") != "" {
		t.Errorf("%s: %d %s %s", what, got.Status, got.Location(), got.Text())
	}
}
