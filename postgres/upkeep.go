package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/validator"
)

const (
	touchEvery  = time.Minute // at most, for one session
	callsEvery  = time.Minute // at most, for one token
	flushEvery  = 10 * time.Second
	cleanEvery  = time.Minute
	cleanBatch  = 1000
	maxTouched  = 100_000 // sessions remembered; beyond it last_active lags
	keepEnded   = "30 days"
	keepExpired = "1 hour" // codes and logins

	keepNeverUsed = "1 day" // clients that registered themselves
)

// fromTheFuture are codes of before the clock was set back: it must not come to
// their time again while they are there.
const fromTheFuture = `created_at > clock_timestamp() + interval '1 minute'`

// unusedClientsSQL removes clients that registered themselves and that nobody
// has used for their unused_ttl; those that no user ever allowed, after a day. A
// client that is in use is never among them.
func unusedClientsSQL(table string) string {
	return `DELETE FROM {s}.gpt_clients WHERE client_id IN (SELECT r.client_id FROM {s}.` + table + ` r
			JOIN {s}.gpt_clients c ON c.client_id = r.client_id AND c.disabled_at IS NULL -- else a document would come back enabled
		WHERE coalesce(r.used_at + r.unused_ttl, r.issued_at + least(r.unused_ttl, interval '` + keepNeverUsed + `')) < clock_timestamp()
			AND NOT EXISTS (SELECT FROM {s}.gpt_sessions s WHERE s.client_id = r.client_id
				AND ((` + live + `) OR s.last_active > clock_timestamp() - r.unused_ttl))
		LIMIT $1 FOR UPDATE OF r SKIP LOCKED)`
}

// Upkeep writes last_active and what sessions did, and removes what has expired.
type Upkeep struct {
	// Usage counts what sessions do; see FlushCalls.
	Usage *validator.Usage

	db *DB

	mu      sync.Mutex
	seen    map[uuid.UUID]time.Time // when it was last noted
	pending []uuid.UUID

	unwritten map[callKey]int64 // taken from Usage
}

// NewUpkeep returns the upkeep of db. Run does its work.
func NewUpkeep(db *DB) *Upkeep {
	return &Upkeep{Usage: new(validator.Usage), db: db, seen: map[uuid.UUID]time.Time{}, unwritten: map[callKey]int64{}}
}

// Touch notes that a session was active. It never blocks on the database.
func (u *Upkeep) Touch(sessionID string) {
	id, ok := parseID(sessionID)
	if !ok {
		return
	}
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	last, known := u.seen[id]
	if known && now.Sub(last) < touchEvery || !known && len(u.seen) >= maxTouched {
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
		if time.Since(at) >= touchEvery {
			delete(u.seen, id)
		}
	}
	u.mu.Unlock()
	for len(pending) > 0 {
		n := min(len(pending), cleanBatch)
		err := u.db.write(ctx, "write last_active", func(ctx context.Context, conn *pgxpool.Conn) error {
			_, err := conn.Exec(ctx, u.db.sql(`
				UPDATE {s}.gpt_sessions s SET last_active = clock_timestamp()
				FROM (SELECT id FROM {s}.gpt_sessions WHERE id = ANY($1) AND revoked_at IS NULL AND last_active < clock_timestamp() - interval '30 seconds'
					FOR NO KEY UPDATE SKIP LOCKED) t WHERE s.id = t.id`), pending[:n])
			return err
		})
		if err != nil {
			return err
		}
		pending = pending[n:]
	}
	return nil
}

// Clean removes expired rows in batches; one node at a time does it, and no
// lock is held longer than a batch takes.
func (u *Upkeep) Clean(ctx context.Context) error {
	for _, sql := range []string{
		`DELETE FROM {s}.gpt_authorization_codes WHERE id IN (SELECT id FROM {s}.gpt_authorization_codes WHERE NOT adopted AND (expires_at < clock_timestamp() - interval '` + keepExpired + `' OR ` + fromTheFuture + `) LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM {s}.gpt_device_codes WHERE id IN (SELECT id FROM {s}.gpt_device_codes WHERE expires_at < clock_timestamp() - interval '` + keepExpired + `' OR ` + fromTheFuture + ` LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM {s}.gpt_pushed_requests WHERE digest IN (SELECT digest FROM {s}.gpt_pushed_requests WHERE expires_at < clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM {s}.gpt_client_assertions WHERE (client_id, jti_hash) IN (SELECT client_id, jti_hash FROM {s}.gpt_client_assertions WHERE expires_at < clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM {s}.gpt_dpop_proofs WHERE digest IN (SELECT digest FROM {s}.gpt_dpop_proofs WHERE expires_at < clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM {s}.gpt_used_once WHERE (purpose, digest) IN (SELECT purpose, digest FROM {s}.gpt_used_once WHERE expires_at < clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM {s}.gpt_logins WHERE id IN (SELECT id FROM {s}.gpt_logins WHERE expires_at < clock_timestamp() - interval '` + keepExpired + `' LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM {s}.gpt_sessions WHERE id IN (SELECT id FROM {s}.gpt_sessions WHERE expires_at < clock_timestamp() - interval '` + keepEnded + `' LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		unusedClientsSQL("gpt_client_registrations"),
		unusedClientsSQL("gpt_client_documents"),
		`DELETE FROM {s}.gpt_client_approvals WHERE (client_id, user_id) IN (SELECT client_id, user_id FROM {s}.gpt_client_approvals a
			WHERE approved_at < clock_timestamp() - interval '` + keepEnded + `' AND NOT EXISTS (SELECT FROM {s}.gpt_sessions s WHERE s.client_id = a.client_id AND s.user_id = a.user_id)
			LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM {s}.gpt_session_calls WHERE (session_id, day, scope) IN (SELECT session_id, day, scope FROM {s}.gpt_session_calls WHERE day <= ` + firstDay + ` LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM {s}.gpt_revocations WHERE id IN (SELECT id FROM {s}.gpt_revocations WHERE expires_at < clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)`,
	} {
		for {
			var removed int64
			err := u.db.write(ctx, "clean up", inTx(func(ctx context.Context, tx pgx.Tx) error {
				var mine bool
				if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(hashtext($1), hashtext('upkeep'))`, "gpt:"+u.db.schema).Scan(&mine); err != nil || !mine {
					return err
				}
				tag, err := tx.Exec(ctx, u.db.sql(sql), cleanBatch)
				removed = tag.RowsAffected()
				return err
			}))
			if err != nil {
				return fmt.Errorf("upkeep: %w", err)
			}
			if removed < cleanBatch {
				break
			}
		}
	}
	return nil
}
