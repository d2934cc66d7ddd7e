package issuer_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// device is one that waits for its user.
type device struct {
	t              *testing.T
	scene          *issuertest.Scene
	code, userCode string
	answer         issuertest.Response
}

func startDevice(t *testing.T, scene *issuertest.Scene, params ...issuertest.Param) device {
	t.Helper()
	form := url.Values{"client_id": {issuertest.Device}, "scope": {"jobs:read"}}
	for _, param := range params {
		param(form)
	}
	r := scene.PostForm("/oauth/device_authorization", form)
	if r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	return device{t, scene, r.JSON["device_code"].(string), r.JSON["user_code"].(string), r}
}

func (d device) poll(params ...issuertest.Param) issuertest.Response {
	d.t.Helper()
	form := url.Values{"grant_type": {deviceGrant}, "client_id": {issuertest.Device}, "device_code": {d.code}}
	for _, param := range params {
		param(form)
	}
	return d.scene.PostForm("/oauth/token", form)
}

// later polls after the interval.
func (d device) later() issuertest.Response {
	d.t.Helper()
	d.scene.SQL(d.t, "UPDATE gpt_device_codes SET polled_at = polled_at - interval '1 hour'")
	return d.poll()
}

// enter types the code and signs ada in.
func (d device) enter(code string) *issuertest.Page {
	d.t.Helper()
	page := d.scene.Browser(d.t).Get("/oauth/device").Press("Continue", "user_code", code)
	if page.Has("Sign in") {
		page = page.SignIn()
	}
	return page
}

// The whole way of RFC 8628: the device waits, its user allows, it gets tokens
// that refresh.
func TestDeviceGetsTokensOnceItsUserAllows(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	d := startDevice(t, scene, issuertest.Set("scope", "jobs:read offline_access"))
	if !regexp.MustCompile(`^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`).MatchString(d.userCode) || d.answer.Header.Get("Cache-Control") != "no-store" ||
		d.answer.JSON["verification_uri"] != scene.URL+"/oauth/device" || d.answer.JSON["verification_uri_complete"] != scene.URL+"/oauth/device?user_code="+d.userCode ||
		d.answer.JSON["expires_in"] != 600.0 || d.answer.JSON["interval"] != 5.0 {
		t.Fatalf("%s", d.answer.Body)
	}
	wantOAuthError(t, d.poll(), 400, "authorization_pending")

	page := d.enter(strings.ToLower(strings.ReplaceAll(d.userCode, "-", " ")))
	for _, text := range []string{"Job TV", "Search jobs and view job details", d.userCode, "in front of you", issuertest.Email} {
		if !strings.Contains(page.Text(), text) {
			t.Errorf("the page lacks %q: %s", text, page.Text())
		}
	}
	for range 2 { // sent twice: once decided
		page.Allow().WantPage(http.StatusOK, "Your device is connected")
	}

	r := d.later()
	tokens := r.Tokens()
	if r.Status != 200 || tokens.Scope != "jobs:read" || tokens.Refresh == "" {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	if claims := claimsOf(t, tokens.Access); claims["sub"] != scene.User.ID || claims["aud"] != scene.URL || claims["client_id"] != issuertest.Device {
		t.Errorf("%v", claims)
	}
	if r := refresh(scene, issuertest.Device, tokens.Refresh, issuertest.Omit("client_secret")); r.Status != 200 {
		t.Errorf("refresh: %s", r.Body)
	}
	wantOAuthError(t, d.later(), 400, "invalid_grant")
	if got := scene.Get("/.well-known/oauth-authorization-server"); got.JSON["device_authorization_endpoint"] != scene.URL+"/oauth/device_authorization" {
		t.Errorf("%s", got.Body)
	}
}

// F-03: neither a link nor a GET nor an earlier approval confirms; the page
// shows who asks for what, and a form of elsewhere is refused.
func TestDeviceIsNeverAllowedWithoutAllow(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	browser := scene.Browser(t)
	first := startDevice(t, scene)
	browser.Get("/oauth/device").Press("Continue", "user_code", first.userCode).SignIn().Allow().WantPage(200, "Your device is connected")
	if r := first.later(); r.Status != 200 {
		t.Fatalf("%s", r.Body)
	}

	// Signed in, allowed before, and with the complete link: still a form, then
	// still the question.
	d := startDevice(t, scene)
	page := browser.Get(strings.TrimPrefix(d.answer.JSON["verification_uri_complete"].(string), scene.URL))
	page.WantPage(200, "Connect a device")
	if _, form := page.Form("Continue"); form.Get("user_code") != d.userCode {
		t.Errorf("the link did not fill the code in: %v", form)
	}
	wantOAuthError(t, d.poll(), 400, "authorization_pending")
	page = page.Press("Continue")
	if !page.Has("Allow") || !page.Has("Deny") {
		t.Fatalf("no question: %s", page.Text())
	}
	action, form := page.Form("Allow")
	browser.Get("/oauth/consent?" + url.Values{"request": {form.Get("request")}, "decision": {"allow"}}.Encode())
	wantOAuthError(t, d.later(), 400, "authorization_pending")

	// CSRF: without the token of the login, from another site, in another browser.
	forged := url.Values{"request": {form.Get("request")}, "decision": {"allow"}}
	if p := browser.Post(action, forged); p.Status != http.StatusForbidden {
		t.Errorf("without a token: %d", p.Status)
	}
	browser.Header.Set("Sec-Fetch-Site", "cross-site")
	if p := browser.Post(action, form); p.Status != http.StatusForbidden {
		t.Errorf("from another site: %d", p.Status)
	}
	if p := browser.Post("/oauth/device", url.Values{"user_code": {d.userCode}}); p.Status != http.StatusForbidden {
		t.Errorf("a code from another site: %d", p.Status)
	}
	browser.Header.Del("Sec-Fetch-Site")
	if p := scene.Browser(t).Post(action, form); p.Status != http.StatusBadRequest {
		t.Errorf("in another browser: %d", p.Status)
	}
	wantOAuthError(t, d.later(), 400, "authorization_pending")
	page.Deny().WantPage(200, "You did not connect the device")
	wantOAuthError(t, d.later(), 400, "access_denied")
	page.Allow().WantPage(400, "The device is not waiting any more")
	wantOAuthError(t, d.later(), 400, "access_denied")

	// What a link brings is no markup.
	odd := scene.Browser(t).Get("/oauth/device?" + url.Values{"user_code": {`"><script>alert(1)</script>`}}.Encode())
	if strings.Contains(odd.Body, "<script") || strings.Contains(odd.Body, "alert(1)") {
		t.Error("the code of the link stands on the page")
	}
}

// F-01: five wrong codes from one address, then even the right one must wait;
// a code that is entered often is burnt, and answers like an unknown one.
func TestUserCodesCannotBeGuessed(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	d := startDevice(t, scene)
	browser := scene.Browser(t)
	for _, malformed := range []string{"", "x", "AEIO-UAEI", d.userCode + "B", strings.Repeat("B", 10_000), "<b>BCDF-GHJK"} { // no guesses
		browser.Get("/oauth/device").Press("Continue", "user_code", malformed).WantPage(200, "Connect a device")
	}
	for i := range 5 {
		wrong := browser.Get("/oauth/device").Press("Continue", "user_code", fmt.Sprintf("BBBB-BBB%c", "BCDFG"[i]))
		if wrong.Status != 200 || !strings.Contains(wrong.Text(), "no device waiting") {
			t.Fatalf("%d %s", wrong.Status, wrong.Text())
		}
	}
	if page := browser.Get("/oauth/device").Press("Continue", "user_code", d.userCode); page.Status != http.StatusTooManyRequests || page.Header.Get("Retry-After") == "" || page.Has("Sign in") {
		t.Errorf("%d %s", page.Status, page.Text())
	}
	scene.Clock.Advance(11 * time.Minute)
	for range 10 {
		if page := browser.Get("/oauth/device").Press("Continue", "user_code", d.userCode); !page.Has("Sign in") {
			t.Fatalf("%d %s", page.Status, page.Text())
		}
	}
	if page := browser.Get("/oauth/device").Press("Continue", "user_code", d.userCode); page.Has("Sign in") || !strings.Contains(page.Text(), "no device waiting") {
		t.Errorf("%d %s", page.Status, page.Text())
	}

	// Neither code is in the database, nor a hash that could be tried out.
	digest := sha256.Sum256([]byte(d.userCode))
	if n := scene.Count(t, "SELECT count(*) FROM gpt_device_codes d WHERE d::text LIKE '%' || $1 || '%' OR d::text LIKE '%' || $2 || '%' OR user_code_hash = $3", d.code, d.userCode, digest[:]); n != 0 {
		t.Error("a code is in the database")
	}
}

// F-02: polls that come too soon are told to slow down, for good; a code is its
// client's; and of many polls after the approval one gets tokens.
func TestDevicePollsAreKeptInOrder(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Clients.Register(t, issuer.Client{ID: "other-tv", AuthMethods: []string{"none"}, Grants: []string{deviceGrant}})
	d := startDevice(t, scene)
	wantOAuthError(t, d.poll(), 400, "authorization_pending")
	wantOAuthError(t, d.poll(), 400, "slow_down")
	wantOAuthError(t, d.poll(), 400, "slow_down")
	scene.SQL(t, "UPDATE gpt_device_codes SET polled_at = now() - interval '6 seconds'")
	wantOAuthError(t, d.poll(), 400, "slow_down") // the interval is 15 seconds by now
	if n := scene.Count(t, "SELECT poll_interval FROM gpt_device_codes"); n != 20 {
		t.Errorf("interval %d", n)
	}
	wantOAuthError(t, d.later(), 400, "authorization_pending")

	d.enter(d.userCode).Allow().WantPage(200, "Your device is connected")
	wantOAuthError(t, d.poll(issuertest.Set("client_id", "other-tv")), 400, "invalid_grant")
	wantOAuthError(t, d.poll(issuertest.Set("device_code", "gpt_dc_unknown")), 400, "invalid_grant")
	wantOAuthError(t, d.poll(issuertest.Set("device_code", d.userCode)), 400, "invalid_grant")
	wantOAuthError(t, d.poll(issuertest.Omit("device_code")), 400, "invalid_request")
	wantOAuthError(t, d.poll(issuertest.Set("client_id", issuertest.Public)), 400, "unauthorized_client")
	scene.SQL(t, "UPDATE gpt_device_codes SET polled_at = NULL")
	succeeded := 0
	for _, r := range atOnce(20, func() issuertest.Response { return d.poll() }) {
		if r.Status == 200 {
			succeeded++
		}
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions"); succeeded != 1 || n != 1 {
		t.Errorf("%d succeeded, %d sessions", succeeded, n)
	}
}

// T-09: what ended between the approval and the poll has ended.
func TestDeviceApprovalDiesWithWhatItRestsOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql    string
		status int
		code   string
	}{
		"expired":         {"UPDATE gpt_device_codes SET expires_at = now()", 400, "expired_token"},
		"user disabled":   {"UPDATE gpt_users SET disabled_at = now()", 400, "access_denied"},
		"signed out":      {"DELETE FROM gpt_logins", 400, "access_denied"},
		"client disabled": {"UPDATE gpt_clients SET disabled_at = now()", 401, "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := issuertest.New(t)
			d := startDevice(t, scene)
			d.enter(d.userCode).Allow().WantPage(200, "Your device is connected")
			scene.SQL(t, c.sql)
			wantOAuthError(t, d.later(), c.status, c.code)
			if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions"); n != 0 {
				t.Errorf("%d sessions", n)
			}
		})
	}
	scene := issuertest.New(t, issuertest.With(func(c *issuer.Config) { c.SessionLimit = 1 }))
	one, two := startDevice(t, scene), startDevice(t, scene)
	one.enter(one.userCode).Allow().WantPage(200, "Your device is connected")
	two.enter(two.userCode).Allow().WantPage(200, "Your device is connected") // there is room yet
	if r := one.later(); r.Status != 200 {
		t.Fatalf("%s", r.Body)
	}
	wantOAuthError(t, two.later(), 400, "access_denied")
	three := startDevice(t, scene)
	three.enter(three.userCode).WantPage(200, "You have connected as many apps as you can")
}

// Who may begin, what may be asked for, and how often.
func TestDeviceAuthorizationIsForWhoMay(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	for name, c := range map[string]struct {
		form   url.Values
		status int
		code   string
	}{
		"no client":        {url.Values{}, 401, "invalid_client"},
		"unknown client":   {url.Values{"client_id": {"nobody"}}, 401, "invalid_client"},
		"not its grant":    {url.Values{"client_id": {issuertest.Public}}, 400, "unauthorized_client"},
		"unknown scope":    {url.Values{"client_id": {issuertest.Device}, "scope": {"nothing"}}, 400, "invalid_scope"},
		"other resource":   {url.Values{"client_id": {issuertest.Device}, "scope": {"jobs:read"}, "resource": {"https://other.example"}}, 400, "invalid_target"},
		"repeated":         {url.Values{"client_id": {issuertest.Device}, "scope": {"jobs:read", "jobs:read"}}, 400, "invalid_request"},
		"secret of nobody": {url.Values{"client_id": {issuertest.Device}, "client_secret": {"x"}}, 401, "invalid_client"},
	} {
		r := scene.PostForm("/oauth/device_authorization", c.form)
		if r.Status != c.status || r.Error() != c.code {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	last := 0
	for range 61 {
		last = scene.PostForm("/oauth/device_authorization", url.Values{"client_id": {issuertest.Device}, "scope": {"jobs:read"}}).Status
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_device_codes"); last != http.StatusTooManyRequests || n != 60 {
		t.Errorf("the last is %d, %d rows", last, n)
	}

	off := issuertest.New(t, issuertest.With(func(c *issuer.Config) { c.Grants = nil }))
	if r := off.PostForm("/oauth/device_authorization", url.Values{"client_id": {issuertest.Device}}); r.Status != 404 {
		t.Errorf("%d", r.Status)
	}
	if r := off.Get("/oauth/device"); r.Status != 404 {
		t.Errorf("%d", r.Status)
	}
	if r := off.Get("/.well-known/oauth-authorization-server"); strings.Contains(r.Body, "device") {
		t.Errorf("%s", r.Body)
	}
}
