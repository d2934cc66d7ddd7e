package postgres

import (
	"time"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"

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
	knownWeight = 160
	// maxEndedSessions bounds the sessions that are refused without a look at
	// Postgres.
	maxEndedSessions = 100_000
	// revokedFor is how long a session is at least among them. The row would say
	// the same: this spares Postgres a client that goes on asking.
	revokedFor = time.Minute
)

// knownSessions are sessions as they were read, until they end by themselves or
// the view hears otherwise.
type knownSessions struct {
	cache *slabcache.Cache[validator.Session]
}

func newKnownSessions() *knownSessions {
	return &knownSessions{slabcache.New(slabcache.Options[validator.Session]{
		MaxEntries: maxKnown,
		MaxBytes:   maxKnownBytes,
		EntryBytes: knownWeight,
		Text:       func(s *validator.Session) int { return len(s.UserID) },
		Apart:      func(s *validator.Session) int { return s.Claims.Bytes() },
		Copy: func(to, from *validator.Session, text *slabcache.Text) {
			to.UserID, to.ClientID, to.Scopes, to.Claims, to.Until = text.Keep(from.UserID), from.ClientID, from.Scopes, from.Claims, from.Until
			to.Mark.Store(from.Mark.Load())
		},
		Expires: func(s *validator.Session) int64 { return s.Until.Unix() },
	})}
}

func (k *knownSessions) get(id uuid.UUID, now time.Time) (*validator.Session, bool) {
	session, ok := k.cache.Get(string(id[:]))
	return session, ok && now.Before(session.Until)
}

// put keeps the session and returns it as it is kept.
func (k *knownSessions) put(id uuid.UUID, session *validator.Session) *validator.Session {
	if kept := k.cache.Put(string(id[:]), session); kept != nil {
		return kept
	}
	return session
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
