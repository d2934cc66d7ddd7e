package issuer_test

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

func refresh(scene *issuertest.Scene, clientID, token string, params ...issuertest.Param) issuertest.Response {
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {clientID}, "refresh_token": {token}}
	if clientID != issuertest.Public {
		form.Set("client_secret", issuertest.Secret)
	}
	for _, param := range params {
		param(form)
	}
	return scene.PostForm("/oauth/token", form)
}

func wantAlive(t *testing.T, scene *issuertest.Scene, alive bool) {
	t.Helper()
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NULL"); (n > 0) != alive {
		t.Errorf("%d sessions alive, want alive %v", n, alive)
	}
}

// PROTOCOL 8.7, T-31, trap 15: a hundred refreshes with one token get one successor, and
// the session lives.
func TestConcurrentRefreshesShareOneSuccessor(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	tokens := scene.Tokens(t, issuertest.Public)
	successors := map[string]int{}
	for _, r := range atOnce(100, func() issuertest.Response { return refresh(scene, issuertest.Public, tokens.Refresh) }) {
		if r.Status != 200 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		successors[r.Tokens().Refresh]++
	}
	if len(successors) != 1 || successors[tokens.Refresh] != 0 {
		t.Fatalf("%d successors", len(successors))
	}
	for successor := range successors {
		if r := refresh(scene, issuertest.Public, successor); r.Status != 200 {
			t.Errorf("the successor: %s", r.Body)
		}
	}
	wantAlive(t, scene, true)
}

// `refresh_grace 0s`: of a hundred one succeeds; the others are replays.
func TestWithoutGraceOneRefreshSucceeds(t *testing.T) {
	t.Parallel()
	none := time.Duration(0)
	scene := issuertest.New(t, issuertest.With(func(c *issuer.Config) { c.RefreshGrace = &none }))
	tokens := scene.Tokens(t, issuertest.Public)
	succeeded := 0
	for _, r := range atOnce(100, func() issuertest.Response { return refresh(scene, issuertest.Public, tokens.Refresh) }) {
		if r.Status == 200 {
			succeeded++
		} else {
			wantOAuthError(t, r, 400, "invalid_grant")
		}
	}
	if succeeded != 1 {
		t.Errorf("%d succeeded", succeeded)
	}
}

// T-13, PROTOCOL 8.7: past the grace, and for the grandparent at once, the session is revoked.
func TestReplayedRefreshTokenRevokesTheSession(t *testing.T) {
	t.Parallel()
	for name, replay := range map[string]func(*issuertest.Scene, string) string{
		"past the grace": func(scene *issuertest.Scene, first string) string {
			refresh(scene, issuertest.Public, first)
			scene.SQL(t, "UPDATE gpt_sessions SET rotated_at = rotated_at - interval '1 hour'")
			return first
		},
		"grandparent": func(scene *issuertest.Scene, first string) string {
			second := refresh(scene, issuertest.Public, first).Tokens().Refresh
			refresh(scene, issuertest.Public, second)
			return first
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := issuertest.New(t)
			old := replay(scene, scene.Tokens(t, issuertest.Public).Refresh)
			wantAlive(t, scene, true)
			wantOAuthError(t, refresh(scene, issuertest.Public, old), 400, "invalid_grant")
			wantAlive(t, scene, false)
		})
	}
}

// T-15, T-29, PROTOCOL 8.8: a refused refresh moves nothing; a narrower one keeps the grant.
func TestRefusedRefreshMovesNothing(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	current := scene.Tokens(t, issuertest.Confidential, issuertest.Set("scope", "jobs:read applications:write")).Refresh
	for name, c := range map[string]struct {
		param issuertest.Param
		code  string
	}{
		"wider":          {issuertest.Set("scope", "jobs:read resume:read"), "invalid_scope"},
		"unknown scope":  {issuertest.Set("scope", "jobs:everything"), "invalid_scope"},
		"prefix":         {issuertest.Set("scope", "jobs"), "invalid_scope"},
		"odd scope":      {issuertest.Set("scope", "jobs:read\tapplications:write\""), "invalid_scope"},
		"other resource": {issuertest.Set("resource", scene.MCP()), "invalid_target"},
		"fragment":       {issuertest.Set("resource", scene.URL+"#x"), "invalid_target"},
		"twice":          {issuertest.Add("refresh_token", "x"), "invalid_request"},
	} {
		wantOAuthError(t, refresh(scene, issuertest.Confidential, current, c.param), 400, c.code)
		if n := scene.Count(t, "SELECT rt_counter::int FROM gpt_sessions"); n != 0 {
			t.Fatalf("%s: the counter moved to %d", name, n)
		}
	}
	narrowed := refresh(scene, issuertest.Confidential, current, issuertest.Set("scope", "applications:read"))
	if narrowed.Status != 200 || narrowed.Tokens().Scope != "applications:read" {
		t.Fatalf("narrower: %d %s", narrowed.Status, narrowed.Body)
	}
	whole := refresh(scene, issuertest.Confidential, narrowed.Tokens().Refresh)
	if whole.Tokens().Scope != "applications:write jobs:read" {
		t.Errorf("afterwards %q", whole.Tokens().Scope)
	}
}

// T-16, T-18, PROTOCOL 8.9: only the client's own refresh token refreshes.
func TestOnlyOwnRefreshTokensRefresh(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	tokens := scene.Tokens(t, issuertest.Public)
	code, _ := scene.Code(t, issuertest.Confidential)
	last := len(tokens.Refresh) - 1
	flipped := tokens.Refresh[:last] + string(tokens.Refresh[last]^1)
	for name, c := range map[string]struct{ client, token string }{
		"another client": {issuertest.Confidential, tokens.Refresh}, "access token": {issuertest.Public, tokens.Access}, "code": {issuertest.Confidential, code},
		"garbage": {issuertest.Public, "gpt_rt_garbage"}, "flipped": {issuertest.Public, flipped}, "longer": {issuertest.Public, tokens.Refresh + "A"},
		"padded": {issuertest.Public, tokens.Refresh + "="}, "huge": {issuertest.Public, "gpt_rt_" + strings.Repeat("a", 50_000)}, "NUL": {issuertest.Public, "gpt_rt_\x00"},
	} {
		t.Run(name, func(t *testing.T) { wantOAuthError(t, refresh(scene, c.client, c.token), 400, "invalid_grant") })
	}
	wantAlive(t, scene, true)
	if r := refresh(scene, issuertest.Public, tokens.Refresh); r.Status != 200 {
		t.Errorf("the owner: %s", r.Body)
	}
}

// T-09, T-17: what was taken away is gone at the next refresh.
func TestRefreshNeverGivesOldRights(t *testing.T) {
	t.Parallel()
	const all = "jobs:read applications:write"
	for name, c := range map[string]struct {
		change func(*issuertest.Scene)
		status int
		want   string // scope, or error
	}{
		"consent revoked": {func(s *issuertest.Scene) { s.SQL(t, "UPDATE gpt_sessions SET revoked_at = now()") }, 400, "invalid_grant"},
		"session expired": {func(s *issuertest.Scene) { s.SQL(t, "UPDATE gpt_sessions SET expires_at = now()") }, 400, "invalid_grant"},
		"user disabled":   {func(s *issuertest.Scene) { s.SQL(t, "UPDATE gpt_users SET disabled_at = now()") }, 400, "invalid_grant"},
		"client disabled": {func(s *issuertest.Scene) { s.SQL(t, "UPDATE gpt_clients SET disabled_at = now()") }, 401, "invalid_client"},
		"scope of the client removed": {func(s *issuertest.Scene) {
			s.Clients.Change(t, issuertest.GPT, func(c *issuer.Client) { c.Scopes = c.Scopes[:0:0].Union(c.Scopes[2:]) })
		}, 200, "jobs:read"},
		"scopes of the session narrowed": {func(s *issuertest.Scene) { s.SQL(t, "UPDATE gpt_sessions SET scopes = '{jobs:read}'") }, 200, "jobs:read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := issuertest.New(t)
			tokens := scene.Tokens(t, issuertest.GPT, issuertest.Set("scope", all))
			c.change(scene)
			r := refresh(scene, issuertest.GPT, tokens.Refresh)
			if c.status == 200 {
				if r.Status != 200 || r.Tokens().Scope != c.want {
					t.Errorf("%d %s, want %s", r.Status, r.Body, c.want)
				}
				return
			}
			wantOAuthError(t, r, c.status, c.want)
		})
	}
}

// Trap 14: whether there is a refresh token is decided by the client's grants,
// whatever it asks for, and one that it got before is worth nothing without them.
func TestClientsGrantsDecideAboutRefreshTokens(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	offline := issuertest.Set("scope", "jobs:read offline_access")
	before := scene.Tokens(t, issuertest.Public)
	if before.Refresh == "" {
		t.Error("none for a client with the grant that does not ask for it")
	}
	scene.Clients.Change(t, issuertest.Public, func(c *issuer.Client) { c.Grants = []string{"authorization_code"} })
	if tokens := scene.Tokens(t, issuertest.Public, offline); tokens.Refresh != "" || tokens.Scope != "jobs:read" {
		t.Errorf("%+v", tokens)
	}
	wantOAuthError(t, refresh(scene, issuertest.Public, before.Refresh), 400, "unauthorized_client")
}

// A session that was adopted does not say what its tokens are for; its tokens do,
// however they are asked for, and a refresh that looks it up notes it.
func TestRefreshOfASessionWithoutResourceFindsOne(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	current := scene.Tokens(t, issuertest.GPT).Refresh
	scene.SQL(t, "UPDATE gpt_sessions SET resource = NULL")
	for noted, param := range []issuertest.Param{func(url.Values) {}, issuertest.Set("scope", "jobs:read")} {
		r := refresh(scene, issuertest.GPT, current, param)
		if r.Status != 200 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(r.Tokens().Access, ".")[1])
		if err != nil || !strings.Contains(string(payload), `"aud":"`+scene.URL+`"`) {
			t.Errorf("%s, %v", payload, err)
		}
		if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions WHERE resource = $1", scene.URL); n != noted {
			t.Errorf("%d sessions with a resource, want %d", n, noted)
		}
		current = r.Tokens().Refresh
	}
}
