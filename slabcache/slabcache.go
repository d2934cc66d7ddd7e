// Package slabcache keeps values by the ten thousand without the garbage
// collector's noticing.
//
// A cache of pointers has some objects for each entry: the key, the value, the
// node of a list or a map. The collector visits all of them in every cycle, in no
// order that a processor could guess, and while it marks, whoever waits for an
// answer waits longer. Here entries lie side by side in slabs, with their text
// beside them: some sixty entries are a handful of objects. Nothing of an entry is
// a pointer, if its value has none: its key and its text are places in the text of
// the slab, what it has in common with others is a number in the slab's list of
// such things, and whoever wants to find it again without a look-up keeps a handle,
// which is a number too. The collector then does not look at entries at all.
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
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Options make a cache of values V that have an S in common with others. All but
// MaxEntries and MaxBytes tell it about these.
type Options[V, S any] struct {
	// MaxEntries and MaxBytes bound the cache; neither is ever exceeded, but by what
	// the entries of a single slab share where MaxBytes is small for it.
	MaxEntries int
	MaxBytes   int
	// EntryBytes is what an entry weighs besides its key and its text.
	EntryBytes int
	// SharedBytes returns what an S weighs. It is counted once in each slab. nil:
	// nothing worth counting.
	SharedBytes func(s *S) int
	// Copy writes a value into a place that is zero. A V best has no pointers: see
	// the package. One call at a time.
	Copy func(to, from *V)
	// Expires returns when the value is of no more use, in Unix seconds.
	Expires func(v *V) int64
}

// Entry is what the cache has of a key.
type Entry[V, S any] struct {
	Value  *V // shared: what may change of it must be atomic
	Shared *S // as it was put
	Text   string
	Handle uint64 // see Cache.At; never zero
}

// Cache keeps copies of values by string keys. Safe for concurrent use.
type Cache[V, S any] struct {
	o       Options[V, S]
	number  uint64 // of this cache, in the bits of a tag
	perSlab int
	seed    maphash.Seed
	index   []bucket
	ring    []atomic.Pointer[slab[V, S]] // by number, modulo its length

	mu             sync.Mutex // of whoever writes
	oldest, newest uint32     // numbers of the slabs that are there; oldest comes after newest: none

	entries, bytes, evicted atomic.Int64
}

// bucket holds the places of the entries whose keys hash alike, in one line of the
// processor's cache. A place is 0, or the rest of the hash (24 bits), the number of
// a slab (32) and an entry of it (8). A handle is a place with the number of its
// cache instead of the hash.
type bucket [8]atomic.Uint64

const tagBits = uint64(0xffffff) << 40

// caches counts those that were made, so that the handles of one are not another's.
var caches atomic.Uint64

// slab is a number of entries and their text.
type slab[V, S any] struct {
	number  uint32
	entries []entry[V]
	text    []byte // of all that fits
	shared  [mostPerSlab]*S

	// For whoever writes.
	filled      int   // how many entries are there
	written     int   // how much text
	sharing     int   // how many of shared
	sharedBytes int   // and what these weigh
	gone        int   // entries that nobody finds any more
	expires     int64 // the last of them
}

type entry[V any] struct {
	start, keyLength, textLength uint32 // in the text of the slab: the key, and behind it the entry's own
	shared                       uint8
	used                         atomic.Bool // since it was put here
	value                        V
}

func (s *slab[V, S]) key(e *entry[V]) string { return s.textAt(e.start, e.keyLength) }

func (s *slab[V, S]) textOf(e *entry[V]) string {
	return s.textAt(e.start+e.keyLength, e.textLength)
}

// textAt is a part of the text that was written. It is not written again, and so may
// be called a string, as strings.Builder does with its bytes.
func (s *slab[V, S]) textAt(start, length uint32) string {
	return unsafe.String(unsafe.SliceData(s.text[start:]), length)
}

// write puts more behind the text and returns where it starts.
func (s *slab[V, S]) write(text string) (start uint32) {
	start = uint32(s.written)
	s.written += copy(s.text[start:], text)
	return start
}

const (
	mostPerSlab  = 64
	leastPerSlab = 4
	firstText    = 64 // guess for the first slab
)

// New returns an empty cache. Its index takes 32 bytes for each of MaxEntries; slabs
// are made as they are needed.
func New[V, S any](o Options[V, S]) *Cache[V, S] {
	o.MaxEntries = max(o.MaxEntries, 1)
	if o.SharedBytes == nil {
		o.SharedBytes = func(*S) int { return 0 }
	}
	perSlab := min(max(o.MaxEntries/64, leastPerSlab), mostPerSlab, o.MaxEntries, max(o.MaxBytes/8/max(o.EntryBytes, 1), 1))
	slabs := o.MaxEntries / perSlab
	return &Cache[V, S]{
		o: o, number: caches.Add(1) << 40, perSlab: perSlab, seed: maphash.MakeSeed(), oldest: 1,
		index: make([]bucket, powerOfTwo(o.MaxEntries/2)),
		ring:  make([]atomic.Pointer[slab[V, S]], powerOfTwo(slabs)),
	}
}

func powerOfTwo(atLeast int) int { return 1 << bits.Len(uint(max(atLeast, 1)-1)) }

// Len returns the number of entries.
func (c *Cache[V, S]) Len() int { return int(c.entries.Load()) }

// Bytes returns what the slabs weigh.
func (c *Cache[V, S]) Bytes() int { return int(c.bytes.Load()) }

// Evicted returns how many entries had to go before they expired.
func (c *Cache[V, S]) Evicted() int64 { return c.evicted.Load() }

// Get returns what the key has.
func (c *Cache[V, S]) Get(key string) (Entry[V, S], bool) {
	f := c.find(maphash.String(c.seed, key), key)
	if f.entry == nil {
		return Entry[V, S]{}, false
	}
	f.entry.use()
	return c.entry(f.place, f.slab, f.entry), true
}

// At returns an entry by its handle: as Get, without a look-up, and for as long as
// its slab is there, whether it was forgotten or not.
func (c *Cache[V, S]) At(handle uint64) (Entry[V, S], bool) {
	if handle&tagBits != c.number {
		return Entry[V, S]{}, false
	}
	s, e := c.at(handle)
	if e == nil {
		return Entry[V, S]{}, false
	}
	e.use()
	return c.entry(handle, s, e), true
}

func (e *entry[V]) use() {
	if !e.used.Load() { // most are: a write would take the line from other processors
		e.used.Store(true)
	}
}

func (c *Cache[V, S]) entry(place uint64, s *slab[V, S], e *entry[V]) Entry[V, S] {
	return Entry[V, S]{&e.value, s.shared[e.shared], s.textOf(e), place&^tagBits | c.number}
}

// found is where a key was found.
type found[V, S any] struct {
	at    *atomic.Uint64 // in the index
	place uint64         // that stood there
	slab  *slab[V, S]
	entry *entry[V] // nil: nowhere
}

func (c *Cache[V, S]) find(hash uint64, key string) found[V, S] {
	b := c.bucketOf(hash)
	for i := range b {
		place := b[i].Load()
		if place&tagBits != hash&tagBits || place == 0 {
			continue
		}
		if s, e := c.at(place); e != nil && s.key(e) == key {
			return found[V, S]{&b[i], place, s, e}
		}
	}
	return found[V, S]{}
}

func (c *Cache[V, S]) bucketOf(hash uint64) *bucket { return &c.index[hash&uint64(len(c.index)-1)] }

// at returns the entry of a place; nil: its slab is gone.
func (c *Cache[V, S]) at(place uint64) (*slab[V, S], *entry[V]) {
	s := c.slab(uint32(place >> 8))
	if s == nil {
		return nil, nil
	}
	return s, &s.entries[place&0xff]
}

// slab returns the slab of this number; nil: it is gone.
func (c *Cache[V, S]) slab(number uint32) *slab[V, S] {
	s := c.ring[number&uint32(len(c.ring)-1)].Load()
	if s == nil || s.number != number {
		return nil
	}
	return s
}

// Put keeps a copy of the value, in place of what the key had, and returns it. It
// reports false when the value is larger than the cache may be.
func (c *Cache[V, S]) Put(key string, value *V, shared *S, text string) (Entry[V, S], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := item[V, S]{key, text, value, shared}
	c.forget(maphash.String(c.seed, key), key)
	if i.size()+c.o.SharedBytes(shared) > c.o.MaxBytes {
		return Entry[V, S]{}, false
	}
	s := c.slab(c.newest)
	if s == nil || !c.fits(s, i.size()) {
		if s = c.newSlab(i.size()); s == nil {
			return Entry[V, S]{}, false
		}
	}
	return c.add(s, i), true
}

// item is an entry that is put or moves.
type item[V, S any] struct {
	key, text string
	value     *V
	shared    *S
}

func (i *item[V, S]) size() int { return len(i.key) + len(i.text) }

// Forget removes the key.
func (c *Cache[V, S]) Forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(maphash.String(c.seed, key), key)
}

// Clear removes everything.
func (c *Cache[V, S]) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.oldest <= c.newest {
		c.release(c.slab(c.oldest))
	}
}

func (c *Cache[V, S]) forget(hash uint64, key string) {
	if f := c.find(hash, key); f.entry != nil {
		c.vacate(f.at)
	}
}

// vacate makes a place free and reports whether an entry was there, which is found
// no more.
func (c *Cache[V, S]) vacate(place *atomic.Uint64) (had bool) {
	if s := c.slab(uint32(place.Load() >> 8)); s != nil {
		s.gone++
		c.entries.Add(-1)
		had = true
	}
	place.Store(0)
	return had
}

// add puts an entry into a slab that has room for it.
func (c *Cache[V, S]) add(s *slab[V, S], i item[V, S]) Entry[V, S] {
	e := &s.entries[s.filled]
	e.shared = c.share(s, i.shared)
	e.start, e.keyLength, e.textLength = s.write(i.key), uint32(len(i.key)), uint32(len(i.text))
	s.write(i.text)
	c.o.Copy(&e.value, i.value)
	s.expires = max(s.expires, c.o.Expires(i.value))

	hash := maphash.String(c.seed, i.key)
	at := c.freePlace(hash)
	if c.vacate(at) {
		c.evicted.Add(1)
	}
	// From here on readers find it, complete as it is.
	place := hash&tagBits | uint64(s.number)<<8 | uint64(s.filled)
	at.Store(place)
	s.filled++
	c.entries.Add(1)
	return c.entry(place, s, e)
}

// share returns the number that shared has in the slab.
func (c *Cache[V, S]) share(s *slab[V, S], shared *S) uint8 {
	if known := slices.Index(s.shared[:s.sharing], shared); known >= 0 {
		return uint8(known)
	}
	weight := c.o.SharedBytes(shared)
	for c.Bytes()+weight > c.o.MaxBytes && c.oldest < s.number {
		used, unused := c.dropOldest()
		c.evicted.Add(int64(len(used) + unused))
	}
	c.bytes.Add(int64(weight))
	s.sharedBytes += weight
	s.shared[s.sharing] = shared
	s.sharing++
	return uint8(s.sharing - 1)
}

// freePlace returns a place for the hash: a free one, or that of the oldest entry.
func (c *Cache[V, S]) freePlace(hash uint64) *atomic.Uint64 {
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
func (c *Cache[V, S]) newSlab(size int) *slab[V, S] {
	var moving []item[V, S]
	for dropped := 0; ; {
		need := size
		if len(moving) > 0 {
			need = max(size, moving[0].size())
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
		for ; len(moving) > 0 && c.fits(s, moving[0].size()); moving = moving[1:] {
			c.add(s, moving[0])
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

func (c *Cache[V, S]) makeSlab(text int) *slab[V, S] {
	text = max(text, min(c.perSlab*c.meanText()*9/8, c.o.MaxBytes/8))
	return &slab[V, S]{number: c.newest + 1, entries: make([]entry[V], c.perSlab), text: make([]byte, text)}
}

func (c *Cache[V, S]) publish(s *slab[V, S]) {
	c.newest = s.number
	c.bytes.Add(int64(c.weight(s)))
	c.ring[s.number&uint32(len(c.ring)-1)].Store(s)
}

func (c *Cache[V, S]) fits(s *slab[V, S], size int) bool {
	return s.filled < c.perSlab && len(s.text)-s.written >= size
}

// meanText is how much text an entry of the newest slab has, key included.
func (c *Cache[V, S]) meanText() int {
	if s := c.slab(c.newest); s != nil && s.filled > 0 {
		return s.written/s.filled + 1
	}
	return firstText
}

func (c *Cache[V, S]) weight(s *slab[V, S]) int {
	return len(s.text) + c.perSlab*c.o.EntryBytes + s.sharedBytes
}

// mustDrop reports whether the oldest slab has to go before one more of this weight
// comes, or has nothing left that is of use.
func (c *Cache[V, S]) mustDrop(weight int) bool {
	slabs := int(c.newest-c.oldest) + 1
	return (slabs+1)*c.perSlab > c.o.MaxEntries || c.Bytes()+weight > c.o.MaxBytes ||
		c.slab(c.oldest).expires < time.Now().Unix()
}

// dropOldest lets the oldest slab go and returns the entries of it that have not
// expired: those that were used since they came, and how many were not.
func (c *Cache[V, S]) dropOldest() (used []item[V, S], unused int) {
	s, now := c.slab(c.oldest), time.Now().Unix()
	for i := range s.entries[:s.filled] {
		e := &s.entries[i]
		if c.o.Expires(&e.value) < now {
			continue
		}
		key := s.key(e)
		if c.find(maphash.String(c.seed, key), key).entry != e {
			continue
		}
		if e.used.Load() {
			used = append(used, item[V, S]{key, s.textOf(e), &e.value, s.shared[e.shared]})
		} else {
			unused++
		}
	}
	c.release(s)
	return used, unused
}

// release lets the oldest slab go. Its places in the index are free by that.
func (c *Cache[V, S]) release(s *slab[V, S]) {
	c.ring[s.number&uint32(len(c.ring)-1)].Store(nil)
	c.entries.Add(int64(s.gone - s.filled))
	c.bytes.Add(-int64(c.weight(s)))
	c.oldest++
}
