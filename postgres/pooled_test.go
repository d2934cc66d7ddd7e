//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// DESIGN 5: through a transaction pooler everything works, without named
// statements and session locks.
func TestEverythingWorksThroughATransactionPooler(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.Pgbouncer(t, postgrestest.New(t))
	parallel(3, func(int) {
		if err := postgres.Migrate(context.Background(), postgres.MigrateConfig{DSN: dsn, Pooled: true}); err != nil {
			t.Error(err)
		}
	})
	s := &scene{T: t, ctx: context.Background(), dsn: dsn}
	var err error
	s.db, err = postgres.Open(s.ctx, postgres.Config{DSN: dsn, Pooled: true, Timeout: 10 * time.Second})
	s.must(err)
	t.Cleanup(s.db.Close)
	s.store = postgres.NewStore(s.db)
	s.must(s.store.EnsureClients(s.ctx, []postgres.ClientRow{{ID: "app"}}))
	s.user, err = s.store.CreateUser(s.ctx, "a@b.c", "h", issuer.Origin{})
	s.must(err)
	s.login, err = s.store.CreateLogin(s.ctx, digest(), s.user.ID, "password", time.Hour, issuer.Origin{})
	s.must(err)
	reader := postgres.NewSessionReader(s.db)
	parallel(30, func(int) {
		session := s.session("jobs:read")
		if _, err := s.rotate(session.ID, 0, time.Minute); err != nil {
			t.Error(err)
		}
		if _, err := reader.ReadSession(s.ctx, session.ID); err != nil {
			t.Error(err)
		}
		if err := s.store.RevokeSession(s.ctx, session.ID, "app", "x", issuer.Origin{}); err != nil {
			t.Error(err)
		}
	})
}

// a pooler that nobody declared is found out when the pool opens, before
// a statement fails that another client prepared, and a direct way to the
// server is not taken for one.
func TestPoolerIsFoundOut(t *testing.T) {
	t.Parallel()
	direct := postgrestest.Migrated(t)
	for name, c := range map[string]struct {
		dsn      string
		warnings int
	}{
		"direct":           {direct, 0},
		"through a pooler": {postgrestest.Pgbouncer(t, direct), 1},
	} {
		core, logs := observer.New(zap.WarnLevel)
		db, err := postgres.Open(context.Background(), postgres.Config{DSN: c.dsn, Timeout: 10 * time.Second, Logger: zap.New(core)})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		store := postgres.NewStore(db)
		parallel(50, func(i int) {
			if _, err := store.FindSession(context.Background(), uuid.NewString(), "app"); !errors.Is(err, issuer.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		})
		db.Close()
		if found := logs.FilterMessageSnippet("a connection pooler stands before Postgres").Len(); found != c.warnings {
			t.Errorf("%s: %d warnings, want %d", name, found, c.warnings)
		}
	}
}
