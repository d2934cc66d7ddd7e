package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// cleanBatch bounds what one transaction removes, and with it how long it
	// holds the rows' locks.
	cleanBatch = 1000
	// cleanFor bounds a pass; what is left waits for the next one.
	cleanFor = 20 * time.Second
	// cleanWait bounds the wait for a lock that somebody else holds, cleanLimit a
	// statement; both by the server, so that nothing goes on after we gave up.
	cleanWait, cleanLimit = 200 * time.Millisecond, 5 * time.Second

	// DefaultKeepEvents is how long the audit trail is kept.
	DefaultKeepEvents = 365 * 24 * time.Hour

	endedLongAgo   = `now() - interval '30 days'`
	expiredLongAgo = `now() - interval '1 hour'` // codes and logins
	keepNeverUsed  = `interval '1 day'`          // clients that registered themselves
)

// cleanUp says which rows of a table are of no more use: those whose time has
// come. They are removed in its order, so that a batch begins where the last one
// ended and does not step over what that one removed.
type cleanUp struct {
	table string
	// due is what an index has. It is compared with now(): a clock that goes on
	// within a statement is not looked up in an index.
	due   string
	until string // those that are due before this time go, in SQL; "": now()
	and   string // a further condition
	// arg is $3 in these two.
	arg func(*Upkeep) any
	// client: it is the client that is removed, and the row with it.
	client bool
}

// cleanUps go over all tables whose rows expire.
var cleanUps = []cleanUp{
	{table: "gpt_authorization_codes", due: "expires_at", until: expiredLongAgo, and: `NOT adopted`},
	{table: "gpt_authorization_codes", due: "expires_at", until: `'infinity'`, and: `NOT adopted AND ` + fromTheFuture},
	{table: "gpt_device_codes", due: "expires_at", until: expiredLongAgo},
	{table: "gpt_device_codes", due: "expires_at", until: `'infinity'`, and: fromTheFuture},
	{table: "gpt_pushed_requests", due: "expires_at"},
	{table: "gpt_client_assertions", due: "expires_at"},
	{table: "gpt_dpop_proofs", due: "expires_at"},
	{table: "gpt_used_once", due: "expires_at"},
	{table: "gpt_rates", due: "whole_at"}, // without an index, which would have to follow each exchange: it has what a minute left
	{table: "gpt_password_resets", due: "expires_at"},
	{table: "gpt_logins", due: "expires_at", until: expiredLongAgo},
	{table: "gpt_sessions", due: "expires_at", until: endedLongAgo},
	// Once every view has heard of it: the database's clock may jump, so that a
	// revocation of this moment seems to have expired. One that was copied from
	// another server is told by the id of its transaction, which has not begun.
	{table: "gpt_revocations", due: "expires_at", and: `(pg_visible_in_snapshot(xact, $3::text::pg_snapshot) OR xact >= pg_snapshot_xmax(pg_current_snapshot()))`,
		arg: func(u *Upkeep) any { return cmp.Or(u.heard.snapshot, "1:1:") }},
	// What the system that went before had written is its owner's to remove.
	{table: "gpt_oauth_events", due: "created_at", until: `now() - make_interval(secs => $3::float8)`,
		and: `created_at > (SELECT applied_at FROM {s}.gpt_schema_migrations WHERE version = 2)`,
		arg: func(u *Upkeep) any { return time.Duration(u.keepEvents.Load()).Seconds() }},
	{table: "gpt_client_approvals", due: "approved_at", until: endedLongAgo,
		and: `NOT EXISTS (SELECT FROM {s}.gpt_sessions s WHERE s.client_id = r.client_id AND s.user_id = r.user_id)`},
	{table: "gpt_session_calls", due: "day", until: `(now() AT TIME ZONE 'UTC')::date - 29`}, // see firstDay
	unusedClients("gpt_client_registrations"),
	unusedClients("gpt_client_documents"),
}

// fromTheFuture are codes of before the clock was set back: it must not come to
// their time again while they are there.
const fromTheFuture = `expires_at > now() AND created_at > now() + interval '1 minute'`

// unusedClients are clients that registered themselves and that nobody has used
// for their unused_ttl; those that no user ever allowed, after a day. A client
// that is in use is never among them, nor one that was disabled: a document would
// come back enabled.
func unusedClients(table string) cleanUp {
	return cleanUp{table: table, due: "coalesce(used_at, issued_at)", client: true, and: `
		coalesce(used_at + unused_ttl, issued_at + least(unused_ttl, ` + keepNeverUsed + `)) < now()
		AND EXISTS (SELECT FROM {s}.gpt_clients c WHERE c.client_id = r.client_id AND c.disabled_at IS NULL)
		AND NOT EXISTS (SELECT FROM {s}.gpt_sessions s WHERE s.client_id = r.client_id AND ((` + live + `) OR s.last_active > now() - r.unused_ttl))`}
}

// find is SQL that locks up to $1 rows that are due at $2 or later, but for those
// that somebody else holds.
func (c *cleanUp) find() string {
	key := "ctid"
	if c.client {
		key = "client_id"
	}
	condition := c.due + ` >= $2::timestamptz AND ` + c.due + ` < ` + cmp.Or(c.until, "now()")
	if c.and != "" {
		condition += " AND " + c.and
	}
	return `SELECT ` + key + `::text, ` + c.due + `::timestamptz FROM {s}.` + c.table + ` r
		WHERE ` + condition + ` ORDER BY ` + c.due + ` LIMIT $1 FOR UPDATE OF r SKIP LOCKED`
}

// remove is SQL that removes the rows of these keys.
func (c *cleanUp) remove() string {
	if c.client {
		return `DELETE FROM {s}.gpt_clients WHERE client_id = ANY ($1::text[])`
	}
	return `DELETE FROM {s}.` + c.table + ` WHERE ctid = ANY ($1::text[]::tid[])`
}

// KeepEvents sets how long the audit trail is kept; 0: for ever.
func (u *Upkeep) KeepEvents(d time.Duration) { u.keepEvents.Store(int64(d)) }

// errCleanedElsewhere ends a pass: another node is at it, and goes over every
// table. Who went on instead would be in that node's way, and both would leave
// what the other one had just locked.
var errCleanedElsewhere = errors.New("another node cleans up")

// Clean removes expired rows in batches, of one table after the other in turn, so
// that one with many does not keep the others waiting. One node at a time does
// it, and no lock is held longer than a batch takes.
func (u *Upkeep) Clean(ctx context.Context) (err error) {
	defer func() {
		if err == nil {
			u.outcomes.clean()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, cleanFor)
	defer cancel()
	var errs []error
	if err := u.heard.move(ctx, u.db); err != nil {
		errs = append(errs, fmt.Errorf("clean up: %w", err))
	}
	passes := make([]*cleanPass, 0, len(cleanUps))
	for i := range cleanUps {
		if cleanUps[i].table == "gpt_oauth_events" && u.keepEvents.Load() == 0 {
			continue
		}
		passes = append(passes, &cleanPass{cleanUp: &cleanUps[i], from: pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}})
	}
	for len(passes) > 0 && ctx.Err() == nil {
		unfinished := passes[:0]
		for _, p := range passes {
			more, err := u.cleanBatch(ctx, p)
			if errors.Is(err, errCleanedElsewhere) {
				return errors.Join(errs...)
			}
			if err != nil && ctx.Err() == nil {
				errs = append(errs, fmt.Errorf("clean up %s: %w", p.table, err))
			}
			if more {
				unfinished = append(unfinished, p)
			}
		}
		passes = unfinished
	}
	return errors.Join(errs...)
}

// cleanPass is a pass over one table.
type cleanPass struct {
	*cleanUp
	from pgtype.Timestamptz // where the next batch begins
}

// cleanSQL begins a batch. It keeps the statements after it to the indexes, that
// every table has for this: the planner would read a table of sessions whose
// statistics say that most are one client's, once for each client.
const cleanSQL = `SELECT pg_try_advisory_xact_lock(hashtext($1), hashtext('upkeep'))
	FROM set_config('lock_timeout', $2, true) AS wait, set_config('statement_timeout', $3, true) AS length, set_config('enable_seqscan', 'off', true) AS plan`

// cleanBatch removes one batch; more: another one may be there. A batch that
// cannot be removed, as somebody holds what refers to it, is left for the next
// pass; the ones after it are not.
func (u *Upkeep) cleanBatch(ctx context.Context, p *cleanPass) (more bool, err error) {
	var keys []string
	var mine bool
	err = u.db.maintain(inTx(func(ctx context.Context, tx pgx.Tx) error {
		keys = nil
		err := tx.QueryRow(ctx, cleanSQL, "gpt:"+u.db.schema, cleanWait.String(), cleanLimit.String()).Scan(&mine)
		if err != nil || !mine {
			return err
		}
		args := []any{cleanBatch, p.from}
		if p.arg != nil {
			args = append(args, p.arg(u))
		}
		rows, err := tx.Query(ctx, u.db.sql(p.find()), args...)
		if err != nil {
			return err
		}
		var key string
		_, err = pgx.ForEachRow(rows, []any{&key, &p.from}, func() error {
			keys = append(keys, key)
			return nil
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		_, err = tx.Exec(ctx, u.db.sql(p.remove()), keys)
		return err
	}))
	switch {
	case err == nil && !mine:
		err = errCleanedElsewhere
	case err == nil:
		u.outcomes.removed.Add(int64(len(keys)))
	}
	return len(keys) == cleanBatch, err
}

// horizon is what every view has heard of: the transactions that had ended by a
// snapshot which is older than any view that is still fresh. A view that is not
// reads everything again.
type horizon struct {
	snapshot string // "": not known yet
	next     string // what it will be
	at       time.Time
}

// heardAfter is longer than a view is ever fresh.
const heardAfter = 2 * time.Minute

func (h *horizon) move(ctx context.Context, db *DB) error {
	if !h.at.IsZero() && time.Since(h.at) < heardAfter {
		return nil
	}
	var taken string
	err := db.maintain(func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&taken)
	})
	if err != nil {
		return err
	}
	h.snapshot, h.next, h.at = h.next, taken, time.Now()
	return nil
}
