package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
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

const (
	// readersAtOnce is how many round trips run side by side; more only make
	// the batches smaller.
	readersAtOnce = 2
	// maxWaitingReads bounds the queue: beyond it the answer is 503 at once.
	maxWaitingReads = 8192
	// maxKnownScopeSets bounds the memory of parsed scope lists.
	maxKnownScopeSets = 1024
)

var errTooManyReads = errors.New("too many session reads are waiting")

// SessionReader reads session state for the strict gate. Concurrent requests
// share one round trip: who finds no read under way leads, and takes along
// whoever waits; there is no goroutine besides the callers'.
type SessionReader struct {
	db *DB

	mu      sync.Mutex
	waiting []*sessionRead
	leading int

	scopesMu sync.RWMutex
	scopes   map[string]oauth.ScopeSet
}

var _ validator.SessionReader = (*SessionReader)(nil)

// NewSessionReader returns a reader of db.
func NewSessionReader(db *DB) *SessionReader {
	return &SessionReader{db: db, scopes: map[string]oauth.ScopeSet{}}
}

// sessionState is a live session as its row stood at the read.
type sessionState struct {
	validator.Session
	remaining time.Duration // of its life
}

type sessionRead struct {
	id    uuid.UUID
	state sessionState
	err   error
	done  chan bool // true: answered; false: lead the next round
}

// ReadSession is described at validator.SessionReader.
func (r *SessionReader) ReadSession(ctx context.Context, sessionID string) (validator.Session, error) {
	id, ok := parseID(sessionID)
	if !ok {
		return validator.Session{}, validator.ErrSessionEnded
	}
	state, err := r.read(ctx, id)
	return state.Session, err
}

// read returns the state of the session at some moment after it was called.
func (r *SessionReader) read(ctx context.Context, id uuid.UUID) (sessionState, error) {
	own := &sessionRead{id: id, done: make(chan bool, 1)}
	r.mu.Lock()
	if r.leading >= readersAtOnce {
		if len(r.waiting) >= maxWaitingReads {
			r.mu.Unlock()
			return sessionState{}, errTooManyReads
		}
		r.waiting = append(r.waiting, own)
		r.mu.Unlock()
		select {
		case answered := <-own.done:
			if answered {
				return own.state, own.err
			}
		case <-ctx.Done():
			if r.leave(own) {
				return sessionState{}, fmt.Errorf("read session: %w", ctx.Err())
			}
			// A leader has taken it along, or handed over to it: others wait
			// for what this goroutine does next.
			if <-own.done {
				return own.state, own.err
			}
		}
		r.mu.Lock() // our turn to lead; leading was counted by who handed over
	} else {
		r.leading++
	}
	batch := append(r.waiting, own)
	r.waiting = nil
	r.mu.Unlock()

	r.readAll(ctx, batch)
	for _, read := range batch {
		if read != own {
			read.done <- true
		}
	}
	r.handOver()
	return own.state, own.err
}

// leave takes a read out of the queue; false: it is no longer there.
func (r *SessionReader) leave(own *sessionRead) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.waiting, own)
	if i < 0 {
		return false
	}
	r.waiting = slices.Delete(r.waiting, i, i+1)
	return true
}

// handOver lets the first of those who came meanwhile lead the next round.
func (r *SessionReader) handOver() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		r.leading--
		return
	}
	next := r.waiting[0]
	r.waiting = r.waiting[1:]
	next.done <- false
}

const readSessionsSQL = `SELECT id, user_id, client_id, array_to_string(scopes, ' '),
	(extract(epoch FROM least(expires_at, idle_expires_at) - clock_timestamp()) * 1000)::bigint FROM {s}.gpt_sessions WHERE id = ANY($1) AND ` + live

// readAll answers every read of the batch. The leader's caller may hang up; the
// others' answers do not depend on it.
func (r *SessionReader) readAll(ctx context.Context, batch []*sessionRead) {
	ids := make(pgtype.FlatArray[pgtype.UUID], len(batch)) // encoded without reflection
	for i, read := range batch {
		ids[i] = pgtype.UUID{Bytes: read.id, Valid: true}
	}
	found := make(map[uuid.UUID]sessionState, len(batch))
	err := r.db.read(context.WithoutCancel(ctx), "read sessions", func(ctx context.Context, conn *pgxpool.Conn) error {
		clear(found)
		rows, err := conn.Query(ctx, r.db.sql(readSessionsSQL), pgx.QueryResultFormats{1, 1, 1, 1, 1}, ids)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			raw := rows.RawValues()
			if len(raw[0]) != 16 || len(raw[4]) != 8 {
				return errors.New("a session row is not of the expected types")
			}
			found[uuid.UUID(raw[0])] = sessionState{
				Session:   validator.Session{UserID: string(raw[1]), ClientID: string(raw[2]), Scopes: r.scopeSet(raw[3])},
				remaining: time.Duration(binary.BigEndian.Uint64(raw[4])) * time.Millisecond,
			}
		}
		return rows.Err()
	})
	for _, read := range batch {
		state, ok := found[read.id]
		switch {
		case err != nil:
			read.err = err
		case !ok:
			read.err = validator.ErrSessionEnded
		default:
			read.state = state
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
