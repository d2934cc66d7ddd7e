package caddymodule

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// OPS-05: TestUserDataCommands: export and erase say whom they mean, and erase asks.
func TestUserDataCommands(t *testing.T) {
	config := commandConfig(postgrestest.New(t))
	added, err := oauthCommand(t, config, "correct horse battery\n", "user", "add", "ada@example.com", "--password-stdin")
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(added[strings.LastIndex(added, " as ")+4:])
	text, err := oauthCommand(t, config, "", "user", "export", "Ada@Example.com")
	var document struct {
		Format string           `json:"format"`
		Issuer string           `json:"issuer"`
		UserID string           `json:"user_id"`
		Users  []map[string]any `json:"users"`
	}
	if err != nil || json.Unmarshal([]byte(text), &document) != nil || document.UserID != id || document.Issuer != "https://api.example.com" ||
		len(document.Users) != 1 || document.Users[0]["email"] != "ada@example.com" || strings.Contains(text, "argon2") {
		t.Errorf("%v %s", err, text)
	}
	for _, step := range []struct {
		name, stdin string
		args        []string
		want, fails string
	}{
		{"export nobody", "", []string{"user", "export", "bob@example.com"}, "", "caddy oauth user list"},
		{"erase without an answer", "", []string{"user", "erase", id}, "gpt_users", "nothing was erased"},
		{"erase with another answer", "yes\n", []string{"user", "erase", id}, "gpt_oauth_events", "nothing was erased"},
		{"still there", "", []string{"user", "list"}, "ada@example.com", ""},
		{"erase", id + "\n", []string{"user", "erase", "ada@example.com"}, "erased " + id + "; in the audit trail it is erased-", ""},
		{"erase again", "", []string{"user", "erase", id}, "nothing is held about " + id, ""},
		{"erase nobody", "", []string{"user", "erase", "bob@example.com", "--yes"}, "nothing is held about bob@example.com", ""},
	} {
		out, err := oauthCommand(t, config, step.stdin, step.args...)
		switch {
		case step.fails == "" && err != nil:
			t.Errorf("%s: %v", step.name, err)
		case step.fails != "" && (err == nil || !strings.Contains(err.Error(), step.fails)):
			t.Errorf("%s: error %v, want %q", step.name, err, step.fails)
		case !strings.Contains(out, step.want):
			t.Errorf("%s: printed %q, want %q", step.name, out, step.want)
		}
	}
}

// OPS-16: TestRestoredEndsWhatABackupBroughtBack, after asking, and again without harm.
func TestRestoredEndsWhatABackupBroughtBack(t *testing.T) {
	dsn := postgrestest.New(t)
	config := commandConfig(dsn)
	before, err := oauthCommand(t, config, "", "key", "list")
	if err != nil {
		t.Fatal(err)
	}
	sql, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer sql.Close(context.Background())
	if _, err := sql.Exec(t.Context(), `
		INSERT INTO gpt_clients (client_id) VALUES ('app');
		INSERT INTO gpt_users (id, email, password_hash) VALUES ('u', 'ada@example.com', 'x');
		INSERT INTO gpt_sessions (user_id, client_id, expires_at) SELECT 'u', 'app', now() + interval '1 day' FROM generate_series(1, 3);
		UPDATE gpt_sessions SET revoked_at = now(), revoke_reason = 'before' WHERE ctid = (SELECT min(ctid) FROM gpt_sessions);
		INSERT INTO gpt_logins (digest, user_id, expires_at) VALUES (sha256('a'), 'u', now() + interval '1 day');
		INSERT INTO gpt_password_resets (digest, user_id, ends_sessions, removes_factors, expires_at) VALUES (sha256('a'), 'u', false, false, now() + interval '1 day');
		INSERT INTO gpt_pushed_requests (digest, client_id, parameters, expires_at) VALUES (sha256('a'), 'app', '', now() + interval '1 day');
		INSERT INTO gpt_device_codes (device_hash, user_code_hash, client_id, resource, scopes, poll_interval, expires_at) VALUES (sha256('a'), sha256('b'), 'app', 'https://api.test', '{}', 5, now() + interval '1 day');
		INSERT INTO gpt_authorization_codes (code_hash, request_id, client_id, user_id, redirect_uri, resource, auth_time, expires_at)
			VALUES (sha256('a'), gen_random_uuid(), 'app', 'u', 'https://app.test/cb', 'https://api.test', now(), now() + interval '1 day')`); err != nil {
		t.Fatal(err)
	}
	if _, err := oauthCommand(t, config, "yes\n", "restored"); err == nil || !strings.Contains(err.Error(), "nothing was ended") {
		t.Errorf("another answer: %v", err)
	}
	for _, step := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"end everything\n", []string{"restored"}, "ended 2 sessions, 1 logins, 4 codes and requests\nreplaced the signing key\n"},
		{"", []string{"restored", "--yes"}, "ended 0 sessions, 0 logins, 0 codes and requests\n"},
	} {
		if out, err := oauthCommand(t, config, step.stdin, step.args...); err != nil || !strings.Contains(out, step.want) {
			t.Errorf("%q: %v %s", step.args, err, out)
		}
	}
	var revoked, users int
	if err := sql.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NOT NULL), (SELECT count(*) FROM gpt_users)`).Scan(&revoked, &users); err != nil || revoked != 3 || users != 1 {
		t.Errorf("%d sessions are revoked, %d users are there: %v", revoked, users, err)
	}
	if after, err := oauthCommand(t, config, "", "key", "list"); err != nil || strings.Contains(after, strings.Fields(before)[4]) {
		t.Errorf("the key of the backup: %v\nbefore %s\nafter %s", err, before, after)
	}
}
