package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddy-scope/caddy-scope/postgres"
)

const embeddedDir = dataDir + "/postgres"

// checkDatabase says what is wrong with DATABASE_URL before anything is
// started, and never says the password.
func checkDatabase(ctx context.Context) error {
	dsn := os.Getenv("DATABASE_URL")
	if dsn == "" {
		return nil
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil { // the error could quote a part of it
		return errors.New("DATABASE_URL: a connection string such as postgres://user:password@localhost:5432/name is expected")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		return conn.Close(ctx)
	}
	where := fmt.Sprintf("database %s on %s:%d as user %s", config.Database, config.Host, config.Port, config.User)
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return fmt.Errorf("DATABASE_URL: the server refuses %s: %s. Correct DATABASE_URL, or leave it away for a server of the try-out's own", where, said.Message)
	}
	cause := err
	for next := err; next != nil; next = errors.Unwrap(next) {
		cause = next
	}
	return fmt.Errorf("DATABASE_URL: cannot reach %s: %v. Is the server running, and the host right? Without DATABASE_URL the try-out runs a server of its own", where, cause)
}

// database is what the try-out says about where its rows are.
type database struct {
	where string
	psql  string // a command that opens it; empty when it cannot be told
}

func findDatabase(ctx context.Context) database {
	if os.Getenv("DATABASE_URL") != "" {
		return database{where: "Postgres of DATABASE_URL", psql: `psql "$DATABASE_URL"`}
	}
	dsn, running := postgres.RunningEmbeddedDSN(ctx, embeddedDir)
	if !running {
		return database{where: "embedded Postgres"}
	}
	where := "embedded Postgres, data in " + embeddedDir
	u, err := url.Parse(dsn)
	if err != nil {
		return database{where: where}
	}
	run := u.Query().Get("host")
	here, err := filepath.Abs(embeddedDir)
	if err == nil && !strings.HasPrefix(run, here+"/") && !strings.HasPrefix(run, "/tmp/") {
		where = "embedded Postgres, data in " + filepath.Dir(run) + "\n          (the user who runs Postgres cannot enter " + here + ")"
	}
	return database{where: where, psql: fmt.Sprintf("psql '%s'", dsn)}
}
