package issuer_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

const newPassword = "a new horse battery"

// resetLink makes a link for ada.
func resetLink(t *testing.T, scene *issuertest.Scene, reset issuer.Reset) string {
	t.Helper()
	link, digest := issuer.NewResetLink(scene.URL)
	reset.Email = "ADA@example.com"
	if err := scene.Store.CreateReset(context.Background(), digest, reset, time.Hour, issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
	return link
}

func setPassword(p *issuertest.Page, password string) *issuertest.Page {
	return p.Press("Change the password", "password", password, "again", password)
}

// LOG-10: a link sets a password once, ends what was signed in with the old one, and
// no more than it says.
func TestResetLinkSetsAPasswordOnce(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	a := scene.Authenticator(t)
	a.Uncounted = true
	signedIn := add(t, account(t, scene), a, "key").Browser()
	tokens := scene.Tokens(t, issuertest.Confidential)
	link, other := resetLink(t, scene, issuer.Reset{}), resetLink(t, scene, issuer.Reset{EndSessions: true, RemoveFactors: true})

	p := scene.Browser(t).Get(link)
	p.WantPage(http.StatusOK, "Choose a new password")
	if !strings.Contains(p.Text(), "for "+issuertest.Email) || strings.Contains(p.Text(), "lose their access") || p.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Error(p.Text())
	}
	for range 3 { // whoever looks at mail on its way uses nothing up
		scene.Browser(t).Get(link).WantPage(http.StatusOK, "Choose a new password")
	}
	if got := p.Press("Change the password", "password", newPassword, "again", "another"); !strings.Contains(got.Text(), "are not the same") {
		t.Error(got.Text())
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", 1025), "nul \x00 nul nul"} {
		if got := setPassword(p, bad); got.Status != http.StatusOK || !strings.Contains(got.Text(), "at least 8 characters") {
			t.Errorf("%q: %d %s", bad, got.Status, got.Text())
		}
	}
	setPassword(p, newPassword).WantPage(http.StatusOK, "Your password is changed")

	for name, again := range map[string]*issuertest.Page{"the form": setPassword(p, "yet another one"), "the link": scene.Browser(t).Get(link), "another link": scene.Browser(t).Get(other)} {
		if again.Status != http.StatusBadRequest || again.Heading() != "This link does not work any more" {
			t.Errorf("%s again: %d %s", name, again.Status, again.Heading())
		}
	}
	if got := signedIn.Get("/oauth/apps"); got.Heading() != "Sign in" {
		t.Errorf("the login goes on: %s", got.Heading())
	}
	sign := scene.Browser(t).Authorize(issuertest.Confidential)
	if got := sign.Press("Sign in", "email", issuertest.Email, "password", issuertest.Password); got.Status != http.StatusOK {
		t.Errorf("the old password signs in: %d", got.Status)
	}
	sign.Press("Sign in", "email", issuertest.Email, "password", newPassword).Follow().Code()
	use(t, scene.Browser(t).Authorize(issuertest.Confidential), a).Follow().Code()
	if r := refresh(scene, issuertest.Confidential, tokens.Refresh); r.Status != http.StatusOK {
		t.Errorf("the app lost its access: %d %s", r.Status, r.Body)
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_oauth_events WHERE event_type = 'gpt.oauth.password_reset'`); n != 1 {
		t.Errorf("%d events", n)
	}
}

// LOG-11: sessions and factors go if the link says so.
func TestResetLinkEndsSessionsAndFactorsIfAsked(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys())
	a := scene.Authenticator(t)
	add(t, account(t, scene), a, "key")
	tokens := scene.Tokens(t, issuertest.Confidential)
	p := scene.Browser(t).Get(resetLink(t, scene, issuer.Reset{EndSessions: true, RemoveFactors: true}))
	if !strings.Contains(p.Text(), "lose their access") || !strings.Contains(p.Text(), "Your passkeys and your second factor are removed") {
		t.Error(p.Text())
	}
	setPassword(p, newPassword).WantPage(http.StatusOK, "Your password is changed")
	if r := refresh(scene, issuertest.Confidential, tokens.Refresh); r.Error() != "invalid_grant" {
		t.Errorf("the app goes on: %d %s", r.Status, r.Body)
	}
	if got := use(t, scene.Browser(t).Authorize(issuertest.Confidential), a); got.Status != http.StatusOK {
		t.Errorf("the passkey goes on: %d", got.Status)
	}
}

// LOG-12: links that expired, of users who are disabled, or that nobody made, and
// guessing them.
func TestResetLinksThatDoNotWork(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	gone := func(name, link string) {
		t.Helper()
		if got := scene.Browser(t).Get(link); got.Status != http.StatusBadRequest || got.Heading() != "This link does not work any more" || strings.Contains(got.Body, issuertest.Email) {
			t.Errorf("%s: %d %s", name, got.Status, got.Text())
		}
	}
	link := resetLink(t, scene, issuer.Reset{})
	open := scene.Browser(t).Get(link)
	scene.SQL(t, `UPDATE gpt_users SET disabled_at = now()`)
	gone("disabled", link)
	scene.SQL(t, `UPDATE gpt_users SET disabled_at = NULL`)
	scene.SQL(t, `UPDATE gpt_password_resets SET expires_at = now()`)
	gone("expired", link)
	if got := setPassword(open, newPassword); got.Status != http.StatusBadRequest {
		t.Errorf("expired while it was open: %d", got.Status)
	}
	stored := scene.SQL(t, `SELECT encode(digest, 'hex') FROM gpt_password_resets`)[0][0].(string)
	gone("what is stored", "/oauth/reset?token="+stored)
	gone("nothing", "/oauth/reset")
	fresh := scene.Browser(t).Get(resetLink(t, scene, issuer.Reset{}))
	_, form := fresh.Form("Change the password")
	b := scene.Browser(t)
	b.Header.Set("Sec-Fetch-Site", "cross-site")
	if got := b.Post("/oauth/reset", url.Values{"token": form["token"], "password": {newPassword}, "again": {newPassword}}); got.Status != http.StatusForbidden {
		t.Errorf("from another site: %d", got.Status)
	}
	for range 30 {
		b := scene.Browser(t)
		if b.Get("/oauth/reset?token="+issuertest.NewVerifier()).Status == http.StatusTooManyRequests {
			return
		}
	}
	t.Error("guessing is not throttled")
}

// LOG-10, of many at once.
func TestResetLinkUsedAtOnceSetsOnePassword(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	link := resetLink(t, scene, issuer.Reset{})
	var wg sync.WaitGroup
	done := make(chan int, 4)
	var open []*issuertest.Page
	for range cap(done) {
		open = append(open, scene.Browser(t).Get(link))
	}
	for _, p := range open {
		wg.Go(func() { done <- setPassword(p, newPassword).Status })
	}
	wg.Wait()
	close(done)
	changed := 0
	for status := range done {
		if status == http.StatusOK {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d of 4 changed the password", changed)
	}
}
