package issuer

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// throttle limits failures per key within a sliding window. It holds the state
// of one node in bounded memory: at most maxKeys keys with limit times each;
// beyond that the key that was idle longest is forgotten.
type throttle struct {
	limit  int
	window time.Duration
	now    func() time.Time

	mu       sync.Mutex
	failures *simplelru.LRU[string, []time.Time] // oldest first, at most limit
}

// newThrottle allows limit failures per key within window. limit and maxKeys
// must be positive.
func newThrottle(limit int, window time.Duration, maxKeys int, now func() time.Time) *throttle {
	failures, err := simplelru.NewLRU[string, []time.Time](maxKeys, nil)
	if err != nil || limit <= 0 {
		panic("issuer: a throttle needs a positive limit and a positive number of keys")
	}
	return &throttle{limit: limit, window: window, now: now, failures: failures}
}

// Allow reports whether key has failures left, and if not, after how long it
// will have one. It counts nothing. Where attempts run in parallel use Reserve:
// between Allow and Fail any number of others can pass.
func (t *throttle) Allow(key string) (ok bool, retryAfter time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	return t.allow(t.recent(key, now), now)
}

// Fail counts a failure of key.
func (t *throttle) Fail(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.add(key, t.recent(key, now), now)
}

// Reserve is Allow and Fail in one step: an attempt counts as failed before its
// outcome is known, so that a hundred parallel guesses are a hundred failures
// and not one. Whoever succeeded, or was stopped before the attempt was made,
// calls Release or Reset. SECURITY-CASES A-32.
func (t *throttle) Reserve(key string) (ok bool, retryAfter time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	recent := t.recent(key, now)
	if ok, retryAfter = t.allow(recent, now); ok {
		t.add(key, recent, now)
	}
	return ok, retryAfter
}

// Release takes back one Reserve of key. Other failures stay counted.
func (t *throttle) Release(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if recent := t.recent(key, t.now()); len(recent) > 1 {
		t.failures.Add(key, recent[:len(recent)-1])
	} else {
		t.failures.Remove(key)
	}
}

// Reset forgets every failure of key.
func (t *throttle) Reset(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures.Remove(key)
}

// recent returns the failures of key within the window.
func (t *throttle) recent(key string, now time.Time) []time.Time {
	times, _ := t.failures.Get(key)
	start := now.Add(-t.window)
	for len(times) > 0 && !times[0].After(start) {
		times = times[1:]
	}
	return times
}

func (t *throttle) allow(recent []time.Time, now time.Time) (ok bool, retryAfter time.Duration) {
	if len(recent) < t.limit {
		return true, 0
	}
	return false, recent[0].Add(t.window).Sub(now)
}

// add appends now. The times are copied into a slice of their own size, so that
// a key never holds more than limit of them.
func (t *throttle) add(key string, recent []time.Time, now time.Time) {
	if len(recent) == t.limit {
		recent = recent[1:]
	}
	times := make([]time.Time, 0, len(recent)+1)
	t.failures.Add(key, append(append(times, recent...), now))
}
