package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// Why a call failed without being sent.
var (
	errBreakerOpen  = errors.New("the database did not answer the last writes; not asked again yet")
	errUnreplicated = errors.New("the commit was not confirmed by the synchronous standby")
)

type call func(ctx context.Context, conn *pgxpool.Conn) error

// read runs an idempotent read; on a broken connection it is tried once more.
func (db *DB) read(ctx context.Context, step string, do call) error {
	err := ctx.Err()
	if err == nil {
		ctx, cancel := db.deadline(ctx)
		defer cancel()
		var broken bool
		if broken, err = db.on(ctx, do); broken && ctx.Err() == nil {
			db.pool.Reset() // its idle siblings are most likely dead too
			_, err = db.on(ctx, do)
		}
	}
	return wrap(step, err)
}

// write runs a step that commits. It always answers within the deadline, also
// when COMMIT hangs, which no setting of the server bounds; then the outcome is
// unknown and nothing is retried. What hangs is at most the pool's connections,
// and after a few such writes one at a time is let through.
func (db *DB) write(ctx context.Context, step string, do call) error {
	if err := ctx.Err(); err != nil {
		return wrap(step, err)
	}
	ctx, cancel := db.deadline(ctx)
	defer cancel()
	probe, ok := db.breaker.enter(time.Now())
	if !ok {
		return wrap(step, errBreakerOpen)
	}
	select {
	case db.writing <- struct{}{}:
	case <-ctx.Done():
		db.breaker.leave(probe, nil, time.Now())
		return wrap(step, fmt.Errorf("too many writes at once: %w", ctx.Err()))
	}
	broken, err := db.on(ctx, do)
	if broken && ctx.Err() == nil {
		db.pool.Reset()
		if pgconn.SafeToRetry(err) { // nothing was sent
			_, err = db.on(ctx, do)
		}
	}
	<-db.writing
	db.breaker.leave(probe, ctx.Err(), time.Now())
	return wrap(step, err)
}

// deadline bounds a call, and unties it from a caller who hangs up: what was
// begun is ended in order, not by tearing down a connection.
func (db *DB) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(db.timeout)
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(deadline) {
		deadline = earlier
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline)
}

// on runs do on a connection; broken: the connection failed, not the statement.
// The wait for a free one is shorter than the call's deadline: when all are
// held, who waits is told so before clients give up.
func (db *DB) on(ctx context.Context, do call) (broken bool, err error) {
	wait, cancel := context.WithTimeout(ctx, db.timeout/2)
	conn, err := db.pool.Acquire(wait)
	cancel()
	if err != nil {
		return true, fmt.Errorf("connect to %s: %w", db.hosts, err)
	}
	defer conn.Release()
	err = do(ctx, conn)
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

const (
	// breakAfter timeouts in a row, writes are let through one at a time, so
	// that retries cannot pile up backends that wait for a dead standby.
	breakAfter = 3
	probeEvery = 500 * time.Millisecond
)

type breaker struct {
	mu      sync.Mutex
	failed  int
	probing bool
	next    time.Time
}

// enter reports whether a write may go ahead, and whether it is the one that
// finds out if the server answers again.
func (b *breaker) enter(now time.Time) (probe, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed < breakAfter {
		return false, true
	}
	if b.probing || now.Before(b.next) {
		return false, false
	}
	b.probing = true
	return true, true
}

// leave tells the breaker how the write ended; timeout is its context's error.
func (b *breaker) leave(probe bool, timeout error, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	if timeout == nil {
		b.failed = 0
		return
	}
	b.failed++
	b.next = now.Add(probeEvery)
}
