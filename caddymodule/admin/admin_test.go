package admin_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// newDesk is a desk on a database with so many live sessions of one client, and
// one of another.
func newDesk(t *testing.T, sessions int) (*admin.Admin, *pgx.Conn) {
	t.Helper()
	dsn := postgrestest.Migrated(t)
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	sql, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sql.Close(context.Background()) })
	if _, err := sql.Exec(t.Context(), `INSERT INTO gpt_clients (client_id) VALUES ('many'), ('one')`); err != nil {
		t.Fatal(err)
	}
	if _, err := sql.Exec(t.Context(), `INSERT INTO gpt_sessions (user_id, client_id, scopes, created_at, expires_at)
		SELECT 'u', CASE WHEN n = 0 THEN 'one' ELSE 'many' END, '{jobs:read}', now() - n * interval '1 ms', now() + interval '1 day' FROM generate_series(0, $1::int) n`, sessions); err != nil {
		t.Fatal(err)
	}
	return &admin.Admin{Store: postgres.NewStore(db)}, sql
}

func alive(t *testing.T, sql *pgx.Conn, client string) (n int) {
	t.Helper()
	if err := sql.QueryRow(t.Context(), `SELECT count(*) FROM gpt_sessions WHERE client_id = $1 AND revoked_at IS NULL`, client).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// ADM-05: TestInterruptedRevocationLeavesWhatItDidAndGoesOn
func TestInterruptedRevocationLeavesWhatItDidAndGoesOn(t *testing.T) {
	const sessions = 1700
	desk, sql := newDesk(t, sessions)
	ctx, interrupt := context.WithCancel(t.Context())
	told := []int{}
	desk.Progress = func(n int) {
		told = append(told, n)
		if len(told) == 2 {
			interrupt()
		}
	}
	first, err := desk.RevokeSessions(ctx, admin.SessionQuery{Client: "many"}, false, false, "")
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1000 sessions") {
		t.Errorf("%v", err)
	}
	if left := alive(t, sql, "many"); first.Sessions != 1000 || left != sessions-1000 {
		t.Errorf("%d ended, %d alive", first.Sessions, left)
	}
	desk.Progress = nil
	second, err := desk.RevokeSessions(t.Context(), admin.SessionQuery{Client: "many"}, false, false, "")
	if err != nil || second.Sessions != sessions-1000 || alive(t, sql, "many") != 0 || alive(t, sql, "one") != 1 {
		t.Errorf("%+v %v", second, err)
	}
}

// ADM-05: TestRevocationOfManyGoesOnWhereTheAnswerSays: a call of the API is
// bounded, and following `next` ends all of them.
func TestRevocationOfManyGoesOnWhereTheAnswerSays(t *testing.T) {
	const sessions = 1700
	desk, sql := newDesk(t, sessions)
	desk.Steps = 1
	total, calls := 0, 0
	for next := ""; ; calls++ {
		ended, err := desk.RevokeSessions(t.Context(), admin.SessionQuery{Client: "many"}, false, false, next)
		if err != nil {
			t.Fatal(err)
		}
		total += ended.Sessions
		if next = ended.Next; next == "" {
			break
		}
		if calls > sessions {
			t.Fatal("it does not end")
		}
	}
	if total != sessions || calls != 3 || alive(t, sql, "many") != 0 {
		t.Errorf("%d of %d ended in %d calls", total, sessions, calls+1)
	}
}

// ADM-01: TestClientWithManySessionsIsDisabledAndRemoved, in batches.
func TestClientWithManySessionsIsDisabledAndRemoved(t *testing.T) {
	const sessions = 1200
	desk, sql := newDesk(t, sessions)
	if _, err := sql.Exec(t.Context(), `INSERT INTO gpt_client_registrations (client_id, metadata, token_hash, unused_ttl) VALUES ('many', '{}', sha256(''), interval '1 day')`); err != nil {
		t.Fatal(err)
	}
	most := 0
	desk.Progress = func(n int) { most = max(most, n) }
	removed, err := desk.RemoveRegistration(t.Context(), "many")
	if err != nil || removed.Sessions != sessions || most != sessions {
		t.Errorf("%+v %v, told of %d", removed, err, most)
	}
	var left int
	if err := sql.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM gpt_clients) + (SELECT count(*) FROM gpt_sessions)`).Scan(&left); err != nil || left != 2 {
		t.Errorf("%d rows are left, %v", left, err)
	}
}
