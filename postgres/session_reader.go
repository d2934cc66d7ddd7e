package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"
	"unique"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// maxKnownScopeSets bounds the memory of parsed scope lists.
const maxKnownScopeSets = 1024

// SessionReader reads session state for the strict gate. Concurrent requests
// share round trips; see sharedTrips.
type SessionReader struct {
	db    *DB
	trips sharedTrips[uuid.UUID, sessionState]

	scopesMu sync.RWMutex
	scopes   map[string]oauth.ScopeSet
}

var _ validator.SessionReader = (*SessionReader)(nil)

// NewSessionReader returns a reader of db.
func NewSessionReader(db *DB) *SessionReader {
	r := &SessionReader{db: db, scopes: map[string]oauth.ScopeSet{}}
	r.trips = sharedTrips[uuid.UUID, sessionState]{what: "session reads", atOnce: 2, limit: db.tripLimit(), run: r.readAll}
	return r
}

// sessionState is a session as its row stood at the read; zero: there is none.
type sessionState struct {
	session *validator.Session // nil: it is not alive
	revoked bool               // for good
	server  int64              // who answered: see startedSQL
}

type sessionRead = passenger[uuid.UUID, sessionState]

// ReadSession is described at validator.SessionReader.
func (r *SessionReader) ReadSession(ctx context.Context, sessionID string) (validator.Session, error) {
	id, ok := parseID(sessionID)
	if !ok {
		return validator.Session{}, validator.ErrSessionEnded
	}
	state, err := r.read(ctx, id)
	switch {
	case err != nil:
		return validator.Session{}, err
	case state.session == nil:
		return validator.Session{}, validator.ErrSessionEnded
	}
	return *state.session, nil
}

// Held is described at validator.SessionReader: every request reads.
func (r *SessionReader) Held(uint64) (validator.Session, bool) { return validator.Session{}, false }

// read returns the state of the session at some moment after it was called.
func (r *SessionReader) read(ctx context.Context, id uuid.UUID) (sessionState, error) {
	return r.trips.join(ctx, id)
}

// readSessionsSQL has a row for every id, also if there is no such session: it
// tells who answers. LIMIT keeps it from reading a small table as a whole.
const readSessionsSQL = `SELECT ` + takesWrites + `, ` + startedSQL + `, id, user_id, client_id, array_to_string(scopes, ' '), ` + live + `, revoked_at IS NOT NULL,
	(extract(epoch FROM least(expires_at, idle_expires_at, clock_timestamp() + interval '1 day') - clock_timestamp()) * 1000)::bigint,
	(SELECT u.claims::text FROM {s}.gpt_users u WHERE u.id = user_id AND u.claims <> '{}')
	FROM unnest($1::uuid[]) AS asked LEFT JOIN LATERAL (SELECT * FROM {s}.gpt_sessions WHERE id = asked LIMIT 1) AS session ON true`

// readAll answers every read of the batch.
func (r *SessionReader) readAll(ctx context.Context, batch []*sessionRead) {
	ids := make(pgtype.FlatArray[pgtype.UUID], len(batch)) // encoded without reflection
	for i, read := range batch {
		ids[i] = pgtype.UUID{Bytes: read.ask, Valid: true}
	}
	found := make(map[uuid.UUID]sessionState, len(batch))
	err := r.db.read(ctx, "read sessions", func(ctx context.Context, conn *pgxpool.Conn) error {
		clear(found)
		sent := time.Now() // before the server reads its clock
		rows, err := conn.Query(ctx, r.db.sql(readSessionsSQL), pgx.QueryResultFormats{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, ids)
		if err != nil {
			return err
		}
		defer rows.Close()
		answered := false
		for rows.Next() {
			answered = true
			if err := r.readRow(rows.RawValues(), sent, found); err != nil {
				return err
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if !answered {
			return errUnexpectedRow
		}
		return nil
	})
	for _, read := range batch {
		read.answer, read.err = found[read.ask], err
	}
}

var errUnexpectedRow = errors.New("a session row is not as expected")

// readRow reads the columns of readSessionsSQL, in their binary form.
func (r *SessionReader) readRow(raw [][]byte, sent time.Time, found map[uuid.UUID]sessionState) error {
	if len(raw[0]) != 1 || len(raw[1]) != 8 {
		return errUnexpectedRow
	}
	if raw[0][0] != 1 {
		return errReadOnly
	}
	if raw[2] == nil {
		return nil // there is no such session
	}
	if len(raw[2]) != 16 || len(raw[6]) != 1 || len(raw[7]) != 1 || len(raw[8]) != 8 {
		return errUnexpectedRow
	}
	state := sessionState{revoked: raw[7][0] != 0, server: int64(binary.BigEndian.Uint64(raw[1]))}
	if live := raw[6][0] != 0; live {
		remaining := time.Duration(binary.BigEndian.Uint64(raw[8])) * time.Millisecond
		state.session = &validator.Session{
			UserID:   string(raw[3]),
			ClientID: unique.Make(string(raw[4])).Value(), // there are few
			Scopes:   r.scopeSet(raw[5]),
			Until:    sent.Add(remaining),
		}
		if raw[9] != nil {
			var err error
			if state.session.Claims, err = oauth.ReadUserClaims(raw[9]); err != nil {
				return err
			}
		}
	}
	found[uuid.UUID(raw[2])] = state
	return nil
}

// scopeSet parses a scope list; the few that exist are parsed once.
func (r *SessionReader) scopeSet(text []byte) oauth.ScopeSet {
	r.scopesMu.RLock()
	set, ok := r.scopes[string(text)]
	r.scopesMu.RUnlock()
	if ok {
		return set
	}
	set = oauth.NewScopeSet(strings.Fields(string(text))...)
	r.scopesMu.Lock()
	defer r.scopesMu.Unlock()
	if len(r.scopes) >= maxKnownScopeSets {
		clear(r.scopes)
	}
	r.scopes[string(text)] = set
	return set
}
