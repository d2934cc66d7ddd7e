package ratelimit

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	places   = 4096 // a power of two
	perPlace = 16
	// Capacity is how many keys a table holds that have not their whole quota. It
	// takes some 4 MiB, from the beginning.
	Capacity = places * perPlace
	// tellAt is the share of a quota, one part of so many, that a node's callers may
	// spend before it tells the others.
	tellAt = 16
)

// Key names a caller under a limit.
type Key [16]byte

// Table holds what callers have spent. Safe for concurrent use.
type Table struct {
	now   func() time.Time
	epoch time.Time

	places    []place // without a pointer in it: nothing to look through for the collector
	forgotten atomic.Uint64

	sharing atomic.Int32 // by how many exchanges
	mu      sync.Mutex
	untold  []Key         // at most Capacity; see slot.queued
	wake    chan struct{} // holds one
}

// place holds the keys that begin alike.
type place struct {
	mu    sync.Mutex
	slots [perPlace]slot
}

// slot is what one key has spent. Once whole has passed it says nothing, and is
// free.
type slot struct {
	key      Key
	whole    int64 // when the quota is whole again, in ns since epoch
	capacity int64 // of the key's limit
	untold   int64 // spent here, and not told to the others, in ns
	loud     int64 // when a refusal is news again, in ns since epoch
	queued   bool  // in Table.untold
}

// NewTable returns an empty table. now is its clock; nil: time.Now.
func NewTable(now func() time.Time) *Table { return NewTableOf(Capacity, now) }

// NewTableOf returns a table that holds so many keys, rounded up to a power of two.
func NewTableOf(keys int, now func() time.Time) *Table {
	if now == nil {
		now = time.Now
	}
	// Clocks are set; what time.Now has measured since epoch is not. The epoch is
	// before every instant, so that zero has passed.
	return &Table{now: now, epoch: now().Add(-time.Second), places: make([]place, 1<<bits.Len(uint(max(keys, 1)-1)/perPlace)), wake: make(chan struct{}, 1)}
}

// State is how a key stands under a limit.
type State struct {
	Limit *Limit
	// Allowed reports whether a unit was taken.
	Allowed bool
	// Remaining units, after it.
	Remaining int
	// Wait until there is one more than Remaining; 0: the quota is whole.
	Wait time.Duration
	// News: it is the first refusal of the key within a window.
	News bool
}

func (t *Table) time() int64 { return int64(t.now().Sub(t.epoch)) }

func (t *Table) placeOf(key Key) *place {
	return &t.places[binary.LittleEndian.Uint64(key[:8])%uint64(len(t.places))]
}

// Take takes one unit of the key's quota, if there is one.
func (t *Table) Take(key Key, l *Limit) State {
	p := t.placeOf(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := t.time()
	s := p.find(key)
	if s == nil {
		s = p.free(now, &t.forgotten)
		*s = slot{key: key, whole: now, capacity: l.capacity}
	}
	spent := max(s.whole-now, 0)
	state := State{Limit: l, Allowed: spent+l.interval <= l.capacity}
	if state.Allowed {
		spent += l.interval
		s.whole = now + spent
		s.untold = min(s.untold+l.interval, spent) // what was made good is no news
		t.tell(s)
	} else {
		state.News = now >= s.loud
		if state.News {
			s.loud = now + int64(l.Window)
		}
	}
	state.Remaining, state.Wait = l.standing(spent)
	return state
}

// Peek returns how the key stands; Allowed: it has a unit left. It takes none.
func (t *Table) Peek(key Key, l *Limit) State {
	p := t.placeOf(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	spent := int64(0)
	if s := p.find(key); s != nil {
		spent = max(s.whole-t.time(), 0)
	}
	state := State{Limit: l, Allowed: spent+l.interval <= l.capacity}
	state.Remaining, state.Wait = l.standing(spent)
	return state
}

// Return gives back one unit that Take took.
func (t *Table) Return(key Key, l *Limit) {
	p := t.placeOf(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.find(key); s != nil {
		s.whole -= l.interval
		s.untold -= l.interval // below zero: it was told, and is taken back
		t.tell(s)
	}
}

// standing returns what is left when so much is spent, and when there is more.
func (l *Limit) standing(spent int64) (remaining int, wait time.Duration) {
	if left := l.capacity - spent; left > 0 {
		remaining = int(left / l.interval)
	}
	if spent > 0 {
		wait = time.Duration(spent - l.capacity + int64(remaining+1)*l.interval)
	}
	return remaining, wait
}

func (p *place) find(key Key) *slot {
	for i := range p.slots {
		if p.slots[i].key == key {
			return &p.slots[i]
		}
	}
	return nil
}

// free returns a slot that says nothing, or else that of the key which has spent
// the least share of its quota.
func (p *place) free(now int64, forgotten *atomic.Uint64) *slot {
	least, share := 0, 0.0
	for i := range p.slots {
		s := &p.slots[i]
		if s.whole <= now {
			return s
		}
		if spent := float64(s.whole-now) / float64(s.capacity); i == 0 || spent < share {
			least, share = i, spent
		}
	}
	forgotten.Add(1)
	return &p.slots[least]
}

// Forgotten returns how many keys were forgotten that had not their whole quota.
func (t *Table) Forgotten() uint64 { return t.forgotten.Load() }
