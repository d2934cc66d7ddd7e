package e2e

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// addAuthenticator gives the tab a new device that keeps passkeys and verifies its
// user.
func addAuthenticator(t *testing.T, browser context.Context) (id webauthn.AuthenticatorID) {
	t.Helper()
	if err := chromedp.Do(browser, chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		if _, err := cdp.Call(ctx, tab, webauthn.Enable, webauthn.EnableParams{}); err != nil {
			return err
		}
		added, err := cdp.Call(ctx, tab, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Ctap2version: webauthn.Ctap2versionCtap21, Transport: webauthn.AuthenticatorTransportInternal,
			HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		}})
		if err != nil {
			return err
		}
		id = added.AuthenticatorID
		return nil
	})); err != nil {
		t.Fatalf("add an authenticator: %v", err)
	}
	return id
}

func removeAuthenticator(t *testing.T, browser context.Context, id webauthn.AuthenticatorID) {
	t.Helper()
	if err := chromedp.Do(browser, chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, webauthn.RemoveVirtualAuthenticator, webauthn.RemoveVirtualAuthenticatorParams{AuthenticatorID: id})
		return err
	})); err != nil {
		t.Fatalf("remove an authenticator: %v", err)
	}
}

// present has the user touch the device when asked, or not be there.
func present(t *testing.T, browser context.Context, id webauthn.AuthenticatorID, there bool) {
	t.Helper()
	if err := chromedp.Do(browser, chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, webauthn.SetAutomaticPresenceSimulation, webauthn.SetAutomaticPresenceSimulationParams{AuthenticatorID: id, Enabled: there})
		return err
	})); err != nil {
		t.Fatal(err)
	}
}

// awaitText waits until the text can be read on the page; that may be between two
// pages now.
func awaitText(t *testing.T, browser context.Context, text string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		got, err := chromedp.Run(browser, chromedp.Text("body"))
		got = strings.Join(strings.Fields(got), " ")
		if err == nil && strings.Contains(got, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q is not on the page: %s (%v)", text, got, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// authorizationLink is an authorization request of the demo client.
func authorizationLink(s *scene, back *callback) string {
	return s.Base + "/oauth/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {"demo-public"}, "redirect_uri": {back.URI}, "scope": {"jobs:read"},
		"code_challenge": {issuertest.Challenge(issuertest.NewVerifier())}, "code_challenge_method": {"S256"},
	}.Encode()
}

// LOG-01, LOG-06: in a real browser, by keyboard, a user adds a passkey and signs in
// with it, by the button and by the field for the email; a second device gets its
// own; a removed passkey signs nobody in.
func TestPasskeysInChromium(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, sceneConfig{Login: "login password {\n\t\t\tpasskeys\n\t\t}"})
	browser, back := newChromium(t), newCallback(t)
	device := addAuthenticator(t, browser)
	present(t, browser, device, false) // nobody answers the field for the email
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(browser, actions...); err != nil {
			t.Fatalf("%s: %v: %s", what, err, pageText(t, browser))
		}
	}
	waitText := func(text string) { t.Helper(); awaitText(t, browser, text) }

	do("open", chromedp.Navigate(s.Base+"/oauth/account"), chromedp.WaitVisible(button("Sign in with a passkey")))
	screenshot(t, browser, "passkeys-signin-desktop")
	signIn(t, browser)
	do("account", chromedp.WaitVisible(button("Add a passkey")))
	present(t, browser, device, true)
	// Enter in the field for the name is all that it takes.
	do("add", chromedp.SetValue("#name", "Ada's laptop"), chromedp.SendKeys("#name", "\r"))
	waitText("Ada's laptop is added.")
	screenshot(t, browser, "passkeys-account-desktop")
	do("phone", phone(), dark())
	screenshot(t, browser, "passkeys-account-phone-dark")

	// The same device makes no second one, and the page says why.
	do("add again", chromedp.Click(button("Add a passkey")), chromedp.WaitVisible("[data-passkey-known]"))
	removeAuthenticator(t, browser, device)
	device = addAuthenticator(t, browser)
	do("add another", chromedp.Click(button("Add a passkey")))
	waitText("Chrome on Linux is added.")

	// The button.
	present(t, browser, device, false)
	do("sign out", chromedp.Click(`//button[contains(., "Sign out")]`))
	waitText("You are signed out")
	do("authorize", chromedp.Navigate(authorizationLink(s, back)), chromedp.WaitVisible(button("Sign in with a passkey")))
	screenshot(t, browser, "passkeys-signin-phone-dark")
	present(t, browser, device, true)
	do("sign in", chromedp.Click(button("Sign in with a passkey")), chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Allow")))
	if back.await(t).Get("code") == "" {
		t.Error("no code")
	}

	// The field for the email, which the browser offers the passkey in.
	do("account", chromedp.Navigate(s.Base+"/oauth/account"), chromedp.Click(`//button[contains(., "Sign out")]`))
	waitText("You are signed out")
	do("authorize", chromedp.Navigate(authorizationLink(s, back)), chromedp.WaitVisible(button("Allow")))

	// Removed, and then used.
	do("account", chromedp.Navigate(s.Base+"/oauth/account"), chromedp.WaitVisible(button("Add a passkey")),
		chromedp.Click(`//h3[contains(., "Chrome")]/following::button[@name="remove"][1]`))
	waitText("The passkey is removed.")
	do("sign out", chromedp.Click(`//button[contains(., "Sign out")]`))
	waitText("You are signed out")
	present(t, browser, device, false)
	do("authorize", chromedp.Navigate(authorizationLink(s, back)), chromedp.WaitVisible(button("Sign in with a passkey")))
	present(t, browser, device, true)
	do("sign in", chromedp.Click(button("Sign in with a passkey")))
	waitText("Nobody signs in here with this passkey any more.")
}
