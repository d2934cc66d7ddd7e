package issuer_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// The traps of docs/conformance.md that no other test is about: each is a thread
// in which a real client and a real server did not come together.

// Trap 2: clients compare the issuer byte for byte: in both kinds of metadata, in
// the answer to an authorization, in tokens. There is one spelling, without a slash.
func TestIssuerIsTheSameBytesEverywhere(t *testing.T) {
	t.Parallel()
	scene := newOpenIDScene(t)
	allowed := scene.Browser(t).Authorize(issuertest.Public).SignIn().Allow()
	places := map[string]any{
		"RFC 8414 metadata":      scene.Get("/.well-known/oauth-authorization-server").JSON["issuer"],
		"OpenID metadata":        scene.Get("/.well-known/openid-configuration").JSON["issuer"],
		"authorization response": allowed.Query().Get("iss"),
		"error response":         scene.Browser(t).Authorize(issuertest.Confidential, issuertest.Set("prompt", "none")).Query().Get("iss"),
		"access token":           claimsOf(t, scene.Tokens(t, issuertest.Public).Access)["iss"],
	}
	for _, path := range []string{"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"} {
		servers, _ := scene.Get(path).JSON["authorization_servers"].([]any)
		if len(servers) != 1 {
			t.Fatalf("%s: %v", path, servers)
		}
		places[path] = servers[0]
	}
	for place, issuer := range places {
		if issuer != scene.URL || strings.HasSuffix(scene.URL, "/") {
			t.Errorf("%s: %v, want %s", place, issuer, scene.URL)
		}
	}
}

// Trap 1: a resource with a slash more, or an upper-case host, is the configured one; the
// token carries the configured bytes; and its metadata is found where a client
// looks that keeps the slash.
func TestResourceIsTheConfiguredOneHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	for _, resource := range []string{scene.MCP(), scene.MCP() + "/", strings.Replace(scene.MCP(), "http://", "HTTP://", 1)} {
		tokens := scene.Tokens(t, issuertest.Public, issuertest.Set("resource", resource), issuertest.Set("scope", "mcp:tools"))
		if aud := claimsOf(t, tokens.Access)["aud"]; aud != scene.MCP() {
			t.Errorf("resource %s: aud %v", resource, aud)
		}
	}
	for path, want := range map[string]any{
		"/.well-known/oauth-protected-resource/mcp": scene.MCP(), "/.well-known/oauth-protected-resource/mcp/": scene.MCP(),
		"/.well-known/oauth-protected-resource": scene.URL, "/.well-known/oauth-protected-resource/": scene.URL,
		"/.well-known/oauth-protected-resource/mcp//": nil, "/.well-known/oauth-protected-resource/MCP": nil,
	} {
		if got := scene.Get(path).JSON["resource"]; got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

// Trap 13: a client that names no scope gets what is usual for the resource, and is told.
func TestScopeThatWasNotAskedForIsTold(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	tokens := scene.Tokens(t, issuertest.Public, issuertest.Omit("scope"), issuertest.Set("resource", scene.MCP()))
	if tokens.Scope != "mcp:tools" {
		t.Errorf("scope %q", tokens.Scope)
	}
}

// Trap 16: clients come again and again with grants that are dead. They hear 400
// invalid_grant each time, never 5xx and never 401, and it costs no row.
func TestDeadGrantsStayDeadQuietly(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	revoked := scene.Tokens(t, issuertest.Public).Refresh
	scene.SQL(t, "UPDATE gpt_sessions SET revoked_at = now()")
	expired := scene.Tokens(t, issuertest.Public).Refresh
	scene.SQL(t, "UPDATE gpt_sessions SET expires_at = now() - interval '1 day', created_at = now() - interval '2 days' WHERE revoked_at IS NULL")
	deleted := scene.Tokens(t, issuertest.Public).Refresh
	scene.SQL(t, "DELETE FROM gpt_sessions WHERE revoked_at IS NULL AND expires_at > now()")
	count := func() int { return rowsLeft(t, scene) }
	before := count()
	for name, token := range map[string]string{
		"revoked": revoked, "expired": expired, "deleted": deleted, "of another system": "rt_0123456789", "as adopted ones are": "gpt_rt_" + strings.Repeat("ab", 48), "cut off": revoked[:20],
	} {
		for range 5 {
			wantOAuthError(t, refresh(scene, issuertest.Public, token), http.StatusBadRequest, "invalid_grant")
		}
		if after := count(); after != before {
			t.Errorf("%s: %d rows more", name, after-before)
		}
	}
}

// Trap 18: when a client stops after consent, the log tells how far it came: each step of a
// flow has its line, with the client it is about.
func TestEachStepOfAFlowHasItsLine(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	code, verifier := scene.Code(t, issuertest.Public)
	line := func(what string) bool {
		return slices.ContainsFunc(scene.Logs.FilterMessage(what).All(), func(entry observer.LoggedEntry) bool {
			fields := entry.ContextMap()
			return fields["client_id"] == issuertest.Public && fields["request_id"] != ""
		})
	}
	for _, step := range []string{"signed in", "authorization code issued"} {
		if !line(step) {
			t.Errorf("no line %q", step)
		}
	}
	if line("token issued") {
		t.Error("a token was issued before the client came for it")
	}
	scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier))
	if !line("token issued") {
		t.Error(`no line "token issued"`)
	}
}

// Trap 23: all installations of an app share the client_id of its document. What
// one of them revokes is its own session.
func TestRevocationByOneInstallationIsItsOwn(t *testing.T) {
	t.Parallel()
	host := issuertest.NewClientHost(t)
	scene := issuertest.New(t, issuertest.SelfRegistration(host))
	id := host.Publish("/oauth/client.json", nil)
	laptop := selfTokens(t, scene, id)
	query, verifier := scene.Authorization(id, toPublished)
	code := scene.Browser(t).Get("/oauth/authorize?" + query.Encode()).SignIn().Code() // the app is allowed already
	phone := scene.Redeem(t, id, code, url.Values{"code_verifier": {verifier}, "redirect_uri": {issuertest.ClientHostRedirect}})
	if r := scene.PostForm("/oauth/revoke", url.Values{"client_id": {id}, "token": {laptop.Refresh}}); r.Status != http.StatusOK {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	wantOAuthError(t, refreshAs(scene, id, laptop.Refresh), http.StatusBadRequest, "invalid_grant")
	if r := refreshAs(scene, id, phone.Refresh); r.Status != http.StatusOK {
		t.Errorf("the other installation: %d %s", r.Status, r.Body)
	}
	if live := fmt.Sprint(scene.SQL(t, "SELECT count(*)::int FROM gpt_sessions WHERE revoked_at IS NULL")); live != "[[1]]" {
		t.Errorf("live sessions: %s", live)
	}
}
