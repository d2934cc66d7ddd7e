//go:build unix

package postgres_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// together runs n refreshes that find the first of them under way, so that the
// others go along in one trip. The table is locked until all have begun.
func (s *scene) together(n int, refresh func(i int)) {
	s.Helper()
	holder := connect(s.T, s.dsn)
	tx, err := holder.Begin(s.ctx)
	s.must(err)
	defer func() { _ = tx.Rollback(s.ctx) }()
	_, err = tx.Exec(s.ctx, `LOCK TABLE gpt_sessions IN SHARE MODE`)
	s.must(err)
	var begun atomic.Int64
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			begun.Add(1)
			refresh(i)
		})
	}
	s.eventually("one waits for the table and all have begun", func() bool {
		return begun.Load() == int64(n) && s.count(`SELECT count(*) FROM pg_locks WHERE relation = 'gpt_sessions'::regclass AND NOT granted`) > 0
	})
	s.must(tx.Rollback(s.ctx))
	all.Wait()
}

// TestConcurrentRefreshesShareACommit: what a disk, or a standby, takes for a
// commit is paid once for all who wait.
func TestConcurrentRefreshesShareACommit(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const sessions = 300
	var all [sessions]issuer.Session
	for i := range all {
		all[i] = s.session("jobs:read")
	}
	s.exec(`CREATE TABLE commits (id bigint GENERATED ALWAYS AS IDENTITY)`)
	s.exec(`CREATE FUNCTION note_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.commits DEFAULT VALUES; RETURN NULL; END $$`)
	s.exec(`CREATE TRIGGER note_commit AFTER UPDATE ON gpt_sessions FOR EACH STATEMENT EXECUTE FUNCTION note_commit()`)
	s.together(sessions, func(i int) {
		r, err := s.rotate(all[i].ID, 0, time.Minute)
		if err != nil || r.Session.ID != all[i].ID || r.Session.Counter != 1 || r.Repeated {
			t.Errorf("%+v, %v", r, err)
		}
	})
	if n := s.count(`SELECT count(*) FROM gpt_sessions WHERE rt_counter = 1 AND rt_previous = 0`); n != sessions {
		t.Errorf("%d of %d sessions moved", n, sessions)
	}
	if n := s.count(`SELECT count(*) FROM commits`); n > sessions/3 {
		t.Errorf("%d commits for %d refreshes", n, sessions)
	}
}

// TestEachRefreshOfATripHearsItsOwnAnswer, however the others fare. T-13, T-16.
func TestEachRefreshOfATripHearsItsOwnAnswer(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	type refresh struct {
		session issuer.Session
		client  string
		counter int64
		want    error
		is      int64 // the counter afterwards
	}
	cases := map[string]*refresh{
		"current":                 {want: nil, is: 1},
		"previous, in its grace":  {want: nil, is: 1},
		"previous, after it":      {want: issuer.ErrReplayed},
		"long passed":             {want: issuer.ErrReplayed},
		"above the row":           {counter: 7, want: nil, is: 8},
		"of another client":       {client: "other", want: issuer.ErrNotFound},
		"revoked":                 {want: issuer.ErrNotFound},
		"expired":                 {want: issuer.ErrNotFound},
		"idle for too long":       {want: issuer.ErrNotFound},
		"a session that is not":   {session: issuer.Session{ID: "00000000-0000-4000-8000-000000000000"}, want: issuer.ErrNotFound},
		"no identifier of any":    {session: issuer.Session{ID: "no-uuid"}, want: issuer.ErrNotFound},
		"current, and one of two": {want: nil, is: 1},
	}
	var names []string
	for name, c := range cases {
		if c.client == "" {
			c.client = "app"
		}
		if c.session.ID == "" {
			c.session = s.session("jobs:read")
		}
		names = append(names, name)
	}
	moved := `UPDATE gpt_sessions SET rt_counter = %d, rt_previous = %d, rotated_at = clock_timestamp() - interval '%s' WHERE id = $1`
	s.exec(fmt.Sprintf(moved, 1, 0, "1 second"), cases["previous, in its grace"].session.ID)
	s.exec(fmt.Sprintf(moved, 1, 0, "61 seconds"), cases["previous, after it"].session.ID)
	s.exec(fmt.Sprintf(moved, 2, 1, "1 second"), cases["long passed"].session.ID)
	s.exec(`UPDATE gpt_sessions SET revoked_at = now() WHERE id = $1`, cases["revoked"].session.ID)
	s.exec(`UPDATE gpt_sessions SET expires_at = now() WHERE id = $1`, cases["expired"].session.ID)
	s.exec(`UPDATE gpt_sessions SET idle_expires_at = now() WHERE id = $1`, cases["idle for too long"].session.ID)
	names = append(names, "current, and one of two")
	origin := func(name string) issuer.Origin {
		return issuer.Origin{Address: netip.MustParseAddr("192.0.2.7"), RequestID: name, Agent: name}
	}
	s.together(len(names), func(i int) {
		c := cases[names[i]]
		r, err := s.store.RotateRefreshToken(s.ctx, issuer.Rotation{SessionID: c.session.ID, ClientID: c.client, Counter: c.counter,
			Grace: time.Minute, AccessTokenTTL: 15 * time.Minute}, origin(names[i]))
		if !errors.Is(err, c.want) || err == nil && (r.Session.ID != c.session.ID || r.Session.Counter != c.is) {
			t.Errorf("%s: counter %d, %v", names[i], r.Session.Counter, err)
		}
	})
	for name, c := range cases {
		live := s.count(`SELECT count(*) FROM gpt_sessions WHERE id::text = $1 AND revoked_at IS NULL`, c.session.ID)
		if ended := errors.Is(c.want, issuer.ErrReplayed); ended && live != 0 {
			t.Errorf("%s: the session lives on", name)
		} else if c.want == nil && live != 1 {
			t.Errorf("%s: the session has ended", name)
		}
	}
	if n := s.count(`SELECT count(*) FROM gpt_sessions WHERE id = $1 AND client_address = '192.0.2.7' AND client_agent = 'above the row'`, cases["above the row"].session.ID); n != 1 {
		t.Error("where the client was is not in its row")
	}
	for event, name := range map[string]string{"gpt.oauth.counter_ahead": "above the row", "gpt.oauth.replay_detected": "long passed"} {
		if n := s.count(`SELECT count(*) FROM gpt_oauth_events WHERE event_type = $1 AND session_id = $2 AND request_id = $3 AND ip_address = '192.0.2.7'`,
			event, cases[name].session.ID, name); n != 1 {
			t.Errorf("%d events %s of %s", n, event, name)
		}
	}
}

// TestHeldRowKeepsNobodyElseWaiting: whoever is at one session with psql holds
// up the refresh of that session only. R-11.
func TestHeldRowKeepsNobodyElseWaiting(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	held := s.session("jobs:read")
	var others [20]issuer.Session
	for i := range others {
		others[i] = s.session("jobs:read")
	}
	tx, err := connect(t, s.dsn).Begin(s.ctx)
	s.must(err)
	defer func() { _ = tx.Rollback(s.ctx) }()
	_, err = tx.Exec(s.ctx, `SELECT FROM gpt_sessions WHERE id = $1 FOR UPDATE`, held.ID)
	s.must(err)
	waited := make(chan error, 1)
	go func() {
		r, err := s.rotate(held.ID, 0, time.Minute)
		if err == nil && r.Session.Counter != 1 {
			err = fmt.Errorf("counter %d", r.Session.Counter)
		}
		waited <- err
	}()
	s.eventually("its refresh waits for the row", func() bool {
		return s.count(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%rt_rotation%'`) == 1
	})
	parallel(len(others), func(i int) {
		if r, err := s.rotate(others[i].ID, 0, time.Minute); err != nil || r.Session.Counter != 1 {
			t.Errorf("counter %d, %v", r.Session.Counter, err)
		}
	})
	select {
	case err := <-waited:
		t.Errorf("the held one did not wait: %v", err)
	default:
	}
	s.must(tx.Rollback(s.ctx))
	s.must(<-waited)
}

// TestRefusedTripIsTriedOneByOne: what is wrong with one row is no other's
// affair.
func TestRefusedTripIsTriedOneByOne(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var all [10]issuer.Session
	for i := range all {
		all[i] = s.session("jobs:read")
	}
	s.exec(`ALTER TABLE gpt_sessions ADD CONSTRAINT never CHECK (id <> '` + all[3].ID + `' OR rt_counter = 0)`)
	s.together(len(all), func(i int) {
		r, err := s.rotate(all[i].ID, 0, time.Minute)
		if i == 3 {
			if err == nil || errors.Is(err, issuer.ErrNotFound) || errors.Is(err, issuer.ErrReplayed) {
				t.Errorf("the refused one: %v", err)
			}
		} else if err != nil || r.Session.Counter != 1 {
			t.Errorf("counter %d, %v", r.Session.Counter, err)
		}
	})
	if n := s.count(`SELECT count(*) FROM gpt_sessions WHERE rt_counter = 1`); n != len(all)-1 {
		t.Errorf("%d sessions moved", n)
	}
}

// TestUnknownOutcomeOfATripIsNobodysSuccess: a server that falls silent may have
// committed. Everyone hears that nobody knows, in time, and the next try gets
// the successor. T-31, T-32, R-12, R-13.
func TestUnknownOutcomeOfATripIsNobodysSuccess(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var all [20]issuer.Session
	for i := range all {
		all[i] = s.session("jobs:read")
	}
	w, dsn := postgrestest.NewWire(t, s.dsn)
	db, err := postgres.Open(s.ctx, postgres.Config{DSN: dsn, Timeout: 500 * time.Millisecond})
	s.must(err)
	defer db.Close()
	store := postgres.NewStore(db)
	rotate := func(i int) error {
		r, err := store.RotateRefreshToken(s.ctx, issuer.Rotation{SessionID: all[i].ID, ClientID: "app", Grace: time.Minute, AccessTokenTTL: time.Minute}, issuer.Origin{})
		if err == nil && r.Session.Counter != 1 {
			t.Errorf("counter %d", r.Session.Counter)
		}
		return err
	}
	s.must(rotate(0)) // prepares the statement
	s.exec(`UPDATE gpt_sessions SET rt_counter = 0, rt_previous = NULL, rotated_at = NULL`)
	w.Freeze(postgrestest.ToClient) // what was asked is done, and nobody hears of it
	start := time.Now()
	parallel(len(all), func(i int) {
		if err := rotate(i); err == nil || errors.Is(err, issuer.ErrNotFound) || errors.Is(err, issuer.ErrReplayed) {
			t.Errorf("got %v", err)
		}
	})
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("answered after %s", took)
	}
	w.Reset()
	w.Heal(t)
	if n := s.count(`SELECT count(*) FROM gpt_sessions WHERE rt_counter = 1`); n == 0 {
		t.Error("nothing was committed: the test does not test")
	}
	for i := range all {
		s.eventually("a refresh goes through", func() bool { return rotate(i) == nil })
	}
}

// TestTripThatTheStandbyDidNotConfirmIsNobodysSuccess. T-33, M4.3.
func TestTripThatTheStandbyDidNotConfirmIsNobodysSuccess(t *testing.T) {
	t.Parallel()
	s, session := syncScene(t)
	db, err := postgres.Open(s.ctx, postgres.Config{DSN: s.dsn, Timeout: 10 * time.Second})
	s.must(err)
	defer db.Close()
	result := make(chan error, 1)
	go func() {
		_, err := postgres.NewStore(db).RotateRefreshToken(s.ctx, issuer.Rotation{SessionID: session.ID, ClientID: "app", Grace: time.Minute, AccessTokenTTL: time.Minute}, issuer.Origin{})
		result <- err
	}()
	s.eventually("it waits for the standby", func() bool { return s.count(hung) == 1 })
	s.exec(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
	if err := <-result; err == nil || !strings.Contains(err.Error(), "not confirmed") {
		t.Fatalf("got %v", err)
	}
}

// TestRefreshInTheQueueIsAnsweredInItsOwnTime, not in that of whom it goes along
// with..
func TestRefreshInTheQueueIsAnsweredInItsOwnTime(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	w, dsn := postgrestest.NewWire(t, s.dsn)
	const limit = 4 * time.Second
	db, err := postgres.Open(s.ctx, postgres.Config{DSN: dsn, Timeout: limit})
	s.must(err)
	defer db.Close()
	store := postgres.NewStore(db)
	w.Lose()
	var all sync.WaitGroup
	// The second waits for the first, and would wait for the third, who leads once
	// the first has given up.
	for _, after := range []time.Duration{0, limit / 10, limit * 9 / 10} {
		all.Go(func() {
			time.Sleep(after)
			start := time.Now()
			_, err := store.RotateRefreshToken(s.ctx, issuer.Rotation{SessionID: session.ID, ClientID: "app", Grace: time.Minute, AccessTokenTTL: time.Minute}, issuer.Origin{})
			if took := time.Since(start); err == nil || took > limit*5/4 {
				t.Errorf("the one that came after %s: %v after %s", after, err, took)
			}
		})
	}
	all.Wait()
}
