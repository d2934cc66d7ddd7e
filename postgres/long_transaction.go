package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// long runs in a transaction what may take as long as its caller lets it: the work
// of a command that somebody watches. When ctx ends the connection is closed, and
// the server takes everything back.
func (db *DB) long(ctx context.Context, step string, options pgx.TxOptions, do func(context.Context, pgx.Tx) error) error {
	_, err := db.on(ctx, ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		return pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, unhurried); err != nil {
				return err
			}
			return do(ctx, tx)
		})
	})
	return wrap(step, err)
}

// unhurried lifts the limits that a role or a database may have for requests: a
// reader of what is written may be slow.
const unhurried = `SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true)`

// oneSnapshot reads everything as it was at one moment.
var oneSnapshot = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
