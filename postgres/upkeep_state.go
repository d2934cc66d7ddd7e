package postgres

import (
	"sync/atomic"
	"time"
)

// UpkeepState is what the upkeep of this node has done.
type UpkeepState struct {
	// Removed are the rows that had expired, by this node.
	Removed int64
	// Failures are passes, and writes of what sessions did, that did not succeed;
	// LastFailure is why the last of them did not.
	Failures      int64
	LastFailure   string
	LastFailureAt time.Time
	// Cleaned is when the last pass over the tables ended without a failure, by
	// this node or because another was at it. Zero: not yet.
	Cleaned time.Time
}

type upkeepOutcomes struct {
	removed, failures atomic.Int64
	cleaned           atomic.Pointer[time.Time]
	last              atomic.Pointer[callFailure]
}

func (o *upkeepOutcomes) fail(err error) {
	o.failures.Add(1)
	o.last.Store(&callFailure{err.Error(), time.Now()})
}

func (o *upkeepOutcomes) clean() {
	now := time.Now()
	o.cleaned.Store(&now)
}

// State tells what was done.
func (u *Upkeep) State() UpkeepState {
	state := UpkeepState{Removed: u.outcomes.removed.Load(), Failures: u.outcomes.failures.Load()}
	if cleaned := u.outcomes.cleaned.Load(); cleaned != nil {
		state.Cleaned = *cleaned
	}
	if last := u.outcomes.last.Load(); last != nil {
		state.LastFailure, state.LastFailureAt = last.err, last.at
	}
	return state
}
