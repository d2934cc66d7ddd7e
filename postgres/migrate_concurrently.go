package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/migrations"
)

// runConcurrently runs statements outside transactions, under a lease row that
// is renewed while they run: no lock can be held there that a pooler, or a
// waiting CREATE INDEX CONCURRENTLY, bears.
func (m *migrator) runConcurrently(ctx context.Context, s state, migration migrations.Migration, script string, up bool) error {
	err := m.locked(ctx, s, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, m.sql(`INSERT INTO {{schema}}.gpt_schema_migrations (version, name, lease_holder, lease_until)
			VALUES ($1, $2, $3, clock_timestamp() + $4::interval)
			ON CONFLICT (version) DO UPDATE SET applied_at = NULL, lease_holder = excluded.lease_holder, lease_until = excluded.lease_until`),
			migration.Version, migration.Name, m.holder, leaseFor.String())
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	renewed := make(chan struct{})
	go m.renewLease(ctx, cancel, migration.Version, renewed)
	err = m.runEach(ctx, script)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(nil)
	<-renewed
	if err != nil {
		return fmt.Errorf("version %d (%s): %w", migration.Version, migration.Name, err)
	}
	ctx = context.WithoutCancel(ctx)
	return pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error { return m.record(ctx, tx, migration, up) })
}

func (m *migrator) runEach(ctx context.Context, script string) error {
	var sql strings.Builder
	for line := range strings.Lines(script) {
		if !strings.HasPrefix(line, "--") {
			sql.WriteString(line)
		}
	}
	for statement := range strings.SplitSeq(sql.String(), ";\n") {
		if statement = strings.TrimSuffix(strings.TrimSpace(statement), ";"); statement == "" {
			continue
		}
		if _, err := m.conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (m *migrator) renewLease(ctx context.Context, cancel context.CancelCauseFunc, version int, done chan<- struct{}) {
	defer close(done)
	conn, err := m.connect(ctx)
	if err != nil {
		cancel(fmt.Errorf("renew the lease: %w", err))
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(leaseFor / 4):
		}
		tag, err := conn.Exec(ctx, m.sql(`UPDATE {{schema}}.gpt_schema_migrations SET lease_until = clock_timestamp() + $3::interval
			WHERE version = $1 AND lease_holder = $2 AND applied_at IS NULL`), version, m.holder, leaseFor.String())
		if err == nil && tag.RowsAffected() == 0 {
			err = errors.New("it was taken over")
		}
		if err != nil && ctx.Err() == nil {
			cancel(fmt.Errorf("renew the lease: %w", err))
			return
		}
	}
}
