package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// tripsAtOnce is how many round trips run side by side; more only make the
	// batches smaller.
	tripsAtOnce = 2
	// maxWaiting bounds the queue: beyond it the answer is 503 at once.
	maxWaiting = 8192
)

// tripLimit bounds one trip. Who just missed one waits for it, and then leads
// another: both must end within the time of a call, also when the server has
// fallen silent.
func (db *DB) tripLimit() time.Duration { return db.timeout / 3 }

// sharedTrips lets concurrent callers share round trips to the database: who
// finds few enough under way leads one, and takes along whoever waits. There is
// no goroutine besides the callers'. Q is what each asks, A what it hears.
type sharedTrips[Q, A any] struct {
	what string // asked for, for errors
	// limit of one trip; see tripLimit.
	limit time.Duration
	// run answers everyone of the batch, in the limit of its context.
	run func(ctx context.Context, batch []*passenger[Q, A])

	mu      sync.Mutex
	waiting []*passenger[Q, A]
	leading int
}

type passenger[Q, A any] struct {
	ask    Q
	answer A
	err    error
	done   chan bool // true: answered; false: lead the next trip
}

// join returns the answer of a trip that began after join was called.
func (s *sharedTrips[Q, A]) join(ctx context.Context, ask Q) (A, error) {
	own := &passenger[Q, A]{ask: ask, done: make(chan bool, 1)}
	s.mu.Lock()
	if s.leading >= tripsAtOnce {
		if len(s.waiting) >= maxWaiting {
			s.mu.Unlock()
			return own.answer, fmt.Errorf("too many %s are waiting", s.what)
		}
		s.waiting = append(s.waiting, own)
		s.mu.Unlock()
		select {
		case answered := <-own.done:
			if answered {
				return own.answer, own.err
			}
		case <-ctx.Done():
			if s.leave(own) {
				return own.answer, fmt.Errorf("%s: %w", s.what, ctx.Err())
			}
			// A leader has taken it along, or handed over to it: others wait
			// for what this goroutine does next.
			if <-own.done {
				return own.answer, own.err
			}
		}
		s.mu.Lock() // our turn to lead; leading was counted by who handed over
	} else {
		s.leading++
	}
	batch := append(s.waiting, own)
	s.waiting = nil
	s.mu.Unlock()

	// The leader's caller may hang up; the others' answers do not depend on it.
	trip, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limit)
	s.run(trip, batch)
	cancel()
	for _, other := range batch {
		if other != own {
			other.done <- true
		}
	}
	s.handOver()
	return own.answer, own.err
}

// leave takes one out of the queue; false: it is no longer there.
func (s *sharedTrips[Q, A]) leave(own *passenger[Q, A]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, own)
	if i < 0 {
		return false
	}
	s.waiting = slices.Delete(s.waiting, i, i+1)
	return true
}

// handOver lets the first of those who came meanwhile lead the next trip.
func (s *sharedTrips[Q, A]) handOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.leading--
		return
	}
	next := s.waiting[0]
	s.waiting = s.waiting[1:]
	next.done <- false
}
