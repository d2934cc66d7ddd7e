package issuer

import (
	"net/url"
	"testing"
)

// OIDC-20: nothing is allowed before the choice was made, also by a form that
// the page of the choice did not give out.
func TestNothingIsAllowedBeforeTheAccountIsChosen(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	b := scene.browser()
	scene.consent(b)
	scene.ask.Prompt = pagePrompt("select_account")
	_, form := b.get("/oauth/authorize").form("Use another account")
	req, err := scene.openRequest(form.Get("request"))
	if err != nil {
		t.Fatal(err)
	}
	early := url.Values{"request": {form.Get("request")}, "decision": {"allow"}, "csrf": {formToken(b.cookie(loginCookie), consentPurpose, req.ID)}}
	if got := b.post(consentPath, early); got.heading() != "Choose an account" || len(scene.store.codes) != 0 {
		t.Errorf("%d %s", got.status, got.text())
	}
}
