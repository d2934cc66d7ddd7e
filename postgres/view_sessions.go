package postgres

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/slabcache"
	"github.com/caddy-scope/caddy-scope/validator"
)

const (
	// maxKnown and maxKnownBytes bound the sessions a view knows. One that found no
	// room is read again when it is asked for.
	maxKnown      = 1 << 18
	maxKnownBytes = 64 << 20
	// knownWeight is what a session weighs besides its ids and claims: its place
	// in a slab and in the index.
	knownWeight = 80
	// factsWeight is what sessionFacts weigh besides the claims.
	factsWeight = 64
	// maxSessionFacts bounds the table by which sessions find what they share.
	maxSessionFacts = 1024
	// maxEndedSessions bounds the sessions that are refused without a look at
	// Postgres.
	maxEndedSessions = 100_000
	// revokedFor is how long a session is at least among them. The row would say
	// the same: this spares Postgres a client that goes on asking.
	revokedFor = time.Minute
)

// knownSessions are sessions as they were read, until they end by themselves or
// the view hears otherwise. What is kept of one has no pointers: see slabcache.
type knownSessions struct {
	cache *slabcache.Cache[knownSession, sessionFacts]

	mu    sync.Mutex
	facts map[factsKey]*sessionFacts // of sessions without claims
}

// knownSession is what is a session's own; its text is the user's id.
type knownSession struct {
	until time.Duration // since started
	// mark is the number of the last change that the view had heard of when it was
	// known that the session stands as it does.
	mark atomic.Uint64
}

type factsKey struct{ client, scopes string }

// sessionFacts are what sessions may have in common.
type sessionFacts struct {
	clientID string
	scopes   oauth.ScopeSet
	claims   oauth.UserClaims
}

func (f *sessionFacts) bytes() int { return factsWeight + len(f.clientID) + f.claims.Bytes() }

// started is a moment from which times are counted that must not change when
// somebody sets the clock.
var started = time.Now()

func newKnownSessions() *knownSessions {
	return &knownSessions{cache: slabcache.New(slabcache.Options[knownSession, sessionFacts]{
		MaxEntries:  maxKnown,
		MaxBytes:    maxKnownBytes,
		EntryBytes:  knownWeight,
		SharedBytes: (*sessionFacts).bytes,
		Copy: func(to, from *knownSession) {
			to.until = from.until
			to.mark.Store(from.mark.Load())
		},
		Expires: func(s *knownSession) int64 { return time.Now().Add(s.until - time.Since(started)).Unix() },
	})}
}

// get returns the session, and notes that it stands as the view has heard by now.
func (k *knownSessions) get(id uuid.UUID, now time.Time, heard uint64) (validator.Session, bool) {
	entry, ok := k.cache.Get(string(id[:]))
	if !ok || now.Sub(started) >= entry.Value.until {
		return validator.Session{}, false
	}
	entry.Value.mark.Store(heard)
	return sessionOf(entry), true
}

// held returns the session with this handle if nothing was heard since it was noted
// that it stands.
func (k *knownSessions) held(handle uint64, now time.Time, heard uint64) (validator.Session, bool) {
	entry, ok := k.cache.At(handle)
	if !ok || entry.Value.mark.Load() != heard || now.Sub(started) >= entry.Value.until {
		return validator.Session{}, false
	}
	return sessionOf(entry), true
}

func sessionOf(entry slabcache.Entry[knownSession, sessionFacts]) validator.Session {
	facts := entry.Shared
	return validator.Session{
		UserID: entry.Text, ClientID: facts.clientID, Scopes: facts.scopes, Claims: facts.claims,
		Until: started.Add(entry.Value.until), Handle: entry.Handle,
	}
}

// put keeps the session, which stands as the view has heard by now, and returns its
// handle; zero: it is not kept.
func (k *knownSessions) put(id uuid.UUID, session validator.Session, heard uint64) (handle uint64) {
	known := &knownSession{until: session.Until.Sub(started)}
	known.mark.Store(heard)
	entry, _ := k.cache.Put(string(id[:]), known, k.factsOf(session), session.UserID)
	return entry.Handle
}

// factsOf returns what the session has in common with others, once for all of them.
// Claims are a user's own.
func (k *knownSessions) factsOf(session validator.Session) *sessionFacts {
	facts := &sessionFacts{session.ClientID, session.Scopes, session.Claims}
	if session.Claims != nil {
		return facts
	}
	key := factsKey{session.ClientID, session.Scopes.String()}
	k.mu.Lock()
	defer k.mu.Unlock()
	if same, ok := k.facts[key]; ok {
		return same
	}
	if k.facts == nil || len(k.facts) >= maxSessionFacts {
		k.facts = make(map[factsKey]*sessionFacts)
	}
	k.facts[key] = facts
	return facts
}

func (k *knownSessions) forget(id uuid.UUID) { k.cache.Forget(string(id[:])) }

func (k *knownSessions) forgetAll() { k.cache.Clear() }

// endedSessions are sessions whose revocation was seen, which cannot be undone.
// They outlive everything that the view forgets.
type endedSessions struct {
	cache *otter.Cache[uuid.UUID, time.Duration]
}

func newEndedSessions() *endedSessions {
	return &endedSessions{otter.Must(&otter.Options[uuid.UUID, time.Duration]{
		MaximumSize:      maxEndedSessions,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[uuid.UUID, time.Duration]) time.Duration { return e.Value }),
	})}
}

func (e *endedSessions) has(id uuid.UUID) bool {
	_, ok := e.cache.GetIfPresent(id)
	return ok
}

func (e *endedSessions) add(id uuid.UUID, keep time.Duration) { e.cache.Set(id, keep) }
