package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/postgres"
)

func databaseName(rows int) string { return "rows_" + strconv.Itoa(rows) }

const (
	// scaleUser of the n-th user, counted from 1; spread over an index of them.
	scaleUser = `'user-' || md5(%s::text)`
	// Of a user's id, in SQL.
	scaleEmail, scaleSubject = `substr(%s, 6) || '@example.com'`, `md5(%s)`
	scaleAuthority           = "https://accounts.example.com"
)

// seed makes the sessions that are in use, over HTTP, and returns their first
// refresh tokens. Those of an earlier run are taken where they were kept.
func (s *scene) seed(ctx context.Context) (tokens [][]byte, err error) {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS seed_tokens (token bytea)`); err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, `SELECT token FROM seed_tokens`)
	if err != nil {
		return nil, err
	}
	if tokens, err = pgx.CollectRows(rows, pgx.RowTo[[]byte]); err != nil || len(tokens) == inUse {
		return tokens, err
	}
	// A gateway is ready when it answers a request, which takes a session.
	s.sessions = []uuid.UUID{uuid.New()}
	if err := s.insertSessions(ctx); err != nil {
		return nil, err
	}
	p, err := startProxy(ctx, s, scenarioOf("live"))
	if err != nil {
		return nil, err
	}
	defer p.stop()
	t, err := newTokenEndpoint(ctx, s, p)
	if err != nil {
		return nil, err
	}
	defer t.close(ctx)
	if tokens, err = t.refreshTokens(ctx, 8, inUse); err != nil { // not measured: other work may be going on
		return nil, err
	}
	if _, err := conn.Exec(ctx, `DELETE FROM gpt_sessions WHERE id = $1`, s.sessions[0]); err != nil {
		return nil, err
	}
	s.sessions = nil
	if err := giveUsers(ctx, conn); err != nil {
		return nil, err
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"seed_tokens"}, []string{"token"},
		pgx.CopyFromSlice(len(tokens), func(i int) ([]any, error) { return []any{tokens[i]}, nil }))
	return tokens, err
}

// giveUsers gives each session to one of the first users that fill makes.
func giveUsers(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `UPDATE gpt_sessions s SET user_id = `+fmt.Sprintf(scaleUser, "n")+`, expires_at = now() + interval '30 days'
		FROM (SELECT id, row_number() OVER () AS n FROM gpt_sessions) o WHERE o.id = s.id`)
	return err
}

// fill makes a database with n users, each with a session, what it did, and an
// identity at a provider. The sessions in use are among them; filler is made after
// the first of these. All rows stand in the order of their ids, which are random,
// so that those in use are spread. One that is there already is kept.
func (s *scene) fill(ctx context.Context, n int) error {
	admin, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close(context.WithoutCancel(ctx)) }()
	var filled bool
	if err := admin.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, databaseName(n)).Scan(&filled); err != nil || filled {
		return err
	}
	name := pgx.Identifier{databaseName(n)}.Sanitize()
	if _, err := admin.Exec(ctx, `CREATE DATABASE `+name); err != nil {
		return err
	}
	if err := s.fillDatabase(ctx, admin, n); err != nil {
		_, dropErr := admin.Exec(context.WithoutCancel(ctx), `DROP DATABASE `+name+` WITH (FORCE)`)
		return errors.Join(err, dropErr)
	}
	return nil
}

func (s *scene) fillDatabase(ctx context.Context, admin *pgx.Conn, n int) error {
	dsn, err := s.databaseDSN(n)
	if err != nil {
		return err
	}
	if err := postgres.Migrate(ctx, postgres.MigrateConfig{DSN: dsn}); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, `CREATE TABLE in_use (LIKE gpt_sessions)`); err != nil {
		return err
	}
	var seeds bytes.Buffer
	if _, err := admin.PgConn().CopyTo(ctx, &seeds, `COPY gpt_sessions TO STDOUT`); err != nil {
		return err
	}
	copied, err := conn.PgConn().CopyFrom(ctx, &seeds, `COPY in_use FROM STDIN`)
	if err != nil {
		return err
	}
	for _, step := range fillSteps(int(copied.RowsAffected()), n) {
		start := time.Now()
		if _, err := conn.Exec(ctx, step.sql); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			fmt.Fprintf(os.Stderr, "%d rows: %s took %s\n", n, step.name, took.Round(time.Second))
		}
	}
	return nil
}

type fillStep struct{ name, sql string }

// fillSteps make n rows of each kind, with inUse sessions among them.
func fillSteps(inUse, n int) []fillStep {
	return []fillStep{
		{"statistics", `CREATE EXTENSION pg_stat_statements`},
		{"client", `INSERT INTO gpt_clients (client_id) VALUES ('` + clientID + `')`},
		{"users", fmt.Sprintf(`INSERT INTO gpt_users (id, email, password_hash)
			SELECT id, `+fmt.Sprintf(scaleEmail, "id")+`, '$argon2id$v=19$m=19456,t=2,p=1$' || md5(id) || '$' || md5(id) || substr(md5(id), 1, 11)
			FROM (SELECT `+scaleUser+` AS id FROM generate_series(1, %d) i) u ORDER BY id`, "i", n)},
		// A trigger for each row would take hours.
		{"triggers off", `ALTER TABLE gpt_identities DISABLE TRIGGER ALL; ALTER TABLE gpt_sessions DISABLE TRIGGER ALL; ALTER TABLE gpt_session_calls DISABLE TRIGGER ALL`},
		{"identities", `INSERT INTO gpt_identities (authority, subject, user_id)
			SELECT '` + scaleAuthority + `', ` + fmt.Sprintf(scaleSubject, "id") + `, id FROM gpt_users`},
		// Of a month, refreshed up to a hundred times.
		{"sessions", fmt.Sprintf(`INSERT INTO gpt_sessions SELECT s.* FROM (
			SELECT * FROM in_use UNION ALL
			SELECT s.* FROM (SELECT u AS row FROM in_use u LIMIT 1) AS first, generate_series(%d, %d) i,
				LATERAL (SELECT now() - interval '30 days' * random() AS made, (random() * 99)::int + 1 AS counter) AS life,
				LATERAL jsonb_populate_record(first.row, jsonb_build_object('id', md5('session ' || i)::uuid, 'user_id', `+scaleUser+`,
					'rt_counter', life.counter, 'rt_previous', life.counter - 1, 'rt_rotation', 1000 + i, 'rotated_at', now(), 'auth_time', life.made,
					'created_at', life.made, 'expires_at', life.made + interval '30 days 1 hour')) AS s) AS s
			ORDER BY s.id`, inUse+1, n, "i")},
		{"calls", `INSERT INTO gpt_session_calls (session_id, day, scope, calls)
			SELECT id, (now() AT TIME ZONE 'UTC')::date - (random() * 7)::int, 'jobs:read', 1 + (random() * 1000)::int FROM gpt_sessions`},
		{"triggers on", `ALTER TABLE gpt_identities ENABLE TRIGGER ALL; ALTER TABLE gpt_sessions ENABLE TRIGGER ALL; ALTER TABLE gpt_session_calls ENABLE TRIGGER ALL`},
		{"vacuum", `VACUUM (ANALYZE)`},
		{"checkpoint", `CHECKPOINT`},
	}
}
