package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"
)

const (
	// burstGap keeps a burst of notifications from becoming a burst of polls.
	burstGap = 2 * time.Millisecond
	// Between attempts to connect again.
	firstRetry, lastRetry = 50 * time.Millisecond, 500 * time.Millisecond
	// retryNotOffered is for a server that does not let itself be followed.
	retryNotOffered = 5 * time.Second
)

// viewConn is the view's own connection: one that the requests of a busy pool
// have to wait for would make it stale when it matters.
type viewConn struct {
	*pgx.Conn
	server string    // SQL that tells who answers
	last   *position // of the last poll; nil: none yet
	woken  bool      // by a notification since the last poll was sent
}

// Run follows the revocations until ctx ends. Polling is the truth; NOTIFY only
// wakes it, and may fail silently behind a pooler.
func (v *SessionView) Run(ctx context.Context) {
	retry := firstRetry
	for ctx.Err() == nil {
		polled, err := v.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if polled {
			retry = firstRetry
		}
		v.follower.failed(v.db.logger, err)
		wait := retry
		if notOffered(err) {
			wait = retryNotOffered
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		retry = min(2*retry, lastRetry)
	}
}

// follow polls on one connection until it fails; polled: it worked at all.
func (v *SessionView) follow(ctx context.Context) (polled bool, err error) {
	conn, err := v.connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		hangUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(hangUp)
	}()
	for {
		sent := time.Now()
		conn.woken = false
		if err := v.poll(ctx, conn); err != nil {
			return polled, err
		}
		polled = true
		if err := conn.awaitChange(ctx, v.maxStaleness/4); err != nil {
			return polled, err
		}
		if gap := burstGap - time.Since(sent); gap > 0 {
			time.Sleep(gap)
		}
	}
}

func (v *SessionView) connect(ctx context.Context) (*viewConn, error) {
	conn := &viewConn{}
	config := v.db.pool.Config().ConnConfig
	ctx, cancel := context.WithTimeout(ctx, connectLimit*time.Duration(len(config.Fallbacks)+1))
	defer cancel()
	v.db.prepare(config)
	config.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) { conn.woken = true }
	var err error
	if conn.Conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", v.db.hosts, err)
	}
	if !v.db.pooled.Load() {
		_, err = conn.Exec(ctx, `LISTEN gpt_revocations`)
		if notOffered(err) {
			err = nil // it works without
		}
	}
	if err == nil {
		err = conn.askServer(ctx, v.db.logger)
	}
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// awaitChange returns when a notification came or the next poll is due. One that
// came while the last poll was under way may not have been in its answer.
func (c *viewConn) awaitChange(ctx context.Context, due time.Duration) error {
	if c.woken {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, due)
	defer cancel()
	err := c.PgConn().WaitForNotification(wait)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return nil // nothing came; that is no answer, so poll
	}
	return err
}

// follower is what the view tells of how it follows.
type follower struct {
	mu       sync.Mutex
	server   string
	failure  string
	failures int64
	restarts int64
	restart  string // why it last started over
}

func (f *follower) polled(db *DB, last, now *position, broken string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure != "" {
		db.logger.Info("revocations are followed again", zap.String("server", now.server))
	}
	f.failure = ""
	if broken != "" {
		f.restarts++
		f.restart = broken
		db.logger.Debug("all sessions are read again", zap.String("cause", broken))
	}
	if f.server != "" && f.server != now.server {
		db.logger.Warn("the Postgres server has changed; all sessions are read again", zap.String("before", f.server), zap.String("now", now.server))
		// Connections that lead to the server before must not answer any more.
		db.pool.Reset()
	}
	f.server = now.server
}

func (f *follower) failed(logger *zap.Logger, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures++
	if f.failure == "" { // else it was said
		logger.Warn("revocations cannot be followed; every request reads Postgres until they can", zap.Error(err))
	}
	f.failure = err.Error()
}

// ViewState is what a view tells about itself.
type ViewState struct {
	Fresh        bool          // it decides; otherwise every request reads Postgres
	Staleness    time.Duration // since the last completed poll was sent; 0: never polled
	MaxStaleness time.Duration // beyond it the view is not fresh
	Revocations  int           // sessions that it refuses by itself, about
	Known        int           // sessions that it admits by itself, about
	KnownBytes   uint64        // what these weigh, about
	Reads        int64         // requests so far that it could not decide, so that they read Postgres
	Restarts     int64         // how often it has forgotten all sessions, to be sure
	Restart      string        // why it did last
	Server       string        // which server, in which of its lives, it follows
	Failures     int64         // of polls, so far
	Failure      string        // of the last poll, or ""
}

// State describes the view now.
func (v *SessionView) State() ViewState {
	now := time.Now()
	state := ViewState{
		Fresh: v.isFresh(now), MaxStaleness: v.maxStaleness, Revocations: v.ended.cache.EstimatedSize(),
		Known: v.known.cache.Len(), KnownBytes: uint64(v.known.cache.Bytes()), Reads: v.reads.Load(),
	}
	if f := v.fresh.Load(); f != nil {
		state.Staleness = now.Sub(f.until.Add(-v.maxStaleness))
	}
	v.follower.mu.Lock()
	defer v.follower.mu.Unlock()
	state.Restarts, state.Restart, state.Server = v.follower.restarts, v.follower.restart, v.follower.server
	state.Failures, state.Failure = v.follower.failures, v.follower.failure
	return state
}
