package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/validator"
)

// DefaultMaxStaleness is how old a view may be that admits a request.
const DefaultMaxStaleness = time.Second

// SessionView is a node's in-memory picture of session state: for `session_check
// live`. A session is read once; after that the view decides, as long as it is
// fresh. It follows gpt_revocations, where triggers write whatever ends or
// narrows a session.
//
// The promise: once a revocation has committed, no request of that session is
// admitted later than MaxStaleness, whatever breaks. It holds because the view
// remembers when the poll that it last completed was sent, and admits nothing
// once that is too long ago; requests then read Postgres themselves, and where
// that fails too they are refused.
//
// It has nothing to load: a session that it does not know is read, and the row
// says what was before. When it cannot be sure to have heard of everything, it
// forgets all sessions and starts over.
type SessionView struct {
	db           *DB
	read         func(context.Context, uuid.UUID) (sessionState, error)
	maxStaleness time.Duration

	fresh atomic.Pointer[freshness] // nil: nothing polled yet
	known *knownSessions
	ended *endedSessions
	// heard is the last change that the known sessions are in accord with: a
	// session that is marked with it stands as it was read.
	heard atomic.Uint64

	// mu orders what a poll brings and what a read found: a read that was sent
	// before a change was known is not remembered after it.
	mu      sync.Mutex
	changes changes
	server  int64 // that the view follows: see startedSQL

	follower follower
	reads    atomic.Int64 // requests that the view could not decide
}

// freshness is how long the view may be trusted.
type freshness struct {
	until time.Time // by the monotonic clock
	// The monotonic clock may stand still while a machine sleeps; the wall
	// clock does not.
	wall int64
}

var _ validator.SessionReader = (*SessionView)(nil)

// NewSessionView returns a view of db that is not fresh; Run follows. It reads
// sessions it does not know through reader. maxStaleness zero:
// DefaultMaxStaleness.
func NewSessionView(db *DB, reader *SessionReader, maxStaleness time.Duration) *SessionView {
	if maxStaleness == 0 {
		maxStaleness = DefaultMaxStaleness
	}
	v := &SessionView{db: db, read: reader.read, maxStaleness: maxStaleness, known: newKnownSessions(), ended: newEndedSessions()}
	v.changes.noteAll() // a number of its own, so that no unmarked session holds
	v.heard.Store(v.changes.last)
	return v
}

// Held is described at validator.SessionReader: a session stands as it was read
// while the view is fresh and has heard of no change of any session since. Its
// caller comes with every request and has found the session already, so that a
// look-up is spared.
func (v *SessionView) Held(handle uint64) (validator.Session, bool) {
	// The order counts, as in ReadSession: a view that turns fresh in between has
	// forgotten everything first.
	now := time.Now()
	if !v.isFresh(now) {
		return validator.Session{}, false
	}
	return v.known.held(handle, now, v.heard.Load())
}

// ReadSession is described at validator.SessionReader.
func (v *SessionView) ReadSession(ctx context.Context, sessionID string) (validator.Session, error) {
	id, ok := parseID(sessionID)
	if !ok {
		return validator.Session{}, validator.ErrSessionEnded
	}
	now := time.Now()
	if v.isFresh(now) {
		// In this order: what apply forgets meanwhile gets the older mark.
		heard := v.heard.Load()
		if session, ok := v.known.get(id, now, heard); ok {
			return session, nil
		}
	}
	return v.readThrough(ctx, id)
}

func (v *SessionView) isFresh(now time.Time) bool {
	f := v.fresh.Load()
	return f != nil && now.Before(f.until) && now.UnixNano() < f.wall
}

var errStaleRead = errors.New("the session was read too long ago to be trusted, and the view is not fresh")

// readThrough reads the row, and once more when the answer came too late to be
// trusted: the second one most likely does not.
func (v *SessionView) readThrough(ctx context.Context, id uuid.UUID) (validator.Session, error) {
	v.reads.Add(1)
	session, err := v.readOnce(ctx, id)
	if errors.Is(err, errStaleRead) {
		session, err = v.readOnce(ctx, id)
	}
	return session, err
}

// readOnce reads the row, asks the view about it afterwards, and remembers the
// session if the view can be trusted to hear of its end.
func (v *SessionView) readOnce(ctx context.Context, id uuid.UUID) (validator.Session, error) {
	if v.ended.has(id) {
		return validator.Session{}, validator.ErrSessionEnded
	}
	v.mu.Lock()
	before := v.changes.last
	v.mu.Unlock()
	sent := time.Now()
	state, err := v.read(ctx, id)
	if err != nil {
		return validator.Session{}, err
	}
	if state.revoked {
		v.ended.add(id, revokedFor)
	}
	if state.session == nil {
		return validator.Session{}, validator.ErrSessionEnded
	}
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	// What the view has heard meanwhile may be newer than the row that was read.
	if v.ended.has(id) {
		return validator.Session{}, validator.ErrSessionEnded
	}
	current := v.isFresh(now) && !v.changes.since(before, id)
	if !current && elapsed(sent, now) > v.maxStaleness {
		return validator.Session{}, errStaleRead
	}
	// A row of another server than the view's may change without the view's
	// hearing of it.
	session := *state.session
	if current && state.server == v.server {
		session.Handle = v.known.put(id, session, v.changes.last)
	}
	return session, nil
}

// elapsed is how long ago sent was at least by one of the clocks: the monotonic
// one may stand still while the machine sleeps, the other one may jump back.
func elapsed(sent, now time.Time) time.Duration {
	return max(now.Sub(sent), now.Round(0).Sub(sent.Round(0)))
}

// apply takes in what a poll brought. sent is when the poll was sent: the view
// knows every revocation that had committed by then. everything: any session may
// have changed, so that all must be read again.
func (v *SessionView) apply(sent time.Time, server int64, everything bool, revocations []revocation) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range revocations {
		if r.everything {
			everything = true
			continue
		}
		v.changes.note(r.session)
		if r.ended {
			v.ended.add(r.session, max(r.remaining, revokedFor))
		}
		v.known.forget(r.session)
	}
	if everything {
		v.changes.noteAll()
		v.known.forgetAll()
	}
	v.heard.Store(v.changes.last)
	v.server = server
	// Last: see ReadSession.
	v.fresh.Store(&freshness{until: sent.Add(v.maxStaleness), wall: sent.Add(2 * v.maxStaleness).UnixNano()})
}

// changes tells a read that is under way whether its session changed
// meanwhile. Sessions share places by their ids, which are random: a change then
// seems to concern another session too, which is read once more.
type changes struct {
	last uint64 // of the changes so far; 0: none
	all  uint64 // the last that concerned every session
	of   [1 << 12]uint64
}

// numbers of changes are counted for all views of the process, so that a session
// which one view has marked never holds for another; as handles do not either.
var numbers atomic.Uint64

func (c *changes) note(id uuid.UUID) {
	c.last = numbers.Add(1)
	c.of[c.place(id)] = c.last
}

func (c *changes) noteAll() {
	c.last = numbers.Add(1)
	c.all = c.last
}

// since reports whether the session may have changed after the change before.
func (c *changes) since(before uint64, id uuid.UUID) bool {
	return c.all > before || c.of[c.place(id)] > before
}

func (c *changes) place(id uuid.UUID) int {
	return int(binary.BigEndian.Uint16(id[14:])) % len(c.of)
}
