package ratelimit

import (
	"context"
	"time"

	"go.uber.org/zap"
)

const (
	// shareEvery is the least time between two exchanges, retryEvery that after one
	// that failed.
	shareEvery, retryEvery = 100 * time.Millisecond, time.Second
	// shareBatch bounds what one exchange carries.
	shareBatch = 2000
)

// Spent is what the callers of a key have spent, as the time in which it is made
// good.
type Spent struct {
	Key  Key
	Time time.Duration
}

// Exchange adds what was spent at this node to what was spent at others, and
// returns for the same keys, in any order, what is not made good yet of all of it.
type Exchange func(ctx context.Context, spent []Spent) ([]Spent, error)

// Share tells the other nodes what was spent here, and hears what was spent there,
// until ctx ends. Requests never wait for it. Without Share, or while it fails, a
// table counts what comes to it alone.
//
// A node tells of a key when its callers have spent a sixteenth of the quota, at
// once, but at most ten times a second; so n nodes together let through at most n
// sixteenths more than one alone, and what comes in until the answer is there: at
// worst, when a whole quota is spent at each within a moment, n times the quota. It
// is then owed: no node that hears of it lets the key through until all of it is
// made good.
func (t *Table) Share(ctx context.Context, exchange Exchange, logger *zap.Logger) {
	t.sharing.Add(1)
	defer t.sharing.Add(-1)
	failing := false
	pause := shareEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		err := t.shareOnce(ctx, exchange)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			logger.Warn("rate limits are this node's alone until the database answers", zap.Error(err))
		case err == nil && failing:
			logger.Info("rate limits are shared again")
		}
		if failing, pause = err != nil, shareEvery; failing {
			pause = retryEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// shareOnce exchanges one batch. What could not be told stays to be told.
func (t *Table) shareOnce(ctx context.Context, exchange Exchange) error {
	batch := t.takeUntold()
	if len(batch) == 0 {
		return nil
	}
	sent := t.time()
	standing, err := exchange(ctx, batch)
	if err != nil {
		for _, spent := range batch {
			t.untell(spent)
		}
		return err
	}
	for _, spent := range standing {
		t.hear(spent, sent)
	}
	return nil
}

// tell puts a key that the others should hear of onto the list. The place is
// locked.
func (t *Table) tell(s *slot) {
	if s.queued || max(s.untold, -s.untold)*tellAt < s.capacity || t.sharing.Load() == 0 {
		return
	}
	t.mu.Lock()
	if len(t.untold) < Capacity {
		t.untold, s.queued = append(t.untold, s.key), true
	}
	t.mu.Unlock()
	t.wakeUp()
}

func (t *Table) wakeUp() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// takeUntold returns the next keys to tell of, each once.
func (t *Table) takeUntold() []Spent {
	t.mu.Lock()
	keys := t.untold[:min(len(t.untold), shareBatch)]
	if t.untold = t.untold[len(keys):]; len(t.untold) > 0 {
		t.wakeUp()
	} else {
		t.untold = nil
	}
	t.mu.Unlock()
	now := t.time()
	batch := make([]Spent, 0, len(keys))
	for _, key := range keys {
		p := t.placeOf(key)
		p.mu.Lock()
		if s := p.find(key); s != nil && s.queued { // else it was forgotten
			untold := min(s.untold, max(s.whole-now, 0))
			s.queued, s.untold = false, 0
			if untold != 0 {
				batch = append(batch, Spent{key, time.Duration(untold)})
			}
		}
		p.mu.Unlock()
	}
	return batch
}

// untell takes back that the others were told.
func (t *Table) untell(spent Spent) {
	p := t.placeOf(spent.Key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.find(spent.Key); s != nil {
		s.untold += int64(spent.Time)
		t.tell(s)
	}
}

// hear notes what was spent at all nodes, as it stood at some time since sent, and
// what was spent here since.
func (t *Table) hear(spent Spent, sent int64) {
	p := t.placeOf(spent.Key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.find(spent.Key); s != nil {
		s.whole = max(s.whole, sent+int64(spent.Time)+s.untold)
	}
}
