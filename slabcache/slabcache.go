// Package slabcache keeps values by the ten thousand without the garbage
// collector's noticing.
//
// A cache of pointers has some objects for each entry: the key, the value, the
// node of a list or a map. The collector visits all of them in every cycle, in no
// order that a processor could guess, and while it marks, whoever waits for an
// answer waits longer. Here entries lie side by side in slabs, with their text
// beside them, so that some sixty entries are two objects; the index has no
// pointers at all.
//
// A slab is written once, from its first entry to its last, and never again: when
// the bounds are reached, the oldest is let go as a whole, but for the entries that
// were used since, which move to the newest. Nothing is overwritten, so that
// readers take no lock, and an entry that was found stays what it is for as long as
// somebody holds it.
//
// The index has a fixed number of places. Very rarely an entry finds all of its
// places taken by newer ones, and is then missed before its time: this is a cache.
package slabcache

import (
	"hash/maphash"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options make a cache. All but MaxEntries and MaxBytes tell it about V.
type Options[V any] struct {
	// MaxEntries and MaxBytes bound the cache; neither is ever exceeded.
	MaxEntries int
	MaxBytes   int
	// EntryBytes is what an entry weighs besides its key and the text of its value.
	EntryBytes int
	// Text returns how many bytes Copy gives to Text.Keep.
	Text func(v *V) int
	// Copy writes a value into a place that is zero. What the value does not share
	// with others of its strings must go through text, or the slab would keep
	// objects of its own for it. One call at a time.
	Copy func(to, from *V, text *Text)
	// Apart returns how many bytes the value leads to that are its own and in no
	// slab. nil: none.
	Apart func(v *V) int
	// Expires returns when the value is of no more use, in Unix seconds.
	Expires func(v *V) int64
}

// Cache keeps copies of values by string keys. Safe for concurrent use.
type Cache[V any] struct {
	o       Options[V]
	perSlab int
	seed    maphash.Seed
	index   []bucket
	ring    []atomic.Pointer[slab[V]] // by number, modulo its length

	mu             sync.Mutex // of whoever writes
	oldest, newest uint32     // numbers of the slabs that are there; oldest comes after newest: none

	entries, bytes, evicted atomic.Int64
}

// bucket holds the places of the entries whose keys hash alike, in one line of the
// processor's cache. A place is 0, or the rest of the hash (24 bits), the number of
// a slab (32) and an entry of it (8).
type bucket [8]atomic.Uint64

const tagBits = uint64(0xffffff) << 40

// slab is a number of entries and their text.
type slab[V any] struct {
	number  uint32
	entries []entry[V]
	text    Text

	// For whoever writes.
	filled  int   // how many entries are there
	apart   int   // what its entries hold elsewhere, in bytes
	gone    int   // entries that nobody finds any more
	expires int64 // the last of them
}

type entry[V any] struct {
	key   string
	used  atomic.Bool // since it was put here
	value V
}

// Text is the text of a slab's entries, one behind the other.
type Text struct{ all strings.Builder }

// Keep returns s as a part of the text.
func (t *Text) Keep(s string) string {
	start := t.all.Len()
	t.all.WriteString(s)
	return t.all.String()[start:]
}

// Grow makes room for n more bytes. What goes beyond moves the text: what was kept
// before stays where it is, as an object of its own.
func (t *Text) Grow(n int) { t.all.Grow(n) }

func (t *Text) room() int { return t.all.Cap() - t.all.Len() }

const (
	mostPerSlab  = 64
	leastPerSlab = 4
	firstText    = 64 // guess for the first slab
)

// New returns an empty cache. Its index takes 32 bytes for each of MaxEntries; slabs
// are made as they are needed.
func New[V any](o Options[V]) *Cache[V] {
	o.MaxEntries = max(o.MaxEntries, 1)
	if o.Apart == nil {
		o.Apart = func(*V) int { return 0 }
	}
	perSlab := min(max(o.MaxEntries/64, leastPerSlab), mostPerSlab, o.MaxEntries, max(o.MaxBytes/8/max(o.EntryBytes, 1), 1))
	slabs := o.MaxEntries / perSlab
	return &Cache[V]{
		o: o, perSlab: perSlab, seed: maphash.MakeSeed(), oldest: 1,
		index: make([]bucket, powerOfTwo(o.MaxEntries/2)),
		ring:  make([]atomic.Pointer[slab[V]], powerOfTwo(slabs)),
	}
}

func powerOfTwo(atLeast int) int { return 1 << bits.Len(uint(max(atLeast, 1)-1)) }

// Len returns the number of entries.
func (c *Cache[V]) Len() int { return int(c.entries.Load()) }

// Bytes returns what the slabs weigh.
func (c *Cache[V]) Bytes() int { return int(c.bytes.Load()) }

// Evicted returns how many entries had to go before they expired.
func (c *Cache[V]) Evicted() int64 { return c.evicted.Load() }

// Get returns the value of the key. It is shared: what may change of it must be
// atomic.
func (c *Cache[V]) Get(key string) (*V, bool) {
	hash := maphash.String(c.seed, key)
	_, e := c.find(hash, key)
	if e == nil {
		return nil, false
	}
	if !e.used.Load() { // most are: a write would take the line from other processors
		e.used.Store(true)
	}
	return &e.value, true
}

// find returns the place of the key and its entry; nil: there is none.
func (c *Cache[V]) find(hash uint64, key string) (*atomic.Uint64, *entry[V]) {
	b := c.bucketOf(hash)
	for i := range b {
		place := b[i].Load()
		if place&tagBits != hash&tagBits || place == 0 {
			continue
		}
		if e := c.at(place); e != nil && e.key == key {
			return &b[i], e
		}
	}
	return nil, nil
}

func (c *Cache[V]) bucketOf(hash uint64) *bucket { return &c.index[hash&uint64(len(c.index)-1)] }

// at returns the entry of a place; nil: its slab is gone.
func (c *Cache[V]) at(place uint64) *entry[V] {
	s := c.slab(uint32(place >> 8))
	if s == nil {
		return nil
	}
	return &s.entries[place&0xff]
}

// slab returns the slab of this number; nil: it is gone.
func (c *Cache[V]) slab(number uint32) *slab[V] {
	s := c.ring[number&uint32(len(c.ring)-1)].Load()
	if s == nil || s.number != number {
		return nil
	}
	return s
}

// Put keeps a copy of the value, in place of what the key had, and returns it. It
// returns nil when the value is larger than the cache may be.
func (c *Cache[V]) Put(key string, value *V) *V {
	c.mu.Lock()
	defer c.mu.Unlock()
	hash := maphash.String(c.seed, key)
	c.forget(hash, key)
	size := len(key) + c.o.Text(value)
	if size+c.o.Apart(value) > c.o.MaxBytes {
		return nil
	}
	s := c.slab(c.newest)
	if s == nil || !c.fits(s, size) {
		if s = c.newSlab(size); s == nil {
			return nil
		}
	}
	return c.add(s, hash, key, value)
}

// Forget removes the key.
func (c *Cache[V]) Forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(maphash.String(c.seed, key), key)
}

// Clear removes everything.
func (c *Cache[V]) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.oldest <= c.newest {
		c.release(c.slab(c.oldest))
	}
}

func (c *Cache[V]) forget(hash uint64, key string) {
	if place, e := c.find(hash, key); e != nil {
		c.vacate(place)
	}
}

// vacate makes a place free and reports whether an entry was there, which is found
// no more.
func (c *Cache[V]) vacate(place *atomic.Uint64) (had bool) {
	if s := c.slab(uint32(place.Load() >> 8)); s != nil {
		s.gone++
		c.entries.Add(-1)
		had = true
	}
	place.Store(0)
	return had
}

// add puts an entry into a slab that has room for it.
func (c *Cache[V]) add(s *slab[V], hash uint64, key string, value *V) *V {
	apart := c.o.Apart(value)
	for c.Bytes()+apart > c.o.MaxBytes && c.oldest < s.number {
		used, unused := c.dropOldest()
		c.evicted.Add(int64(len(used) + unused))
	}
	s.apart += apart
	c.bytes.Add(int64(apart))

	i := s.filled
	e := &s.entries[i]
	e.key = s.text.Keep(key)
	c.o.Copy(&e.value, value, &s.text)
	s.expires = max(s.expires, c.o.Expires(value))
	s.filled++

	place := c.freePlace(hash)
	if c.vacate(place) {
		c.evicted.Add(1)
	}
	// From here on readers find it, complete as it is.
	place.Store(hash&tagBits | uint64(s.number)<<8 | uint64(i))
	c.entries.Add(1)
	return &e.value
}

// freePlace returns a place for the hash: a free one, or that of the oldest entry.
func (c *Cache[V]) freePlace(hash uint64) *atomic.Uint64 {
	b := c.bucketOf(hash)
	oldest, age := &b[0], uint32(0)
	for i := range b {
		number := uint32(b[i].Load() >> 8)
		if number == 0 || c.slab(number) == nil {
			return &b[i]
		}
		if a := c.newest - number; a >= age {
			oldest, age = &b[i], a
		}
	}
	return oldest
}

// mostMoves bounds how many slabs are let go for a new one in the hope of entries
// that are of no more use. Where all are in use, some must go nevertheless.
const mostMoves = 32

// newSlab returns a slab with room for an entry whose text has this size; nil: the
// cache may not be that large. The oldest go for it, and what was used of them
// moves.
func (c *Cache[V]) newSlab(size int) *slab[V] {
	var moving []*entry[V]
	for dropped := 0; ; {
		need := size
		if len(moving) > 0 {
			need = max(size, c.size(moving[0]))
		}
		s := c.makeSlab(need)
		if c.weight(s) > c.o.MaxBytes {
			return nil
		}
		for c.oldest <= c.newest && c.mustDrop(c.weight(s)) {
			used, unused := c.dropOldest()
			c.evicted.Add(int64(unused))
			if dropped++; dropped <= mostMoves {
				moving = append(moving, used...)
			} else {
				c.evicted.Add(int64(len(used)))
			}
		}
		c.publish(s)
		for ; len(moving) > 0 && c.fits(s, c.size(moving[0])); moving = moving[1:] {
			c.add(s, maphash.String(c.seed, moving[0].key), moving[0].key, &moving[0].value)
		}
		if dropped >= mostMoves {
			c.evicted.Add(int64(len(moving)))
			moving = nil
		}
		if len(moving) == 0 && c.fits(s, size) {
			return s
		}
	}
}

func (c *Cache[V]) makeSlab(text int) *slab[V] {
	s := &slab[V]{number: c.newest + 1, entries: make([]entry[V], c.perSlab)}
	s.text.Grow(max(text, min(c.perSlab*c.meanText()*9/8, c.o.MaxBytes/8)))
	return s
}

func (c *Cache[V]) publish(s *slab[V]) {
	c.newest = s.number
	c.bytes.Add(int64(c.weight(s)))
	c.ring[s.number&uint32(len(c.ring)-1)].Store(s)
}

// size is how much text the entry has.
func (c *Cache[V]) size(e *entry[V]) int { return len(e.key) + c.o.Text(&e.value) }

func (c *Cache[V]) fits(s *slab[V], size int) bool {
	return s.filled < c.perSlab && s.text.room() >= size
}

// meanText is how much text an entry of the newest slab has, key included.
func (c *Cache[V]) meanText() int {
	if s := c.slab(c.newest); s != nil && s.filled > 0 {
		return s.text.all.Len()/s.filled + 1
	}
	return firstText
}

func (c *Cache[V]) weight(s *slab[V]) int {
	return s.text.all.Cap() + c.perSlab*c.o.EntryBytes + s.apart
}

// mustDrop reports whether the oldest slab has to go before one more of this weight
// comes, or has nothing left that is of use.
func (c *Cache[V]) mustDrop(weight int) bool {
	slabs := int(c.newest-c.oldest) + 1
	return (slabs+1)*c.perSlab > c.o.MaxEntries || c.Bytes()+weight > c.o.MaxBytes ||
		c.slab(c.oldest).expires < time.Now().Unix()
}

// dropOldest lets the oldest slab go and returns the entries of it that have not
// expired: those that were used since they came, and how many were not.
func (c *Cache[V]) dropOldest() (used []*entry[V], unused int) {
	s, now := c.slab(c.oldest), time.Now().Unix()
	for i := range s.entries[:s.filled] {
		e := &s.entries[i]
		if c.o.Expires(&e.value) < now {
			continue
		}
		if _, found := c.find(maphash.String(c.seed, e.key), e.key); found != e {
			continue
		}
		if e.used.Load() {
			used = append(used, e)
		} else {
			unused++
		}
	}
	c.release(s)
	return used, unused
}

// release lets the oldest slab go. Its places in the index are free by that.
func (c *Cache[V]) release(s *slab[V]) {
	c.ring[s.number&uint32(len(c.ring)-1)].Store(nil)
	c.entries.Add(int64(s.gone - s.filled))
	c.bytes.Add(-int64(c.weight(s)))
	c.oldest++
}
