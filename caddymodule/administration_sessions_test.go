package caddymodule

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
)

// ADM-05: TestSessionsAreRevokedByEveryFilter, those that match and no others,
// and counting them ends none. One that has expired is none of them.
func TestSessionsAreRevokedByEveryFilter(t *testing.T) {
	s := newAdministered(t)
	const seed = `
		INSERT INTO gpt_clients (client_id) VALUES ('other') ON CONFLICT DO NOTHING;
		INSERT INTO gpt_users (id, email, password_hash) VALUES ('u-ada', 'ada@example.com', 'x') ON CONFLICT DO NOTHING;
		DELETE FROM gpt_sessions;
		INSERT INTO gpt_sessions (user_id, client_id, scopes, created_at, last_active, expires_at, consent_address, client_address) VALUES
			('u-ada', 'gpt', '{jobs:read}', now() - interval '40 days', now() - interval '35 days', now() + interval '1 day', '203.0.113.7', '198.51.100.1'),
			('u-ada', 'other', '{jobs:read,jobs:write}', now() - interval '2 days', now(), now() + interval '1 day', NULL, '2001:db8::7'),
			('u-bob', 'gpt', '{jobs:write}', now(), now(), now() + interval '1 day', 'fe80::1%eth0', '203.0.113.9'),
			('u-bob', 'gpt', '{jobs:write}', now() - interval '40 days', now() - interval '40 days', now() - interval '1 hour', '203.0.113.7', '203.0.113.7')`
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"user by id":      {[]string{"--user", "u-bob"}, 1},
		"user by address": {[]string{"--user", "Ada@example.com"}, 2},
		"client":          {[]string{"--client", "gpt"}, 2},
		"scope":           {[]string{"--scope", "jobs:write"}, 2},
		"address":         {[]string{"--address", "203.0.113.7"}, 1},
		"network":         {[]string{"--address", "203.0.113.0/24"}, 2},
		"IPv6 network":    {[]string{"--address", "2001:db8::/32"}, 1},
		"age":             {[]string{"--older-than", "1d"}, 2},
		"idle":            {[]string{"--idle-for", "30d"}, 1},
		"all of several":  {[]string{"--user", "u-ada", "--client", "gpt", "--scope", "jobs:read"}, 1},
		"none":            {[]string{"--user", "u-ada", "--scope", "nope"}, 0},
		"everything":      {[]string{"--all"}, 3},
	} {
		s.exec(seed)
		revoke := append([]string{"session", "revoke", "--json"}, c.args...)
		listed := 0
		if name != "everything" {
			listed = len(parsed[admin.Page[admin.Session]](t, s.must(append([]string{"session", "list", "--json"}, c.args...)...)).Items)
		} else {
			listed = 3
		}
		counted := parsed[admin.Ended](t, s.must(append(revoke, "--dry-run")...))
		if counted.Sessions != c.want || listed != c.want || s.count(`SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NOT NULL`) != 0 {
			t.Errorf("%s: %d listed, %d counted, want %d and none ended", name, listed, counted.Sessions, c.want)
		}
		ended := parsed[admin.Ended](t, s.must(append(revoke, "--yes")...))
		if n := s.count(`SELECT count(*) FROM gpt_sessions WHERE revoke_reason = 'revoked_by_operator'`); ended.Sessions != c.want || n != c.want {
			t.Errorf("%s: %d ended, %d rows, want %d", name, ended.Sessions, n, c.want)
		}
	}
	for name, args := range map[string][]string{
		"no filter":       {"session", "revoke", "--yes"},
		"no time":         {"session", "revoke", "--older-than", "soon", "--yes"},
		"no address":      {"session", "revoke", "--address", "home", "--yes"},
		"id and filter":   {"session", "revoke", testSession, "--client", "gpt", "--yes"},
		"all and filter":  {"session", "revoke", "--all", "--client", "gpt", "--yes"},
		"no such session": {"session", "revoke", testSession},
		"no limit":        {"session", "list", "--limit", "0"},
		"no cursor":       {"session", "list", "--after", "x"},
	} {
		s.exec(seed)
		if out, err := s.command(args...); err == nil || s.count(`SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NOT NULL`) != 0 {
			t.Errorf("%s: %q", name, out)
		}
	}
	// Without --yes it counts, and says how to go on.
	s.exec(seed)
	if out, err := s.command("session", "revoke", "--client", "gpt"); err == nil || !strings.Contains(out, "2 sessions match") || !strings.Contains(out, "--yes") {
		t.Errorf("%q %v", out, err)
	}
}

// ADM-05: TestSessionsEndByTheAdminAPI, counted first.
func TestSessionsEndByTheAdminAPI(t *testing.T) {
	s := newAdministered(t)
	if s.get("/jobs").status != http.StatusOK {
		t.Fatal("the session does not pass")
	}
	if got := ask[admin.Ended](s, "POST", "/oauth/sessions/revoke", map[string]any{"user": "user-1", "dry_run": true}); got.Sessions != 1 || s.get("/jobs").status != http.StatusOK {
		t.Errorf("dry run: %+v", got)
	}
	if got := ask[admin.Ended](s, "POST", "/oauth/sessions/revoke", map[string]any{"user": "user-1", "scope": "jobs:read"}); got.Sessions != 1 || got.Next != "" {
		t.Errorf("%+v", got)
	}
	s.awaitRefusal(s.token())
	if got := ask[admin.Session](s, "GET", "/oauth/sessions/"+testSession, nil); got.RevokedAt == nil || got.RevokeReason != "revoked_by_operator" {
		t.Errorf("%+v", got)
	}
	if status, _ := s.api("DELETE", "/oauth/sessions/"+testSession, nil); status != http.StatusNotFound {
		t.Errorf("again: %d", status)
	}
}

// ADM-08: TestOperatorTokenPassesTheGateAndIsRevoked
func TestOperatorTokenPassesTheGateAndIsRevoked(t *testing.T) {
	s := newAdministered(t, "client bound {\n\tsecret a-client-secret-that-is-long-enough\n\tredirect_uri https://a.example/cb\n\tdpop_bound_access_tokens\n}",
		"client narrow {\n\tsecret a-client-secret-that-is-long-enough\n\tredirect_uri https://a.example/cb\n\tscope jobs:write\n}")
	s.exec(`INSERT INTO gpt_users (id, email, password_hash) VALUES ('u-ada', 'ada@example.com', 'x'), ('u-bob', 'bob@example.com', 'x')`)
	s.exec(`UPDATE gpt_users SET disabled_at = now() WHERE id = 'u-bob'`)
	issue := func(args ...string) (string, error) { return s.command(append([]string{"token", "issue"}, args...)...) }

	out, err := issue("--client", "gpt", "--user", "ada@example.com", "--scope", "jobs:read", "--for", "2m")
	if err != nil {
		t.Fatal(err)
	}
	token, rest, _ := strings.Cut(out, "\n") // the rest is standard error
	if s.call(token) != http.StatusOK {
		t.Fatalf("the token does not pass: %s", out)
	}
	var id, user, scopes string
	var ttl float64
	if err := s.db.QueryRow(t.Context(), `SELECT s.id::text, s.user_id, array_to_string(s.scopes, ' '), extract(epoch FROM s.expires_at - s.created_at)::float8
		FROM gpt_sessions s JOIN gpt_oauth_events e ON e.session_id = s.id AND e.event_type = 'gpt.oauth.token_issued_by_operator' AND e.metadata->>'by' = 'operator'`).
		Scan(&id, &user, &scopes, &ttl); err != nil {
		t.Fatal(err)
	}
	if user != "u-ada" || scopes != "jobs:read" || ttl > 125 || !strings.Contains(rest, id) {
		t.Errorf("session %s of %s with %q for %vs; printed %q", id, user, scopes, ttl, rest)
	}
	s.must("session", "revoke", id)
	s.awaitRefusal(token)

	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown client":    {[]string{"--client", "nobody", "--user", "u-ada"}, "client list"},
		"unknown user":      {[]string{"--client", "gpt", "--user", "nobody"}, "user list"},
		"disabled user":     {[]string{"--client", "gpt", "--user", "bob@example.com"}, "user list"},
		"undeclared scope":  {[]string{"--client", "gpt", "--user", "u-ada", "--scope", "nope"}, "invalid_scope"},
		"scope of others":   {[]string{"--client", "narrow", "--user", "u-ada", "--scope", "jobs:read"}, "invalid_scope"},
		"unknown resource":  {[]string{"--client", "gpt", "--user", "u-ada", "--resource", "https://other.example"}, "invalid_target"},
		"too long":          {[]string{"--client", "gpt", "--user", "u-ada", "--for", "16m"}, "access_token_ttl"},
		"no time":           {[]string{"--client", "gpt", "--user", "u-ada", "--for", "0s"}, "access_token_ttl"},
		"bound to a key":    {[]string{"--client", "bound", "--user", "u-ada"}, "bound to its key"},
		"nobody in general": {[]string{"--client", "gpt"}, "user"},
	} {
		if out, err := issue(c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q %v, want %q", name, out, err, c.want)
		}
	}
	if n := s.count(`SELECT count(*) FROM gpt_sessions WHERE asserted_by = 'operator'`); n != 1 {
		t.Errorf("%d sessions, though but one token was issued", n)
	}
}
