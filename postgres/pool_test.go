//go:build unix

package postgres_test

import (
	"net/url"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// TestEveryHostOfTheDSNIsTried: with several hosts, one that is down does not
// keep the gateway from starting. SECURITY-CASES 3.2.
func TestEveryHostOfTheDSNIsTried(t *testing.T) {
	t.Parallel()
	dsn, err := url.Parse(postgrestest.Migrated(t))
	if err != nil {
		t.Fatal(err)
	}
	query := dsn.Query()
	query.Set("host", t.TempDir()+","+query.Get("host")) // nobody listens in the first
	query.Set("port", "5432,"+query.Get("port"))
	query.Set("target_session_attrs", "read-write")
	dsn.RawQuery = query.Encode()
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn.String(), ConnectWait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
}

// TestServerThatMayLoseCommitsIsReported at start; the server of the tests runs
// without fsync. SECURITY-CASES 3.3.
func TestServerThatMayLoseCommitsIsReported(t *testing.T) {
	t.Parallel()
	logs, seen := observer.New(zap.WarnLevel)
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: postgrestest.Migrated(t), Logger: zap.New(logs)})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if seen.FilterMessageSnippet("may lose commits in a crash").Len() != 1 {
		t.Errorf("logged: %v", seen.All())
	}
}

// TestStatementsArePlannedOnce: planning the exchange of a code takes longer
// than doing it.
func TestStatementsArePlannedOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.exec(`CREATE TABLE seen (mode text)`)
	s.exec(`CREATE FUNCTION note_mode() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN INSERT INTO public.seen VALUES (current_setting('plan_cache_mode')); RETURN NEW; END $$`)
	s.exec(`CREATE TRIGGER note_mode BEFORE INSERT ON gpt_sessions FOR EACH ROW EXECUTE FUNCTION note_mode()`)
	s.session("jobs:read")
	if n := s.count(`SELECT count(*) FROM seen WHERE mode = 'force_generic_plan'`); n != 1 {
		t.Error("the plan of a redemption is not kept")
	}
}

// TestGrowingTableIsNotReadWhole: a plan that is made while a table has a few
// rows stays until the server next looks at the table, which takes a minute. In
// that minute of a new deployment every refresh read all sessions there were.
func TestGrowingTableIsNotReadWhole(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	for counter := range int64(2) { // planned by now
		_, err := s.rotate(session.ID, counter, time.Minute)
		s.must(err)
	}
	s.exec(`INSERT INTO gpt_sessions (user_id, client_id, expires_at) SELECT 'user-' || i, 'app', now() + interval '1 hour' FROM generate_series(1, 3000) i`)
	s.exec(`CREATE TABLE seen (rows bigint)`)
	s.exec(`CREATE FUNCTION note_rows() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN INSERT INTO public.seen VALUES (pg_stat_get_xact_tuples_returned('public.gpt_sessions'::regclass)); RETURN NEW; END $$`)
	s.exec(`CREATE TRIGGER note_rows BEFORE UPDATE ON gpt_sessions FOR EACH ROW EXECUTE FUNCTION note_rows()`)
	_, err := s.rotate(session.ID, 2, time.Minute)
	s.must(err)
	if n := s.count(`SELECT max(rows)::int FROM seen`); n > 100 {
		t.Errorf("a refresh read %d rows", n)
	}
}
