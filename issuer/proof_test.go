package issuer_test

import (
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/dpop/dpoptest"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// prove sends a proof for the endpoint, with a nonce of the server.
func prove(scene *issuertest.Scene, key *dpoptest.Key, path string, changes ...dpoptest.Change) issuertest.Auth {
	changes = append([]dpoptest.Change{dpoptest.Nonce(nonceOf(scene))}, changes...)
	return issuertest.Header("DPoP", key.Proof("POST", scene.URL+path, changes...))
}

// nonceOf is what the scene's server would accept now.
func nonceOf(scene *issuertest.Scene) string { return scene.Secrets.Nonces(scene.Clock.Now).Current() }

func refreshForm(clientID, token string) url.Values {
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {clientID}}
	if clientID != issuertest.Public {
		form.Set("client_secret", issuertest.Secret)
	}
	return form
}

// boundCode redeems a code of the client with a proof.
func boundCode(t *testing.T, scene *issuertest.Scene, clientID, redirect string, auth issuertest.Auth, params ...issuertest.Param) issuertest.Response {
	t.Helper()
	code, verifier := scene.Code(t, clientID, params...)
	return scene.PostForm("/oauth/token", codeForm(clientID, redirect, code, verifier), auth)
}

func wantBound(t *testing.T, r issuertest.Response, key *dpoptest.Key) {
	t.Helper()
	if r.Status != 200 || r.JSON["token_type"] != "DPoP" {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	cnf, _ := claimsOf(t, r.Tokens().Access)["cnf"].(map[string]any)
	if len(cnf) != 1 || cnf["jkt"] != key.Thumbprint() {
		t.Errorf("cnf is %v", cnf)
	}
}

// P-20, P-21: a client without a nonce is given one, and with it gets a token bound to its
// key, by each algorithm. RFC 9449 sections 5, 6 and 8.
func TestTokenIsBoundToTheKeyOfTheProof(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	for _, algorithm := range []string{"ES256", "EdDSA", "RS256"} {
		key := dpoptest.NewKey(t, algorithm)
		code, verifier := scene.Code(t, issuertest.Public)
		form := codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier)
		first := scene.PostForm("/oauth/token", form, issuertest.Header("DPoP", key.Proof("POST", scene.URL+"/oauth/token")))
		wantOAuthError(t, first, 400, "use_dpop_nonce")
		nonce := first.Header.Get("DPoP-Nonce")
		if !slices.Contains(first.Header.Values("Access-Control-Expose-Headers"), "WWW-Authenticate, DPoP-Nonce, Retry-After, RateLimit, RateLimit-Policy") {
			t.Errorf("%v", first.Header)
		}
		r := scene.PostForm("/oauth/token", form, issuertest.Header("DPoP", key.Proof("POST", scene.URL+"/oauth/token", dpoptest.Nonce(nonce))))
		wantBound(t, r, key)
		if r.Header.Get("DPoP-Nonce") != "" {
			t.Error("a nonce that is current was replaced")
		}
	}
	scene.Clock.Advance(5 * time.Minute)
	if r := scene.Tokens(t, issuertest.Confidential); claimsOf(t, r.Access)["cnf"] != nil {
		t.Error("a token without a proof is bound")
	}
}

// P-02 at the token endpoint: 400, and nothing is consumed.
func TestTokenEndpointRefusesProofs(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	key := dpoptest.NewKey(t, "ES256")
	code, verifier := scene.Code(t, issuertest.Public)
	form := codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier)
	const path = "/oauth/token"
	for name, c := range map[string]struct {
		auth issuertest.Auth
		code string
	}{
		"garbage":          {issuertest.Header("DPoP", "x"), "invalid_dpop_proof"},
		"empty":            {issuertest.Header("DPoP", ""), "invalid_dpop_proof"},
		"another method":   {prove(scene, key, path, dpoptest.Claim("htm", "GET")), "invalid_dpop_proof"},
		"another endpoint": {prove(scene, key, "/oauth/revoke"), "invalid_dpop_proof"},
		"old":              {prove(scene, key, path, dpoptest.Claim("iat", time.Now().Add(-2*time.Minute).Unix())), "invalid_dpop_proof"},
		"typ":              {prove(scene, key, path, dpoptest.Header("typ", "JWT")), "invalid_dpop_proof"},
		"a made-up nonce":  {prove(scene, key, path, dpoptest.Nonce("x")), "use_dpop_nonce"},
	} {
		r := scene.PostForm(path, form, c.auth)
		if r.Status != 400 || r.Error() != c.code {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	good := prove(scene, key, path)
	wantBound(t, scene.PostForm(path, form, good), key)
	code, verifier = scene.Code(t, issuertest.Public)
	wantOAuthError(t, scene.PostForm(path, codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier), good), 400, "invalid_dpop_proof")
	scene.SQL(t, "ALTER TABLE gpt_dpop_proofs RENAME TO away") // P-04
	wantOAuthError(t, scene.PostForm(path, codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier), prove(scene, key, path)), 503, "temporarily_unavailable")
}

// P-03: the refresh token of a public client is worth nothing without its key;
// one of a confidential client is bound to its authentication. RFC 9449 section 5.
func TestRefreshTokenOfPublicClientIsBound(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	key, thief := dpoptest.NewKey(t, "ES256"), dpoptest.NewKey(t, "ES256")
	const path = "/oauth/token"
	tokens := boundCode(t, scene, issuertest.Public, issuertest.PublicRedirect, prove(scene, key, path)).Tokens()
	form := refreshForm(issuertest.Public, tokens.Refresh)
	wantOAuthError(t, scene.PostForm(path, form), 400, "invalid_grant")
	wantOAuthError(t, scene.PostForm(path, form, prove(scene, thief, path)), 400, "invalid_grant")
	r := scene.PostForm(path, form, prove(scene, key, path))
	wantBound(t, r, key)
	form.Set("refresh_token", r.Tokens().Refresh)
	wantBound(t, scene.PostForm(path, form, prove(scene, key, path)), key)
	// Nor does it end the session when it is long passed: whoever found it in a log
	// would have that power.
	form.Set("refresh_token", tokens.Refresh)
	for _, proof := range [][]issuertest.Auth{nil, {prove(scene, thief, path)}} {
		wantOAuthError(t, scene.PostForm(path, form, proof...), 400, "invalid_grant")
	}
	wantAlive(t, scene, true)
	wantOAuthError(t, scene.PostForm(path, form, prove(scene, key, path)), 400, "invalid_grant")
	wantAlive(t, scene, false)

	device := startDevice(t, scene)
	device.enter(device.userCode).Allow().WantPage(200, "Your device is connected")
	r = scene.PostForm(path, url.Values{"grant_type": {deviceGrant}, "client_id": {issuertest.Device}, "device_code": {device.code}}, prove(scene, key, path))
	wantBound(t, r, key)
	form = refreshForm(issuertest.Device, r.Tokens().Refresh)
	form.Del("client_secret")
	wantOAuthError(t, scene.PostForm(path, form), 400, "invalid_grant")

	tokens = boundCode(t, scene, issuertest.Confidential, issuertest.ConfidentialRedirect, prove(scene, key, path)).Tokens()
	wantBound(t, scene.PostForm(path, refreshForm(issuertest.Confidential, tokens.Refresh), prove(scene, thief, path)), thief)
}

// P-22: dpop_jkt binds the code to a key before there is a token, in the query and
// pushed; a push with a proof does the same. RFC 9449 section 10.
func TestCodeIsBoundToTheKeyThatTheRequestNames(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	key, thief := dpoptest.NewKey(t, "ES256"), dpoptest.NewKey(t, "EdDSA")
	redeem := func(code, verifier string, auth ...issuertest.Auth) issuertest.Response {
		return scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier), auth...)
	}
	pushedCode := func(auth issuertest.Auth, params ...issuertest.Param) (code, verifier string) {
		query, verifier := scene.Authorization(issuertest.Public, params...)
		pushed := scene.PostForm("/oauth/par", query, auth)
		if pushed.Status != 201 {
			t.Fatalf("%d %s", pushed.Status, pushed.Body)
		}
		uri, _ := pushed.JSON["request_uri"].(string)
		page := scene.Browser(t).Get("/oauth/authorize?" + url.Values{"client_id": {issuertest.Public}, "request_uri": {uri}}.Encode())
		return page.SignIn().Allow().Code(), verifier
	}
	for name, begin := range map[string]func() (code, verifier string){
		"dpop_jkt": func() (string, string) {
			return scene.Code(t, issuertest.Public, issuertest.Set("dpop_jkt", key.Thumbprint()))
		},
		"pushed dpop_jkt": func() (string, string) {
			return pushedCode(func(*http.Request) {}, issuertest.Set("dpop_jkt", key.Thumbprint()))
		},
		"pushed with a proof": func() (string, string) { return pushedCode(prove(scene, key, "/oauth/par")) },
		"pushed with both": func() (string, string) {
			return pushedCode(prove(scene, key, "/oauth/par"), issuertest.Set("dpop_jkt", key.Thumbprint()))
		},
	} {
		code, verifier := begin()
		for what, r := range map[string]issuertest.Response{
			"no proof": redeem(code, verifier), "another key": redeem(code, verifier, prove(scene, thief, "/oauth/token")),
		} {
			if r.Status != 400 || r.Error() != "invalid_grant" {
				t.Errorf("%s, %s: %d %s", name, what, r.Status, r.Body)
			}
		}
		wantBound(t, redeem(code, verifier, prove(scene, key, "/oauth/token")), key)
	}
	query, _ := scene.Authorization(issuertest.Public, issuertest.Set("dpop_jkt", thief.Thumbprint()))
	wantOAuthError(t, scene.PostForm("/oauth/par", query, prove(scene, key, "/oauth/par")), 400, "invalid_dpop_proof")
	wantOAuthError(t, scene.PostForm("/oauth/par", query, prove(scene, key, "/oauth/token")), 400, "invalid_dpop_proof")
	for _, malformed := range []string{"x", key.Thumbprint() + "=", key.Thumbprint()[1:], "!" + key.Thumbprint()[1:]} {
		query, _ := scene.Authorization(issuertest.Public, issuertest.Set("dpop_jkt", malformed))
		wantOAuthError(t, scene.PostForm("/oauth/par", query), 400, "invalid_request")
	}
}

// P-03: to a client that must prove its key no grant gives an unbound token.
func TestEveryGrantDemandsTheProof(t *testing.T) {
	t.Parallel()
	for grant, c := range grantScenes(t) {
		t.Run(grant, func(t *testing.T) {
			t.Parallel()
			scene, ask := c.start(t)
			scene.Clients.Change(t, c.client, func(client *issuer.Client) { client.RequireDPoP = true })
			wantOAuthError(t, ask(), 400, "invalid_dpop_proof")
			scene.Clients.Change(t, c.client, func(client *issuer.Client) { client.RequireDPoP = false })
			if r := ask(); r.Status != 200 {
				t.Errorf("%d %s", r.Status, r.Body)
			}
		})
	}
}

// P-20: RFC 9449 sections 5.1 and 6.2, RFC 9728 section 2.
func TestBoundTokenIsSeenInIntrospectionAndMetadata(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	key := dpoptest.NewKey(t, "ES256")
	token := boundCode(t, scene, issuertest.Confidential, issuertest.ConfidentialRedirect, prove(scene, key, "/oauth/token")).Tokens().Access
	r := introspect(scene, issuertest.Confidential, token)
	if cnf, _ := r.JSON["cnf"].(map[string]any); cnf["jkt"] != key.Thumbprint() || r.JSON["token_type"] != "DPoP" {
		t.Errorf("%s", r.Body)
	}
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource"} {
		var algorithms []string
		for _, algorithm := range scene.Get(path).JSON["dpop_signing_alg_values_supported"].([]any) {
			algorithms = append(algorithms, algorithm.(string))
		}
		if !slices.Equal(algorithms, dpop.Algorithms) {
			t.Errorf("%s: %v", path, algorithms)
		}
	}
}

func newProofKeys(t *testing.T) (key, other *dpoptest.Key) {
	t.Helper()
	return dpoptest.NewKey(t, "ES256"), dpoptest.NewKey(t, "ES256")
}

// forToken ties a proof to an access token; proofFor does so with a nonce.
func forToken(token string) []dpoptest.Change {
	if token == "" {
		return nil
	}
	return []dpoptest.Change{dpoptest.For(token)}
}

func proofFor(scene *issuertest.Scene, token string) []dpoptest.Change {
	return append(forToken(token), dpoptest.Nonce(nonceOf(scene)))
}
