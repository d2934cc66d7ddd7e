package postgres

import (
	"sync"
	"time"
)

const (
	// breakAfter timeouts in a row, writes are let through one at a time, so
	// that retries cannot pile up backends that wait for a dead standby.
	breakAfter = 3
	probeEvery = 500 * time.Millisecond
)

// breaker keeps writes back from a server that does not confirm them.
type breaker struct {
	mu      sync.Mutex
	failed  int       // timeouts in a row
	probing bool      // one write is under way to find out
	next    time.Time // when another may
}

// enter reports whether a write may go ahead, and whether it is the one that
// finds out if the server answers again.
func (b *breaker) enter(now time.Time) (probe, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed < breakAfter {
		return false, true
	}
	if b.probing || now.Before(b.next) {
		return false, false
	}
	b.probing = true
	return true, true
}

func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed >= breakAfter
}

// leave tells the breaker how the write ended; timeout is its context's error.
func (b *breaker) leave(probe bool, timeout error, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	if timeout == nil {
		b.failed = 0
		return
	}
	b.failed++
	b.next = now.Add(probeEvery)
}
