package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"
)

// errPooler ends the connection by which a pooler was found out; the next one
// is made for it.
var errPooler = errors.New("a connection pooler stands before the server; connecting as through one")

// prepare makes the configuration of a new connection fit what is known of the
// way to the server.
func (db *DB) prepare(cc *pgx.ConnConfig) {
	if db.pooled.Load() {
		cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe // unnamed statements only
	}
}

// validate is a pgconn.ValidateConnect, after the one that the DSN asks for. In
// one question, since each costs a round trip:
//
// A gateway that found a standby would fail at its first write.
//
// And a pooler gives each client a process id of its own making, for cancel
// requests, since the server's changes with every transaction. Whoever does not
// write `pooled` would learn of it by statements that fail at random, and by
// notifications that never come.
func (db *DB) validate(asked pgconn.ValidateConnectFunc) pgconn.ValidateConnectFunc {
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		if asked != nil {
			if err := asked(ctx, conn); err != nil {
				return err
			}
		}
		results, err := conn.Exec(ctx, `SELECT pg_backend_pid(), `+takesWrites).ReadAll()
		switch {
		case err != nil:
			return fmt.Errorf("ask who answers: %w", err)
		case len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2:
			return errors.New("ask who answers: not understood")
		}
		answer := results[0].Rows[0]
		if string(answer[1]) != "t" {
			return errReadOnly
		}
		if string(answer[0]) == strconv.FormatUint(uint64(conn.PID()), 10) || db.pooled.Load() {
			return nil
		}
		if db.pooled.CompareAndSwap(false, true) {
			db.logger.Warn("a connection pooler stands before Postgres: doing without named statements and notifications, "+
				"so that revocations are seen by the next poll; write `pooled` in the block of `postgres`", zap.String("hosts", db.hosts))
		}
		return errPooler
	}
}
