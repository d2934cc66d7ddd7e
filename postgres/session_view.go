package postgres

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"

	"github.com/caddy-scope/caddy-scope/validator"
)

const (
	// DefaultMaxStaleness is how old a view may be that admits a request.
	DefaultMaxStaleness = time.Second
	// maxKnownSessions bounds the sessions a view remembers; one that found no
	// room is read again.
	maxKnownSessions = 200_000
	pruneEvery       = time.Minute
)

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
type SessionView struct {
	db           *DB
	read         func(context.Context, uuid.UUID) (*validator.Session, error)
	maxStaleness time.Duration

	fresh atomic.Pointer[freshness] // nil: never loaded

	// heard is the generation of what the polls brought that the known sessions
	// are in accord with: a session that is marked with it stands as it was read.
	heard atomic.Uint64

	// mu orders what a poll brings and what a read found: a read that was sent
	// before a change was known is not remembered after it.
	mu         sync.Mutex
	generation uint64 // of what the polls brought
	reloaded   uint64 // generation of the last load in full
	marks      map[uuid.UUID]mark
	known      *otter.Cache[uuid.UUID, *validator.Session]
	pruned     time.Time

	poller viewPoller
}

// mark is what a revocation said of one session. It stays until no token of
// the session can be valid any more.
type mark struct {
	generation uint64
	expires    time.Time
	ended      bool
}

// generations counts for all views of the process, so that a session which one
// view has marked never holds for another.
var generations atomic.Uint64

// freshness is how long the view may be trusted.
type freshness struct {
	until time.Time // by the monotonic clock
	// The monotonic clock may stand still while a machine sleeps; the wall
	// clock does not.
	wall int64
}

var _ validator.SessionReader = (*SessionView)(nil)

// NewSessionView returns a view of db that is not loaded; Run loads and follows.
// It reads sessions it does not know through reader. maxStaleness zero:
// DefaultMaxStaleness.
func NewSessionView(db *DB, reader *SessionReader, maxStaleness time.Duration) *SessionView {
	if maxStaleness == 0 {
		maxStaleness = DefaultMaxStaleness
	}
	return &SessionView{
		db: db, read: reader.read, maxStaleness: maxStaleness, marks: make(map[uuid.UUID]mark),
		known: otter.Must(&otter.Options[uuid.UUID, *validator.Session]{MaximumSize: maxKnownSessions}),
	}
}

// Holds is described at validator.SessionReader: a session stands as it was read
// while the view is fresh and has heard of no change of any session since. Its
// caller comes with every request and has found the session already, so that a
// look-up is spared.
func (v *SessionView) Holds(session *validator.Session) bool {
	now := time.Now()
	return session.Mark.Load() == v.heard.Load() && v.isFresh(now) && now.Before(session.Until)
}

// ReadSession is described at validator.SessionReader.
func (v *SessionView) ReadSession(ctx context.Context, sessionID string) (*validator.Session, error) {
	id, ok := parseID(sessionID)
	if !ok {
		return nil, validator.ErrSessionEnded
	}
	now := time.Now()
	if v.isFresh(now) {
		// In this order: what apply removes meanwhile gets the older mark.
		heard := v.heard.Load()
		if session, ok := v.known.GetIfPresent(id); ok && now.Before(session.Until) {
			session.Mark.Store(heard)
			return session, nil
		}
	}
	return v.readThrough(ctx, id)
}

// Alive reports whether the view, as it stands, would admit the session, and
// whether it can tell. It never reads Postgres.
func (v *SessionView) Alive(sessionID string) (alive, certain bool) {
	id, ok := parseID(sessionID)
	if !ok {
		return false, true
	}
	v.mu.Lock()
	m, marked := v.marks[id]
	v.mu.Unlock()
	if marked && m.ended {
		return false, true
	}
	now := time.Now()
	session, ok := v.known.GetIfPresent(id)
	return ok, ok && v.isFresh(now) && now.Before(session.Until)
}

func (v *SessionView) isFresh(now time.Time) bool {
	f := v.fresh.Load()
	return f != nil && now.Before(f.until) && now.UnixNano() < f.wall
}

var errStaleRead = errors.New("the session was read too long ago to be trusted, and the view is not fresh")

// readThrough reads the row, asks the view about it afterwards, and remembers
// the session if the view can be trusted to hear of its end.
func (v *SessionView) readThrough(ctx context.Context, id uuid.UUID) (*validator.Session, error) {
	v.mu.Lock()
	generation, m := v.generation, v.marks[id]
	v.mu.Unlock()
	if m.ended {
		return nil, validator.ErrSessionEnded
	}
	sent := time.Now()
	session, err := v.read(ctx, id)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	// What the view has heard meanwhile may be newer than the row that was read.
	m = v.marks[id]
	if m.ended {
		return nil, validator.ErrSessionEnded
	}
	fresh := v.isFresh(now)
	if now.Sub(sent) > v.maxStaleness && (!fresh || m.generation > generation) {
		return nil, errStaleRead
	}
	if fresh && m.generation <= generation && v.reloaded <= generation {
		session.Mark.Store(v.generation)
		v.known.Set(id, session)
	}
	return session, nil
}

// apply takes in what a poll brought. sent is when the poll was sent: the view
// knows every revocation that had committed by then.
func (v *SessionView) apply(sent time.Time, full bool, revocations []revocation) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if full || len(revocations) > 0 {
		v.generation = generations.Add(1)
	}
	everything := full
	for _, r := range revocations {
		if r.everything {
			everything = true
			continue
		}
		m := v.marks[r.session]
		v.marks[r.session] = mark{v.generation, later(m.expires, sent.Add(r.remaining)), m.ended || r.ended}
		v.known.Invalidate(r.session)
	}
	if everything {
		v.reloaded = v.generation
		v.known.InvalidateAll()
	}
	v.heard.Store(v.generation)
	v.prune(sent)
	v.fresh.Store(&freshness{until: sent.Add(v.maxStaleness), wall: sent.Add(2 * v.maxStaleness).UnixNano()})
}

// prune forgets marks that no token outlives.
func (v *SessionView) prune(now time.Time) {
	if now.Sub(v.pruned) < pruneEvery {
		return
	}
	v.pruned = now
	for id, m := range v.marks {
		if m.expires.Before(now) {
			delete(v.marks, id)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ViewState is what a view tells about itself.
type ViewState struct {
	Fresh       bool          // it decides; otherwise every request reads Postgres
	Staleness   time.Duration // since the last completed poll was sent; 0: never loaded
	Revocations int           // sessions that it refuses or would read again
	Known       int           // sessions it decides by itself, about
	Server      string        // which server, as which it runs
	Failure     string        // of the last poll, or ""
}

// State describes the view now.
func (v *SessionView) State() ViewState {
	now := time.Now()
	state := ViewState{Fresh: v.isFresh(now), Known: v.known.EstimatedSize()}
	if f := v.fresh.Load(); f != nil {
		state.Staleness = now.Sub(f.until.Add(-v.maxStaleness))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	state.Revocations, state.Server, state.Failure = len(v.marks), v.poller.server, v.poller.failure
	return state
}
