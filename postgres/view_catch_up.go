package postgres

import (
	"context"
	"time"
)

// catchUpLimit is a poll that no notification woke, and a little.
const catchUpLimit = 300 * time.Millisecond

// CatchUp waits until the view has heard of all that had committed when it was
// called: who was answered that a session is over finds it so at this node with
// the very next request. A view that does not follow, or is late, is not waited
// for: then the bound holds as ever.
func (v *SessionView) CatchUp(ctx context.Context) {
	called := time.Now()
	late := time.NewTimer(catchUpLimit)
	defer late.Stop()
	for v.isFresh(time.Now()) && !v.polledSince(called) {
		select {
		case <-ctx.Done():
			return
		case <-late.C:
			return
		case <-time.After(burstGap / 4):
		}
	}
}

// polledSince reports whether a poll that was sent after then has completed.
func (v *SessionView) polledSince(then time.Time) bool {
	f := v.fresh.Load()
	return f != nil && f.until.Add(-v.maxStaleness).After(then)
}
