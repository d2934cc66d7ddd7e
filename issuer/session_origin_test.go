package issuer_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// origins are who allowed the session, and who last fetched its tokens.
func origins(t *testing.T, scene *issuertest.Scene) string {
	t.Helper()
	rows := scene.SQL(t, "SELECT consent_address, consent_agent, client_address, client_agent FROM gpt_sessions")
	if len(rows) != 1 {
		t.Fatalf("%d sessions", len(rows))
	}
	return strings.TrimSpace(fmt.Sprintln(rows[0]...))
}

func TestSessionRemembersWhereItWasAllowedAndLastRefreshed(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	query, verifier := scene.Authorization(issuertest.Confidential)
	browser := scene.Browser(t)
	browser.Header.Set("User-Agent", "Mozilla/5.0 \u202e(X11) "+strings.Repeat("long ", 1000))
	code := browser.Get("/oauth/authorize?" + query.Encode()).SignIn().Allow().Code()
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {issuertest.Confidential}, "client_secret": {issuertest.Secret}, "code_verifier": {verifier}}
	tokens := scene.PostForm("/oauth/token", form, issuertest.Header("User-Agent", "copilot/1.0"))
	if tokens.Status != 200 {
		t.Fatal(tokens.Body)
	}
	first := origins(t, scene)
	if !strings.HasPrefix(first, "127.0.0.1 Mozilla/5.0 (X11) long ") || len(first) > 300 || !strings.HasSuffix(first, "… 127.0.0.1 copilot/1.0") {
		t.Errorf("after the code: %q", first)
	}
	again := url.Values{"grant_type": {"refresh_token"}, "client_id": {issuertest.Confidential}, "client_secret": {issuertest.Secret}, "refresh_token": {tokens.Tokens().Refresh}}
	for _, agent := range []string{"copilot/2.0", "a repeat/3.0"} { // the same successor a second time: nothing has moved
		if r := scene.PostForm("/oauth/token", again, issuertest.Header("User-Agent", agent)); r.Status != 200 {
			t.Fatal(r.Body)
		}
	}
	if got := origins(t, scene); got != strings.TrimSuffix(first, "copilot/1.0")+"copilot/2.0" {
		t.Errorf("after the refresh: %q", got)
	}
}

func TestSessionOfADeviceRemembersTheBrowserThatAllowedIt(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	d := startDevice(t, scene)
	browser := scene.Browser(t)
	browser.Header.Set("User-Agent", "a phone")
	browser.Get("/oauth/device").Press("Continue", "user_code", d.userCode).SignIn().Allow()
	if r := d.later(); r.Status != 200 {
		t.Fatal(r.Body)
	}
	if got := origins(t, scene); got != "127.0.0.1 a phone 127.0.0.1 Go-http-client/1.1" {
		t.Errorf("got %q", got)
	}
}
