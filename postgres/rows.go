package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// list reads rows in their order, in one statement; {s} in it is the schema.
func list[T any](ctx context.Context, db *DB, step string, scan func(row pgx.Row) (T, error), sql string, args ...any) (items []T, err error) {
	err = db.read(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, db.sql(sql), args...)
		if err != nil {
			return err
		}
		items, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (T, error) { return scan(row) })
		return err
	})
	return items, err
}

// lookUp is a statement that finds the rows for which the passengers of a shared
// trip ask by key.
type lookUp[K comparable, V any] struct {
	step string
	sql  string // {s} is the schema
	args []any
	scan func(row pgx.Row) (K, V, error)
}

// answer gives each passenger its row; who asked for one that is not there hears
// issuer.ErrNotFound.
func (l lookUp[K, V]) answer(ctx context.Context, db *DB, batch []*passenger[K, V]) {
	found := make(map[K]V, len(batch))
	err := db.read(ctx, l.step, func(ctx context.Context, conn *pgxpool.Conn) error {
		clear(found) // of a first try
		rows, err := conn.Query(ctx, db.sql(l.sql), l.args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			key, value, err := l.scan(rows)
			if err != nil {
				return err
			}
			found[key] = value
		}
		if err := rows.Err(); err != nil || len(found) == len(batch) {
			return err
		}
		return believe(ctx, conn) // that the rest is not there
	})
	for _, p := range batch {
		value, ok := found[p.ask]
		switch {
		case err != nil:
			p.err = err
		case !ok:
			p.err = issuer.ErrNotFound
		default:
			p.answer = value
		}
	}
}
