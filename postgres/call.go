package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// Why a call failed although the server answered, or without being sent.
var (
	// errReadOnly: behind a connection that stayed open the server became a
	// standby, or was fenced off. What it says may be long outdated.
	errReadOnly     = errors.New("the server is read-only: a standby, or fenced off")
	errBreakerOpen  = errors.New("the database did not answer the last writes; not asked again yet")
	errUnreplicated = errors.New("the commit was not confirmed by the synchronous standby")
)

type call func(ctx context.Context, conn *pgxpool.Conn) error

// takesWrites is true of the server that decides: not of a standby, which may be
// behind, nor of a primary that was fenced off.
const takesWrites = `current_setting('transaction_read_only') = 'off'`

// read runs an idempotent read; on a broken connection it is tried once more.
// That there is no such row is only believed of a server that takes writes: a
// standby behind a pooler does not have it yet.
func (db *DB) read(ctx context.Context, step string, do call) (err error) {
	ctx, end := traced(ctx, step)
	defer func() { end(err) }()
	if err = ctx.Err(); err == nil {
		ctx, cancel := db.deadline(ctx)
		defer cancel()
		wait, stopWaiting := db.patience(ctx)
		defer stopWaiting()
		do := believing(do)
		var broken bool
		if broken, err = db.on(ctx, wait, do); broken && ctx.Err() == nil {
			db.pool.Reset() // its idle siblings are most likely dead too
			_, err = db.on(ctx, wait, do)
		}
	}
	return wrap(step, err)
}

// believing confirms that there is no row.
func believing(do call) call {
	return func(ctx context.Context, conn *pgxpool.Conn) error {
		err := do(ctx, conn)
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if doubt := believe(ctx, conn); doubt != nil {
			return doubt
		}
		return err
	}
}

// believe returns errReadOnly when the server is none to believe that there is no
// row.
func believe(ctx context.Context, conn *pgxpool.Conn) error {
	var primary bool
	if err := conn.QueryRow(ctx, `SELECT `+takesWrites).Scan(&primary); err != nil {
		return err
	}
	if !primary {
		return errReadOnly
	}
	return nil
}

// write runs a step that commits. It always answers within the deadline, also
// when COMMIT hangs, which no setting of the server bounds; then the outcome is
// unknown and nothing is retried. What hangs is at most the pool's connections,
// and after a few such writes one at a time is let through.
func (db *DB) write(ctx context.Context, step string, do call) (err error) {
	ctx, end := traced(ctx, step)
	defer func() { end(err) }()
	if err := ctx.Err(); err != nil {
		return wrap(step, err)
	}
	ctx, cancel := db.deadline(ctx)
	defer cancel()
	wait, stopWaiting := db.patience(ctx)
	defer stopWaiting()
	probe, ok := db.breaker.enter(time.Now())
	if !ok {
		return wrap(step, errBreakerOpen)
	}
	select {
	case db.writing <- struct{}{}:
	case <-wait.Done():
		db.breaker.leave(probe, nil, time.Now())
		return wrap(step, fmt.Errorf("too many writes at once: %w", wait.Err()))
	}
	broken, err := db.on(ctx, wait, do)
	if broken && ctx.Err() == nil {
		db.pool.Reset()
		if pgconn.SafeToRetry(err) { // nothing was sent
			_, err = db.on(ctx, wait, do)
		}
	}
	<-db.writing
	db.breaker.leave(probe, ctx.Err(), time.Now())
	return wrap(step, err)
}

// maintain runs a step of the upkeep, which may take longer than anybody waits,
// and whose failures say nothing of how the writes of requests would do.
func (db *DB) maintain(do call) error {
	if db.breaker.open() {
		return errBreakerOpen // it would only add to what hangs
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*cleanLimit) // see deadline
	defer cancel()
	wait, stopWaiting := db.patience(ctx)
	defer stopWaiting()
	_, err := db.on(ctx, wait, do)
	return err
}

// deadline bounds a call, and unties it from a caller who hangs up: what was
// begun is ended in order, not by tearing down a connection. Nothing of the
// caller's context is in it: a connection keeps the context of its last use while
// it lies idle, and with that of a request a whole configuration that is gone.
func (db *DB) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(db.timeout)
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(deadline) {
		deadline = earlier
	}
	return context.WithDeadline(context.Background(), deadline)
}

// patience bounds the wait for a connection, and what comes before it. It is
// shorter than the call's deadline: when all are held, who waits is told so
// before clients give up.
func (db *DB) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, db.timeout*2/5)
}

// on runs do on a connection for which it waits as long as wait does; broken:
// the connection failed, not the statement.
func (db *DB) on(ctx, wait context.Context, do call) (broken bool, err error) {
	defer func() { db.outcomes.note(broken, err) }()
	conn, err := db.pool.Acquire(wait)
	if err != nil {
		return true, fmt.Errorf("connect to %s: %w", db.hosts, err)
	}
	defer conn.Release()
	if err = do(ctx, conn); errors.Is(err, errReadOnly) {
		_ = conn.Conn().Close(ctx)
	}
	if data := conn.Conn().PgConn().CustomData(); data[unreplicatedKey] != nil {
		delete(data, unreplicatedKey)
		return false, errUnreplicated
	}
	return err != nil && conn.Conn().IsClosed(), err
}

// inTx runs do in a transaction.
func inTx(do func(context.Context, pgx.Tx) error) call {
	return func(ctx context.Context, conn *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return do(ctx, tx) })
	}
}

// wrap names the step; no row is ErrNotFound.
func wrap(step string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		err = issuer.ErrNotFound
	}
	return fmt.Errorf("%s: %w", step, err)
}

// hasCode reports whether the server refused with this SQLSTATE.
func hasCode(err error, code string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == code
}

// rolledBack reports whether the server refused a statement that was a
// transaction of its own, and said so: nothing of it remains.
func rolledBack(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && !brokenBy(pgErr)
}
