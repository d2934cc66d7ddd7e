//go:build !race

// The race detector takes memory of its own; scripts/test runs this without it.

package postgres

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// TestMemoryOfSessionsIsBounded: twice as many sessions in use as a view may
// know, and a hundred thousand revocations and more. It holds no more than it
// weighs them, goes on to answer, and those that are in use stay.
func TestMemoryOfSessionsIsBounded(t *testing.T) {
	const flood, busy = 500_000, 1000
	s := newViewScene(t)
	s.maxStaleness = time.Hour
	scopes := oauth.NewScopeSet("jobs:read")
	s.read = func(_ context.Context, id uuid.UUID) (sessionState, error) {
		s.rows++
		return sessionState{server: onServer, session: &validator.Session{
			UserID: id.String(), ClientID: "app", Scopes: scopes, Until: time.Now().Add(time.Hour),
		}}, nil
	}
	s.poll()
	use := func(id uuid.UUID) {
		if _, err := s.ReadSession(t.Context(), id.String()); err != nil {
			t.Fatal(err)
		}
	}
	before := heapInUse()
	favourites := make([]uuid.UUID, busy)
	for i := range favourites {
		favourites[i] = uuid.New()
	}
	for i := range flood {
		use(uuid.New())
		use(favourites[i%busy])
	}
	s.rows = 0
	for _, id := range favourites {
		use(id)
	}
	if s.rows > busy/100 {
		t.Errorf("%d of %d sessions that are in use were read again", s.rows, busy)
	}
	state, heap := s.State(), heapInUse()-before
	t.Logf("%d sessions are known, %d bytes of heap each", state.Known, heap/int64(state.Known))
	if heap > maxKnownBytes || state.KnownBytes > maxKnownBytes {
		t.Errorf("%d MiB of heap, weighed %d MiB, want %d at most", heap>>20, state.KnownBytes>>20, maxKnownBytes>>20)
	}
	if state.Known < 200_000 {
		t.Errorf("%d sessions are known, want 200,000 and more", state.Known)
	}

	before = heapInUse()
	for range 2 * maxEndedSessions / 1000 {
		ended := make([]revocation, 1000)
		for i := range ended {
			ended[i] = revocation{session: uuid.New(), ended: true, remaining: time.Hour}
		}
		s.poll(ended...)
	}
	heap = heapInUse() - before
	t.Logf("%d revocations are known, %d MiB of heap", s.State().Revocations, heap>>20)
	if n := s.State().Revocations; n > maxEndedSessions*11/10 || heap > 32<<20 {
		t.Errorf("%d revocations take %d MiB of heap", n, heap>>20)
	}
	s.startOver()
	if left := heapInUse() - before; left > 0 && s.State().Known > 0 {
		t.Errorf("%d sessions are known after a new start", s.State().Known)
	}
	runtime.KeepAlive(s)
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers held
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
