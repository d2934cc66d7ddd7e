//go:build unix

package postgres_test

import (
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

func TestUpkeepRemovesWhatExpiredLongAgo(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kept := s.session("jobs:read")
	gone := s.session("jobs:read")
	s.must(s.store.RevokeSession(s.ctx, kept.ID, "app", "x", issuer.Origin{})) // ended, not long expired
	s.exec(`UPDATE gpt_sessions SET expires_at = now() - interval '31 days' WHERE id = $1`, gone.ID)
	s.exec(`UPDATE gpt_authorization_codes SET expires_at = now() - interval '2 hours'`)
	s.exec(`UPDATE gpt_logins SET expires_at = now() - interval '2 hours'`)
	s.exec(`UPDATE gpt_revocations SET expires_at = now() - interval '1 second' WHERE session_id = $1`, gone.ID)
	s.must(postgres.NewUpkeep(s.db).Clean(s.ctx))
	for query, want := range map[string]int{
		`SELECT count(*) FROM gpt_sessions`:            1,
		`SELECT count(*) FROM gpt_authorization_codes`: 0,
		`SELECT count(*) FROM gpt_logins`:              0,
		`SELECT count(*) FROM gpt_revocations`:         2, // of kept, and of gone by the clean-up itself
	} {
		if n := s.count(query); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
}

func TestLastActiveIsWrittenInBatches(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	s.exec(`UPDATE gpt_sessions SET last_active = now() - interval '1 hour'`)
	u := postgres.NewUpkeep(s.db)
	for range 1000 {
		u.Touch(session.ID)
	}
	u.Touch("garbage")
	const fresh = `SELECT count(*) FROM gpt_sessions WHERE last_active > now() - interval '1 minute'`
	if s.count(fresh) != 0 {
		t.Fatal("written on the request")
	}
	s.must(u.Flush(s.ctx))
	if s.count(fresh) != 1 {
		t.Fatal("not written")
	}
}
