//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
	"github.com/caddy-scope/caddy-scope/validator"
)

// asOwner returns the DSN of a role that owns the schema and may nothing else:
// no superuser, not the owner of the database.
func asOwner(t *testing.T, dsn, schema string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	role := "owner" + strings.TrimPrefix(u.Path, "/test")
	conn := connect(t, dsn)
	for _, sql := range []string{
		fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'secret' NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION`, role),
		fmt.Sprintf(`CREATE SCHEMA %s AUTHORIZATION %s`, schema, role),
		`REVOKE ALL ON SCHEMA public FROM PUBLIC`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		conn := connect(t, dsn)
		for _, sql := range []string{`DROP OWNED BY %s CASCADE`, `DROP ROLE %s`} {
			if _, err := conn.Exec(context.Background(), fmt.Sprintf(sql, role)); err != nil {
				t.Error(err)
			}
		}
	})
	u.User = url.UserPassword(role, "secret")
	return u.String()
}

// TestRoleThatOwnsTheSchemaOnlySuffices, also with what hardened and managed
// servers take away. What the view cannot do without, it says so, and every
// request is read.
func TestRoleThatOwnsTheSchemaOnlySuffices(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		without []string
		server  string // how the view names it
		strict  bool
	}{
		"all functions":    {nil, "timeline", false},
		"no control data":  {[]string{`pg_control_system()`}, "timeline", false},
		"no WAL functions": {[]string{`pg_walfile_name(pg_lsn)`, `pg_current_wal_lsn()`}, "system", false},
		"neither":          {[]string{`pg_control_system()`, `pg_walfile_name(pg_lsn)`, `pg_current_wal_lsn()`}, "started", false},
		"no snapshots":     {[]string{`pg_current_snapshot()`}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const schema = "auth"
			admin := postgrestest.New(t)
			dsn := asOwner(t, admin, schema)
			for _, function := range c.without {
				if _, err := connect(t, admin).Exec(t.Context(), `REVOKE EXECUTE ON FUNCTION `+function+` FROM PUBLIC`); err != nil {
					t.Fatal(err)
				}
			}
			logged, logs := observer.New(zap.WarnLevel)
			s := sceneOn(t, dsn, postgres.Config{DSN: dsn, Schema: schema, Logger: zap.New(logged)})
			session, n := s.session("jobs:read"), s.follow(s.db)
			if c.strict {
				s.eventually("the log says so", func() bool { return logs.FilterMessageSnippet("every request reads Postgres").Len() > 0 })
				for range 3 {
					if _, err := n.ReadSession(s.ctx, session.ID); err != nil {
						t.Fatal(err)
					}
				}
				if state := n.State(); state.Fresh || state.Reads != 3 || !strings.Contains(state.Failure, "pg_current_snapshot") {
					t.Errorf("%+v", state)
				}
			} else {
				s.eventually("the view is fresh", func() bool { return n.State().Fresh })
				s.knows(n, session)
				if err := postgres.NewUpkeep(s.db).Clean(s.ctx); err != nil {
					t.Errorf("upkeep: %v", err)
				}
				if state := n.State(); !strings.Contains(state.Server, c.server) || !strings.Contains(state.Server, "started") {
					t.Errorf("the server is %q", state.Server)
				}
			}
			s.exec(`UPDATE gpt_sessions SET revoked_at = now()`)
			s.refusedWithin(n, session, postgres.DefaultMaxStaleness)
		})
	}
}

// TestMassRevocationIsSeenAtOnce: nothing grows with it, neither while its
// transaction is open nor when it has committed; and a view beside a million
// live revocations is fresh at once. (A million in the benchmark below.)
func TestMassRevocationIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	massRevocation(s, 100_000)
}

func massRevocation(s *scene, revocations int) (fresh time.Duration, heap int64) {
	s.Helper()
	const insert = `INSERT INTO gpt_revocations (session_id, ended, expires_at) SELECT gen_random_uuid(), true, now() + interval '15 minutes' FROM generate_series(1, $1)`
	s.exec(insert, revocations)
	s.exec(`ANALYZE gpt_revocations`) // now every id seems to have as many rows
	const scans = `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'gpt_revocations'`
	scanned := s.count(scans)
	revoked, other := s.session("jobs:read"), s.session("jobs:read")
	before := heapInUse()
	start := time.Now()
	n := s.node(s.dsn, false)
	fresh = time.Since(start)
	s.knows(n, revoked)
	s.knows(n, other)
	heap = heapInUse() - before

	tx, err := s.sql.Begin(s.ctx)
	s.must(err)
	_, err = tx.Exec(s.ctx, insert, revocations)
	s.must(err)
	_, err = tx.Exec(s.ctx, `UPDATE gpt_sessions SET revoked_at = now() WHERE id = $1`, revoked.ID)
	s.must(err)
	s.staysFresh(n, 2*postgres.DefaultMaxStaleness)
	s.knows(n, revoked)
	s.must(tx.Commit(s.ctx))
	s.refusedWithin(n, revoked, postgres.DefaultMaxStaleness)
	s.staysFresh(n, postgres.DefaultMaxStaleness)
	s.knows(n, other)
	if state := n.State(); state.Failures > 0 {
		s.Errorf("polls failed: %+v", state)
	}
	if n := s.count(scans); n != scanned {
		s.Errorf("%d polls read the whole table", n-scanned)
	}
	return fresh, max(heap, heapInUse()-before)
}

// staysFresh fails the test when the view is not fresh at some moment of d.
func (s *scene) staysFresh(n *node, d time.Duration) {
	s.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if state := n.State(); !state.Fresh {
			s.Fatalf("the view is not fresh: %+v", state)
		}
	}
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestRowsOfAnotherHistoryDoNotStopTheView: a database that was restored from a
// dump of another server has ids of transactions that are yet to come.
func TestRowsOfAnotherHistoryDoNotStopTheView(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.exec(`INSERT INTO gpt_revocations (xact, session_id, ended, expires_at) VALUES ('123456789', NULL, true, now() + interval '31 days')`)
	session, n := s.session("jobs:read"), s.node(s.dsn, false)
	s.knows(n, session)
	before := n.State()
	for range 3 {
		s.exec(`NOTIFY gpt_revocations`)
		time.Sleep(20 * time.Millisecond)
		if _, err := n.ReadSession(s.ctx, session.ID); err != nil {
			t.Fatal(err)
		}
	}
	if after := n.State(); after.Restarts != before.Restarts || after.Reads != before.Reads {
		t.Errorf("the view started over: %+v", after)
	}
	s.exec(`UPDATE gpt_sessions SET revoked_at = now()`)
	s.refusedWithin(n, session, postgres.DefaultMaxStaleness)
}

// TestOneOddRowDoesNotStopTheOthers: what an operator may write by hand.
func TestOneOddRowDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session, endless := s.session("jobs:read"), s.session("jobs:read")
	s.exec(`UPDATE gpt_sessions SET expires_at = 'infinity', tokens_expire_at = 'infinity' WHERE id = $1`, endless.ID)
	n := s.node(s.dsn, false)
	s.knows(n, session)
	s.knows(n, endless)
	s.exec(`UPDATE gpt_sessions SET revoked_at = now() WHERE id = $1`, endless.ID)
	s.refusedWithin(n, endless, postgres.DefaultMaxStaleness)
	s.knows(n, session)
	s.staysFresh(n, postgres.DefaultMaxStaleness)
}

// TestSessionsOfAStandbyAreNoAnswer: neither alive nor ended, as it is behind.
// We do not connect to one, but a pooler may.
func TestSessionsOfAStandbyAreNoAnswer(t *testing.T) {
	t.Parallel()
	primary := postgrestest.NewServer(t, postgrestest.ServerConfig{})
	wire, dsn := postgrestest.NewWire(t, primary.DSN())
	s := sceneOn(t, primary.DSN(), postgres.Config{DSN: postgrestest.Pgbouncer(t, dsn), Pooled: true, Timeout: time.Second})
	session, reader, n := s.session("jobs:read"), postgres.NewSessionReader(s.db), s.follow(s.db)
	s.eventually("the view is fresh", func() bool { return n.State().Fresh })
	s.knows(n, session)

	s.must(s.store.AddOperatorClient(s.ctx, postgres.OperatorClient{ID: "op_client", Settings: []byte("{}")}))
	standby := primary.Standby(t, "s2")
	s.eventually("the standby has the session", func() bool {
		return postgrestest.Query[int](t, standby, `SELECT count(*) FROM gpt_sessions`) == 1
	})
	standby.Exec(t, `SELECT pg_wal_replay_pause()`)
	s.exec(`UPDATE gpt_sessions SET revoked_at = now()`)
	wire.Lead(t, standby.DSN())
	wire.Cut()
	s.eventually("the view is stale", func() bool { return !n.State().Fresh })
	for what, id := range map[string]string{"a session that it has": session.ID, "one that it does not have": uuid.NewString()} {
		if _, err := reader.ReadSession(s.ctx, id); err == nil || errors.Is(err, validator.ErrSessionEnded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := n.ReadSession(s.ctx, session.ID); err == nil || errors.Is(err, validator.ErrSessionEnded) {
		t.Errorf("by the view: %v", err)
	}
	for what, id := range map[string]string{"a client that it has": "op_client", "one that it does not have": "op_other"} {
		if _, err := s.store.FindOperatorClient(s.ctx, id); err == nil || errors.Is(err, issuer.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	standby.Promote(t)
	s.eventually("the promoted server is followed", func() bool { return n.State().Fresh })
	s.refusedWithin(n, session, postgres.DefaultMaxStaleness)
}

// TestPoolThatLeadsElsewhereIsNotRemembered: after a failover connections of the
// pool may still lead to the server before, which nobody has shut down.
func TestPoolThatLeadsElsewhereIsNotRemembered(t *testing.T) {
	t.Parallel()
	primary := postgrestest.NewServer(t, postgrestest.ServerConfig{})
	wire, dsn := postgrestest.NewWire(t, primary.DSN())
	s := sceneOn(t, primary.DSN(), postgres.Config{DSN: dsn, Timeout: time.Second})
	session := s.session("jobs:read")
	standby := primary.Standby(t, "s2")
	s.eventually("the standby has the session", func() bool {
		return postgrestest.Query[int](t, standby, `SELECT count(*) FROM gpt_sessions`) == 1
	})
	standby.Promote(t)
	standby.Exec(t, `UPDATE gpt_sessions SET revoked_at = now()`)
	if _, err := postgres.NewSessionReader(s.db).ReadSession(s.ctx, session.ID); err != nil { // a connection of the pool stays
		t.Fatal(err)
	}
	wire.Lead(t, standby.DSN())
	n := s.follow(s.db) // connects now
	s.eventually("the promoted server is followed", func() bool { return n.State().Fresh })
	for range 3 {
		_, _ = n.ReadSession(s.ctx, session.ID)
	}
	if state := n.State(); state.Known > 0 {
		t.Errorf("a session of the server before is remembered: %+v", state)
	}
}

// TestCrashOfOneProcessIsANewLife: the server gives out transaction ids again
// that it had not written down, under the same start time. Behind a pooler our
// own connection goes on.
func TestCrashOfOneProcessIsANewLife(t *testing.T) {
	t.Parallel()
	server := postgrestest.NewServer(t, postgrestest.ServerConfig{Settings: map[string]string{"restart_after_crash": "on"}})
	for _, pooled := range []bool{false, true} {
		cfg := postgres.Config{DSN: server.DSN(), Timeout: time.Second}
		if pooled {
			cfg.DSN, cfg.Pooled = postgrestest.Pgbouncer(t, server.DSN()), true
		}
		s := sceneOn(t, server.DSN(), cfg)
		session, n := s.session("jobs:read"), s.follow(s.db)
		s.eventually("the view is fresh", func() bool { return n.State().Fresh })
		s.knows(n, session)
		before := n.State()
		victim := postgrestest.Query[int](t, server, `SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1`)
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.eventually("the view starts over", func() bool { return n.State().Restarts > before.Restarts })
		server.Exec(t, `UPDATE gpt_sessions SET revoked_at = now()`)
		s.refusedWithin(n, session, postgres.DefaultMaxStaleness)
		if after := n.State(); after.Server != before.Server {
			t.Errorf("no crash, but another server: %+v, then %+v", before, after)
		}
	}
}
