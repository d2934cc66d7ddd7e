//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// TestMain lets the test binary stand in for other processes: with
// MIGRATE_DSN set it migrates that database and ends.
func TestMain(m *testing.M) {
	if dsn := os.Getenv("MIGRATE_DSN"); dsn != "" {
		err := postgres.Migrate(context.Background(), postgres.MigrateConfig{DSN: dsn, AdoptFor: os.Getenv("MIGRATE_ADOPT"), Wait: time.Minute})
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("EMBEDDED_DIR"); dir != "" {
		embeddedProcess(dir)
	}
	os.Exit(m.Run())
}

func migrateProcess(dsn string, env ...string) (*exec.Cmd, *strings.Builder) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "MIGRATE_DSN="+dsn), env...)
	said := &strings.Builder{}
	cmd.Stderr = said
	return cmd, said
}

func TestMigrationsGoUpDownAndUpAgain(t *testing.T) {
	t.Parallel()
	cfg := postgres.MigrateConfig{DSN: postgrestest.New(t), Schema: "my-scope"}
	for range 2 {
		if err := postgres.Migrate(context.Background(), cfg); err != nil {
			t.Fatal(err)
		}
		for _, version := range []int{3, 1, 0} {
			if err := postgres.MigrateDown(context.Background(), cfg, version); err != nil {
				t.Fatal(err)
			}
			if s, err := postgres.MigrationStatus(context.Background(), cfg); err != nil || s.Version != version {
				t.Fatalf("status after down to %d: %+v, %v", version, s, err)
			}
		}
	}
}

//
func TestFourProcessesMigrateAtOnce(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	parallel(4, func(int) {
		cmd, said := migrateProcess(dsn)
		if err := cmd.Run(); err != nil {
			t.Errorf("%v: %s", err, said)
		}
	})
	s, err := postgres.MigrationStatus(context.Background(), postgres.MigrateConfig{DSN: dsn})
	if err != nil || s.Version != s.Latest {
		t.Fatalf("%+v, %v", s, err)
	}
	sql := connect(t, dsn)
	var applied, invalid int
	err = sql.QueryRow(context.Background(), `SELECT (SELECT count(*) FROM gpt_schema_migrations), (SELECT count(*) FROM pg_index WHERE NOT indisvalid)`).Scan(&applied, &invalid)
	if err != nil || applied != s.Latest || invalid != 0 {
		t.Fatalf("%d steps recorded, %d broken indexes, %v", applied, invalid, err)
	}
}

// killed at any moment, the next one goes on from there.
func TestMigrationResumesAfterKill(t *testing.T) {
	t.Parallel()
	for name, old := range map[string]string{"fresh": "SELECT", "adopting": oldFirst + oldRows()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := postgrestest.New(t)
			if _, err := connect(t, dsn).Exec(context.Background(), old, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			for range 6 {
				cmd, _ := migrateProcess(dsn, "MIGRATE_ADOPT=app")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(20+rand.IntN(100)) * time.Millisecond)
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
			cfg := postgres.MigrateConfig{DSN: dsn, AdoptFor: "app", Wait: time.Minute}
			if err := postgres.Migrate(context.Background(), cfg); err != nil {
				t.Fatal(err)
			}
			if err := postgres.MigrateDown(context.Background(), cfg, 0); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// An interrupted CREATE INDEX CONCURRENTLY leaves an invalid index and a lease.
func TestMigrationRepairsAnInterruptedIndex(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.Migrated(t)
	// What comes after the interrupted version was not begun.
	if err := postgres.MigrateDown(context.Background(), postgres.MigrateConfig{DSN: dsn}, 4); err != nil {
		t.Fatal(err)
	}
	sql := connect(t, dsn)
	if _, err := sql.Exec(context.Background(), `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'gpt_sessions_live_idx'::regclass;
		UPDATE gpt_schema_migrations SET applied_at = NULL, lease_holder = gen_random_uuid(), lease_until = now() + interval '1 second' WHERE version = 4`, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := postgres.Migrate(context.Background(), postgres.MigrateConfig{DSN: dsn}); err != nil {
		t.Fatal(err)
	}
	if time.Since(start) < 500*time.Millisecond {
		t.Error("the lease of a living process was not waited for")
	}
	var valid bool
	if err := sql.QueryRow(context.Background(), `SELECT indisvalid FROM pg_index WHERE indexrelid = 'gpt_sessions_live_idx'::regclass`).Scan(&valid); err != nil || !valid {
		t.Fatal("the index is still broken", err)
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.Migrated(t)
	sql := connect(t, dsn)
	if _, err := sql.Exec(context.Background(), `INSERT INTO gpt_schema_migrations VALUES (99, 'future', now())`); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(context.Background(), postgres.MigrateConfig{DSN: dsn}); !errors.Is(err, postgres.ErrNewerSchema) || !strings.Contains(err.Error(), "99 (future)") {
		t.Fatalf("got %v", err)
	}
}

func TestForeignTablesAreNotTouched(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	sql := connect(t, dsn)
	if _, err := sql.Exec(context.Background(), `CREATE TABLE gpt_sessions (id int)`); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(context.Background(), postgres.MigrateConfig{DSN: dsn, AdoptFor: "app"}); err == nil || !strings.Contains(err.Error(), "use another schema") {
		t.Fatalf("got %v", err)
	}
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}
