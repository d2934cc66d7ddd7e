package issuer_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

func fieldText(fields map[string]any) (text []string) {
	for name, value := range fields {
		text = append(text, fmt.Sprint(name, "=", value))
	}
	return text
}

func revoke(scene *issuertest.Scene, clientID, token string, params ...issuertest.Param) issuertest.Response {
	form := url.Values{"client_id": {clientID}, "token": {token}}
	if clientID != issuertest.Public {
		form.Set("client_secret", issuertest.Secret)
	}
	for _, param := range params {
		param(form)
	}
	return scene.PostForm("/oauth/revoke", form)
}

// V-01, V-02, V-05, PROTOCOL 1.6.9, PROTOCOL 8.9: what is unknown, or another's, is 200 and nothing
// happens; the kind of token is its own, whatever the hint says. RFC 7009.
func TestRevocationEndsOwnSessionsOnly(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	tokens := scene.Tokens(t, issuertest.Public)
	for name, c := range map[string]struct{ client, token string }{
		"unknown": {issuertest.Public, "unknown"}, "another's refresh token": {issuertest.Confidential, tokens.Refresh}, "another's access token": {issuertest.GPT, tokens.Access},
		"garbage": {issuertest.Public, "gpt_rt_\x00\xff"}, "long": {issuertest.Public, strings.Repeat("a", 60_000)}, "half a JWT": {issuertest.Public, tokens.Access[:len(tokens.Access)-3]},
		"re-encoded": {issuertest.Public, tokens.Access + "="},
	} {
		if r := revoke(scene, c.client, c.token); r.Status != 200 || r.Body != "" {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
		wantAlive(t, scene, true)
	}
	wantOAuthError(t, revoke(scene, issuertest.Public, ""), 400, "invalid_request")
	wantOAuthError(t, scene.PostForm("/oauth/revoke", url.Values{"client_id": {"nobody"}, "token": {tokens.Refresh}}), 401, "invalid_client")
	if r := scene.PostForm("/oauth/revoke", url.Values{"token": {tokens.Refresh}}, issuertest.Header("X-User-Id", scene.User.ID)); r.Status != 401 {
		t.Errorf("a header is no client: %d", r.Status)
	}
	wantAlive(t, scene, true)

	for _, kind := range []string{"access_token", "refresh_token", "nonsense"} {
		tokens := scene.Tokens(t, issuertest.Confidential)
		token := tokens.Refresh
		if kind == "refresh_token" { // a wrong hint
			token = tokens.Access
		}
		if r := revoke(scene, issuertest.Confidential, token, issuertest.Set("token_type_hint", kind)); r.Status != 200 {
			t.Errorf("%s: %d %s", kind, r.Status, r.Body)
		}
		wantOAuthError(t, refresh(scene, issuertest.Confidential, tokens.Refresh), 400, "invalid_grant")
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NOT NULL"); n != 3 {
		t.Errorf("%d sessions revoked, want 3", n)
	}
}

// T-32, V-03: a database that fails is 503, with Retry-After, and no token; and
// the client's next try finds everything as it was.
func TestFailingDatabaseIs503AndLosesNothing(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	tokens := scene.Tokens(t, issuertest.Public)
	code, verifier := scene.Code(t, issuertest.Public)
	redeem := func() issuertest.Response {
		return scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier))
	}
	broken := map[string]string{"the code's": "gpt_authorization_codes", "the session's": "gpt_sessions", "the event's": "gpt_oauth_events", "the client's": "gpt_clients"}
	for name, table := range broken {
		scene.SQL(t, "ALTER TABLE "+table+" RENAME TO away")
		for step, r := range map[string]issuertest.Response{
			"code": redeem(), "refresh": refresh(scene, issuertest.Public, tokens.Refresh), "revoke": revoke(scene, issuertest.Public, tokens.Refresh),
		} {
			if step == "refresh" && table == "gpt_authorization_codes" || step == "revoke" && table == "gpt_authorization_codes" {
				continue // they do not read it
			}
			if r.Status != 503 || r.Error() != "temporarily_unavailable" || r.Header.Get("Retry-After") == "" || strings.Contains(r.Body, "gpt_") {
				t.Errorf("%s table, %s: %d %s", name, step, r.Status, r.Body)
			}
		}
		scene.SQL(t, "ALTER TABLE away RENAME TO "+table)
		if table == "gpt_authorization_codes" { // the refresh and the revocation went through: begin again
			tokens = scene.Tokens(t, issuertest.Public)
		}
	}
	if r := refresh(scene, issuertest.Public, tokens.Refresh); r.Status != 200 {
		t.Errorf("refresh afterwards: %d %s", r.Status, r.Body)
	}
	if r := redeem(); r.Status != 200 {
		t.Errorf("code afterwards: %d %s", r.Status, r.Body)
	}
}
