//go:build linux

package ledger

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Settle is to be called when the load has stopped and the fault is over. It
// uses every refresh token that is left (I1), with nobody's help (I5), and
// returns what it found, with all that Check finds in the ledger.
func (l *Load) Settle(ctx context.Context, bound time.Duration) (violations []string) {
	l.mu.Lock()
	all := slices.Clone(l.all)
	l.mu.Unlock()
	var mu sync.Mutex
	complain := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		violations = append(violations, fmt.Sprintf(format, args...))
	}
	if err := l.Failure(); err != nil {
		complain("the ledger: %v", err)
	}
	work := make(chan *held)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for h := range work {
				if !h.over && !l.refresh(ctx, h) {
					complain("I1: the refresh token of session %s does not work", h.session)
				}
			}
		})
	}
	for _, h := range all {
		work <- h
	}
	close(work)
	workers.Wait()
	return append(violations, Check(l.Entries(), bound)...)
}

// Left is how many sessions Settle will use.
func (l *Load) Left() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.all {
		h.mu.Lock()
		if !h.over {
			n++
		}
		h.mu.Unlock()
	}
	return n
}
