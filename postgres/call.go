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
		if err = db.on(ctx, do); broken(err) && ctx.Err() == nil {
			db.pool.Reset() // its idle siblings are most likely dead too
			err = db.on(ctx, do)
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
	err := db.on(ctx, do)
	<-db.writing
	if broken(err) {
		db.pool.Reset()
		if pgconn.SafeToRetry(err) && ctx.Err() == nil { // nothing was sent
			err = db.on(ctx, do)
		}
	}
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

func (db *DB) on(ctx context.Context, do call) error {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", db.hosts, err)
	}
	defer conn.Release()
	err = do(ctx, conn)
	if data := conn.Conn().PgConn().CustomData(); data[unreplicatedKey] != nil {
		delete(data, unreplicatedKey)
		return errUnreplicated
	}
	return err
}

// inTx runs do in a transaction.
func inTx(do func(context.Context, pgx.Tx) error) call {
	return func(ctx context.Context, conn *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return do(ctx, tx) })
	}
}

// broken reports whether the connection, not the statement, failed.
func broken(err error) bool {
	if err == nil || errors.Is(err, pgx.ErrNoRows) || errors.Is(err, errUnreplicated) || isAnswer(err) {
		return false
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return brokenBy(pgErr)
	}
	return true
}

// isAnswer reports whether err is what storage found, not a failure to look.
func isAnswer(err error) bool {
	return errors.Is(err, issuer.ErrNotFound) || errors.Is(err, issuer.ErrReplayed) ||
		errors.Is(err, issuer.ErrSessionLimit) || errors.Is(err, issuer.ErrExists)
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
