package login_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// APP-02: whoever is not goes to the app's sign-in page and comes back.
func TestBrowserGoesToTheAppAndComesBack(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newForwardScene(t, a)
	b := scene.Browser(t)
	page := b.Authorize("cli")
	if !strings.HasPrefix(page.Location(), a.URL+"/sign-in?from=oauth&next=") {
		t.Fatalf("%d %s", page.Status, page.Location())
	}
	back := comeBack(t, page, "next")
	if !strings.HasPrefix(back, scene.URL+"/oauth/login/app?state=") {
		t.Fatalf("the app is told to come back to %s", back)
	}
	if a.timesAsked() != 0 {
		t.Error("the app was asked about a browser that sent nothing")
	}
	b.SetCookie("sid", "session-of-ada")
	b.Get(back).Follow().Allow().Code()
}

// APP-03: a browser that comes back without being signed in is told so, with a
// button. Nothing sends it round again by itself.
func TestComingBackSignedOutIsNoLoop(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	b := scene.Browser(t)
	page := b.Get(comeBack(t, b.Authorize("cli"), "redirect_url"))
	if page.Status != http.StatusOK || page.Location() != "" || !strings.Contains(page.Text(), "you came back without being signed in there") {
		t.Fatalf("%d %s %s", page.Status, page.Location(), page.Text())
	}
	if signedInAt(t, scene, b) {
		t.Error("signed in")
	}
	// By then the cookie is there: it is SameSite=Strict, or the user did it.
	b.SetCookie(appCookie, a.keys.signed(a.claims()))
	page.Press("Continue with Job Board").Follow().Allow().Code()
}

// APP-04: no parameter of anybody leads elsewhere than to the app's page and
// back to ours.
func TestReturnAddressIsNeverOfAForeignHost(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	b := scene.Browser(t)
	b.Header.Set("X-Forwarded-Host", "evil.example")
	b.Header.Set("Referer", "https://evil.example/")
	back := comeBack(t, b.Authorize("cli", issuertest.Set("redirect_url", "https://evil.example"), issuertest.Set("next", "//evil.example")), "redirect_url")
	if strings.Contains(back, "evil") || !strings.HasPrefix(back, scene.URL+"/oauth/login/app?state=") {
		t.Fatalf("the app is told to come back to %s", back)
	}
	b.SetCookie(appCookie, a.keys.signed(a.claims()))
	for _, more := range []string{"", "&redirect_url=https://evil.example/", "&next=//evil.example", "&redirect_uri=https://evil.example", "&return_to=%5c%5cevil.example"} {
		page := b.Get(back + more)
		if strings.Contains(page.Location(), "evil") || !strings.HasPrefix(page.Location(), scene.URL+"/oauth/consent?") {
			t.Errorf("%q leads to %s", more, page.Location())
		}
	}
}

// APP-10: the state is the browser's that it was given to, of its age, and of
// its method.
func TestAddressToComeBackToHoldsInOneBrowser(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newJWTScene(t, a)
	attacker, victim := scene.Browser(t), scene.Browser(t)
	back := comeBack(t, attacker.Authorize("cli"), "redirect_url")
	victim.SetCookie(appCookie, a.keys.signed(a.claims()))
	if page := victim.Get(back); page.Status != http.StatusBadRequest || victim.Cookie("oauth_login") != "" {
		t.Errorf("a browser without our cookie: %d", page.Status)
	}
	victim.Authorize("cli")
	if page := victim.Get(back); page.Status != http.StatusForbidden {
		t.Errorf("another browser: %d", page.Status)
	}
	attacker.SetCookie(appCookie, a.keys.signed(a.claims()))
	for _, broken := range []string{"/oauth/login/app", "/oauth/login/app?state=x", "/oauth/login/app?state=x&state=y"} {
		attacker.Get(broken).WantPage(http.StatusBadRequest, "This request cannot be read")
	}
	// Once used, it leads on and makes no second login.
	consent := attacker.Get(back).Follow()
	signedIn := attacker.Cookie("oauth_login")
	if page := attacker.Get(back).Follow(); !page.Has("Allow") || attacker.Cookie("oauth_login") != signedIn {
		t.Errorf("a second time: %d %s", page.Status, page.Text())
	}
	consent.Allow().Code()
	scene.Clock.Advance(11 * time.Minute)
	attacker.Get(back).WantPage(http.StatusBadRequest, "This took too long")
}
