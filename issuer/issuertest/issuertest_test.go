package issuertest_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

func TestEveryClientOfTheSceneGetsTokens(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	for _, client := range []string{issuertest.Confidential, issuertest.Public, issuertest.GPT} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			tokens := scene.Tokens(t, client)
			if tokens.Access == "" || tokens.Refresh == "" || tokens.Scope != "jobs:read" {
				t.Fatalf("got %+v", tokens)
			}
			if rows := scene.SQL(t, "SELECT scopes FROM gpt_sessions WHERE client_id = $1", client); len(rows) != 1 {
				t.Fatalf("got sessions %v", rows)
			}
		})
	}
}

func TestSceneOverTLSSignsIn(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.TLS())
	if !strings.HasPrefix(scene.URL, "https://") {
		t.Fatal(scene.URL)
	}
	scene.Browser(t).Authorize(issuertest.GPT, issuertest.Omit("code_challenge"), issuertest.Omit("code_challenge_method")).SignIn().Allow().Code()
	if r := scene.PostForm("/oauth/token", url.Values{}, issuertest.Basic(issuertest.Confidential, issuertest.Secret)); r.Error() != "invalid_request" {
		t.Fatalf("got %d %s", r.Status, r.Body)
	}
}
