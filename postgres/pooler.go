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

// findPooler is a pgconn.AfterConnect. A pooler gives each client a process id
// of its own making, for cancel requests, since the server's changes with every
// transaction. Whoever does not write `pooled` would learn of it by statements
// that fail at random, and by notifications that never come.
func (db *DB) findPooler(ctx context.Context, conn *pgconn.PgConn) error {
	if db.pooled.Load() {
		return nil
	}
	results, err := conn.Exec(ctx, `SELECT pg_backend_pid()`).ReadAll()
	if err != nil {
		return fmt.Errorf("look for a pooler: %w", err)
	}
	if len(results) == 1 && len(results[0].Rows) == 1 && string(results[0].Rows[0][0]) == strconv.FormatUint(uint64(conn.PID()), 10) {
		return nil
	}
	if db.pooled.CompareAndSwap(false, true) {
		db.logger.Warn("a connection pooler stands before Postgres: doing without named statements and notifications, "+
			"so that revocations are seen by the next poll; write `pooled` in the block of `postgres`", zap.String("hosts", db.hosts))
	}
	return errPooler
}
