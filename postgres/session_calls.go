package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Days are UTC's, whatever zone node and session have. What happened 30 days ago
// is gone from the sums, and later from the table.
const (
	today    = `(clock_timestamp() AT TIME ZONE 'UTC')::date`
	firstDay = today + ` - 30`
)

type callKey struct {
	session uuid.UUID
	scope   string
}

// maxUnwritten bounds what is kept while the database does not answer.
const maxUnwritten = 200_000

// FlushCalls adds what was counted in Usage to the day it is written on; of each
// session at most once in every. What cannot be written is kept for the next time.
// One caller at a time.
func (u *Upkeep) FlushCalls(ctx context.Context, every time.Duration) error {
	for _, calls := range u.Usage.Take(time.Now(), every) {
		id, ok := parseID(calls.SessionID)
		key := callKey{id, calls.Scope}
		if _, known := u.unwritten[key]; ok && (known || len(u.unwritten) < maxUnwritten) {
			u.unwritten[key] += calls.Count
		}
	}
	for len(u.unwritten) > 0 {
		if err := u.writeCalls(ctx); err != nil {
			return err
		}
	}
	u.unwritten = map[callKey]int64{} // a map keeps the room that it once needed
	return nil
}

// writeCalls writes one batch. Sessions that are gone did nothing. The order of
// rows is the same on every node, so that no two wait for each other.
func (u *Upkeep) writeCalls(ctx context.Context) error {
	var sessions []uuid.UUID
	var scopes []string
	var counts []int64
	for key, count := range u.unwritten {
		if len(sessions) == flushBatch {
			break
		}
		sessions, scopes, counts = append(sessions, key.session), append(scopes, key.scope), append(counts, count)
	}
	err := u.db.write(ctx, "write what sessions did", func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, u.db.sql(`
			INSERT INTO {s}.gpt_session_calls AS c (session_id, day, scope, calls)
			SELECT s.id, `+today+`, n.scope, n.calls
			FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS n (session_id, scope, calls)
			JOIN {s}.gpt_sessions s ON s.id = n.session_id
			ORDER BY s.id, n.scope
			ON CONFLICT (session_id, day, scope) DO UPDATE SET calls = c.calls + excluded.calls`), sessions, scopes, counts)
		return err
	})
	if err != nil {
		return err
	}
	for i := range sessions {
		delete(u.unwritten, callKey{sessions[i], scopes[i]})
	}
	return nil
}
