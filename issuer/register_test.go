package issuer_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// bearer authorizes by a token.
func bearer(token string) issuertest.Auth { return issuertest.Header("Authorization", "Bearer "+token) }

// registered registers a client with good metadata, after change.
func registered(t *testing.T, scene *issuertest.Scene, change func(map[string]any)) issuertest.Response {
	t.Helper()
	metadata := map[string]any{
		"client_name": "Inspector", "redirect_uris": []string{issuertest.ClientHostRedirect}, "token_endpoint_auth_method": "none",
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
	}
	if change != nil {
		change(metadata)
	}
	return scene.SendJSON(http.MethodPost, "/oauth/register", metadata)
}

func member(r issuertest.Response, name string) string {
	value, _ := r.JSON[name].(string)
	return value
}

// PROTOCOL 8.14, REG-01, REG-04, D-02, D-03, D-05: what was registered, complete, nothing
// null, secrets only for those that use one, all of URL-safe characters: trap 9,
// trap 10, trap 11, trap 26.
func TestRegistrationAnswersWhatIsKept(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.SelfRegistration(nil))
	if got := scene.Get("/.well-known/oauth-authorization-server"); got.JSON["registration_endpoint"] != scene.URL+"/oauth/register" {
		t.Errorf("metadata: %s", got.Body)
	}
	for name, c := range map[string]struct {
		change func(map[string]any)
		want   map[string]any // nil: no such member
	}{
		"public": {nil, map[string]any{"client_secret": nil, "client_secret_expires_at": nil, "token_endpoint_auth_method": "none", "client_name": "Inspector", "scope": nil}},
		"nothing but a redirect": {func(m map[string]any) {
			for name := range m {
				if name != "redirect_uris" {
					delete(m, name)
				}
			}
		}, map[string]any{"token_endpoint_auth_method": "client_secret_basic", "client_secret_expires_at": float64(0), "grant_types": []any{"authorization_code"}, "response_types": []any{"code"}, "client_name": nil}},
		"post":                 {func(m map[string]any) { m["token_endpoint_auth_method"] = "client_secret_post" }, map[string]any{"client_secret_expires_at": float64(0), "token_endpoint_auth_method": "client_secret_post"}},
		"unknown members":      {func(m map[string]any) { m["x"], m["client_name#de"] = 1, "Prüfer" }, map[string]any{"x": nil, "client_name#de": nil}},
		"null members":         {func(m map[string]any) { m["client_uri"], m["scope"], m["jwks"] = nil, nil, nil }, map[string]any{"client_uri": nil, "scope": nil, "jwks": nil}},
		"more scopes than are": {func(m map[string]any) { m["scope"] = "jobs:read admin openid" }, map[string]any{"scope": "jobs:read"}},
		"more grants than may": {func(m map[string]any) {
			m["grant_types"] = []string{"authorization_code", "client_credentials", "urn:ietf:params:oauth:grant-type:device_code"}
		}, map[string]any{"grant_types": []any{"authorization_code"}}},
		"a logo over http": {func(m map[string]any) {
			m["logo_uri"], m["client_uri"] = "http://127.0.0.1/logo", "https://chat.example"
		}, map[string]any{"logo_uri": nil, "client_uri": "https://chat.example"}},
		"a script for a logo":   {func(m map[string]any) { m["logo_uri"] = "javascript:alert(1)" }, map[string]any{"logo_uri": nil}},
		"a name that is a page": {func(m map[string]any) { m["client_name"] = "a\u202eb\n\x1b[31m" + strings.Repeat("x", 500) }, map[string]any{"client_name": "ab [31m" + strings.Repeat("x", 54) + "…"}},
		"native": {func(m map[string]any) {
			m["application_type"] = "native"
			m["redirect_uris"] = []string{"http://127.0.0.1/cb", "http://localhost:8080/cb", "com.example.app:/cb"}
		}, map[string]any{"application_type": "native"}},
	} {
		got := registered(t, scene, c.change)
		if got.Status != http.StatusCreated || got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %v %s", name, got.Status, got.Header, got.Body)
		}
		for member, value := range got.JSON {
			if value == nil || value == "" {
				t.Errorf("%s: %s is %v", name, member, value)
			}
		}
		for member, want := range c.want {
			value, has := got.JSON[member]
			if want == nil && has || want != nil && fmt.Sprint(value) != fmt.Sprint(want) {
				t.Errorf("%s: %s is %v, want %v", name, member, value, want)
			}
		}
		secret := member(got, "client_secret")
		if withSecret := strings.HasPrefix(member(got, "token_endpoint_auth_method"), "client_secret"); withSecret != (len(secret) > 40) {
			t.Errorf("%s: client_secret %q", name, secret)
		}
		if id := member(got, "client_id"); strings.Trim(id+secret, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" || strings.HasPrefix(id, "https") {
			t.Errorf("%s: client_id %q", name, id)
		}
		if issued, _ := got.JSON["client_id_issued_at"].(float64); time.Since(time.Unix(int64(issued), 0)).Abs() > time.Minute {
			t.Errorf("%s: client_id_issued_at %v", name, issued)
		}
	}
	if rows := scene.SQL(t, "SELECT * FROM gpt_client_registrations"); strings.Contains(fmt.Sprint(rows), "gpt_cs_") || strings.Contains(fmt.Sprint(rows), "gpt_rg_") {
		t.Error("a secret is kept as it is")
	}
}

// D-01, D-02, D-04, D-05, REG-02, REG-03, REG-05: registrations that are refused, with the error that
// says which part.
func TestHostileRegistrationsAreRefused(t *testing.T) {
	t.Parallel()
	// Each look at the clock is a minute later: the bound on registrations is not
	// what refuses.
	scene := issuertest.New(t, issuertest.SelfRegistration(nil), issuertest.With(func(c *issuer.Config) {
		at := time.Now()
		c.Now = func() time.Time { at = at.Add(time.Minute); return at }
	}))
	redirect := func(uri string) func(map[string]any) {
		return func(m map[string]any) { m["redirect_uris"] = []string{issuertest.ClientHostRedirect, uri} }
	}
	set := func(name string, value any) func(map[string]any) {
		return func(m map[string]any) { m[name] = value }
	}
	for name, c := range map[string]struct {
		change func(map[string]any)
		code   string
	}{
		"no redirect":         {func(m map[string]any) { delete(m, "redirect_uris") }, "invalid_redirect_uri"},
		"javascript":          {redirect("javascript:alert(document.cookie)"), "invalid_redirect_uri"},
		"JAVASCRIPT":          {redirect("JAVASCRIPT:alert(1)"), "invalid_redirect_uri"},
		"a space, javascript": {redirect(" javascript:alert(1)"), "invalid_redirect_uri"},
		"a tab in javascript": {redirect("java\tscript:alert(1)"), "invalid_redirect_uri"},
		"escaped javascript":  {redirect("java%0ascript:alert(1)"), "invalid_redirect_uri"},
		"data":                {redirect("data:text/html,<script>"), "invalid_redirect_uri"},
		"vbscript":            {redirect("vbscript:msgbox"), "invalid_redirect_uri"},
		"file":                {redirect("file:///etc/passwd"), "invalid_redirect_uri"},
		"blob":                {redirect("blob:https://a.example/1"), "invalid_redirect_uri"},
		"about":               {redirect("about:blank"), "invalid_redirect_uri"},
		"fragment":            {redirect("https://a.example/#x"), "invalid_redirect_uri"},
		"userinfo":            {redirect("https://bank.example@evil.example/"), "invalid_redirect_uri"},
		"relative":            {redirect("/cb"), "invalid_redirect_uri"},
		"plain http":          {redirect("http://a.example/cb"), "invalid_redirect_uri"},
		"wildcard":            {redirect("https://*.example/cb"), "invalid_redirect_uri"},
		"software statement":  {set("software_statement", "eyJhbGciOiJub25lIn0.e30."), "unapproved_software_statement"},
		"private key":         {set("jwks", map[string]any{"keys": []any{map[string]any{"kty": "EC", "d": "x"}}}), "invalid_client_metadata"},
		"symmetric key":       {set("jwks", map[string]any{"keys": []any{map[string]any{"kty": "oct", "k": "x"}}}), "invalid_client_metadata"},
		"keys in two places": {func(m map[string]any) {
			m["jwks_uri"] = "https://a.example/keys"
			m["jwks"] = map[string]any{"keys": []any{map[string]any{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}}
		}, "invalid_client_metadata"},
		"keys over http":          {set("jwks_uri", "http://169.254.169.254/keys"), "invalid_client_metadata"},
		"keys of no one":          {set("token_endpoint_auth_method", "private_key_jwt"), "invalid_client_metadata"},
		"unknown method":          {set("token_endpoint_auth_method", "tls_client_auth"), "invalid_client_metadata"},
		"client_credentials":      {set("grant_types", []string{"client_credentials"}), "invalid_client_metadata"},
		"password":                {set("grant_types", []string{"password"}), "invalid_client_metadata"},
		"implicit":                {set("response_types", []string{"token"}), "invalid_client_metadata"},
		"a scope that is no list": {set("scope", []string{"jobs:read"}), "invalid_client_metadata"},
	} {
		if got := registered(t, scene, c.change); got.Status != http.StatusBadRequest || got.Error() != c.code {
			t.Errorf("%s: %d %s, want %s", name, got.Status, got.Body, c.code)
		}
	}
	good := `{"redirect_uris":["https://a.example/cb"]}`
	for name, send := range map[string]func() issuertest.Response{
		"a member twice": func() issuertest.Response {
			return scene.SendJSON("POST", "/oauth/register", `{"redirect_uris":["https://a.example/cb"],"redirect_uris":["https://b.example/cb"]}`)
		},
		"a list":  func() issuertest.Response { return scene.SendJSON("POST", "/oauth/register", `[`+good+`]`) },
		"nothing": func() issuertest.Response { return scene.SendJSON("POST", "/oauth/register", ``) },
		"another type": func() issuertest.Response {
			return scene.SendJSON("POST", "/oauth/register", good, issuertest.Header("Content-Type", "text/plain"))
		},
		"a form": func() issuertest.Response {
			return scene.PostForm("/oauth/register", url.Values{"redirect_uris": {"https://a.example/cb"}})
		},
		"compressed": func() issuertest.Response {
			return scene.SendJSON("POST", "/oauth/register", good, issuertest.Header("Content-Encoding", "gzip"))
		},
		"in the query": func() issuertest.Response { return scene.SendJSON("POST", "/oauth/register?redirect_uris=x", good) },
		"too much of it": func() issuertest.Response {
			return scene.SendJSON("POST", "/oauth/register", `{"x":"`+strings.Repeat("x", 64<<10)+`"}`)
		},
		"deeper than any": func() issuertest.Response {
			return scene.SendJSON("POST", "/oauth/register", strings.Repeat("[", 10_000))
		},
	} {
		if got := send(); got.Status != http.StatusBadRequest && got.Status != http.StatusRequestEntityTooLarge || got.Error() != "invalid_client_metadata" {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_client_registrations"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// D-01, REG-22: Cursor registers with three addresses at once, one of them of a scheme
// without a dot, and a registration stands or falls as one. Other addresses of
// that scheme do not pass: they install things.
func TestNativeClientsRegisterWithTheirOwnSchemes(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.SelfRegistration(nil))
	for _, native := range []string{"cursor://anysphere.cursor-mcp/oauth/callback", "warp://mcp/oauth2callback"} {
		client := registered(t, scene, func(m map[string]any) {
			m["redirect_uris"] = []string{native, "https://www.cursor.com/agents/mcp/oauth/callback", "http://localhost:8787/callback"}
		})
		if client.Status != http.StatusCreated {
			t.Fatalf("%s: %d %s", native, client.Status, client.Body)
		}
		query, verifier := scene.Authorization(member(client, "client_id"), issuertest.Set("redirect_uri", native))
		page := scene.Browser(t).Get("/oauth/authorize?" + query.Encode()).SignIn()
		if scheme, _, _ := strings.Cut(native, "//"); !strings.Contains(page.Text(), "an app on this device ("+scheme+")") {
			t.Errorf("the page says %q", page.Text())
		}
		form := url.Values{"grant_type": {"authorization_code"}, "code": {page.Allow().Code()}, "code_verifier": {verifier}, "redirect_uri": {native}, "client_id": {member(client, "client_id")}}
		if got := scene.PostForm("/oauth/token", form); got.Status != http.StatusOK {
			t.Errorf("%s: %d %s", native, got.Status, got.Body)
		}
	}
	for _, other := range []string{
		"cursor://anysphere.cursor-deeplink/mcp/install?name=x", "cursor://anysphere.cursor-mcp/oauth/callback/x", "cursor://anysphere.cursor-mcp/oauth/callback?x=1",
		"cursor://anysphere.cursor-mcp.evil/oauth/callback", "cursor:/cb", "CURSOR://anysphere.cursor-mcp/oauth/callback", "warp://action/new_tab", "app://cb",
	} {
		if got := registered(t, scene, func(m map[string]any) { m["redirect_uris"] = []string{other} }); got.Error() != "invalid_redirect_uri" {
			t.Errorf("%s: %d %s", other, got.Status, got.Body)
		}
	}
}

// REG-06: a client that registered gets tokens with each method, once a user allows it;
// the page says that nobody has checked its name. Trap 12: without a scope it
// may ask for all.
func TestRegisteredClientGetsTokens(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.SelfRegistration(nil))
	for _, method := range []string{"none", "client_secret_basic", "client_secret_post"} {
		client := registered(t, scene, func(m map[string]any) { m["token_endpoint_auth_method"] = method })
		id, secret := member(client, "client_id"), member(client, "client_secret")
		scene.Browser(t).Authorize(id, issuertest.Set("redirect_uri", issuertest.ClientHostRedirect+"/x")).WantPage(http.StatusBadRequest, "This link does not work")
		page := scene.Browser(t).Authorize(id, toPublished, issuertest.Set("scope", "jobs:read resume:read")).SignIn()
		if !strings.Contains(page.Text(), "Nobody has checked its name") || !strings.Contains(page.Text(), "chat.example") {
			t.Errorf("%s: the page says %q", method, page.Text())
		}
		query, verifier := scene.Authorization(id, toPublished, issuertest.Set("scope", "jobs:read resume:read"))
		code := scene.Browser(t).Get("/oauth/authorize?" + query.Encode()).SignIn().Allow().Code()
		form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {issuertest.ClientHostRedirect}, "client_id": {id}}
		var auth []issuertest.Auth
		switch method {
		case "client_secret_basic":
			auth = append(auth, issuertest.Basic(id, secret))
		case "client_secret_post":
			if got := scene.PostForm("/oauth/token", form); got.Error() != "invalid_client" {
				t.Errorf("%s without it: %d %s", method, got.Status, got.Body)
			}
			form.Set("client_secret", secret)
		}
		if got := scene.PostForm("/oauth/token", form, auth...); got.Status != http.StatusOK || got.Tokens().Refresh == "" || got.Tokens().Scope != "jobs:read resume:read" {
			t.Errorf("%s: %d %s", method, got.Status, got.Body)
		}
	}
	bound := member(registered(t, scene, func(m map[string]any) { m["dpop_bound_access_tokens"] = true }), "client_id")
	if got := refreshAs(scene, bound, "x"); got.Error() != "invalid_dpop_proof" {
		t.Errorf("without a proof of possession: %d %s", got.Status, got.Body)
	}
	// Trap 17: it registered with what it needed first, and asks for more later. What
	// it registered with is what it gets when it does not say.
	narrow := member(registered(t, scene, func(m map[string]any) { m["scope"] = "jobs:read"; m["grant_types"] = []string{"authorization_code"} }), "client_id")
	if tokens := scene.Tokens(t, narrow, toPublished, issuertest.Omit("scope")); tokens.Scope != "jobs:read" || tokens.Refresh != "" {
		t.Errorf("%+v", tokens)
	}
	if page := scene.Browser(t).Authorize(narrow, toPublished, issuertest.Set("scope", "jobs:read resume:read")).SignIn(); !strings.Contains(page.Text(), "Read your resume") {
		t.Errorf("the page says %q", page.Text())
	}
	if tokens := scene.Tokens(t, narrow, toPublished, issuertest.Set("scope", "jobs:read resume:read")); tokens.Scope != "jobs:read resume:read" {
		t.Errorf("%+v", tokens)
	}
}

// REG-19, D-01: whoever registers a client cannot make our address
// lead to theirs. Before the user has signed in an error is a page that names
// where the link goes; afterwards it needs the user's click.
func TestErrorsOfUnknownClientsAreNoRedirect(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	scene := issuertest.New(t, issuertest.SelfRegistration(host))
	dynamic := member(registered(t, scene, nil), "client_id")
	native := member(registered(t, scene, func(m map[string]any) { m["redirect_uris"] = []string{"com.example.app:/cb"} }), "client_id")
	document := host.Publish("/client.json", nil)
	for id, c := range map[string]struct{ redirect, named string }{
		dynamic:  {issuertest.ClientHostRedirect, "chat.example"},
		document: {issuertest.ClientHostRedirect, "chat.example"},
		native:   {"com.example.app:/cb", "com.example.app:"},
	} {
		signedIn := scene.Browser(t)
		signedIn.Authorize(dynamic, toPublished).SignIn()
		for name, param := range map[string]issuertest.Param{
			"response_type":  issuertest.Set("response_type", "token"),
			"no PKCE":        issuertest.Omit("code_challenge"),
			"plain":          issuertest.Set("code_challenge_method", "plain"),
			"scope":          issuertest.Set("scope", "admin"),
			"resource":       issuertest.Set("resource", "https://evil.example/"),
			"request_uri":    issuertest.Set("request_uri", "https://evil.example/"),
			"login_required": issuertest.Set("prompt", "none"),
		} {
			for who, b := range map[string]*issuertest.Browser{"nobody": scene.Browser(t), "ada": signedIn} {
				page := b.Authorize(id, issuertest.Set("redirect_uri", c.redirect), param)
				page.WantPage(http.StatusBadRequest, "The app that sent you here made a mistake")
				if !strings.Contains(page.Text(), "Go back to "+c.named) || !strings.Contains(page.Body, `<a href="`+strings.Split(c.redirect, "?")[0]) {
					t.Errorf("%s, %s: %s", name, who, page.Body)
				}
				if !strings.Contains(page.Body, "iss=") || !strings.Contains(page.Body, "state=") {
					t.Errorf("%s, %s: the link lacks iss or state", name, who)
				}
			}
		}
		// Nor by way of a pushed request.
		form, _ := scene.Authorization(id, issuertest.Set("redirect_uri", c.redirect), issuertest.Set("prompt", "none"))
		pushed := scene.PostForm("/oauth/par", form)
		if pushed.Status != http.StatusCreated {
			t.Fatalf("push: %d %s", pushed.Status, pushed.Body)
		}
		scene.Browser(t).Get(pushedQuery(id, pushed)).WantPage(http.StatusBadRequest, "The app that sent you here made a mistake")
		// The user's own click.
		scene.Browser(t).Authorize(id, issuertest.Set("redirect_uri", c.redirect)).SignIn().Deny().WantError("access_denied")
	}
	// A client of the configuration hears of it at once, and so does one that the
	// user knows.
	scene.Browser(t).Authorize(issuertest.Confidential, issuertest.Set("scope", "admin")).WantError("invalid_scope")
	b := scene.Browser(t)
	b.Authorize(dynamic, toPublished).SignIn().Allow()
	tokens := selfTokens(t, scene, dynamic)
	if tokens.Access == "" {
		t.Fatal("no token")
	}
	b.Authorize(dynamic, toPublished, issuertest.Set("prompt", "none")).Code()
}

// REG-08, REG-09, REG-10: the client reads, replaces and deletes its registration, with its
// own token and nobody else's.
func TestClientManagesItsRegistration(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.SelfRegistration(nil))
	client := registered(t, scene, nil)
	other := registered(t, scene, nil)
	id, token := member(client, "client_id"), member(client, "registration_access_token")
	uri := strings.TrimPrefix(member(client, "registration_client_uri"), scene.URL)
	if uri != "/oauth/register/"+id {
		t.Fatalf("registration_client_uri %q", uri)
	}
	for name, auth := range map[string][]issuertest.Auth{
		"none": nil, "another's": {bearer(member(other, "registration_access_token"))}, "nonsense": {bearer("gpt_rg_x")},
		"Basic": {issuertest.Basic(id, token)}, "twice": {bearer(token), func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+token) }},
	} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			got := scene.SendJSON(method, uri, map[string]any{"client_id": id, "redirect_uris": []string{"https://evil.example/cb"}}, auth...)
			if got.Status != http.StatusUnauthorized || !strings.HasPrefix(got.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s by %s: %d %s", method, name, got.Status, got.Body)
			}
		}
	}
	read := scene.Get(uri, bearer(token))
	if read.Status != http.StatusOK || member(read, "client_id") != id || member(read, "registration_access_token") != token || member(read, "client_name") != "Inspector" {
		t.Errorf("read: %d %s", read.Status, read.Body)
	}

	// Replace: what is left out is gone.
	update := map[string]any{"client_id": id, "redirect_uris": []string{"https://chat.example/new"}, "token_endpoint_auth_method": "client_secret_post"}
	for name, value := range map[string]any{"client_id": "dcr_other", "registration_access_token": token, "registration_client_uri": "x", "client_secret_expires_at": 1, "client_id_issued_at": 1, "client_secret": "x", "redirect_uris": []string{"javascript:x"}} {
		bad := map[string]any{}
		for k, v := range update {
			bad[k] = v
		}
		bad[name] = value
		if got := scene.SendJSON("PUT", uri, bad, bearer(token)); got.Status != http.StatusBadRequest {
			t.Errorf("update with %s: %d %s", name, got.Status, got.Body)
		}
	}
	updated := scene.SendJSON("PUT", uri, update, bearer(token))
	secret := member(updated, "client_secret")
	if updated.Status != http.StatusOK || secret == "" || updated.JSON["client_name"] != nil || !slices.Equal(updated.JSON["redirect_uris"].([]any), []any{"https://chat.example/new"}) {
		t.Errorf("update: %d %s", updated.Status, updated.Body)
	}
	update["client_secret"] = secret
	if again := scene.SendJSON("PUT", uri, update, bearer(token)); again.Status != http.StatusOK || again.JSON["client_secret"] != nil {
		t.Errorf("update with the secret that it has: %d %s", again.Status, again.Body)
	}
	scene.Browser(t).Authorize(id, toPublished).WantPage(http.StatusBadRequest, "This link does not work")

	// Delete: the client and all that users allowed it.
	public := registered(t, scene, nil)
	id, token = member(public, "client_id"), member(public, "registration_access_token")
	tokens := selfTokens(t, scene, id)
	if got := scene.SendJSON("DELETE", "/oauth/register/"+id, "", bearer(token)); got.Status != http.StatusNoContent || got.Body != "" {
		t.Errorf("delete: %d %s", got.Status, got.Body)
	}
	if got := refreshAs(scene, id, tokens.Refresh); got.Error() != "invalid_client" {
		t.Errorf("refresh of a deleted client: %d %s", got.Status, got.Body)
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions WHERE client_id = $1", id); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_revocations WHERE ended"); n == 0 {
		t.Error("the nodes are not told")
	}
	if got := scene.Get("/oauth/register/"+id, bearer(token)); got.Status != http.StatusUnauthorized {
		t.Errorf("read of a deleted client: %d", got.Status)
	}
	if rows := scene.SQL(t, "SELECT event_type FROM gpt_oauth_events WHERE client_id = $1 ORDER BY created_at", id); rows[0][0] != "gpt.oauth.client_registered" || rows[len(rows)-1][0] != "gpt.oauth.client_deleted" {
		t.Errorf("events %v", rows)
	}
}

// C-11, PAG-07: a client that changed its registration is shown as changed.
func TestChangedRegistrationIsAskedAboutAgain(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.SelfRegistration(nil))
	client := registered(t, scene, nil)
	id := member(client, "client_id")
	selfTokens(t, scene, id)
	b := scene.Browser(t)
	b.Authorize(id, toPublished).SignIn().Code()
	scene.SendJSON("PUT", "/oauth/register/"+id, map[string]any{"client_id": id, "client_name": "Your Bank", "redirect_uris": []string{issuertest.ClientHostRedirect},
		"token_endpoint_auth_method": "none"}, bearer(member(client, "registration_access_token")))
	if text := b.Authorize(id, toPublished).Text(); !strings.Contains(text, "has changed what it says about itself") || !strings.Contains(text, "Your Bank") {
		t.Errorf("%q", text)
	}
}

// REG-07: with initial access tokens nobody registers without one.
func TestInitialAccessTokenIsAskedFor(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.SelfRegistration(nil, func(r *issuer.Registration) {
		r.InitialAccessTokens = []issuer.Digest{issuer.HashClientSecret("the first"), issuer.HashClientSecret("the second")}
	}))
	metadata := map[string]any{"redirect_uris": []string{"https://a.example/cb"}}
	for _, token := range []string{"the first", "the second"} {
		if got := scene.SendJSON("POST", "/oauth/register", metadata, bearer(token)); got.Status != http.StatusCreated {
			t.Errorf("%s: %d %s", token, got.Status, got.Body)
		}
	}
	if got := scene.SendJSON("POST", "/oauth/register", metadata); got.Status != http.StatusUnauthorized || got.Header.Get("WWW-Authenticate") != `Bearer realm="oauth"` {
		t.Errorf("without one: %d %v", got.Status, got.Header)
	}
	for i := range 12 {
		got := scene.SendJSON("POST", "/oauth/register", metadata, bearer("a guess"))
		if i < 9 && got.Status != http.StatusUnauthorized || i > 9 && got.Status != http.StatusTooManyRequests {
			t.Errorf("guess %d: %d %s", i, got.Status, got.Body)
		}
	}
}

// D-06: registrations are bounded by network, and in number; clients that are in
// use are in nobody's way.
func TestRegistrationsAreBounded(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.SelfRegistration(nil))
	counts := map[int]int{}
	for range 70 {
		got := registered(t, scene, nil)
		counts[got.Status]++
		if got.Status == http.StatusTooManyRequests && got.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if counts[http.StatusCreated] != 60 || counts[http.StatusTooManyRequests] != 10 {
		t.Errorf("%v", counts)
	}
	scene.Clock.Advance(time.Hour)
	scene.SQL(t, `WITH c AS (INSERT INTO gpt_clients (client_id) SELECT 'dcr_flood' || n FROM generate_series(1, 9940) n RETURNING client_id)
		INSERT INTO gpt_client_registrations (client_id, metadata, token_hash, unused_ttl) SELECT client_id, '{}', sha256('x'), '1 day' FROM c`)
	if got := registered(t, scene, nil); got.Status != http.StatusServiceUnavailable || got.Error() != "temporarily_unavailable" {
		t.Errorf("ten thousand unused clients: %d %s", got.Status, got.Body)
	}
	scene.SQL(t, "UPDATE gpt_client_registrations SET used_at = now() WHERE client_id = 'dcr_flood1'")
	if got := registered(t, scene, nil); got.Status != http.StatusCreated {
		t.Errorf("with one of them in use: %d %s", got.Status, got.Body)
	}
}
