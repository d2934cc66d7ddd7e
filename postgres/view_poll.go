package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// revocation is one row of gpt_revocations.
type revocation struct {
	session    uuid.UUID
	everything bool // of every session, not one
	ended      bool
	remaining  time.Duration // until no token it concerns is valid
}

// viewPoller is where the view stands in the history of one server.
//
// Rows do not become visible in the order of a sequence: a transaction that
// took its number first may commit last. So each row carries the id of its
// transaction, the poller keeps the whole snapshot of its last poll, and asks
// for the rows of transactions that this snapshot could not see: those that
// were in progress in it, and those that began after it. Nothing is missed, and
// nothing read twice.
type viewPoller struct {
	snapshot *snapshot // nil: nothing loaded yet
	server   string    // who answered: system, timeline, start
	loaded   bool      // the last poll was a load in full
	failure  string
}

// snapshot is a pg_snapshot: "xmin:xmax:xip,xip,...".
type snapshot struct {
	xmax       uint64
	inProgress []string
}

func parseSnapshot(text string) (*snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return nil, fmt.Errorf("unexpected snapshot %q", text)
	}
	xmax, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("unexpected snapshot %q", text)
	}
	s := &snapshot{xmax: xmax, inProgress: []string{}}
	if parts[2] != "" {
		s.inProgress = strings.Split(parts[2], ",")
	}
	return s, nil
}

// pollSQL answers in one statement, and so from one snapshot: the snapshot and
// the server, in a row of their own, then the revocations. After promotion of
// an asynchronous standby transaction ids go back, so each poll asks who
// answers: system, timeline and start of the server. One that takes no writes is
// a standby, or was fenced off, and never counts.
const pollSQL = `
	SELECT pg_current_snapshot()::text,
		concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
			CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
			to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS.US')),
		NULL::uuid, NULL::boolean, NULL::bigint, NOT (` + takesWrites + `)
	UNION ALL
	SELECT NULL, NULL, session_id, ended, ceil(extract(epoch FROM expires_at - clock_timestamp()))::bigint, NULL FROM {s}.gpt_revocations `

const (
	loadSQL   = pollSQL + `WHERE expires_at > clock_timestamp()`
	followSQL = pollSQL + `WHERE xact >= $1::text::xid8 OR xact = ANY ($2::text[]::xid8[])`
)

// loadLimit bounds a load in full, of a million revocations and more.
const loadLimit = 30 * time.Second

// poll brings the view up to date once. A view that was stale is loaded in
// full; a load that itself took too long is followed by what came meanwhile.
func (v *SessionView) poll(ctx context.Context, conn *pgx.Conn) error {
	full := v.poller.snapshot == nil || !v.poller.loaded && !v.isFresh(time.Now())
	limit := v.maxStaleness // a later answer is of no use
	if full {
		limit = loadLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	sent := time.Now()
	answer, err := v.ask(ctx, conn, full)
	if err != nil {
		return err
	}
	if !full && (answer.server != v.poller.server || answer.snapshot.xmax < v.poller.snapshot.xmax) {
		// Another server, or another past of this one.
		v.db.logger.Warn("the Postgres server has changed; loading all revocations",
			zap.String("before", v.poller.server), zap.String("now", answer.server))
		full, sent = true, time.Now()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadLimit)
		defer cancel()
		if answer, err = v.ask(ctx, conn, full); err != nil {
			return err
		}
	}
	v.apply(sent, full, answer.revocations)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.poller = viewPoller{snapshot: answer.snapshot, server: answer.server, loaded: full}
	return nil
}

func (v *SessionView) noteFailure(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.poller.failure, v.poller.loaded = err.Error(), false
}

type pollAnswer struct {
	snapshot    *snapshot
	server      string
	revocations []revocation
}

func (v *SessionView) ask(ctx context.Context, conn *pgx.Conn, full bool) (*pollAnswer, error) {
	sql, args := loadSQL, []any(nil)
	if !full {
		sql, args = followSQL, []any{strconv.FormatUint(v.poller.snapshot.xmax, 10), v.poller.snapshot.inProgress}
	}
	rows, err := conn.Query(ctx, v.db.sql(sql), args...)
	if err != nil {
		return nil, fmt.Errorf("poll revocations: %w", err)
	}
	defer rows.Close()
	answer := &pollAnswer{}
	for rows.Next() {
		var taken, server *string
		var session uuid.NullUUID
		var ended, readOnly *bool
		var seconds *int64
		if err := rows.Scan(&taken, &server, &session, &ended, &seconds, &readOnly); err != nil {
			return nil, fmt.Errorf("poll revocations: %w", err)
		}
		if taken == nil {
			answer.revocations = append(answer.revocations, revocation{
				session: session.UUID, everything: !session.Valid, ended: *ended, remaining: time.Duration(*seconds) * time.Second,
			})
			continue
		}
		if *readOnly {
			return nil, fmt.Errorf("poll revocations: %w", errReadOnly)
		}
		answer.server = *server
		if answer.snapshot, err = parseSnapshot(*taken); err != nil {
			return nil, fmt.Errorf("poll revocations: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("poll revocations: %w", err)
	}
	if answer.snapshot == nil {
		return nil, errors.New("poll revocations: no snapshot in the answer")
	}
	return answer, nil
}

const (
	// burstGap keeps a burst of notifications from becoming a burst of polls.
	burstGap = 2 * time.Millisecond
	// Between attempts to connect again.
	firstRetry, lastRetry = 50 * time.Millisecond, 500 * time.Millisecond
)

// Run follows the revocations until ctx ends. Polling is the truth; NOTIFY only
// wakes it, and may fail silently behind a pooler. The connection is the view's
// own: one that the requests of a busy pool have to wait for would make it
// stale when it matters.
func (v *SessionView) Run(ctx context.Context) {
	retry := firstRetry
	for ctx.Err() == nil {
		polled, err := v.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if polled {
			retry = firstRetry
			v.db.logger.Warn("lost the connection that follows revocations; requests read Postgres until it is back", zap.Error(err))
		}
		v.noteFailure(err)
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
}

// follow polls on one connection until it fails; polled: it worked at all.
func (v *SessionView) follow(ctx context.Context) (polled bool, err error) {
	dial, cancel := context.WithTimeout(ctx, v.db.timeout)
	defer cancel()
	config := v.db.pool.Config().ConnConfig
	v.db.prepare(config)
	conn, err := pgx.ConnectConfig(dial, config)
	if err != nil {
		return false, fmt.Errorf("connect to %s: %w", v.db.hosts, err)
	}
	defer func() {
		hangUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(hangUp)
	}()
	if !v.db.pooled.Load() {
		if _, err := conn.Exec(dial, `LISTEN gpt_revocations`); err != nil {
			return false, fmt.Errorf("listen: %w", err)
		}
	}
	for {
		last := time.Now()
		if err := v.poll(ctx, conn); err != nil {
			return polled, err
		}
		polled = true
		if !v.isFresh(time.Now()) {
			continue // the load took long; catch up at once
		}
		if err := v.awaitChange(ctx, conn); err != nil {
			return polled, err
		}
		if gap := burstGap - time.Since(last); gap > 0 {
			time.Sleep(gap)
		}
	}
}

// awaitChange returns when a notification came or the next poll is due.
func (v *SessionView) awaitChange(ctx context.Context, conn *pgx.Conn) error {
	wait, cancel := context.WithTimeout(ctx, v.maxStaleness/4)
	defer cancel()
	_, err := conn.WaitForNotification(wait)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return nil // nothing came; that is no answer, so poll
	}
	return err
}
