package issuer_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// notText is what no row can hold.
var notText = []string{"a\x00b", "\xff\xfe"}

// TestWhatIsNoTextIsNoFault: bytes that no row of Postgres can hold, in any
// parameter of any endpoint and in any field of any page, are the mistake of whoever
// sends them: no answer is 503, and nothing in the log is a fault. ADM-11.
func TestWhatIsNoTextIsNoFault(t *testing.T) {
	t.Parallel()
	newScene := func() *issuertest.Scene {
		return issuertest.New(t, issuertest.Passkeys(), issuertest.SelfRegistration(nil), issuertest.With(func(c *issuer.Config) { c.OpenID = true }))
	}
	scene := newScene()
	fine := func(name string, status int, body string) {
		t.Helper()
		switch {
		case status == http.StatusTooManyRequests: // the next one shall be looked at
			scene.Clock.Advance(time.Hour)
		case status >= 500:
			t.Errorf("%s: %d %s", name, status, body)
		}
		for _, entry := range scene.Logs.TakeAll() {
			if entry.Level >= zapcore.WarnLevel {
				t.Errorf("%s: %s %v", name, entry.Message, entry.ContextMap())
			}
		}
	}
	// 1. The endpoints, each parameter after the other.
	tokens := scene.Tokens(t, issuertest.Confidential)
	code, verifier := scene.Code(t, issuertest.Confidential, issuertest.Set("prompt", "consent"))
	basic := issuertest.Basic(issuertest.Confidential, issuertest.Secret)
	machine := issuertest.Basic(issuertest.Machine, issuertest.Secret)
	query, _ := scene.Authorization(issuertest.Confidential)
	for name, c := range map[string]struct {
		path string
		form url.Values
		auth []issuertest.Auth
	}{
		"code":    {"/oauth/token", url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {issuertest.ConfidentialRedirect}, "resource": {""}, "scope": {""}}, []issuertest.Auth{basic}},
		"refresh": {"/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens.Refresh}, "resource": {""}, "scope": {"jobs:read"}}, []issuertest.Auth{basic}},
		"machine": {"/oauth/token", url.Values{"grant_type": {"client_credentials"}, "resource": {""}, "scope": {"jobs:read"}}, []issuertest.Auth{machine}},
		"device":  {"/oauth/token", url.Values{"grant_type": {deviceGrant}, "client_id": {issuertest.Device}, "device_code": {"x"}}, nil},
		"posted":  {"/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {issuertest.Confidential}, "client_secret": {issuertest.Secret}, "refresh_token": {"x"}}, nil},
		"asserted": {"/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {issuertest.Confidential}, "client_assertion": {"x.y.z"},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "refresh_token": {"x"}}, nil},
		"revoke":     {"/oauth/revoke", url.Values{"token": {"x"}, "token_type_hint": {"access_token"}}, []issuertest.Auth{basic}},
		"introspect": {"/oauth/introspect", url.Values{"token": {"x"}, "token_type_hint": {"access_token"}}, []issuertest.Auth{basic}},
		"start":      {"/oauth/device_authorization", url.Values{"client_id": {issuertest.Device}, "scope": {"jobs:read"}, "resource": {scene.URL}}, nil},
		"push":       {"/oauth/par", query, []issuertest.Auth{basic}},
		"registered": {"/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {"dcr_x"}, "refresh_token": {"x"}}, nil},
	} {
		for parameter := range c.form {
			for _, bad := range notText {
				form := url.Values{}
				for k, v := range c.form {
					form[k] = v
				}
				for _, before := range []string{"", c.form.Get(parameter)} {
					form.Set(parameter, before+bad)
					got := scene.PostForm(c.path, form, c.auth...)
					fine(name+": "+parameter, got.Status, got.Body)
				}
			}
		}
		for _, bad := range notText {
			got := scene.PostForm(c.path, c.form, issuertest.Basic(bad, bad))
			fine(name+": Authorization", got.Status, got.Body)
		}
	}
	for _, extra := range []string{"state", "nonce", "login_hint", "ui_locales", "prompt", "max_age", "id_token_hint", "dpop_jkt", "claims", "acr_values", "request_uri"} {
		query.Set(extra, "x")
	}
	query.Set("scope", "openid jobs:read")
	query.Set("prompt", "consent")
	browser := scene.Browser(t)
	browser.Get("/oauth/apps").SignIn()
	allowed := 0
	for parameter := range query {
		for _, bad := range notText {
			q := url.Values{}
			for k, v := range query {
				q[k] = v
			}
			q.Del("request_uri")
			q.Del("dpop_jkt")
			q.Del("max_age")
			q.Set(parameter, bad)
			page := browser.Get("/oauth/authorize?" + q.Encode())
			if page.Has("Allow") { // all the way
				allowed++
				page = page.Allow()
				form := url.Values{"grant_type": {"authorization_code"}, "code": {page.Query().Get("code")}, "code_verifier": {verifier}, "redirect_uri": {issuertest.ConfidentialRedirect}}
				got := scene.PostForm("/oauth/token", form, basic)
				fine("authorize, then token: "+parameter, got.Status, got.Body)
			}
			fine("authorize: "+parameter, page.Status, page.Text())
		}
	}
	if allowed < 5 {
		t.Errorf("%d requests led to a code", allowed)
	}
	// 2. What registers.
	for member, value := range map[string]any{
		"client_name": "BAD", "client_uri": "https://x.example/BAD", "logo_uri": "https://x.example/BAD", "software_id": "BAD", "scope": "BAD", "contacts": []string{"BAD"},
		"redirect_uris": []string{"https://x.example/BAD"}, "grant_types": []string{"BAD"}, "response_types": []string{"BAD"}, "token_endpoint_auth_method": "BAD",
		"jwks": map[string]any{"keys": []any{map[string]any{"kty": "BAD", "kid": "BAD"}}}, "tos_uri": "BAD", "policy_uri": "BAD", "software_version": "BAD", "client_name#de": "BAD", "BAD": "x",
		"unknown": map[string]any{"BAD": "BAD"}, "post_logout_redirect_uris": []string{"https://x.example/BAD"},
	} {
		for _, bad := range notText {
			document := map[string]any{"client_name": "X", "redirect_uris": []string{"https://x.example/cb"}, member: value}
			text := strings.ReplaceAll(jsonText(t, document), "BAD", strings.ReplaceAll(bad, "\x00", `\u0000`))
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, scene.URL+"/oauth/register", strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			got := scene.Do(r)
			fine("register: "+member, got.Status, got.Body)
		}
	}
	// 3. The pages, each field of each form.
	scene = newScene() // whose clock is the database's
	scene.Tokens(t, issuertest.GPT)
	signedIn := account(t, scene).Browser()
	fields := 0
	for name, page := range map[string]*issuertest.Page{
		"sign-in": scene.Browser(t).Authorize(issuertest.Confidential),
		"consent": signedIn.Authorize(issuertest.Confidential),
		"device":  signedIn.Get("/oauth/device"),
		"account": signedIn.Get("/oauth/account"),
		"apps":    signedIn.Get("/oauth/apps"),
		"passkey": add(t, signedIn.Get("/oauth/account"), scene.Authenticator(t), "Key"),
	} {
		for _, button := range page.Buttons() {
			action, shown := page.Form(button)
			for field := range shown {
				for _, bad := range notText {
					form := url.Values{}
					for k, v := range shown {
						form[k] = v
					}
					form.Set(field, bad)
					fields++
					got := page.Browser().Post(action, form)
					fine(name+", "+button+": "+field, got.Status, got.Text())
				}
			}
		}
	}
	if fields < 30 {
		t.Errorf("%d fields were tried; the pages are not read right", fields)
	}
	for _, bad := range []string{"a%00b", "%ff"} {
		for _, path := range []string{"/oauth/device?user_code=", "/oauth/apps?after=", "/oauth/apps?done=", "/oauth/consent?request=", "/oauth/reset?token=", "/oauth/login/x?state=", "/oauth/register/",
			"/oauth/end_session?id_token_hint=", "/oauth/end_session?client_id=", "/oauth/end_session?logout_hint=", "/oauth/end_session?state=", "/oauth/login/", "/oauth/account?done="} {
			got := signedIn.Get(path + bad)
			fine(path, got.Status, got.Text())
		}
	}
}

func jsonText(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
