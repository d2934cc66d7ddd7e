package postgres

import (
	"errors"
	"sync/atomic"
	"time"
)

// PoolState is how the pool does at one moment.
type PoolState struct {
	// Answers: the last call was answered by a server that takes writes, and writes
	// are not held back because the last ones were not.
	Answers bool
	// Acquired and Idle connections, and the most there may be.
	Acquired, Idle, Max int
	// Acquires is how often a connection was taken; Waits, how often there was none
	// at once; Waited, for how long altogether.
	Acquires, Waits int64
	Waited          time.Duration
	// Failures are calls that the server did not answer, or for which no connection
	// came free in time.
	Failures int64
	// LastFailure is the last of them. Its text holds no password.
	LastFailure   string
	LastFailureAt time.Time
}

// callOutcomes is what became of the calls. A server that answers with an error
// answers.
type callOutcomes struct {
	failing  atomic.Bool // the last call
	failures atomic.Int64
	last     atomic.Pointer[callFailure]
}

type callFailure struct {
	err string
	at  time.Time
}

func (o *callOutcomes) note(broken bool, err error) {
	if !broken && !errors.Is(err, errReadOnly) && !errors.Is(err, errUnreplicated) {
		if o.failing.Load() { // rarely: who asks for it often must not take it from another core
			o.failing.Store(false)
		}
		return
	}
	o.failing.Store(true)
	o.failures.Add(1)
	o.last.Store(&callFailure{err.Error(), time.Now()})
}

// State tells how the pool does.
func (db *DB) State() PoolState {
	stat := db.pool.Stat()
	state := PoolState{
		Answers:  !db.outcomes.failing.Load() && !db.breaker.open(),
		Acquired: int(stat.AcquiredConns()), Idle: int(stat.IdleConns()), Max: int(stat.MaxConns()),
		Acquires: stat.AcquireCount(), Waits: stat.EmptyAcquireCount(), Waited: stat.EmptyAcquireWaitTime(),
		Failures: db.outcomes.failures.Load(),
	}
	if last := db.outcomes.last.Load(); last != nil {
		state.LastFailure, state.LastFailureAt = last.err, last.at
	}
	return state
}
