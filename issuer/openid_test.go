package issuer_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/oauth"
)

func openID(c *issuer.Config) { c.OpenID = true }

func newOpenIDScene(t *testing.T, opts ...issuertest.Option) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, append([]issuertest.Option{issuertest.With(openID)}, opts...)...)
}

const everyIdentity = "openid profile email"

// idTokenOf verifies the ID token of an answer as coreos/go-oidc does: issuer,
// signature by the published keys, audience, time, and at_hash.
func idTokenOf(t *testing.T, scene *issuertest.Scene, clientID string, r issuertest.Response) (*oidc.IDToken, map[string]any) {
	t.Helper()
	raw, _ := r.JSON["id_token"].(string)
	if r.Status != 200 || raw == "" {
		t.Fatalf("no ID token: %d %s", r.Status, r.Body)
	}
	provider, err := oidc.NewProvider(t.Context(), scene.URL)
	if err != nil {
		t.Fatal(err)
	}
	token, err := provider.Verifier(&oidc.Config{ClientID: clientID, Now: scene.Clock.Now}).Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.VerifyAccessToken(r.Tokens().Access); err != nil {
		t.Errorf("at_hash: %v", err)
	}
	return token, claimsOf(t, raw)
}

// redeemed has ada allow what the client asks for and returns the answer of the
// token endpoint.
func redeemed(t *testing.T, scene *issuertest.Scene, clientID, redirect string, params ...issuertest.Param) issuertest.Response {
	t.Helper()
	// Each time: a second request would be allowed without a page.
	code, verifier := scene.Code(t, clientID, append([]issuertest.Param{issuertest.Set("prompt", "consent")}, params...)...)
	return scene.PostForm("/oauth/token", codeForm(clientID, redirect, code, verifier))
}

func identified(t *testing.T, scene *issuertest.Scene, scope string, params ...issuertest.Param) issuertest.Response {
	t.Helper()
	return redeemed(t, scene, issuertest.Confidential, issuertest.ConfidentialRedirect, append([]issuertest.Param{issuertest.Set("scope", scope)}, params...)...)
}

// OIDC-01, OIDC-02, trap 27: the OpenID document is there whole, at every path
// that clients try, or not at all.
func TestOpenIDConfigurationIsWholeOrAbsent(t *testing.T) {
	t.Parallel()
	off := issuertest.New(t)
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/tenant/.well-known/openid-configuration", "/oauth/userinfo", "/oauth/end_session"} {
		if r := off.Get(path); r.Status != http.StatusNotFound {
			t.Errorf("off: %s: %d", path, r.Status)
		}
	}
	if server := off.Get("/.well-known/oauth-authorization-server"); strings.Contains(server.Body, "openid") || strings.Contains(server.Body, "id_token") {
		t.Errorf("off: %s", server.Body)
	}
	off.Browser(t).Authorize(issuertest.Public, issuertest.Set("scope", "openid")).WantError("invalid_scope")

	on := newOpenIDScene(t)
	document := on.Get("/.well-known/openid-configuration")
	// OpenID Connect Discovery section 3, required; and what TypeScript clients
	// refuse to do without.
	for _, member := range []string{
		"issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "scopes_supported", "response_types_supported",
		"subject_types_supported", "id_token_signing_alg_values_supported", "code_challenge_methods_supported", "claims_supported", "end_session_endpoint",
		"token_endpoint_auth_methods_supported", "grant_types_supported", "acr_values_supported",
	} {
		if document.JSON[member] == nil {
			t.Errorf("%s is missing: %s", member, document.Body)
		}
	}
	for member, want := range map[string]any{
		"issuer": on.URL, "userinfo_endpoint": on.URL + "/oauth/userinfo", "jwks_uri": on.URL + "/oauth/jwks.json",
		"claims_parameter_supported": false, "request_parameter_supported": false, "request_uri_parameter_supported": false, // true where it is left out
	} {
		if document.JSON[member] != want {
			t.Errorf("%s is %v, want %v", member, document.JSON[member], want)
		}
	}
	for member, want := range map[string]string{
		"scopes_supported": "openid", "code_challenge_methods_supported": "S256", "id_token_signing_alg_values_supported": "ES256", "subject_types_supported": "public",
		"prompt_values_supported": "select_account", "claims_supported": "email_verified", "acr_values_supported": on.URL + "/oauth/login/password",
	} {
		if list, _ := document.JSON[member].([]any); !slices.Contains(list, any(want)) {
			t.Errorf("%s lacks %s: %v", member, want, list)
		}
	}
	if strings.Contains(document.Body, "null") || document.Header.Get("Access-Control-Allow-Origin") != "*" || document.Header.Get("ETag") == "" {
		t.Errorf("%v %s", document.Header, document.Body)
	}
	if server := on.Get("/.well-known/oauth-authorization-server"); server.Body != document.Body {
		t.Errorf("two documents that differ:\n%s\n%s", server.Body, document.Body)
	}
	if root := on.Get("/.well-known/oauth-protected-resource"); strings.Contains(root.Body, "openid") {
		t.Errorf("resource metadata: %s", root.Body)
	}

	// PROTOCOL 3.4: an issuer with a path, and both ways to look for it.
	tenant := newOpenIDScene(t, issuertest.With(func(c *issuer.Config) { c.Issuer += "/tenant" }))
	for path, want := range map[string]int{
		"/.well-known/openid-configuration/tenant": 200, "/tenant/.well-known/openid-configuration": 200,
		"/.well-known/openid-configuration": 404, "/other/.well-known/openid-configuration": 404, "/tenant/../tenant/.well-known/openid-configuration": 404,
	} {
		r := tenant.Get(path)
		if r.Status != want || want == 200 && r.JSON["issuer"] != tenant.URL+"/tenant" {
			t.Errorf("%s: %d %s", path, r.Status, r.Body)
		}
	}
	if _, err := oidc.NewProvider(t.Context(), tenant.URL+"/tenant"); err != nil {
		t.Error(err)
	}
}

// OIDC-03, OIDC-04, OIDC-05, OIDC-06: an ID token names user, client, nonce, time and way of the
// sign-in, and belongs to the access token beside it.
func TestIDTokenSaysWhoSignedInHowAndWhen(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	for name, c := range map[string]struct{ client, redirect string }{
		"confidential": {issuertest.Confidential, issuertest.ConfidentialRedirect},
		"public":       {issuertest.Public, issuertest.PublicRedirect},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const nonce = "n-0S6_WzA2Mj é\" "
			r := redeemed(t, scene, c.client, c.redirect, issuertest.Set("scope", "openid jobs:read"), issuertest.Set("nonce", nonce))
			token, claims := idTokenOf(t, scene, c.client, r)
			access := claimsOf(t, r.Tokens().Access)
			if token.Subject != scene.User.ID || token.Nonce != nonce || !slices.Equal(token.Audience, []string{c.client}) || token.Issuer != scene.URL {
				t.Errorf("%+v", token)
			}
			if claims["auth_time"] != access["auth_time"] || claims["sid"] != access["sid"] || claims["acr"] != scene.URL+"/oauth/login/password" || claims["exp"] != access["exp"] {
				t.Errorf("ID token %v\naccess token %v", claims, access)
			}
			if amr, _ := claims["amr"].([]any); len(amr) != 1 || amr[0] != "pwd" {
				t.Errorf("amr %v", claims["amr"])
			}
			// OIDC-05: what was not asked for is not said.
			for _, claim := range []string{"email", "email_verified", "name", "azp", "c_hash", "scope"} {
				if claims[claim] != nil {
					t.Errorf("%s is %v", claim, claims[claim])
				}
			}
			if access["scope"] != "jobs:read openid" || access["aud"] != scene.URL || access["nonce"] != nil {
				t.Errorf("access token %v", access)
			}
		})
	}
	without := identified(t, scene, "openid")
	if _, claims := idTokenOf(t, scene, issuertest.Confidential, without); claims["nonce"] != nil {
		t.Errorf("a nonce that nobody sent: %v", claims)
	}
	for _, scope := range []string{"jobs:read", "email jobs:read"} { // OIDC-03: no openid, no ID token
		if r := identified(t, scene, scope); r.Status != 200 || r.JSON["id_token"] != nil {
			t.Errorf("%s: %d %s", scope, r.Status, r.Body)
		}
	}
	scene.Browser(t).Authorize(issuertest.Confidential, issuertest.Set("scope", "openid"), issuertest.Set("nonce", strings.Repeat("n", 513))).WantError("invalid_request")
}

// OIDC-07: a refresh says the same of the sign-in, without the nonce. OpenID
// Connect Core section 12.2.
func TestRefreshedIDTokenSaysTheSame(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	r := identified(t, scene, "openid jobs:read offline_access", issuertest.Set("nonce", "n-1"))
	_, first := idTokenOf(t, scene, issuertest.Confidential, r)
	scene.Clock.Advance(10 * time.Second)
	next := refresh(scene, issuertest.Confidential, r.Tokens().Refresh)
	_, second := idTokenOf(t, scene, issuertest.Confidential, next)
	for _, claim := range []string{"iss", "sub", "aud", "auth_time", "acr", "sid"} {
		if first[claim] != second[claim] {
			t.Errorf("%s was %v and is %v", claim, first[claim], second[claim])
		}
	}
	if second["nonce"] != nil || second["iat"] == first["iat"] {
		t.Errorf("%v", second)
	}
	// Narrowed to an API, it is about no user; and back.
	narrowed := refresh(scene, issuertest.Confidential, next.Tokens().Refresh, issuertest.Set("scope", "jobs:read"))
	if narrowed.Status != 200 || narrowed.JSON["id_token"] != nil || narrowed.Tokens().Scope != "jobs:read" {
		t.Errorf("%d %s", narrowed.Status, narrowed.Body)
	}
	idTokenOf(t, scene, issuertest.Confidential, refresh(scene, issuertest.Confidential, narrowed.Tokens().Refresh))
}

// OIDC-08: which other grants say who the user is: the device grant does, as its
// user signed in; a client without a user cannot; a service that calls on is not
// told.
func TestWhichGrantsGiveIDTokens(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	d := startDevice(t, scene, issuertest.Set("scope", "openid email jobs:read"))
	scene.Browser(t).Get("/oauth/device").Press("Continue", "user_code", d.userCode).SignIn().Allow()
	_, claims := idTokenOf(t, scene, issuertest.Device, d.poll())
	if claims["email"] != issuertest.Email || claims["acr"] != scene.URL+"/oauth/login/password" || claims["nonce"] != nil {
		t.Errorf("%v", claims)
	}

	scene.Clients.Change(t, issuertest.Machine, func(c *issuer.Client) { c.Scopes = nil })
	machine := url.Values{"grant_type": {"client_credentials"}, "client_id": {issuertest.Machine}, "client_secret": {issuertest.Secret}}
	for _, scope := range []string{"openid", "openid jobs:read", "email"} {
		machine.Set("scope", scope)
		wantOAuthError(t, scene.PostForm("/oauth/token", machine), 400, "invalid_scope")
	}
	machine.Del("scope")
	machine.Set("resource", scene.URL)
	if r := scene.PostForm("/oauth/token", machine); r.Status != 200 || strings.Contains(r.Tokens().Scope, "openid") || r.JSON["id_token"] != nil {
		t.Errorf("%d %s", r.Status, r.Body)
	}

	scene.Clients.Register(t, service(serviceID, scene.URL, scene.MCP()))
	e := &exchange{t, scene, identified(t, scene, "openid email applications:write").Tokens().Access}
	if r := e.ask(e.token); r.Status != 200 || r.JSON["id_token"] != nil || r.Tokens().Scope != "applications:read" {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	wantOAuthError(t, e.ask(e.token, issuertest.Set("scope", "openid")), 400, "invalid_scope")
	if r := e.ask(e.token, issuertest.Set("requested_token_type", "urn:ietf:params:oauth:token-type:id_token")); r.Status != 400 || r.Error() != "invalid_request" {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// OIDC-09, OIDC-10: UserInfo tells by GET and POST what the scopes open, and no
// more; an address counts as verified only where somebody said so.
func TestUserInfoTellsWhatTheScopesOpen(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	scene.SQL(t, `UPDATE gpt_users SET profile = '{"name":"Ada Lovelace","picture":"https://ada.example/p.png","email":"old@example.com","phone_number":"1","sub":"mallory","aud":"x"}'`)
	for scope, want := range map[string][]string{
		"openid":           {"sub"},
		"openid jobs:read": {"sub"},
		"openid email":     {"email", "email_verified", "sub"},
		"email jobs:read":  {"email", "email_verified", "sub"}, // it includes openid
		"openid profile":   {"name", "picture", "sub", "updated_at"},
		everyIdentity:      {"email", "email_verified", "name", "picture", "sub", "updated_at"},
	} {
		r := identified(t, scene, scope)
		bearer := issuertest.Header("Authorization", "Bearer "+r.Tokens().Access)
		for _, info := range []issuertest.Response{scene.Get("/oauth/userinfo", bearer), scene.PostForm("/oauth/userinfo", nil, bearer)} {
			var names []string
			for name := range info.JSON {
				names = append(names, name)
			}
			slices.Sort(names)
			if info.Status != 200 || !slices.Equal(names, want) || info.JSON["sub"] != scene.User.ID || info.Header.Get("Cache-Control") != "no-store" || info.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s: %d %s %v", scope, info.Status, info.Body, info.Header)
			}
			if email, asked := info.JSON["email"]; asked && (email != issuertest.Email || info.JSON["email_verified"] != false) {
				t.Errorf("%s: %s", scope, info.Body)
			}
		}
		if r.JSON["id_token"] == nil {
			continue
		}
		_, claims := idTokenOf(t, scene, issuertest.Confidential, r)
		for _, name := range want {
			if claims[name] == nil {
				t.Errorf("%s: the ID token lacks %s: %v", scope, name, claims)
			}
		}
		if claims["sub"] != scene.User.ID || claims["aud"] != issuertest.Confidential || claims["phone_number"] != nil {
			t.Errorf("%s: %v", scope, claims)
		}
	}
	scene.SQL(t, `UPDATE gpt_users SET profile = '{"email_verified":true}'`)
	r := identified(t, scene, "openid email")
	if info := scene.Get("/oauth/userinfo", issuertest.Header("Authorization", "bearer "+r.Tokens().Access)); info.JSON["email_verified"] != true {
		t.Errorf("%s", info.Body)
	}
}

// OIDC-11: who may not be told hears what a resource server says: RFC 6750
// section 3.
func TestUserInfoRefuses(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	r := identified(t, scene, "openid jobs:read")
	tokens := r.Tokens()
	idToken, _ := r.JSON["id_token"].(string)
	plain := identified(t, scene, "jobs:read").Tokens().Access
	ended := identified(t, scene, "openid").Tokens().Access
	revoke(scene, issuertest.Confidential, ended)
	narrowed := identified(t, scene, "openid jobs:read").Tokens().Access
	sid := claimsOf(t, narrowed)["sid"]
	scene.SQL(t, `UPDATE gpt_sessions SET scopes = '{jobs:read}' WHERE id = $1`, sid)
	authorization := func(value string) []issuertest.Auth {
		return []issuertest.Auth{issuertest.Header("Authorization", value)}
	}
	twice := func(r *http.Request) {
		r.Header["Authorization"] = []string{"Bearer " + tokens.Access, "Bearer " + tokens.Access}
	}
	for name, c := range map[string]struct {
		path   string
		auth   []issuertest.Auth
		status int
		code   string
		want   string // of the challenge
	}{
		"nothing":               {"/oauth/userinfo", nil, 401, "invalid_token", `Bearer scope="openid"`},
		"another scheme":        {"/oauth/userinfo", authorization("Basic eDp5"), 401, "invalid_token", `Bearer scope="openid"`},
		"token in the query":    {"/oauth/userinfo?access_token=" + tokens.Access, nil, 401, "invalid_token", `Bearer scope="openid"`},
		"two headers":           {"/oauth/userinfo", []issuertest.Auth{twice}, 400, "invalid_request", `Bearer error="invalid_request"`},
		"garbage":               {"/oauth/userinfo", authorization("Bearer x.y.z"), 401, "invalid_token", `Bearer error="invalid_token"`},
		"an ID token":           {"/oauth/userinfo", authorization("Bearer " + idToken), 401, "invalid_token", `Bearer error="invalid_token"`},
		"a refresh token":       {"/oauth/userinfo", authorization("Bearer " + tokens.Refresh), 401, "invalid_token", `Bearer error="invalid_token"`},
		"an ended session":      {"/oauth/userinfo", authorization("Bearer " + ended), 401, "invalid_token", `Bearer error="invalid_token"`},
		"without openid":        {"/oauth/userinfo", authorization("Bearer " + plain), 403, "insufficient_scope", `Bearer error="insufficient_scope", scope="openid"`},
		"openid taken back":     {"/oauth/userinfo", authorization("Bearer " + narrowed), 403, "insufficient_scope", `Bearer error="insufficient_scope", scope="openid"`},
		"bearer token as DPoP":  {"/oauth/userinfo", authorization("DPoP " + tokens.Access), 401, "invalid_token", `DPoP algs="ES256 EdDSA RS256", error="invalid_token"`},
		"a signature of nobody": {"/oauth/userinfo", authorization("Bearer " + tokens.Access[:len(tokens.Access)-4] + "AAAA"), 401, "invalid_token", `Bearer error="invalid_token"`},
	} {
		got := scene.Get(c.path, c.auth...)
		wantOAuthError(t, got, c.status, c.code)
		if challenge := got.Header.Get("WWW-Authenticate"); challenge != c.want {
			t.Errorf("%s: challenge %q, want %q", name, challenge, c.want)
		}
		if strings.Contains(got.Body, scene.User.ID) {
			t.Errorf("%s: %s", name, got.Body)
		}
	}
	bearer := issuertest.Header("Authorization", "Bearer "+tokens.Access)
	if got := scene.Get("/oauth/userinfo", bearer); got.Status != 200 {
		t.Errorf("the good token: %d %s", got.Status, got.Body)
	}
	scene.Clock.Advance(16 * time.Minute)
	wantOAuthError(t, scene.Get("/oauth/userinfo", bearer), 401, "invalid_token")
}

// OIDC-12: a bound token needs its proof at UserInfo too. RFC 9449 section 7.
func TestUserInfoNeedsTheProofOfABoundToken(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	key, other := newProofKeys(t)
	token := boundCode(t, scene, issuertest.Public, issuertest.PublicRedirect, prove(scene, key, "/oauth/token"), issuertest.Set("scope", "openid")).Tokens().Access
	dpop := issuertest.Header("Authorization", "DPoP "+token)
	good := key.Proof("GET", scene.URL+"/oauth/userinfo", proofFor(scene, token)...)
	for name, c := range map[string]struct {
		auth []issuertest.Auth
		code string
	}{
		"as Bearer":      {[]issuertest.Auth{issuertest.Header("Authorization", "Bearer "+token), issuertest.Header("DPoP", good)}, "invalid_token"},
		"without proof":  {[]issuertest.Auth{dpop}, "invalid_dpop_proof"},
		"another key":    {[]issuertest.Auth{dpop, issuertest.Header("DPoP", other.Proof("GET", scene.URL+"/oauth/userinfo", proofFor(scene, token)...))}, "invalid_token"},
		"another method": {[]issuertest.Auth{dpop, issuertest.Header("DPoP", key.Proof("POST", scene.URL+"/oauth/userinfo", proofFor(scene, token)...))}, "invalid_dpop_proof"},
		"without ath":    {[]issuertest.Auth{dpop, issuertest.Header("DPoP", key.Proof("GET", scene.URL+"/oauth/userinfo", proofFor(scene, "")...))}, "invalid_dpop_proof"},
		"without nonce":  {[]issuertest.Auth{dpop, issuertest.Header("DPoP", key.Proof("GET", scene.URL+"/oauth/userinfo"))}, "invalid_dpop_proof"},
	} {
		got := scene.Get("/oauth/userinfo", c.auth...)
		wantOAuthError(t, got, 401, c.code)
		if got.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", name)
		}
	}
	if got := scene.Get("/oauth/userinfo", dpop, issuertest.Header("DPoP", good)); got.Status != 200 || got.JSON["sub"] != scene.User.ID {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	wantOAuthError(t, scene.Get("/oauth/userinfo", dpop, issuertest.Header("DPoP", good)), 401, "invalid_dpop_proof") // replayed
	stale := scene.Get("/oauth/userinfo", dpop, issuertest.Header("DPoP", key.Proof("GET", scene.URL+"/oauth/userinfo", forToken(token)...)))
	wantOAuthError(t, stale, 401, "use_dpop_nonce")
	if stale.Header.Get("DPoP-Nonce") == "" {
		t.Errorf("%v", stale.Header)
	}
}

// OIDC-13: a request for identity alone gets a token that is for UserInfo and
// for no API; one for an API never learns who the user is unasked.
func TestIdentityAloneOpensNoResource(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	for _, client := range []struct{ id, redirect string }{{issuertest.Confidential, issuertest.ConfidentialRedirect}, {issuertest.GPT, issuertest.GPTRedirect}} {
		scene.Clients.Change(t, client.id, func(c *issuer.Client) { c.Scopes = nil })
		r := redeemed(t, scene, client.id, client.redirect, issuertest.Set("scope", everyIdentity))
		if claims := claimsOf(t, r.Tokens().Access); claims["aud"] != scene.URL+"/oauth/userinfo" || claims["scope"] != "email openid profile" {
			t.Errorf("%s: %v", client.id, claims)
		}
		next := refresh(scene, client.id, r.Tokens().Refresh)
		if claims := claimsOf(t, next.Tokens().Access); claims["aud"] != scene.URL+"/oauth/userinfo" {
			t.Errorf("%s: refreshed %v", client.id, claims)
		}
		if got := scene.Get("/oauth/userinfo", issuertest.Header("Authorization", "Bearer "+next.Tokens().Access)); got.Status != 200 {
			t.Errorf("%s: %d %s", client.id, got.Status, got.Body)
		}
	}
	// Without scope: what is usual, and that is no identity.
	if r := redeemed(t, scene, issuertest.Confidential, issuertest.ConfidentialRedirect, issuertest.Omit("scope"), issuertest.Set("resource", scene.URL)); r.JSON["id_token"] != nil ||
		r.Tokens().Scope != "applications:read applications:write jobs:read resume:read" {
		t.Errorf("%s", r.Body)
	}
	scene.Clients.Change(t, issuertest.GPT, func(c *issuer.Client) { c.Resource = "https://elsewhere.example" })
	if r := redeemed(t, scene, issuertest.GPT, issuertest.GPTRedirect, issuertest.Omit("scope")); r.JSON["id_token"] != nil || strings.Contains(r.Tokens().Scope, "email") {
		t.Errorf("%s", r.Body)
	}
	// Named, the resource is what the token is for.
	r := identified(t, scene, "openid", issuertest.Set("resource", scene.URL))
	if claims := claimsOf(t, r.Tokens().Access); claims["aud"] != scene.URL {
		t.Errorf("%v", claims)
	}
	// Only what the owner lets the client have.
	scene.Clients.Change(t, issuertest.Confidential, func(c *issuer.Client) { c.Scopes = oauth.NewScopeSet("jobs:read", "openid") })
	scene.Browser(t).Authorize(issuertest.Confidential, issuertest.Set("scope", "openid email")).WantError("invalid_scope")
	scene.Clients.Change(t, issuertest.Confidential, func(c *issuer.Client) {
		c.Scopes, c.Ceiling = nil, oauth.NewScopeSet("jobs:read", "openid")
	})
	if r := identified(t, scene, "openid email jobs:read"); r.Tokens().Scope != "jobs:read openid" {
		t.Errorf("above the policy: %s", r.Body)
	}
}

// OIDC-14: the consent page says in words what the client would learn.
func TestConsentSaysWhatTheClientWouldLearn(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	ask := func(scope string, params ...issuertest.Param) string {
		t.Helper()
		return scene.Browser(t).Authorize(issuertest.Confidential, append(params, issuertest.Set("scope", scope))...).SignIn().Text()
	}
	if text := ask("openid email jobs:read"); !strings.Contains(text, "Know that it is you") || !strings.Contains(text, "See your email address") ||
		!strings.Contains(text, "Search jobs") || strings.Contains(text, "your profile") || strings.Index(text, "Know that it is you") > strings.Index(text, "Search jobs") {
		t.Error(text)
	}
	if text := ask("profile"); !strings.Contains(text, "Sign in to Career Copilot with your account?") || !strings.Contains(text, "Know that it is you") ||
		!strings.Contains(text, "See your profile") || strings.Contains(text, "for you where no") {
		t.Error(text)
	}
	// Who names a resource gets in there, if only where no scope is needed.
	if text := ask("openid", issuertest.Set("resource", scene.MCP())); !strings.Contains(text, "wants access to your account") || !strings.Contains(text, "where no particular permission is needed") {
		t.Error(text)
	}
}

// OIDC-15, J-18: an ID token is good for nothing else.
func TestIDTokenIsNoOtherKindOfToken(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	r := identified(t, scene, "openid jobs:read")
	idToken, _ := r.JSON["id_token"].(string)
	wantInactive(t, "introspection", introspect(scene, issuertest.Confidential, idToken))
	if got := revoke(scene, issuertest.Confidential, idToken); got.Status != 200 {
		t.Errorf("revocation: %d", got.Status)
	}
	wantAlive(t, scene, true)
	wantOAuthError(t, refresh(scene, issuertest.Confidential, idToken), 400, "invalid_grant")
	scene.Clients.Register(t, service(serviceID, scene.URL, scene.MCP()))
	wantOAuthError(t, (&exchange{t, scene, idToken}).ask(idToken), 400, "invalid_request")
	wantOAuthError(t, scene.PostForm("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_assertion": {idToken},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}), 401, "invalid_client")
	header, err := base64.RawURLEncoding.DecodeString(strings.Split(idToken, ".")[0])
	var typ struct{ Typ, Alg, Kid string }
	if err != nil || json.Unmarshal(header, &typ) != nil || typ.Typ != "JWT" || typ.Alg != "ES256" || typ.Kid == "" {
		t.Errorf("header %s", header)
	}
}
