package issuer_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

func introspect(scene *issuertest.Scene, clientID, token string) issuertest.Response {
	form := url.Values{"client_id": {clientID}, "token": {token}}
	if clientID != issuertest.Public {
		form.Set("client_secret", issuertest.Secret)
	}
	return scene.PostForm("/oauth/introspect", form)
}

func wantInactive(t *testing.T, what string, r issuertest.Response) {
	t.Helper()
	if r.Status != 200 || r.Body != `{"active":false}` || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %s", what, r.Status, r.Body)
	}
}

// V-06: callers prove who they are, and hear of their own tokens and of those
// for a resource that they serve. RFC 7662 sections 2.1 and 4.
func TestIntrospectionTellsOnlyWhomATokenConcerns(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	tokens := scene.Tokens(t, issuertest.Confidential, issuertest.Set("scope", "applications:write"))
	scene.Clients.Register(t, issuer.Client{ID: "jobs-api", SecretDigests: []issuer.Digest{issuer.HashClientSecret(issuertest.Secret)},
		AuthMethods: []string{"client_secret_post"}, Introspects: []string{scene.URL}})
	scene.Clients.Register(t, issuer.Client{ID: "mcp-api", SecretDigests: []issuer.Digest{issuer.HashClientSecret(issuertest.Secret)},
		AuthMethods: []string{"client_secret_post"}, Introspects: []string{scene.MCP()}})

	for _, caller := range []string{issuertest.Confidential, "jobs-api"} {
		r := introspect(scene, caller, tokens.Access)
		claims := claimsOf(t, tokens.Access)
		for _, member := range []string{"iss", "aud", "sub", "client_id", "scope", "jti", "iat", "exp"} {
			if claims[member] == nil || r.JSON[member] != claims[member] {
				t.Errorf("%s: %s is %v, in the token %v", caller, member, r.JSON[member], claims[member])
			}
		}
		if r.JSON["active"] != true || r.JSON["token_type"] != "Bearer" {
			t.Errorf("%s: %s", caller, r.Body)
		}
	}
	own := introspect(scene, issuertest.Confidential, tokens.Refresh)
	if own.JSON["active"] != true || own.JSON["sub"] != scene.User.ID || own.JSON["scope"] != "applications:write" || own.JSON["exp"] == nil || own.JSON["token_type"] != nil {
		t.Errorf("%s", own.Body)
	}

	// A hint that is wrong, or none of those that exist, finds the token all the same.
	for _, hint := range []string{"refresh_token", "access_token", "nonsense"} {
		for name, token := range map[string]string{"access": tokens.Access, "refresh": tokens.Refresh} {
			form := url.Values{"client_id": {issuertest.Confidential}, "client_secret": {issuertest.Secret}, "token": {token}, "token_type_hint": {hint}}
			if r := scene.PostForm("/oauth/introspect", form); r.JSON["active"] != true {
				t.Errorf("%s token, hint %s: %s", name, hint, r.Body)
			}
		}
	}

	wantInactive(t, "another client", introspect(scene, issuertest.GPT, tokens.Access))
	wantInactive(t, "another client's refresh token", introspect(scene, issuertest.GPT, tokens.Refresh))
	wantInactive(t, "another resource", introspect(scene, "mcp-api", tokens.Access))
	wantInactive(t, "refresh token at a resource", introspect(scene, "jobs-api", tokens.Refresh))
	wantOAuthError(t, introspect(scene, issuertest.Public, scene.Tokens(t, issuertest.Public).Access), 401, "invalid_client")
	wantOAuthError(t, scene.PostForm("/oauth/introspect", url.Values{"token": {tokens.Access}}), 401, "invalid_client")
	wantOAuthError(t, scene.PostForm("/oauth/introspect", url.Values{"token": {tokens.Access}, "client_id": {"jobs-api"}, "client_secret": {"wrong"}}), 401, "invalid_client")
	wantOAuthError(t, introspect(scene, "jobs-api", ""), 400, "invalid_request")
}

// What is not alive is {"active":false} and nothing else, whatever it was.
func TestIntrospectionOfWhatIsNotAlive(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	other := issuertest.New(t)
	code, _ := scene.Code(t, issuertest.Confidential)
	tokens := scene.Tokens(t, issuertest.Confidential)
	for name, token := range map[string]string{
		"garbage": "x", "an authorization code": code, "another server's": other.Tokens(t, issuertest.Confidential).Access,
		"another server's refresh token": "gpt_rt_" + tokens.Refresh[8:], "cut": tokens.Access[:len(tokens.Access)-2], "padded": tokens.Access + "=",
	} {
		wantInactive(t, name, introspect(scene, issuertest.Confidential, token))
	}

	narrowed := scene.Tokens(t, issuertest.Confidential, issuertest.Set("scope", "jobs:read resume:read"))
	scene.SQL(t, "UPDATE gpt_sessions SET scopes = '{jobs:read}' WHERE id = $1::text::uuid", claimsOf(t, narrowed.Access)["sid"])
	if r := introspect(scene, issuertest.Confidential, narrowed.Access); r.JSON["scope"] != "jobs:read" {
		t.Errorf("a narrowed session: %s", r.Body)
	}

	successor := refresh(scene, issuertest.Confidential, tokens.Refresh).Tokens()
	wantInactive(t, "a rotated refresh token", introspect(scene, issuertest.Confidential, tokens.Refresh))
	if r := introspect(scene, issuertest.Confidential, successor.Refresh); r.JSON["active"] != true {
		t.Errorf("its successor: %s", r.Body)
	}
	revoke(scene, issuertest.Confidential, successor.Refresh)
	wantInactive(t, "a revoked access token", introspect(scene, issuertest.Confidential, successor.Access))
	wantInactive(t, "a revoked refresh token", introspect(scene, issuertest.Confidential, successor.Refresh))

	late := scene.Tokens(t, issuertest.Confidential, issuertest.Set("scope", "applications:read")).Access
	scene.Clock.Advance(16 * time.Minute)
	wantInactive(t, "an expired access token", introspect(scene, issuertest.Confidential, late))
}

// Neither answer is true when the session cannot be read: 503.
func TestIntrospectionWithoutTheDatabaseIs503(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	tokens := scene.Tokens(t, issuertest.Confidential)
	scene.SQL(t, "ALTER TABLE gpt_sessions RENAME TO away")
	wantOAuthError(t, introspect(scene, issuertest.Confidential, tokens.Access), 503, "temporarily_unavailable")
	wantOAuthError(t, introspect(scene, issuertest.Confidential, tokens.Refresh), 503, "temporarily_unavailable")
}
