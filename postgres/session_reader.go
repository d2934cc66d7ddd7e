package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"

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
	trips sharedTrips[uuid.UUID, *validator.Session]

	scopesMu sync.RWMutex
	scopes   map[string]oauth.ScopeSet
}

var _ validator.SessionReader = (*SessionReader)(nil)

// NewSessionReader returns a reader of db.
func NewSessionReader(db *DB) *SessionReader {
	r := &SessionReader{db: db, scopes: map[string]oauth.ScopeSet{}}
	r.trips = sharedTrips[uuid.UUID, *validator.Session]{what: "session reads", atOnce: 2, limit: db.tripLimit(), run: r.readAll}
	return r
}

type sessionRead = passenger[uuid.UUID, *validator.Session]

// ReadSession is described at validator.SessionReader.
func (r *SessionReader) ReadSession(ctx context.Context, sessionID string) (*validator.Session, error) {
	id, ok := parseID(sessionID)
	if !ok {
		return nil, validator.ErrSessionEnded
	}
	return r.read(ctx, id)
}

// Holds is described at validator.SessionReader: every request reads.
func (r *SessionReader) Holds(*validator.Session) bool { return false }

// read returns the session as its row stood at some moment after the call.
func (r *SessionReader) read(ctx context.Context, id uuid.UUID) (*validator.Session, error) {
	return r.trips.join(ctx, id)
}

// There is always a row, which tells who answers.
const readSessionsSQL = `SELECT id, user_id, client_id, array_to_string(scopes, ' '),
	(extract(epoch FROM least(expires_at, idle_expires_at) - clock_timestamp()) * 1000)::bigint, ` + takesWrites + `
	FROM (VALUES (0)) AS always LEFT JOIN {s}.gpt_sessions ON id = ANY($1) AND ` + live

// readAll answers every read of the batch.
func (r *SessionReader) readAll(ctx context.Context, batch []*sessionRead) {
	ids := make(pgtype.FlatArray[pgtype.UUID], len(batch)) // encoded without reflection
	for i, read := range batch {
		ids[i] = pgtype.UUID{Bytes: read.ask, Valid: true}
	}
	found := make(map[uuid.UUID]*validator.Session, len(batch))
	err := r.db.read(ctx, "read sessions", func(ctx context.Context, conn *pgxpool.Conn) error {
		clear(found)
		sent := time.Now() // before the server reads its clock
		rows, err := conn.Query(ctx, r.db.sql(readSessionsSQL), pgx.QueryResultFormats{1, 1, 1, 1, 1, 1}, ids)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			raw := rows.RawValues()
			if len(raw[5]) != 1 || raw[5][0] != 1 {
				return errReadOnly
			}
			if raw[0] == nil {
				continue
			}
			if len(raw[0]) != 16 || len(raw[4]) != 8 {
				return errors.New("a session row is not of the expected types")
			}
			remaining := time.Duration(binary.BigEndian.Uint64(raw[4])) * time.Millisecond
			found[uuid.UUID(raw[0])] = &validator.Session{
				UserID: string(raw[1]), ClientID: string(raw[2]), Scopes: r.scopeSet(raw[3]), Until: sent.Add(remaining),
			}
		}
		return rows.Err()
	})
	for _, read := range batch {
		session, ok := found[read.ask]
		switch {
		case err != nil:
			read.err = err
		case !ok:
			read.err = validator.ErrSessionEnded
		default:
			read.answer = session
		}
	}
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
