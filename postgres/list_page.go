package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Position is where a list goes on: after the row of this id, written then. The
// zero value: at the beginning.
type Position struct {
	At time.Time
	ID uuid.UUID
}

// scanAtMost bounds the rows that one page looks at, whether or not they match:
// no filter makes a statement read a whole table, and each ends within the time
// of a call.
const scanAtMost = 2000

// page is a list that is read a page at a time, newest first.
type page[T any] struct {
	step     string
	filter   func(from Position, limit int, a *args) string // yields `scanned` and `found`, see scanSQL
	columns  string                                         // what to select of the rows of `found`, in their order; {s} is the schema
	scan     func(row pgx.Row) (T, error)
	position func(T) Position
}

// read returns what matches after the position, at most limit, which may be none
// although there are more. more: the list goes on at next.
func (p page[T]) read(ctx context.Context, db *DB, from Position, limit int) (items []T, next Position, more bool, err error) {
	err = db.read(ctx, p.step, inOrder(oneSnapshot, func(ctx context.Context, tx pgx.Tx) error {
		var a args
		with := `WITH ` + p.filter(from, limit, &a)
		rows, err := tx.Query(ctx, db.sql(with+` SELECT `+p.columns), a...)
		if err != nil {
			return err
		}
		if items, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (T, error) { return p.scan(row) }); err != nil {
			return err
		}
		var last Position
		var end scanEnd
		if len(items) == limit {
			last = p.position(items[limit-1])
		} else if err := tx.QueryRow(ctx, db.sql(with+` SELECT `+nextSQL), a...).Scan(&end.rows, &end.id, &end.at); err != nil {
			return err
		}
		next, more = end.next(len(items), limit, last)
		return nil
	}))
	return items, next, more, err
}

// args collects the arguments of a statement that is put together.
type args []any

func (a *args) add(value any) string {
	*a = append(*a, value)
	return fmt.Sprintf("$%d", len(*a))
}

// scanSQL yields `scanned`: scanAtMost rows of an index; and of that `found`:
// those that match, at most limit.
func scanSQL(table, matches, where, order, limit string) string {
	return fmt.Sprintf(`scanned AS MATERIALIZED (
			SELECT id, created_at, (%s) AS matches FROM {s}.%s WHERE %s ORDER BY %s LIMIT %d),
		found AS MATERIALIZED (
			SELECT id, created_at FROM scanned WHERE matches ORDER BY created_at DESC, id DESC LIMIT %s)`, matches, table, where, order, scanAtMost, limit)
}

// nextSQL is where the scan ended, and how many rows it looked at.
const nextSQL = `(SELECT count(*) FROM scanned), (SELECT id FROM scanned ORDER BY created_at, id LIMIT 1), (SELECT created_at FROM scanned ORDER BY created_at, id LIMIT 1)`

// scanEnd is nextSQL, read.
type scanEnd struct {
	rows int
	id   *uuid.UUID
	at   *time.Time
}

// next is where the list goes on after a page that found so many of limit, the
// last of them at the position; false: that was all.
func (e *scanEnd) next(found, limit int, last Position) (Position, bool) {
	switch {
	case found == limit:
		return last, true
	case e.rows == scanAtMost:
		return Position{*e.at, *e.id}, true
	}
	return Position{}, false
}

// inOrder runs do with plans that go along an index in its order. Not knowing how
// much a page needs, the server else collects all that there is and sorts it.
func inOrder(options pgx.TxOptions, do func(context.Context, pgx.Tx) error) call {
	return func(ctx context.Context, conn *pgxpool.Conn) error {
		return pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL enable_bitmapscan = off`); err != nil {
				return err
			}
			return do(ctx, tx)
		})
	}
}
