// Package postgrestest gives each test a database of its own on a real server;
// where the server itself is to fail, a server of its own (Server), and a
// network that fails between (Wire).
package postgrestest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/postgres"
)

var (
	server = sync.OnceValues(func() (*postgres.Embedded, error) {
		dir, err := os.MkdirTemp("", "pgtest-")
		if err != nil {
			return nil, err
		}
		if err := os.Chmod(dir, 0o711); err != nil {
			return nil, err
		}
		return postgres.StartEmbedded(context.Background(), postgres.EmbeddedConfig{DataDir: dir, Ephemeral: true})
	})
	migrated = sync.OnceValues(func() (string, error) {
		dsn, err := create("migrated", "template0")
		if err != nil {
			return "", err
		}
		return "migrated", postgres.Migrate(context.Background(), postgres.MigrateConfig{DSN: dsn})
	})
	databases atomic.Int64
)

// New returns the DSN of a fresh, empty database. One temporary server serves
// the test process and ends with it, however it ends.
func New(t testing.TB) string {
	t.Helper()
	return fresh(t, "template0")
}

// Migrated returns the DSN of a fresh database with the current schema in public.
func Migrated(t testing.TB) string {
	t.Helper()
	template, err := migrated()
	if err != nil {
		t.Fatalf("migrate the template database: %v", err)
	}
	return fresh(t, template)
}

func fresh(t testing.TB, template string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	dsn, err := create(name, template)
	if err != nil {
		t.Fatalf("create a test database: %v", err)
	}
	t.Cleanup(func() {
		if err := admin(fmt.Sprintf("DROP DATABASE %s WITH (FORCE)", name)); err != nil {
			t.Errorf("drop the test database: %v", err)
		}
	})
	return dsn
}

// creating lets one CREATE DATABASE run at a time: a template in use by a
// second one is refused.
var creating sync.Mutex

func create(name, template string) (string, error) {
	creating.Lock()
	defer creating.Unlock()
	if err := admin(fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, template)); err != nil {
		return "", err
	}
	e, _ := server()
	dsn, err := url.Parse(e.DSN())
	if err != nil {
		return "", err
	}
	dsn.Path = "/" + name
	return dsn.String(), nil
}

func admin(sql string) error {
	e, err := server()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, e.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}
