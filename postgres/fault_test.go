//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
	"github.com/caddy-scope/caddy-scope/validator"
)

// syncScene has a server of its own that waits for a standby which never comes.
func syncScene(t *testing.T) (*scene, issuer.Session) {
	t.Helper()
	ctx := context.Background()
	e, err := postgres.StartEmbedded(ctx, postgres.EmbeddedConfig{DataDir: dataDir(t), Settings: fast})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Stop(ctx) })
	if err := postgres.Migrate(ctx, postgres.MigrateConfig{DSN: e.DSN()}); err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, ctx: ctx, dsn: e.DSN()}
	s.db, err = postgres.Open(ctx, postgres.Config{DSN: e.DSN(), MaxConns: 5, Timeout: 500 * time.Millisecond})
	s.must(err)
	t.Cleanup(s.db.Close)
	s.store = postgres.NewStore(s.db)
	s.sql = connect(t, e.DSN())
	s.must(s.store.EnsureClients(ctx, []postgres.ClientRow{{ID: "app"}}))
	s.user, err = s.store.CreateUser(ctx, "a@b.c", "h", issuer.Origin{})
	s.must(err)
	s.login, err = s.store.CreateLogin(ctx, digest(), s.user.ID, "password", time.Hour, issuer.Origin{})
	s.must(err)
	session := s.session("jobs:read")
	s.exec(`ALTER SYSTEM SET synchronous_standby_names = 'nobody'`)
	s.exec(`SELECT pg_reload_conf()`)
	time.Sleep(200 * time.Millisecond)
	return s, session
}

const hung = `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`

// M4.1, M4.2, R-04: statement_timeout does not bound COMMIT; our deadline does,
// and retries leave no more backends behind than the pool has connections.
func TestHungCommitsAreAnsweredAndBounded(t *testing.T) {
	t.Parallel()
	s, session := syncScene(t)
	reader := postgres.NewSessionReader(s.db)
	var slow, wrong atomic.Int64
	parallel(60, func(int) {
		start := time.Now()
		if _, err := s.rotate(session.ID, 0, time.Minute); err == nil {
			wrong.Add(1)
		}
		if time.Since(start) > 2*time.Second {
			slow.Add(1)
		}
	})
	if wrong.Load() > 0 || slow.Load() > 0 {
		t.Fatalf("%d successes without the standby, %d late answers", wrong.Load(), slow.Load())
	}
	if n := s.count(hung); n > 5+2 {
		t.Fatalf("%d backends wait for the standby", n)
	}
	s.eventually("reads go on", func() bool { // at once, but for a connection that must be made first
		_, err := reader.ReadSession(s.ctx, session.ID)
		return err == nil
	})
	s.exec(`ALTER SYSTEM RESET synchronous_standby_names`)
	s.exec(`SELECT pg_reload_conf()`)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		r, err := s.rotate(session.ID, 0, time.Minute)
		if err == nil && r.Session.Counter == 1 { // nothing was lost: the same successor
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no recovery: %v", err)
		}
	}
}

// T-33, M4.3: a cancelled wait commits on this server only; that is no success.
func TestCommitThatTheStandbyDidNotConfirmIsAnError(t *testing.T) {
	t.Parallel()
	s, session := syncScene(t)
	db, err := postgres.Open(s.ctx, postgres.Config{DSN: s.dsn, Timeout: 10 * time.Second})
	s.must(err)
	defer db.Close()
	result := make(chan error, 1)
	go func() {
		result <- postgres.NewStore(db).RevokeSession(s.ctx, session.ID, "app", "test", issuer.Origin{})
	}()
	for s.count(hung) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	s.exec(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
	if err := <-result; err == nil || !strings.Contains(err.Error(), "not confirmed") {
		t.Fatalf("got %v", err)
	}

	// Asked again there is nothing left to do; but what was done may be lost.
	if s.count(`SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NOT NULL`) != 1 {
		t.Fatal("the cancelled commit is not visible here")
	}
	again := func() error { return s.store.RevokeSession(s.ctx, session.ID, "app", "test", issuer.Origin{}) }
	if err := again(); err == nil || errors.Is(err, issuer.ErrNotFound) {
		t.Fatalf("asked again without the standby: %v", err)
	}
	if n, err := s.store.EndUserSessions(s.ctx, s.user.ID, issuer.Origin{}); err == nil {
		t.Fatalf("asked to end all without the standby: %d", n)
	}
	// What nobody has ended is no reason to write, or strangers could have it
	// written at will.
	if err := s.store.RevokeSession(s.ctx, uuid.NewString(), "app", "test", issuer.Origin{}); !errors.Is(err, issuer.ErrNotFound) {
		t.Fatalf("a session that is not there: %v", err)
	}
	desk, err := postgres.Open(s.ctx, postgres.Config{DSN: s.dsn, Timeout: time.Second}) // with a breaker of its own
	s.must(err)
	defer desk.Close()
	operator := postgres.NewStore(desk)
	if err := operator.EndSession(s.ctx, session.ID, "test"); err == nil || errors.Is(err, issuer.ErrNotFound) {
		t.Fatalf("an operator asked without the standby: %v", err)
	}
	if n, _, _, err := operator.EndSessions(s.ctx, postgres.SessionFilter{ClientID: "app"}, "test", postgres.Position{}, 10); err == nil {
		t.Fatalf("an operator asked to end all without the standby: %d", n)
	}
	s.exec(`ALTER SYSTEM RESET synchronous_standby_names`)
	s.exec(`SELECT pg_reload_conf()`)
	s.eventually("asked again with all standbys there are, it is done", func() bool { return errors.Is(again(), issuer.ErrNotFound) })
	if _, err := s.store.EndUserSessions(s.ctx, s.user.ID, issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
}

// T-32: a server that falls silent costs the deadline, not the
// answer; a wrong one is never given; recovery needs nobody.
func TestSilentServerIsAnUnknownOutcomeAndRecovers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w, dsn := postgrestest.NewWire(t, s.dsn)
	db, err := postgres.Open(s.ctx, postgres.Config{DSN: dsn, Timeout: 300 * time.Millisecond})
	s.must(err)
	defer db.Close()
	store, reader := postgres.NewStore(db), postgres.NewSessionReader(db)
	session := s.session("jobs:read")
	if _, err := reader.ReadSession(s.ctx, session.ID); err != nil {
		t.Fatal(err)
	}
	w.Lose()
	start := time.Now()
	if _, err := reader.ReadSession(s.ctx, session.ID); err == nil || errors.Is(err, validator.ErrSessionEnded) {
		t.Errorf("read: %v", err)
	}
	if _, err := store.FindSession(s.ctx, session.ID, "app"); err == nil || errors.Is(err, issuer.ErrNotFound) {
		t.Errorf("find: %v", err)
	}
	if err := store.RevokeSession(s.ctx, session.ID, "app", "x", issuer.Origin{}); err == nil || errors.Is(err, issuer.ErrNotFound) {
		t.Errorf("V-03: revoke: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("three answers took %s", took)
	}
	w.Cut()
	w.Heal(t)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := reader.ReadSession(s.ctx, session.ID); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// who just missed a round trip waits for it and then leads another; both
// together take no longer than a call may, with a server that says nothing.
func TestNobodyWaitsLongerThanACall(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w, dsn := postgrestest.NewWire(t, s.dsn)
	const timeout = 2 * time.Second
	db, err := postgres.Open(s.ctx, postgres.Config{DSN: dsn, Timeout: timeout})
	s.must(err)
	defer db.Close()
	reader, session := postgres.NewSessionReader(db), s.session("jobs:read")
	if _, err := reader.ReadSession(s.ctx, session.ID); err != nil {
		t.Fatal(err)
	}
	w.Lose()
	var slowest atomic.Int64
	parallel(50, func(i int) {
		time.Sleep(time.Duration(i) * 20 * time.Millisecond)
		start := time.Now()
		if _, err := reader.ReadSession(s.ctx, session.ID); err == nil {
			t.Error("a session was read from a silent server")
		}
		for took := int64(time.Since(start)); ; {
			if before := slowest.Load(); took <= before || slowest.CompareAndSwap(before, took) {
				return
			}
		}
	})
	w.Heal(t)
	w.Cut()
	if took := time.Duration(slowest.Load()); took > timeout+timeout/4 {
		t.Errorf("the slowest answer took %s", took)
	}
}

// connections the server closed are replaced without a failed read.
func TestReadsSurviveTerminatedConnections(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	for range 3 {
		s.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		if _, err := s.store.FindSession(s.ctx, session.ID, "app"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnreachableServerIsNamedWithoutItsPassword(t *testing.T) {
	t.Parallel()
	_, err := postgres.Open(context.Background(), postgres.Config{DSN: "postgres://u:hunter2@127.0.0.1:1/db", ConnectWait: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("got %v", err)
	}
	_, err = postgres.Open(context.Background(), postgres.Config{DSN: "postgres://u:hunter2@127.0.0.1:port/db"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("got %v", err)
	}
}

// with every connection held, who waits is refused in time.
func TestExhaustedPoolRefusesInTime(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(c *postgres.Config) { c.MaxConns, c.Timeout = 2, time.Second })
	session := s.session("jobs:read")
	tx, err := s.sql.Begin(s.ctx)
	s.must(err)
	defer tx.Rollback(s.ctx)
	_, err = tx.Exec(s.ctx, `LOCK TABLE gpt_sessions`)
	s.must(err)
	start := time.Now()
	parallel(50, func(int) {
		if _, err := s.store.FindSession(s.ctx, session.ID, "app"); err == nil || errors.Is(err, issuer.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("refused after %s", took)
	}
	s.must(tx.Rollback(s.ctx))
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := s.store.FindSession(s.ctx, session.ID, "app"); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// MET-05: the pool tells who holds its connections, who waited, and whether the
// server answers; an error of a statement is an answer.
func TestPoolTellsHowItDoes(t *testing.T) {
	t.Parallel()
	wire, dsn := postgrestest.NewWire(t, postgrestest.New(t))
	s := sceneOn(t, dsn, postgres.Config{DSN: dsn, MaxConns: 2, Timeout: 2 * time.Second})
	read := func() error { _, err := s.store.FindLogin(s.ctx, digest()); return err }
	if err := read(); !errors.Is(err, issuer.ErrNotFound) {
		t.Fatal(err)
	}
	well := s.db.State()
	if !well.Answers || well.Failures != 0 || well.LastFailure != "" || well.Max != 2 || well.Idle == 0 || well.Acquires == 0 {
		t.Errorf("%+v", well)
	}
	s.exec(`ALTER TABLE gpt_logins RENAME TO away`)
	if err := read(); err == nil {
		t.Error("read from a table that is not there")
	}
	s.exec(`ALTER TABLE away RENAME TO gpt_logins`)
	if state := s.db.State(); !state.Answers || state.Failures != 0 {
		t.Errorf("after an error of the statement: %+v", state)
	}
	parallel(20, func(int) { _ = read() })
	if state := s.db.State(); state.Waits <= well.Waits || state.Waited <= well.Waited {
		t.Errorf("twenty calls on two connections: %+v", state)
	}
	wire.Refuse()
	wire.Cut()
	if err := read(); err == nil || errors.Is(err, issuer.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if state := s.db.State(); state.Answers || state.Failures == 0 || state.LastFailure == "" || state.LastFailureAt.IsZero() {
		t.Errorf("cut off: %+v", state)
	}
	wire.Heal(t)
	for deadline := time.Now().Add(30 * time.Second); !s.db.State().Answers; time.Sleep(20 * time.Millisecond) {
		if _ = read(); time.Now().After(deadline) {
			t.Fatalf("healed: %+v", s.db.State())
		}
	}
}

// A caller who hangs up takes nobody along.
func TestCancelledReadDoesNotCancelTheOthers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	reader := postgres.NewSessionReader(s.db)
	parallel(300, func(i int) {
		ctx, cancel := context.WithCancel(s.ctx)
		defer cancel()
		if i%3 == 0 {
			go cancel()
		}
		_, err := reader.ReadSession(ctx, session.ID)
		if err != nil && (i%3 != 0 || !errors.Is(err, context.Canceled)) {
			t.Error(err)
		}
	})
	if _, err := reader.ReadSession(s.ctx, session.ID); err != nil {
		t.Fatal("the queue is stuck:", err)
	}
}

// Whoever leads a round reads for the others too: that its own caller hung up
// meanwhile must not reach the query.
func TestLeaderWhoseCallerHungUpStillReads(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	gone, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := postgres.NewSessionReader(s.db).ReadSession(gone, session.ID); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkReadSession(b *testing.B) {
	dsn := postgrestest.Migrated(b)
	ctx := context.Background()
	db, err := postgres.Open(ctx, postgres.Config{DSN: dsn})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(ctx)
	var id string
	if _, err := conn.Exec(ctx, `INSERT INTO gpt_clients (client_id) VALUES ('app')`); err != nil {
		b.Fatal(err)
	}
	if err := conn.QueryRow(ctx, `INSERT INTO gpt_sessions (user_id, client_id, scopes, expires_at)
		VALUES ('u', 'app', '{jobs:read}', now() + interval '1 day') RETURNING id::text`).Scan(&id); err != nil {
		b.Fatal(err)
	}
	reader := postgres.NewSessionReader(db)
	b.ResetTimer()
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := reader.ReadSession(ctx, id); err != nil {
				b.Error(err)
			}
		}
	})
}
