//go:build unix

package postgres_test

import (
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// DESIGN 5: whatever ends or narrows a session writes a revocation, from any psql.
func TestTriggersWriteRevocations(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql   string
		ended int // rows that end a session
		other int // rows that say: read it again
	}{
		"revoked":        {`UPDATE gpt_sessions SET revoked_at = now()`, 1, 0},
		"as a replica":   {`SET session_replication_role = replica; UPDATE gpt_sessions SET revoked_at = now()`, 1, 0},
		"deleted":        {`DELETE FROM gpt_sessions`, 1, 0},
		"truncated":      {`TRUNCATE gpt_sessions CASCADE`, 1, 0},
		"narrowed":       {`UPDATE gpt_sessions SET scopes = '{jobs:read}'`, 0, 1},
		"another user":   {`UPDATE gpt_sessions SET user_id = 'x'`, 0, 1},
		"another client": {`UPDATE gpt_sessions SET client_id = 'other'`, 0, 1},
		"shortened":      {`UPDATE gpt_sessions SET expires_at = now()`, 0, 1},
		"given an end":   {`UPDATE gpt_sessions SET idle_expires_at = now()`, 0, 1},
		"idle bound nearer": {`UPDATE gpt_sessions SET idle_expires_at = expires_at; UPDATE gpt_sessions SET idle_expires_at = now();
			UPDATE gpt_sessions SET idle_expires_at = expires_at, rt_counter = 1, rotated_at = now()`, 0, 1},
		"user disabled":   {`UPDATE gpt_users SET disabled_at = now()`, 1, 0},
		"user deleted":    {`DELETE FROM gpt_users`, 1, 0},
		"users truncated": {`TRUNCATE gpt_users CASCADE`, 1, 0},
		"all truncated":   {`TRUNCATE gpt_users, gpt_sessions CASCADE`, 2, 0},
		// Whose rows the nodes may not have heard yet.
		"revocations truncated": {`UPDATE gpt_sessions SET revoked_at = now(); TRUNCATE gpt_revocations`, 1, 0},
		"client disabled":       {`UPDATE gpt_clients SET disabled_at = now()`, 1, 0},
		"client deleted":        {`DELETE FROM gpt_clients WHERE client_id = 'app'`, 1, 0},
		"widened":               {`UPDATE gpt_sessions SET scopes = '{jobs:read,resume:read,x}'`, 0, 0},
		"nothing changed":       {`UPDATE gpt_sessions SET scopes = scopes, user_id = user_id, client_id = client_id, revoked_at = NULL`, 0, 0},
		// Its tokens may live on by the clocks of the nodes. R-09
		"after a jump of the clock": {`UPDATE gpt_sessions SET tokens_expire_at = now() - interval '10 hours'; UPDATE gpt_sessions SET revoked_at = now()`, 1, 0},
		"long unused":               {`UPDATE gpt_sessions SET tokens_expire_at = now() - interval '2 days'; UPDATE gpt_sessions SET revoked_at = now()`, 0, 0},
		"only last_active":          {`UPDATE gpt_sessions SET last_active = now(), rt_counter = 1, rt_previous = 0, rotated_at = now()`, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.session("jobs:read", "resume:read")
			s.exec(`LISTEN gpt_revocations`)
			if _, err := s.sql.PgConn().Exec(s.ctx, c.sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
			if n := s.count(`SELECT count(*) FROM gpt_revocations WHERE ended AND expires_at > now() AND xact IS NOT NULL`); n != c.ended {
				t.Errorf("%d revocations, want %d", n, c.ended)
			}
			if n := s.count(`SELECT count(*) FROM gpt_revocations WHERE NOT ended`); n != c.other {
				t.Errorf("%d changes, want %d", n, c.other)
			}
		})
	}
}

func TestRevocationCannotBeUndone(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.session("jobs:read")
	s.session("jobs:read")
	s.must(s.store.RevokeSession(s.ctx, first.ID, "app", "test", issuer.Origin{}))
	if _, err := s.sql.Exec(s.ctx, `UPDATE gpt_sessions SET revoked_at = NULL WHERE id = $1`, first.ID); err == nil {
		t.Fatal("a revoked session came back")
	}
	var before, after time.Time
	s.must(s.sql.QueryRow(s.ctx, `SELECT revoked_at FROM gpt_sessions WHERE id = $1`, first.ID).Scan(&before))
	s.exec(`UPDATE gpt_sessions SET revoked_at = now() WHERE user_id = $1`, s.user.ID) // all of them, revoked ones too
	s.must(s.sql.QueryRow(s.ctx, `SELECT revoked_at FROM gpt_sessions WHERE id = $1`, first.ID).Scan(&after))
	if !before.Equal(after) {
		t.Error("the time of the first revocation is lost")
	}
	if n := s.count(`SELECT count(*) FROM gpt_revocations`); n != 2 {
		t.Errorf("%d revocations, want one a session", n)
	}
	s.must(s.store.DisableUser(s.ctx, s.user.Email, issuer.Origin{}))
	s.must(s.store.EnableUser(s.ctx, s.user.Email, issuer.Origin{}))
	if sessions, err := s.store.UserSessions(s.ctx, s.user.ID); err != nil || len(sessions) != 0 {
		t.Error("a session came back with its user", err)
	}
}

// A role that may only update sessions still cuts every node off.
func TestRevocationByAnotherRole(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.session("jobs:read")
	s.exec(`DO $$ BEGIN CREATE ROLE support; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	s.exec(`GRANT UPDATE, SELECT ON gpt_sessions TO support; CREATE POLICY support ON gpt_sessions TO support USING (true); SET ROLE support`)
	s.exec(`UPDATE gpt_sessions SET revoked_at = now()`)
	s.exec(`RESET ROLE`)
	if n := s.count(`SELECT count(*) FROM gpt_revocations`); n != 1 {
		t.Fatalf("%d revocations", n)
	}
}
