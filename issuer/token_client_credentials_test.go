package issuer_test

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

func clientCredentials(scene *issuertest.Scene, clientID string, params ...issuertest.Param) issuertest.Response {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}, "scope": {"jobs:read"}}
	if clientID != issuertest.Public {
		form.Set("client_secret", issuertest.Secret)
	}
	for _, param := range params {
		param(form)
	}
	return scene.PostForm("/oauth/token", form)
}

// claimsOf reads the claims of an access token without checking it.
func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// A client that acts for itself: `sub` is the client, nobody signed in, and
// there is no refresh token. RFC 6749 section 4.4.3, RFC 9068 section 2.2.
func TestClientCredentialsNameNoUser(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Clients.Change(t, issuertest.Machine, func(c *issuer.Client) { c.Grants = append(c.Grants, "refresh_token") })
	r := clientCredentials(scene, issuertest.Machine)
	if r.Status != 200 || r.JSON["token_type"] != "Bearer" || r.Tokens().Scope != "jobs:read" || r.Tokens().Refresh != "" || r.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	claims := claimsOf(t, r.Tokens().Access)
	if claims["sub"] != issuertest.Machine || claims["client_id"] != issuertest.Machine || claims["aud"] != scene.URL || claims["auth_time"] != nil {
		t.Errorf("%v", claims)
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions WHERE id = $1::text::uuid AND user_id = client_id", claims["sid"]); n != 1 {
		t.Errorf("%d sessions", n)
	}
	// All that the client may have, where it asks for nothing in particular.
	if r := clientCredentials(scene, issuertest.Machine, issuertest.Omit("scope"), issuertest.Set("resource", scene.URL)); r.Tokens().Scope != "applications:read jobs:read" {
		t.Errorf("%s", r.Body)
	}
	if r := clientCredentials(scene, issuertest.Machine, issuertest.Set("scope", "mcp:tools offline_access")); claimsOf(t, r.Tokens().Access)["aud"] != scene.MCP() || r.Tokens().Refresh != "" {
		t.Errorf("%s", r.Body)
	}
}

// T-28: who may not, and what may not be had.
func TestClientCredentialsAreForWhoMay(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Clients.Change(t, issuertest.Public, func(c *issuer.Client) { c.Grants = append(c.Grants, "client_credentials") })
	for name, c := range map[string]struct {
		client string
		param  issuertest.Param
		code   string
	}{
		"public client":    {issuertest.Public, issuertest.Omit("x"), "unauthorized_client"},
		"not its grant":    {issuertest.Confidential, issuertest.Omit("x"), "unauthorized_client"},
		"another's scope":  {issuertest.Machine, issuertest.Set("scope", "applications:write"), "invalid_scope"},
		"unknown scope":    {issuertest.Machine, issuertest.Set("scope", "jobs"), "invalid_scope"},
		"odd scope":        {issuertest.Machine, issuertest.Set("scope", "jobs:read "), "invalid_scope"},
		"unknown resource": {issuertest.Machine, issuertest.Set("resource", "https://other.example"), "invalid_target"},
		"two resources":    {issuertest.Machine, func(v url.Values) { v["resource"] = []string{scene.URL, scene.MCP()} }, "invalid_target"},
	} {
		r := clientCredentials(scene, c.client, c.param)
		if r.Status != 400 || r.Error() != c.code {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	wantOAuthError(t, clientCredentials(scene, issuertest.Machine, issuertest.Set("client_secret", "wrong")), 401, "invalid_client")
	scene.SQL(t, "UPDATE gpt_clients SET disabled_at = now() WHERE client_id = $1", issuertest.Machine)
	wantOAuthError(t, clientCredentials(scene, issuertest.Machine), 401, "invalid_client")
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions"); n != 0 {
		t.Errorf("%d sessions", n)
	}

	off := issuertest.New(t, issuertest.With(func(c *issuer.Config) { c.Grants = nil }))
	wantOAuthError(t, clientCredentials(off, issuertest.Machine), 400, "unsupported_grant_type")
	for scene, want := range map[*issuertest.Scene]bool{scene: true, off: false} {
		list, _ := scene.Get("/.well-known/oauth-authorization-server").JSON["grant_types_supported"].([]any)
		if slices.Contains(list, any("client_credentials")) != want {
			t.Errorf("metadata: %v", list)
		}
	}
}

// A client that asks a thousand times an hour is one row and one event for a
// resource, also when it asks all at once.
func TestClientCredentialsUseOneSession(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scopes := []string{"jobs:read", "applications:read", "jobs:read applications:read"}
	for i, r := range atOnce(60, func() issuertest.Response { return clientCredentials(scene, issuertest.Machine) }) {
		if r.Status != 200 {
			t.Fatalf("%d: %d %s", i, r.Status, r.Body)
		}
	}
	for i := range 30 {
		r := clientCredentials(scene, issuertest.Machine, issuertest.Set("scope", scopes[i%3]))
		if claims := claimsOf(t, r.Tokens().Access); claims["scope"] == "" || len(strings.Fields(claims["scope"].(string))) != len(strings.Fields(scopes[i%3])) {
			t.Fatalf("%v", claims)
		}
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions"); n != 1 {
		t.Errorf("%d sessions", n)
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_oauth_events WHERE client_id = $1", issuertest.Machine); n != 1 {
		t.Errorf("%d events", n)
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_revocations"); n != 0 {
		t.Errorf("%d revocations", n)
	}
	// No token outlives the session: near its end there is the next one.
	scene.SQL(t, "UPDATE gpt_sessions SET expires_at = now() + interval '14 minutes'")
	if r := clientCredentials(scene, issuertest.Machine); r.Tokens().ExpiresIn != 900 {
		t.Errorf("%s", r.Body)
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions"); n != 2 {
		t.Errorf("%d sessions near the end", n)
	}
}

// Revoking one token of a client's own session ends them all; the next request
// begins another.
func TestRevokedClientSessionIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	first := clientCredentials(scene, issuertest.Machine).Tokens().Access
	if r := revoke(scene, issuertest.Machine, first); r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	wantAlive(t, scene, false)
	second := clientCredentials(scene, issuertest.Machine).Tokens().Access
	if claimsOf(t, first)["sid"] == claimsOf(t, second)["sid"] {
		t.Error("a revoked session is used again")
	}
	wantAlive(t, scene, true)
}
