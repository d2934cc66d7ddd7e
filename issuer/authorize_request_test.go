package issuer_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// trap 25, PROTOCOL 8.3, PROTOCOL 8.4,
// PROTOCOL 8.12, PROTOCOL 1.6.4: what is wrong goes to the proven address, with
// iss and state, in the query, before anybody signs in; and nothing is fetched.
func TestAuthorizeTellsTheClientWhatIsWrong(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	set, omit := issuertest.Set, issuertest.Omit
	for name, c := range map[string]struct {
		params []issuertest.Param
		code   string
	}{
		"token":                  {[]issuertest.Param{set("response_type", "token")}, "unsupported_response_type"},
		"id_token":               {[]issuertest.Param{set("response_type", "id_token")}, "unsupported_response_type"},
		"code token":             {[]issuertest.Param{set("response_type", "code token")}, "unsupported_response_type"},
		"none":                   {[]issuertest.Param{set("response_type", "none")}, "unsupported_response_type"},
		"CODE":                   {[]issuertest.Param{set("response_type", "CODE")}, "unsupported_response_type"},
		"no response_type":       {[]issuertest.Param{omit("response_type")}, "invalid_request"},
		"empty response_type":    {[]issuertest.Param{set("response_type", "")}, "invalid_request"},
		"response_type twice":    {[]issuertest.Param{issuertest.Add("response_type", "code")}, "invalid_request"},
		"no challenge":           {[]issuertest.Param{omit("code_challenge"), omit("code_challenge_method")}, "invalid_request"},
		"method alone":           {[]issuertest.Param{omit("code_challenge")}, "invalid_request"},
		"plain":                  {[]issuertest.Param{set("code_challenge_method", "plain")}, "invalid_request"},
		"method left out":        {[]issuertest.Param{omit("code_challenge_method")}, "invalid_request"},
		"s256":                   {[]issuertest.Param{set("code_challenge_method", "s256")}, "invalid_request"},
		"S512":                   {[]issuertest.Param{set("code_challenge_method", "S512")}, "invalid_request"},
		"short challenge":        {[]issuertest.Param{set("code_challenge", "short")}, "invalid_request"},
		"padded challenge":       {[]issuertest.Param{set("code_challenge", issuertest.Challenge("x")+"=")}, "invalid_request"},
		"challenge twice":        {[]issuertest.Param{issuertest.Add("code_challenge", "x")}, "invalid_request"},
		"unknown scope":          {[]issuertest.Param{set("scope", "jobs:delete")}, "invalid_scope"},
		"prefix of a scope":      {[]issuertest.Param{set("scope", "jobs")}, "invalid_scope"},
		"scope in upper case":    {[]issuertest.Param{set("scope", "JOBS:READ")}, "invalid_scope"},
		"quoted scope":           {[]issuertest.Param{set("scope", `"jobs:read"`)}, "invalid_scope"},
		"backslash":              {[]issuertest.Param{set("scope", `jobs:read\`)}, "invalid_scope"},
		"newline":                {[]issuertest.Param{set("scope", "jobs:read\njobs:read")}, "invalid_scope"},
		"10,000 scopes":          {[]issuertest.Param{set("scope", strings.Repeat("a ", 10_000))}, "invalid_scope"},
		"fragment":               {[]issuertest.Param{set("response_mode", "fragment")}, "invalid_request"},
		"form_post":              {[]issuertest.Param{set("response_mode", "form_post")}, "invalid_request"},
		"web_message":            {[]issuertest.Param{set("response_mode", "web_message")}, "invalid_request"},
		"query.jwt":              {[]issuertest.Param{set("response_mode", "query.jwt")}, "invalid_request"},
		"request object":         {[]issuertest.Param{set("request", "e30.e30.")}, "request_not_supported"},
		"request_uri":            {[]issuertest.Param{set("request_uri", "http://169.254.169.254/")}, "request_uri_not_supported"},
		"none and login":         {[]issuertest.Param{set("prompt", "none login")}, "invalid_request"},
		"odd max_age":            {[]issuertest.Param{set("max_age", "-1")}, "invalid_request"},
		"huge max_age":           {[]issuertest.Param{set("max_age", "99999999999999999999")}, "invalid_request"},
		"resource elsewhere":     {[]issuertest.Param{set("resource", "https://evil.example")}, "invalid_target"},
		"relative resource":      {[]issuertest.Param{set("resource", "/jobs")}, "invalid_target"},
		"resource with fragment": {[]issuertest.Param{set("resource", scene.URL+"#x")}, "invalid_target"},
		"scope twice":            {[]issuertest.Param{issuertest.Add("scope", "jobs:read")}, "invalid_request"},
		"70 parameters": {[]issuertest.Param{func(v url.Values) {
			for i := range 70 {
				v.Set("p"+strings.Repeat("x", i), "1")
			}
		}}, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := scene.Browser(t).Authorize(issuertest.Public, c.params...)
			p.WantError(c.code)
			wantOneIssuer(t, scene, p)
			if got := p.Query()["state"]; !slices.Equal(got, []string{"a state of the client"}) {
				t.Errorf("state %q", got)
			}
			if !strings.HasPrefix(p.Location(), issuertest.PublicRedirect+"?") || strings.Contains(p.Location(), "#") || strings.Contains(p.Location(), "token=") {
				t.Errorf("answered at %q", p.Location())
			}
		})
	}
	t.Cleanup(func() {
		if rows := rowsLeft(t, scene); rows != 0 {
			t.Errorf("%d rows", rows)
		}
	})
}

func wantOneIssuer(t *testing.T, scene *issuertest.Scene, p *issuertest.Page) {
	t.Helper()
	if got := p.Query()["iss"]; !slices.Equal(got, []string{scene.URL}) {
		t.Errorf("iss %q, want once %q", got, scene.URL)
	}
}

// A-18, PROTOCOL 8.12, PROTOCOL 1.6.11: state comes back to the byte, and only
// if there was one.
func TestStateComesBackToTheByte(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	for name, state := range map[string]string{
		"UTF-8": "żółw 🐢", "long": strings.Repeat("s", 2000), "NUL": "a\x00b", "markup": `<script>alert("1")</script>&amp;`, "plus and percent": "a+b %2B c%00",
		"not UTF-8": "\xff\xfe", "none": "", "newline": "a\r\nSet-Cookie: x=y", "like a query": "x&code=evil&iss=evil#f",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want []string
			param := issuertest.Omit("state")
			if state != "" {
				want, param = []string{state}, issuertest.Set("state", state)
			}
			refused := scene.Browser(t).Authorize(issuertest.Confidential, param, issuertest.Set("prompt", "none"))
			refused.WantError("login_required")
			allowed := scene.Browser(t).Authorize(issuertest.Public, param).SignIn().Allow()
			allowed.Code()
			for _, p := range []*issuertest.Page{refused, allowed} {
				wantOneIssuer(t, scene, p)
				if got := p.Query()["state"]; !slices.Equal(got, want) {
					t.Errorf("state %q, want %q", got, want)
				}
				if len(p.Header["Set-Cookie"]) > 0 && strings.Contains(p.Header["Set-Cookie"][0], "x=y") {
					t.Error("the state split the header")
				}
			}
		})
	}
}

// A-13, PROTOCOL 1.6.10, trap 13: a request without scope asks for what is usual, and
// what nobody knows is ignored and not echoed.
func TestAuthorizeIgnoresWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	page := scene.Browser(t).Authorize(issuertest.GPT, issuertest.Omit("scope"), issuertest.Set("canary", "canary-value"), issuertest.Set("nonce", "canary-nonce"),
		issuertest.Set("response_mode", "query"), issuertest.Set("prompt", "select_account"), issuertest.Set("ui_locales", "tlh"))
	if strings.Contains(page.Body, "canary") {
		t.Error("the sign-in page echoes an unknown parameter")
	}
	consent := page.SignIn()
	for _, description := range []string{"Search jobs", "See your applications", "Submit applications"} {
		if !strings.Contains(consent.Text(), description) {
			t.Errorf("the consent page does not name %q: %s", description, consent.Text())
		}
	}
	if answer := consent.Allow(); strings.Contains(answer.Location(), "canary") {
		t.Errorf("echoed: %s", answer.Location())
	}
}

// Parameters without a value are as if they were left out, at each endpoint. RFC
// 6749 sections 3.1 and 3.2, RFC 8628 section 3.1.
func TestEmptyParametersAreAsIfLeftOut(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	empty := func(names ...string) issuertest.Param {
		return func(form url.Values) {
			for _, name := range names {
				form.Set(name, "")
			}
		}
	}
	browser := scene.Browser(t)
	page := browser.Authorize(issuertest.Confidential, empty("scope", "state", "resource", "prompt", "max_age", "nonce", "response_mode", "request", "request_uri",
		"dpop_jkt", "login_hint", "ui_locales", "redirect_uri")).SignIn().Allow()
	page.Code()
	if page.Query().Has("state") {
		t.Errorf("an empty state came back: %s", page.Location())
	}
	browser.Authorize(issuertest.Public, empty("code_challenge", "code_challenge_method")).WantError("invalid_request")
	code, verifier := scene.Code(t, issuertest.Public)
	form := codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier)
	empty("resource", "scope", "client_secret", "client_assertion", "client_assertion_type", "refresh_token")(form)
	form.Set("audience", "nobody knows this one") // and ignores it
	redeemed := scene.PostForm("/oauth/token", form)
	if redeemed.Status != http.StatusOK {
		t.Fatalf("%d %s", redeemed.Status, redeemed.Body)
	}
	if r := refresh(scene, issuertest.Public, redeemed.Tokens().Refresh, empty("scope", "resource", "client_secret")); r.Status != http.StatusOK {
		t.Errorf("refresh: %d %s", r.Status, r.Body)
	}
	device := url.Values{"client_id": {issuertest.Device}}
	empty("scope", "resource", "client_secret")(device)
	if r := scene.PostForm("/oauth/device_authorization", device); r.Status != http.StatusOK {
		t.Errorf("device: %d %s", r.Status, r.Body)
	}
}

// PROTOCOL 8.13, trap 14: offline_access is taken and changes nothing.
func TestOfflineAccessIsTakenWithoutEffect(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	tokens := scene.Tokens(t, issuertest.Public, issuertest.Set("scope", "jobs:read offline_access"))
	if tokens.Scope != "jobs:read" || tokens.Refresh == "" {
		t.Errorf("%+v", tokens)
	}
}

// prompt=none shows no page, whatever is missing.
func TestPromptNoneShowsNoPage(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	browser := scene.Browser(t)
	none := issuertest.Set("prompt", "none")
	browser.Authorize(issuertest.Confidential, none).WantError("login_required")
	browser.Authorize(issuertest.Confidential).SignIn()
	browser.Authorize(issuertest.Confidential, none).WantError("consent_required")
	browser.Authorize(issuertest.Public, none).WantError("consent_required")
}

// A-19, PROTOCOL 8.18, PROTOCOL 1.6.6, X-02, trap 3: no header of a request changes an
// address of ours.
func TestHeadersChangeNoAddress(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	evil := map[string]string{
		"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Port": "1", "Forwarded": "host=evil.example;proto=https",
		"X-Original-URL": "/evil", "X-Rewrite-URL": "/evil", "X-Host": "evil.example", "Accept-Language": "xx", "X-Forwarded-Server": "evil.example",
	}
	query, _ := scene.Authorization(issuertest.Confidential)
	for _, path := range []string{
		"/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource", "/oauth/jwks.json", "/oauth/authorize?" + query.Encode(), "/oauth/authorize?" + query.Encode() + "&prompt=none",
	} {
		want := scene.Get(path)
		for _, host := range []string{"", "evil.example", "127.0.0.1"} {
			r, err := http.NewRequest(http.MethodGet, scene.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			for name, value := range evil {
				r.Header.Set(name, value)
			}
			got := scene.Do(r)
			if got.Status != want.Status || got.Header.Get("Location") != want.Header.Get("Location") || strings.Contains(got.Body, "evil") || strings.Contains(got.Header.Get("Set-Cookie"), "evil") {
				t.Errorf("%s with Host %q: %d %v %s", path, host, got.Status, got.Header, got.Body)
			}
			if !strings.HasPrefix(path, "/oauth/authorize") && got.Body != want.Body { // a page holds a request sealed anew
				t.Errorf("%s: other bytes", path)
			}
		}
	}
}

// who does not sign in leaves no row.
func TestAuthorizeWithoutSignInLeavesNothing(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	for range 200 {
		if p := scene.Browser(t).Authorize(issuertest.Public); !p.Has("Sign in") {
			t.Fatal(p.Text())
		}
	}
	if rows := rowsLeft(t, scene); rows != 0 {
		t.Errorf("%d rows", rows)
	}
}

// K-01, PROTOCOL 1.6.5, PROTOCOL 1.6.7, PROTOCOL 1.6.11, PROTOCOL 8.11, PROTOCOL 8.13, X-03, trap 8, trap 25: the public documents
// say what is so, and nothing that is secret.
func TestDocumentsSayWhatClientsNeed(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	server := scene.Get("/.well-known/oauth-authorization-server")
	if server.JSON["issuer"] != scene.URL || server.JSON["token_endpoint"] != scene.URL+"/oauth/token" || server.JSON["authorization_response_iss_parameter_supported"] != true {
		t.Errorf("%s", server.Body)
	}
	for member, want := range map[string]string{
		"token_endpoint_auth_methods_supported": "none", "code_challenge_methods_supported": "S256", "scopes_supported": "offline_access", "response_types_supported": "code", "response_modes_supported": "query",
	} {
		list, _ := server.JSON[member].([]any)
		if !slices.Contains(list, any(want)) {
			t.Errorf("%s: %v lacks %s", member, list, want)
		}
	}
	if list, _ := server.JSON["code_challenge_methods_supported"].([]any); len(list) != 1 {
		t.Errorf("challenge methods %v", list)
	}
	root, mcp := scene.Get("/.well-known/oauth-protected-resource"), scene.Get("/.well-known/oauth-protected-resource/mcp")
	if root.JSON["resource"] != scene.URL || mcp.JSON["resource"] != scene.MCP() || strings.Contains(root.Body+mcp.Body, "offline_access") {
		t.Errorf("root %s, path %s", root.Body, mcp.Body)
	}
	jwks := scene.Get("/oauth/jwks.json")
	keys, _ := jwks.JSON["keys"].([]any)
	if len(keys) != 1 {
		t.Fatalf("%s", jwks.Body)
	}
	key, _ := keys[0].(map[string]any)
	for member := range key {
		if !slices.Contains([]string{"kty", "crv", "x", "y", "use", "alg", "kid"}, member) {
			t.Errorf("the JWKS has %q", member)
		}
	}
	if key["alg"] != "ES256" || key["use"] != "sig" || key["crv"] != "P-256" || key["kid"] == "" {
		t.Errorf("%v", key)
	}
	for name, r := range map[string]issuertest.Response{"server": server, "root": root, "mcp": mcp, "jwks": jwks} {
		for member, value := range r.JSON { // RFC 8414 section 3.2, RFC 9728 section 3.2
			if list, ok := value.([]any); value == nil || value == "" || ok && len(list) == 0 {
				t.Errorf("%s: %s is empty", name, member)
			}
		}
		if r.Status != http.StatusOK || r.Header.Get("Content-Type") != "application/json" && r.Header.Get("Content-Type") != "application/jwk-set+json" {
			t.Errorf("%s: %d %s", name, r.Status, r.Header.Get("Content-Type"))
		}
		if !strings.HasPrefix(r.Header.Get("Cache-Control"), "public, max-age=") || r.Header.Get("ETag") == "" || r.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %v", name, r.Header)
		}
	}
	if r := scene.Get("/oauth/jwks.json", issuertest.Header("If-None-Match", jwks.Header.Get("ETag"))); r.Status != http.StatusNotModified || r.Body != "" {
		t.Errorf("not modified: %d", r.Status)
	}
	for _, path := range []string{"/.well-known/oauth-authorization-server/x", "/.well-known/oauth-protected-resource/other", "/oauth/jwks.json/", "/oauth/", "/oauth/register"} {
		if r := scene.Get(path); r.Status != http.StatusNotFound {
			t.Errorf("%s: %d", path, r.Status)
		}
	}
}

// PROTOCOL 8.21, PROTOCOL 8.22, trap 4: preflights need no token; pages are for no other
// origin; and nothing personal is kept.
func TestCORSIsWhereItBelongs(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	query, _ := scene.Authorization(issuertest.Public)
	for path, open := range map[string]bool{
		"/oauth/token": true, "/oauth/revoke": true, "/oauth/jwks.json": true, "/.well-known/oauth-authorization-server": true, "/.well-known/oauth-protected-resource": true,
		"/oauth/authorize?" + query.Encode(): false, "/oauth/login": false, "/oauth/consent": false, "/oauth/logout": false,
	} {
		for _, method := range []string{http.MethodOptions, http.MethodGet, http.MethodPost} {
			r, err := http.NewRequest(method, scene.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", "https://app.example")
			r.Header.Set("Access-Control-Request-Method", "POST")
			got := scene.Do(r)
			if allowed := got.Header.Get("Access-Control-Allow-Origin"); !open && allowed != "" || open && allowed != "*" && got.Status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d %v", method, path, got.Status, got.Header)
			}
			if got.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s %s allows credentials", method, path)
			}
			if method == http.MethodOptions && open && got.Status != http.StatusNoContent {
				t.Errorf("preflight of %s: %d", path, got.Status)
			}
			if !open && got.Status == http.StatusOK && got.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s may be kept: %v", method, path, got.Header)
			}
		}
	}
}

// X-04, EVS-03: over whole flows, good and bad, neither the log nor an event holds
// anything that opens anything.
func TestLogHoldsNoSecret(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	secrets := map[string]string{"password": issuertest.Password, "client secret": issuertest.Secret}
	for _, client := range []string{issuertest.Public, issuertest.Confidential, issuertest.GPT} {
		query, verifier := scene.Authorization(client, issuertest.Set("state", "canary-state-"+client))
		browser := scene.Browser(t)
		allowed := browser.Get("/oauth/authorize?" + query.Encode()).SignIn().Allow()
		code := allowed.Code()
		tokens := scene.Redeem(t, client, code, url.Values{"code_verifier": {verifier}})
		next := refresh(scene, client, tokens.Refresh).Tokens()
		scene.PostForm("/oauth/token", codeForm(client, query.Get("redirect_uri"), code, verifier)) // a replay
		refresh(scene, client, tokens.Access)
		revoke(scene, client, next.Access)
		for name, secret := range map[string]string{
			"code": code, "verifier": verifier, "access token": tokens.Access, "refresh token": tokens.Refresh, "second refresh token": next.Refresh,
			"state": "canary-state-" + client, "login cookie": browser.Cookie("oauth_login"), "browser cookie": browser.Cookie("oauth_browser"),
		} {
			secrets[client+" "+name] = secret
		}
	}
	scene.Clients.Change(t, issuertest.Public, func(c *issuer.Client) { c.Grants = nil })
	scene.Browser(t).Authorize(issuertest.Public).WantError("unauthorized_client")
	scene.Browser(t).Authorize(issuertest.GPT).Press("Sign in", "email", "nobody@example.com", "password", "canary-wrong-password")
	secrets["wrong password"] = "canary-wrong-password"
	entries := scene.Logs.All()
	if len(entries) < 10 {
		t.Fatalf("only %d log entries: nothing is looked at", len(entries))
	}
	var lines []string
	for _, entry := range entries {
		lines = append(lines, entry.Message+" "+strings.Join(fieldText(entry.ContextMap()), " "))
	}
	events := scene.SQL(t, "SELECT e::text FROM gpt_oauth_events e")
	if len(events) < 10 {
		t.Fatalf("only %d events: nothing is looked at", len(events))
	}
	for _, event := range events {
		lines = append(lines, event[0].(string))
	}
	for _, line := range lines {
		for name, secret := range secrets {
			if secret == "" {
				t.Fatalf("no %s", name)
			}
			if strings.Contains(line, secret) {
				t.Errorf("a line holds the %s: %s", name, line)
			}
		}
	}
}
