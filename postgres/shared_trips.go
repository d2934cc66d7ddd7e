package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// maxWaiting bounds the queue: beyond it the answer is 503 at once.
const maxWaiting = 8192

// tripLimit bounds one trip. Who just missed one waits for it, and then leads
// another: both must end within the time of a call, also when the server has
// fallen silent.
func (db *DB) tripLimit() time.Duration { return db.timeout / 3 }

// sharedTrips lets concurrent callers share round trips to the database: who
// finds few enough under way leads one, and takes along whoever waits. There is
// no goroutine besides the callers'. Q is what each asks, A what it hears.
type sharedTrips[Q, A any] struct {
	what string // asked for, for errors
	// atOnce is how many round trips run side by side; more only make the batches
	// smaller.
	atOnce int
	most   int // passengers of one trip; zero: any number
	// limit of one trip, see tripLimit. Zero: its leader's deadline, which DB.deadline
	// has given to the context.
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

// join returns the answer of a trip that began after join was called. When ctx
// ends first, the trip may still be under way, and its outcome is not known.
func (s *sharedTrips[Q, A]) join(ctx context.Context, ask Q) (_ A, err error) {
	ctx, end := traced(ctx, s.what)
	defer func() { end(err) }()
	own := &passenger[Q, A]{ask: ask, done: make(chan bool, 1)}
	var none A
	s.mu.Lock()
	if s.leading < s.atOnce {
		s.leading++
	} else {
		if len(s.waiting) >= maxWaiting {
			s.mu.Unlock()
			return none, fmt.Errorf("too many %s are waiting", s.what)
		}
		s.waiting = append(s.waiting, own)
		s.mu.Unlock()
		select {
		case answered := <-own.done:
			if answered {
				return own.answer, own.err
			}
		case <-ctx.Done():
			s.leave(own)
			return none, fmt.Errorf("%s: %w", s.what, ctx.Err()) // own.answer is its leader's
		}
		s.mu.Lock() // our turn to lead; leading was counted by who handed over
		if ctx.Err() != nil {
			s.handOver()
			s.mu.Unlock()
			return none, fmt.Errorf("%s: %w", s.what, ctx.Err())
		}
	}
	batch := append(s.board(), own)
	s.mu.Unlock()

	if s.limit > 0 {
		// The leader's caller may hang up; the others' answers do not depend on it.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), s.limit)
		defer cancel()
	}
	s.run(ctx, batch)
	for _, other := range batch {
		if other != own {
			other.done <- true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handOver()
	return own.answer, own.err
}

// board takes from the queue who goes along with its leader: first who waits
// longest.
func (s *sharedTrips[Q, A]) board() []*passenger[Q, A] {
	n := len(s.waiting)
	if s.most > 0 {
		n = min(n, s.most-1)
	}
	batch := slices.Clone(s.waiting[:n])
	s.waiting = slices.Delete(s.waiting, 0, n)
	return batch
}

// leave is for one who waits no longer. If it is its turn to lead, the next one
// does.
func (s *sharedTrips[Q, A]) leave(own *passenger[Q, A]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, own); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return
	}
	select {
	case answered := <-own.done:
		if !answered {
			s.handOver()
		}
	default: // under way with others, whose leader answers nobody here
	}
}

// handOver lets the last of those who came meanwhile lead the next trip: it has
// the longest to wait for it.
func (s *sharedTrips[Q, A]) handOver() {
	last := len(s.waiting) - 1
	if last < 0 {
		s.leading--
		return
	}
	next := s.waiting[last]
	s.waiting = slices.Delete(s.waiting, last, last+1)
	next.done <- false
}
