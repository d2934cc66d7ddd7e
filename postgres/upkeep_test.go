//go:build unix

package postgres_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// expired makes $1 rows of each table, that expired long ago. Their time goes
// by their number, as rows in production differ.
var expired = map[string]string{
	"gpt_authorization_codes": `INSERT INTO gpt_authorization_codes (code_hash, request_id, client_id, user_id, redirect_uri, resource, auth_time, expires_at)
		SELECT sha256(n::text::bytea), gen_random_uuid(), 'app', 'u', 'https://app.test/cb', 'https://api.test', now(), now() - interval '2 hours' - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_device_codes": `INSERT INTO gpt_device_codes (device_hash, user_code_hash, client_id, resource, scopes, poll_interval, expires_at)
		SELECT sha256(n::text::bytea), sha256(n::text::bytea), 'app', 'https://api.test', '{}', 5, now() - interval '2 hours' - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_pushed_requests": `INSERT INTO gpt_pushed_requests (digest, client_id, parameters, expires_at)
		SELECT sha256(n::text::bytea), 'app', '', now() - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_client_assertions": `INSERT INTO gpt_client_assertions (client_id, jti_hash, expires_at)
		SELECT 'app', sha256(n::text::bytea), now() - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_dpop_proofs": `INSERT INTO gpt_dpop_proofs (digest, expires_at) SELECT sha256(n::text::bytea), now() - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_used_once":   `INSERT INTO gpt_used_once (purpose, digest, expires_at) SELECT 'p', sha256(n::text::bytea), now() - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_rates":       `INSERT INTO gpt_rates (key, whole_at) SELECT substr(sha256(n::text::bytea), 1, 16), now() - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_password_resets": `WITH u AS (INSERT INTO gpt_users (id, email, password_hash) VALUES ('forgetful', 'forgetful@example.com', 'x') ON CONFLICT DO NOTHING)
		INSERT INTO gpt_password_resets (digest, user_id, ends_sessions, removes_factors, expires_at) SELECT sha256(n::text::bytea), 'forgetful', false, false, now() - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_logins":       `INSERT INTO gpt_logins (digest, user_id, expires_at) SELECT sha256(n::text::bytea), 'u', now() - interval '2 hours' - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_sessions":     `INSERT INTO gpt_sessions (user_id, client_id, tokens_expire_at, expires_at) SELECT 'u', 'app', now() - interval '31 days', now() - interval '31 days' - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_revocations":  `INSERT INTO gpt_revocations (session_id, ended, expires_at) SELECT gen_random_uuid(), true, now() - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_oauth_events": `INSERT INTO gpt_oauth_events (event_type, created_at) SELECT 'x', now() - interval '366 days' - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_client_approvals": `INSERT INTO gpt_client_approvals (client_id, user_id, revision, approved_at)
		SELECT 'other', 'u' || n, sha256(''), now() - interval '31 days' - n * interval '1 ms' FROM generate_series(1, $1) n`,
	"gpt_client_registrations": `WITH made AS (INSERT INTO gpt_clients (client_id) SELECT 'registered-' || n FROM generate_series(1, $1) n RETURNING client_id)
		INSERT INTO gpt_client_registrations (client_id, metadata, token_hash, unused_ttl, issued_at) SELECT client_id, '{}', sha256(''), '90 days', now() - interval '2 days' FROM made`,
	"gpt_client_documents": `WITH made AS (INSERT INTO gpt_clients (client_id) SELECT 'https://app.test/' || n FROM generate_series(1, $1) n RETURNING client_id)
		INSERT INTO gpt_client_documents (client_id, document, fetched_at, fresh_until, unused_ttl, issued_at) SELECT client_id, '{}', now(), now(), '90 days', now() - interval '2 days' FROM made`,
}

// upkeepScene has a database that was migrated years ago.
func upkeepScene(t *testing.T) (*scene, *postgres.Upkeep) {
	t.Helper()
	s := newScene(t)
	s.session("jobs:read")
	s.exec(`UPDATE gpt_schema_migrations SET applied_at = now() - interval '5 years'`)
	return s, postgres.NewUpkeep(s.db)
}

// clean is a pass of an upkeep that has been there for a while, so that every view
// has heard of every revocation.
func (s *scene) clean(u *postgres.Upkeep) error {
	s.Helper()
	for range 2 {
		u.TimePasses(5 * time.Minute)
		s.must(u.Observe(s.ctx))
	}
	return u.Clean(s.ctx)
}

// MET-05: what the upkeep did.
func TestUpkeepTellsWhatItDid(t *testing.T) {
	t.Parallel()
	s, u := upkeepScene(t)
	if state := u.State(); state.Removed != 0 || !state.Cleaned.IsZero() {
		t.Errorf("before: %+v", state)
	}
	s.exec(`INSERT INTO gpt_oauth_events (event_type, created_at) SELECT 'x', now() - interval '366 days' FROM generate_series(1, 3)`)
	s.must(s.clean(u))
	if state := u.State(); state.Removed != 3 || state.Cleaned.IsZero() || state.Failures != 0 {
		t.Errorf("after: %+v", state)
	}
}

// TestEveryRowThatExpiresIsRemoved, of every table whose rows expire: a table
// that is new is missed here. What has not expired stays.
func TestEveryRowThatExpiresIsRemoved(t *testing.T) {
	t.Parallel()
	s, u := upkeepScene(t)
	s.exec(`INSERT INTO gpt_oauth_events (event_type, created_at) VALUES ('x', now() - interval '364 days')`)
	rows, err := s.sql.Query(s.ctx, `SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'expires_at'`)
	s.must(err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	s.must(err)
	for _, table := range tables {
		if expired[table] == "" {
			t.Errorf("rows of %s expire, and this test does not know it; nor, maybe, does the upkeep", table)
		}
	}
	kept := make(map[string]int)
	for table := range expired {
		kept[table] = s.count(`SELECT count(*) FROM ` + table)
	}
	for _, sql := range expired {
		s.exec(sql, 3)
	}
	// Of before the clock was set back.
	s.exec(`INSERT INTO gpt_authorization_codes (code_hash, request_id, client_id, user_id, redirect_uri, resource, auth_time, created_at, expires_at)
		VALUES (sha256('x'), gen_random_uuid(), 'app', 'u', 'https://app.test/cb', 'https://api.test', now(), now() + interval '1 hour', now() + interval '65 minutes')`)
	s.must(s.clean(u))
	for table, want := range kept {
		if got := s.count(`SELECT count(*) FROM ` + table); got != want {
			t.Errorf("%d rows of %s, want %d", got, table, want)
		}
	}
}

// TestUpkeepKeepsWhatHasNotExpiredLongAgo: an ended session tells a replay.
func TestUpkeepKeepsWhatHasNotExpiredLongAgo(t *testing.T) {
	t.Parallel()
	s, u := upkeepScene(t)
	kept := s.session("jobs:read")
	s.must(s.store.RevokeSession(s.ctx, kept.ID, "app", "x", issuer.Origin{}))
	s.exec(`UPDATE gpt_sessions SET expires_at = now() - interval '29 days'`)
	s.exec(`UPDATE gpt_authorization_codes SET expires_at = now() - interval '50 minutes'`)
	s.exec(`UPDATE gpt_logins SET expires_at = now() - interval '50 minutes'`)
	s.must(s.clean(u))
	for _, table := range []string{"gpt_sessions", "gpt_authorization_codes", "gpt_logins", "gpt_revocations"} {
		if s.count(`SELECT count(*) FROM `+table) == 0 {
			t.Errorf("%s is empty", table)
		}
	}
}

// TestAuditTrailIsKeptAsLongAsItIsWanted, and what the system that went before
// had written for ever: adoption loses no row.
func TestAuditTrailIsKeptAsLongAsItIsWanted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		keep time.Duration
		want string
	}{
		"by default": {postgres.DefaultKeepEvents, "adopted 300 days 8 days"},
		"a week":     {7 * 24 * time.Hour, "adopted"},
		"for ever":   {0, "adopted 1000 days 300 days 8 days"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, u := upkeepScene(t)
			s.exec(`DELETE FROM gpt_oauth_events`)
			s.exec(`INSERT INTO gpt_oauth_events (event_type, created_at) SELECT age, now() - age::interval FROM unnest('{1000 days,300 days,8 days}'::text[]) age`)
			s.exec(`INSERT INTO gpt_oauth_events (event_type, created_at) VALUES ('adopted', now() - interval '6 years')`)
			u.KeepEvents(c.keep)
			s.must(s.clean(u))
			var got string
			s.must(s.sql.QueryRow(s.ctx, `SELECT string_agg(event_type, ' ' ORDER BY created_at) FROM gpt_oauth_events`).Scan(&got))
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestRevocationStaysUntilEveryViewHasHeardOfIt, whatever the database's clock
// says: it may jump over the life of a row in the moment in which it is written.
//
func TestRevocationStaysUntilEveryViewHasHeardOfIt(t *testing.T) {
	t.Parallel()
	s, u := upkeepScene(t)
	// Somebody's long transaction, as there always is one, holds nothing up.
	long, err := connect(t, s.dsn).Begin(s.ctx)
	s.must(err)
	defer long.Rollback(s.ctx)
	_, err = long.Exec(s.ctx, `SELECT pg_current_xact_id()`)
	s.must(err)
	s.exec(expired["gpt_revocations"], 5)
	s.exec(`INSERT INTO gpt_revocations (xact, session_id, ended, expires_at) VALUES ('123456789', NULL, true, now() - interval '1 hour')`)
	for step, c := range []struct {
		passes time.Duration
		left   int
	}{{0, 5}, {time.Minute, 5}, {time.Minute, 0}} {
		u.TimePasses(c.passes)
		s.must(u.Clean(s.ctx))
		if got := s.count(`SELECT count(*) FROM gpt_revocations`); got != c.left {
			t.Errorf("step %d: %d revocations, want %d", step, got, c.left)
		}
	}
}

// TestUpkeepPassesOverWhatSomebodyHolds: their rows, and rows that theirs refer
// to, wait for the next pass; all others do not, and nobody waits long.
func TestUpkeepPassesOverWhatSomebodyHolds(t *testing.T) {
	t.Parallel()
	s, u := upkeepScene(t)
	for _, sql := range expired {
		s.exec(sql, 50)
	}
	holder := connect(t, s.dsn)
	tx, err := holder.Begin(s.ctx)
	s.must(err)
	defer tx.Rollback(s.ctx)
	for table := range expired {
		_, err := tx.Exec(s.ctx, `SELECT FROM `+table+` WHERE ctid IN (SELECT ctid FROM `+table+` LIMIT 3) FOR UPDATE`)
		s.must(err)
	}
	start := time.Now()
	s.must(s.clean(u))
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("a pass took %s", took)
	}
	for table := range expired {
		if got := s.count(`SELECT count(*) FROM ` + table); got > 3+2 { // and what the scene has
			t.Errorf("%d rows of %s are left", got, table)
		}
	}
	s.must(tx.Rollback(s.ctx))

	// Two full batches; a row of the first is referred to by one that is held.
	s.exec(expired["gpt_sessions"], 2500)
	s.exec(`INSERT INTO gpt_delegated_sessions (session_id, parent_id, client_id, resource)
		SELECT id, gen_random_uuid(), 'app', 'r' FROM gpt_sessions WHERE expires_at < now() ORDER BY expires_at LIMIT 1`)
	tx, err = holder.Begin(s.ctx)
	s.must(err)
	defer tx.Rollback(s.ctx)
	_, err = tx.Exec(s.ctx, `SELECT FROM gpt_delegated_sessions FOR UPDATE`)
	s.must(err)
	if err := s.clean(u); err == nil || !strings.Contains(err.Error(), "gpt_sessions") {
		t.Errorf("a batch that could not be removed is not told of: %v", err)
	}
	const left = `SELECT count(*) FROM gpt_sessions WHERE expires_at < now()`
	s.eventually("only the first batch is left", func() bool {
		_ = s.clean(u)
		return s.count(left) <= 1000
	})
	if s.count(left) == 0 {
		t.Error("a row was removed that is referred to by one that somebody holds")
	}
	s.must(tx.Rollback(s.ctx))
	s.must(s.clean(u))
	if got := s.count(left); got != 0 {
		t.Errorf("%d sessions are left when nobody holds anything", got)
	}
}

// TestOneNodeCleansAtATime, and one that finds another at it does not wait.
func TestOneNodeCleansAtATime(t *testing.T) {
	t.Parallel()
	s, u := upkeepScene(t)
	s.exec(expired["gpt_dpop_proofs"], 10)
	other, err := connect(t, s.dsn).Begin(s.ctx)
	s.must(err)
	defer other.Rollback(s.ctx)
	_, err = other.Exec(s.ctx, `SELECT pg_advisory_xact_lock(hashtext('gpt:"public"'), hashtext('upkeep'))`)
	s.must(err)
	s.must(s.clean(u))
	if got := s.count(`SELECT count(*) FROM gpt_dpop_proofs`); got != 10 {
		t.Errorf("%d rows are left while another node is at it, want all", got)
	}
	s.must(other.Rollback(s.ctx))
	nodes := []*postgres.Upkeep{u, postgres.NewUpkeep(s.db), postgres.NewUpkeep(s.db), postgres.NewUpkeep(s.db)}
	for range 20 { // nodes that stepped aside for each other left rows, at times
		parallel(len(nodes), func(i int) { s.must(nodes[i].Clean(s.ctx)) })
		if got := s.count(`SELECT count(*) FROM gpt_dpop_proofs`); got != 0 {
			t.Fatalf("%d rows are left", got)
		}
		s.exec(expired["gpt_dpop_proofs"], 10)
	}
}

// TestManyExpiredRowsAreRemovedInBoundedBatches, while requests go on: no
// transaction of the upkeep holds more than a batch, and the work grows with the
// rows, not faster.
func TestManyExpiredRowsAreRemovedInBoundedBatches(t *testing.T) {
	t.Parallel()
	s, u := upkeepScene(t)
	cleanMany(s, u, 20_000)
}

// cleanMany fills every table with rows and cleans them up. An old transaction
// keeps the removed rows in the indexes meanwhile, as in production.
func cleanMany(s *scene, u *postgres.Upkeep, rows int) (passes int, took time.Duration) {
	s.Helper()
	for _, table := range slices.Sorted(maps.Keys(expired)) {
		s.exec(expired[table], rows)
	}
	s.exec(`ANALYZE`)
	old, err := connect(s.T, s.dsn).BeginTx(s.ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	s.must(err)
	defer old.Rollback(s.ctx)
	_, err = old.Exec(s.ctx, `SELECT count(*) FROM gpt_clients WHERE client_id = 'app'`)
	s.must(err)
	session := s.session("jobs:read")

	ctx, stop := context.WithCancel(s.ctx)
	var longest time.Duration
	var requests sync.WaitGroup
	defer requests.Wait()
	defer stop()
	requests.Go(func() { // what requests do meanwhile
		for counter := int64(0); ctx.Err() == nil; counter++ {
			start := time.Now()
			if _, err := s.rotate(session.ID, counter, time.Minute); err != nil {
				s.Errorf("a refresh during the upkeep: %v", err)
			}
			longest = max(longest, time.Since(start))
			time.Sleep(5 * time.Millisecond)
		}
	})
	left := func() (n int) {
		for table := range expired {
			n += s.count(`SELECT count(*) FROM ` + table)
		}
		return n
	}
	start := time.Now()
	for ; left() > rows/10 && passes < 1000; passes++ {
		s.must(s.clean(u))
	}
	took = time.Since(start)
	stop()
	requests.Wait()
	if longest > time.Second {
		s.Errorf("a refresh waited %s during the upkeep", longest)
	}
	s.Logf("%d rows of each of %d tables: %d passes, %s", rows, len(expired), passes, took.Round(time.Millisecond))
	return passes, took
}

func TestLastActiveIsWrittenInBatches(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session, held := s.session("jobs:read"), s.session("jobs:read")
	s.exec(`UPDATE gpt_sessions SET last_active = now() - interval '1 hour'`)
	tx, err := connect(t, s.dsn).Begin(s.ctx)
	s.must(err)
	defer tx.Rollback(s.ctx)
	_, err = tx.Exec(s.ctx, `SELECT FROM gpt_sessions WHERE id = $1 FOR UPDATE`, held.ID)
	s.must(err)
	u := postgres.NewUpkeep(s.db)
	for range 1000 {
		u.Touch(session.ID)
		u.Touch(held.ID)
		u.Touch(uuid.NewString()) // gone meanwhile
	}
	u.Touch("garbage")
	const fresh = `SELECT count(*) FROM gpt_sessions WHERE last_active > now() - interval '1 minute'`
	if s.count(fresh) != 0 {
		t.Fatal("written on the request")
	}
	s.must(u.Flush(s.ctx)) // and does not wait for who holds a row
	if s.count(fresh) != 1 {
		t.Fatal("not written")
	}
}
