package postgres

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/validator"
)

const (
	touchEvery = time.Minute // at most, for one session
	callsEvery = time.Minute // at most, for one session
	flushEvery = 10 * time.Second
	cleanEvery = time.Minute
	flushBatch = 1000
	maxTouched = 100_000 // sessions remembered; beyond it last_active lags
)

// Upkeep writes last_active and what sessions did, and removes what has expired.
type Upkeep struct {
	// Usage counts what sessions do; see FlushCalls.
	Usage *validator.Usage

	db *DB

	started time.Time

	mu      sync.Mutex
	seen    map[uuid.UUID]time.Duration // when it was last noted, since started: a map without pointers
	pending []uuid.UUID

	unwritten map[callKey]int64 // taken from Usage

	keepEvents atomic.Int64 // a duration; see KeepEvents
	heard      horizon      // of revocations; Clean's alone
	outcomes   upkeepOutcomes
}

// NewUpkeep returns the upkeep of db. Run does its work.
func NewUpkeep(db *DB) *Upkeep {
	u := &Upkeep{Usage: new(validator.Usage), db: db, started: time.Now(), seen: map[uuid.UUID]time.Duration{}, unwritten: map[callKey]int64{}}
	u.KeepEvents(DefaultKeepEvents)
	return u
}

// Touch notes that a session was active. It never blocks on the database.
func (u *Upkeep) Touch(sessionID string) {
	id, ok := parseID(sessionID)
	if !ok {
		return
	}
	now := time.Since(u.started)
	u.mu.Lock()
	defer u.mu.Unlock()
	last, known := u.seen[id]
	if known && now-last < touchEvery || !known && len(u.seen) >= maxTouched {
		return
	}
	u.seen[id] = now
	u.pending = append(u.pending, id)
}

// Run works until ctx ends, then writes what is pending.
func (u *Upkeep) Run(ctx context.Context) {
	flush, clean := time.NewTicker(flushEvery), time.NewTicker(cleanEvery)
	defer flush.Stop()
	defer clean.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			ctx := context.WithoutCancel(ctx)
			if err := errors.Join(u.Flush(ctx), u.FlushCalls(ctx, 0)); err != nil {
				u.db.logger.Warn("write what sessions did last", zap.Error(err))
			}
			return
		case <-flush.C:
			err = errors.Join(u.Flush(ctx), u.FlushCalls(ctx, callsEvery))
		case <-clean.C:
			err = u.Clean(ctx)
		}
		if err != nil && ctx.Err() == nil {
			u.outcomes.fail(err)
			u.db.logger.Warn("upkeep", zap.Error(err))
		}
	}
}

// Flush writes last_active of the sessions noted since. Rows that somebody else
// holds are left for the next time.
func (u *Upkeep) Flush(ctx context.Context) error {
	u.mu.Lock()
	pending := u.pending
	u.pending = nil
	for id, at := range u.seen {
		if time.Since(u.started)-at >= touchEvery {
			delete(u.seen, id)
		}
	}
	u.mu.Unlock()
	for len(pending) > 0 {
		n := min(len(pending), flushBatch)
		err := u.db.write(ctx, "write last_active", func(ctx context.Context, conn *pgxpool.Conn) error {
			_, err := conn.Exec(ctx, u.db.sql(`
				UPDATE {s}.gpt_sessions s SET last_active = clock_timestamp()
				FROM (SELECT id FROM unnest($1::uuid[]) AS seen JOIN {s}.gpt_sessions a ON a.id = seen
					WHERE revoked_at IS NULL AND last_active < clock_timestamp() - interval '30 seconds'
					FOR NO KEY UPDATE OF a SKIP LOCKED) t WHERE s.id = t.id`), pending[:n])
			return err
		})
		if err != nil {
			return err
		}
		pending = pending[n:]
	}
	return nil
}
