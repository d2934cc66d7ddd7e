package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/issuer"
)

const (
	feedBatch = 50
	// feedOverlap is how far the clocks of two servers, and transactions that take
	// long, may reach back when a cursor is set by time.
	feedOverlap = 5 * time.Minute
	// feedSlack is how late the upkeep may be.
	feedSlack = 10 * time.Minute
)

// EventFeed implements issuer.EventFeed. ADR 36.
type EventFeed struct {
	db     *DB
	upkeep *Upkeep
}

// NewEventFeed returns the feed of db. upkeep knows how long events are kept.
func NewEventFeed(db *DB, upkeep *Upkeep) *EventFeed { return &EventFeed{db, upkeep} }

// placeSQL tells this table from its copy elsewhere; a standby that was promoted
// has the same.
const placeSQL = `(SELECT oid::text FROM pg_database WHERE datname = current_database()) || '/' || '{s}.gpt_oauth_events'::regclass::oid::text`

// afterCursor is a condition of events e behind the cursor c.
const afterCursor = `e.xact IS NOT NULL AND (e.xact, e.created_at, e.id) > (c.xact, c.created_at, c.event_id)`

// lookSQL reads how the cursor stands, without writing: mostly there is nothing to
// do. Only what was written below the horizon can go: whoever writes there has
// ended, so that nothing comes in before it later.
const lookSQL = `SELECT c.place = ` + placeSQL + ` AND c.xact <= pg_snapshot_xmax(pg_current_snapshot()), c.seen_at, now(), e.created_at,
		coalesce(e.xact < pg_snapshot_xmin(pg_current_snapshot()), false)
	FROM {s}.gpt_event_cursors c
	LEFT JOIN LATERAL (SELECT e.xact, e.created_at FROM {s}.gpt_oauth_events e WHERE ` + afterCursor + ` ORDER BY e.xact, e.created_at, e.id LIMIT 1) e ON true
	WHERE c.destination = $1`

// leaseSQL takes the lease, or keeps it. One that reaches far ahead is of a clock
// that was set back.
const leaseSQL = `UPDATE {s}.gpt_event_cursors SET lease_holder = $2, lease_until = clock_timestamp() + make_interval(secs => $3::float8)
	WHERE destination = $1 AND (lease_holder IS NULL OR lease_holder = $2 OR lease_until < clock_timestamp() OR lease_until > clock_timestamp() + make_interval(secs => 2 * $3::float8))
	RETURNING ` + startedSQL

const batchSQL = `SELECT e.xact::text, ` + auditEventSQL + `
	FROM {s}.gpt_event_cursors c JOIN {s}.gpt_oauth_events e ON ` + afterCursor + ` AND e.xact < pg_snapshot_xmin(pg_current_snapshot())
	WHERE c.destination = $1 ORDER BY e.xact, e.created_at, e.id LIMIT $2`

// NextEvents implements issuer.EventFeed.
func (f *EventFeed) NextEvents(ctx context.Context, destination string, holder uuid.UUID, lease time.Duration) (batch issuer.EventBatch, err error) {
	here, mine := true, true
	step := func(ctx context.Context, conn *pgxpool.Conn) error {
		// 1. Is there anything?
		var ready bool
		var seen time.Time
		var oldest *time.Time
		look := func() error {
			return conn.QueryRow(ctx, f.db.sql(lookSQL), destination).Scan(&here, &seen, &batch.Now, &oldest, &ready)
		}
		err := look()
		if errors.Is(err, pgx.ErrNoRows) {
			if err = f.begin(ctx, conn, destination); err == nil {
				err = look()
			}
		}
		switch {
		case err != nil || !here:
			return err
		case oldest == nil:
			return f.idle(ctx, conn, destination, seen, batch.Now)
		}
		if batch.Oldest = *oldest; !ready {
			return nil
		}
		if keep := time.Duration(f.upkeep.keepEvents.Load()); keep != 0 && batch.Now.Sub(seen) > keep+feedSlack {
			batch.GoneSince, batch.GoneBefore = seen, batch.Now.Add(-keep)
		}
		// 2. It is ours, and what it is, of one server.
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) (err error) {
			mine, err = f.take(ctx, tx, destination, holder, lease, &batch)
			return err
		})
	}
	if err = f.db.maintain(step); err == nil && !here {
		if err = f.moved(ctx, destination); err == nil {
			err = f.db.maintain(step)
		}
	}
	if err == nil && !mine {
		err = issuer.ErrNotSender
	}
	return batch, wrap("read the next events", err)
}

// take returns false if another node sends.
func (f *EventFeed) take(ctx context.Context, tx pgx.Tx, destination string, holder uuid.UUID, lease time.Duration, batch *issuer.EventBatch) (mine bool, err error) {
	err = tx.QueryRow(ctx, f.db.sql(leaseSQL), destination, holder, lease.Seconds()).Scan(&batch.Server)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	rows, err := tx.Query(ctx, f.db.sql(batchSQL), destination, feedBatch)
	if err != nil {
		return false, err
	}
	batch.Events, batch.Transactions = nil, nil
	var event issuer.AuditEvent
	var xact string
	_, err = pgx.ForEachRow(rows, append([]any{&xact}, auditEvent(&event)...), func() error {
		batch.Events, batch.Transactions = append(batch.Events, event), append(batch.Transactions, xact)
		event.Metadata = nil // the next row's is its own
		return nil
	})
	return true, err
}

// EventsTaken implements issuer.EventFeed. A server that was promoted meanwhile may
// give the transactions of the one before to others, so that nothing of it is
// written there.
func (f *EventFeed) EventsTaken(ctx context.Context, destination string, holder uuid.UUID, batch issuer.EventBatch, n int, lease time.Duration) error {
	sql := `UPDATE {s}.gpt_event_cursors SET lease_holder = CASE WHEN $4::float8 > 0 THEN lease_holder END, lease_until = clock_timestamp() + make_interval(secs => $4::float8)`
	args := []any{destination, holder, batch.Server, lease.Seconds()}
	if n > 0 {
		last := &batch.Events[n-1]
		sql += `, xact = $5::text::xid8, created_at = $6::timestamptz, event_id = $7::text::uuid, seen_at = least($6::timestamptz, clock_timestamp())`
		args = append(args, batch.Transactions[n-1], last.At, last.ID)
	}
	var noted int64
	err := f.db.maintain(func(ctx context.Context, conn *pgxpool.Conn) error {
		tag, err := conn.Exec(ctx, f.db.sql(sql+` WHERE destination = $1 AND lease_holder = $2 AND $3 = `+startedSQL), args...)
		noted = tag.RowsAffected()
		return err
	})
	if err == nil && noted == 0 {
		err = issuer.ErrNotSender
	}
	return wrap("note which events were taken", err)
}

// begin sets the cursor of a destination that is new behind what there is.
func (f *EventFeed) begin(ctx context.Context, conn *pgxpool.Conn, destination string) error {
	_, err := conn.Exec(ctx, f.db.sql(`INSERT INTO {s}.gpt_event_cursors (destination, place, xact)
		VALUES ($1, `+placeSQL+`, pg_snapshot_xmin(pg_current_snapshot())) ON CONFLICT DO NOTHING`), destination)
	return err
}

// idle notes that all has gone, now and then, for a server that knows nothing but
// the time.
func (f *EventFeed) idle(ctx context.Context, conn *pgxpool.Conn, destination string, seen, now time.Time) error {
	if now.Sub(seen).Abs() < time.Minute {
		return nil
	}
	_, err := conn.Exec(ctx, f.db.sql(`UPDATE {s}.gpt_event_cursors SET seen_at = $2 WHERE destination = $1 AND seen_at = $3`), destination, now, seen)
	return err
}

// moved sets the cursor of a table that came from another server, as an import or
// out of a dump: its transactions mean nothing here. What was written after all
// that had surely gone becomes this transaction's and goes, some of it again; what
// went before is never taken for new.
func (f *EventFeed) moved(ctx context.Context, destination string) error {
	return f.db.long(ctx, "find the place in the audit trail again", pgx.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		var since time.Time
		err := tx.QueryRow(ctx, f.db.sql(`SELECT seen_at - make_interval(secs => $2::float8) FROM {s}.gpt_event_cursors
			WHERE destination = $1 AND NOT (place = `+placeSQL+` AND xact <= pg_snapshot_xmax(pg_current_snapshot())) FOR UPDATE`), destination, feedOverlap.Seconds()).Scan(&since)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // another node did
		}
		for _, step := range []struct {
			sql  string
			args []any
		}{
			{`UPDATE {s}.gpt_oauth_events SET xact = pg_current_xact_id() WHERE created_at >= $1`, []any{since}},
			{`UPDATE {s}.gpt_oauth_events SET xact = NULL WHERE xact >= pg_snapshot_xmax(pg_current_snapshot()) AND xact <> pg_current_xact_id()`, nil},
			{`UPDATE {s}.gpt_event_cursors SET place = ` + placeSQL + `, xact = pg_current_xact_id(), created_at = '-infinity', event_id = '00000000-0000-0000-0000-000000000000',
				lease_holder = NULL WHERE destination = $1`, []any{destination}},
		} {
			if err == nil {
				_, err = tx.Exec(ctx, f.db.sql(step.sql), step.args...)
			}
		}
		if err != nil {
			return err
		}
		f.db.logger.Warn("the audit trail came from another server; events since then go to the webhook, some perhaps again", zap.String("webhook", destination), zap.Time("since", since))
		return nil
	})
}
