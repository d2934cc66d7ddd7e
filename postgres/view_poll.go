package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// revocation is one row of gpt_revocations.
type revocation struct {
	session    uuid.UUID
	everything bool // of every session, not one
	ended      bool
	remaining  time.Duration // until no token it concerns is valid
}

// position is where a view stands in the history of one server.
//
// Rows do not become visible in the order of a sequence: a transaction that
// took its number first may commit last. So each row carries the id of its
// transaction, the view keeps the whole snapshot of its last poll, and asks
// for the rows of transactions that this snapshot could not see: those that
// were in progress in it, and those that began after it. Nothing is missed, and
// nothing read twice.
type position struct {
	snapshot
	server  string    // who answered, in words
	started int64     // the same for comparison with reads: see startedSQL
	backend time.Time // when the process that answered was started, by the server's clock
	at      time.Time // when it answered, by the same clock
}

// snapshot is a pg_snapshot: "xmin:xmax:xip,xip,...".
type snapshot struct {
	xmax       uint64
	inProgress []string
}

func parseSnapshot(text string) (snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return snapshot{}, fmt.Errorf("unexpected snapshot %q", text)
	}
	xmax, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return snapshot{}, fmt.Errorf("unexpected snapshot %q", text)
	}
	s := snapshot{xmax: xmax, inProgress: []string{}}
	if parts[2] != "" {
		s.inProgress = strings.Split(parts[2], ",")
	}
	return s, nil
}

// brokenAfter says why what p has seen does not simply go on from last, or "".
// Then revocations may have been missed: all sessions are to be read again.
func (p *position) brokenAfter(last *position) string {
	switch {
	case last == nil:
		return "a new connection"
	case p.started != last.started || p.server != last.server:
		return "another server, or another life of it"
	case p.xmax < last.xmax:
		return "transaction ids went back"
	case p.backend.After(last.at):
		// After a crash the server gives out transaction ids again that it had not
		// written down. A process that is older than the last poll has seen no
		// crash; behind a pooler another one may answer.
		return "a new process of the server"
	}
	return ""
}

// maxFollowed bounds what one poll takes in. Beyond it, all sessions are read
// again as they are asked for, which costs less than to hear of each.
const maxFollowed = 10_000

// pollSQL answers in one statement, and so from one snapshot: the snapshot and
// the server, in a row of their own, then the revocations.
//
// A transaction that is still in progress is passed over, not read row by row:
// one that revokes a million sessions would slow every poll until its end. So is
// the id of a transaction that has not begun, which comes with a row that was
// copied from another server. Infinity is no number of seconds.
const pollSQL = `
	SELECT pg_current_snapshot()::text, {server}, ` + startedSQL + `, ` + takesWrites + `, clock_timestamp(),
		(SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())), NULL::uuid, NULL::boolean, NULL::bigint
	UNION ALL (
	SELECT NULL, NULL, NULL, NULL, NULL, NULL, session_id, ended,
		ceil(extract(epoch FROM least(expires_at, clock_timestamp() + interval '1 day') - clock_timestamp()))::bigint
	FROM {s}.gpt_revocations
	WHERE xact >= $1::text::xid8 AND xact < pg_snapshot_xmax(pg_current_snapshot())
		OR xact = ANY (ARRAY(SELECT x FROM unnest($2::text[]::xid8[]) x WHERE pg_visible_in_snapshot(x, pg_current_snapshot())))
	LIMIT $3)`

// planSQL keeps the next statement to the index. A million revocations in one
// transaction look to the planner as if every id had as many, and it would read
// all of them to find none.
const planSQL = `SELECT set_config('enable_seqscan', 'off', true)`

// none is a position after every transaction.
var none = position{snapshot: snapshot{xmax: 1<<64 - 1, inProgress: []string{}}}

// poll brings the view up to date once. A view that cannot be sure to have heard
// of everything starts over: it forgets all sessions, and follows from here on.
func (v *SessionView) poll(ctx context.Context, conn *viewConn) error {
	ctx, cancel := context.WithTimeout(ctx, v.maxStaleness) // a later answer is of no use
	defer cancel()
	sent := time.Now()
	now, revocations, err := v.ask(ctx, conn)
	if err != nil {
		return fmt.Errorf("poll revocations: %w", err)
	}
	broken := now.brokenAfter(conn.last)
	switch {
	case broken != "":
	case !v.isFresh(time.Now()):
		broken = "the view was stale" // what it missed may have been cleaned up
	case len(revocations) > maxFollowed:
		broken, revocations = "many sessions have changed at once", nil // not all of them are here
	case slices.ContainsFunc(revocations, func(r revocation) bool { return r.everything }):
		broken = "a table was emptied"
	}
	v.apply(sent, now.started, broken != "", revocations)
	v.follower.polled(v.db, conn.last, now, broken)
	conn.last = now
	return nil
}

func (v *SessionView) ask(ctx context.Context, conn *viewConn) (*position, []revocation, error) {
	last := conn.last
	if last == nil {
		last = &none
	}
	var batch pgx.Batch // one round trip, one transaction
	batch.Queue(planSQL)
	batch.Queue(v.db.sql(strings.Replace(pollSQL, "{server}", conn.server, 1)), strconv.FormatUint(last.xmax, 10), last.inProgress, maxFollowed+1)
	results := conn.SendBatch(ctx, &batch)
	defer results.Close()
	if _, err := results.Exec(); err != nil {
		return nil, nil, err
	}
	rows, err := results.Query()
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	var now *position
	var revocations []revocation
	for rows.Next() {
		answer, r, err := scanPoll(rows)
		if err != nil {
			return nil, nil, err
		}
		if answer != nil {
			now = answer
			continue
		}
		revocations = append(revocations, r)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, err
	}
	if now == nil {
		return nil, nil, errors.New("no snapshot in the answer")
	}
	return now, revocations, nil
}

// scanPoll reads a row of the answer: where the server stands, or a revocation.
func scanPoll(row pgx.Row) (*position, revocation, error) {
	var taken, server *string
	var primary, ended *bool
	var at, backend *time.Time
	var session uuid.NullUUID
	var started, seconds *int64
	if err := row.Scan(&taken, &server, &started, &primary, &at, &backend, &session, &ended, &seconds); err != nil {
		return nil, revocation{}, err
	}
	if taken == nil {
		return nil, revocation{
			session: session.UUID, everything: !session.Valid, ended: *ended, remaining: time.Duration(*seconds) * time.Second,
		}, nil
	}
	if !*primary {
		return nil, revocation{}, errReadOnly
	}
	if backend == nil {
		return nil, revocation{}, errors.New("the server does not tell when its process was started")
	}
	s, err := parseSnapshot(*taken)
	return &position{snapshot: s, server: *server, started: *started, backend: *backend, at: *at}, revocation{}, err
}
