package postgres

import (
	"time"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"

	"github.com/caddy-scope/caddy-scope/validator"
)

const (
	// maxKnownBytes bounds the sessions a view knows, by what they weigh: some
	// 200,000 with ids of ordinary length. One that found no room is read again
	// for every request.
	maxKnownBytes = 64 << 20
	// knownWeight is what a session weighs besides its user's id and claims.
	knownWeight = 256
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
	cache *otter.Cache[uuid.UUID, *validator.Session]
}

func newKnownSessions() *knownSessions {
	return &knownSessions{otter.Must(&otter.Options[uuid.UUID, *validator.Session]{
		MaximumWeight: maxKnownBytes,
		Weigher: func(_ uuid.UUID, s *validator.Session) uint32 {
			return uint32(knownWeight + len(s.UserID) + s.Claims.Bytes())
		},
	})}
}

func (k *knownSessions) get(id uuid.UUID, now time.Time) (*validator.Session, bool) {
	session, ok := k.cache.GetIfPresent(id)
	return session, ok && now.Before(session.Until)
}

func (k *knownSessions) put(id uuid.UUID, session *validator.Session) { k.cache.Set(id, session) }

func (k *knownSessions) forget(id uuid.UUID) { k.cache.Invalidate(id) }

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
