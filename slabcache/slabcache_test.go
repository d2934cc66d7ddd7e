package slabcache_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/slabcache"
)

// note is a value; it has a text of its own, and a writer in common with others.
type note struct {
	number  int
	expires int64
}

type cache = slabcache.Cache[note, string]

func newCache(entries, bytes int) *cache {
	return slabcache.New(slabcache.Options[note, string]{
		MaxEntries: entries, MaxBytes: bytes, EntryBytes: 56,
		SharedBytes: func(writer *string) int { return len(*writer) },
		Copy:        func(to, from *note) { *to = *from },
		Expires:     func(n *note) int64 { return n.expires },
	})
}

var (
	later   = time.Now().Add(time.Hour).Unix()
	writers = [...]string{"ada", "bob", "eve", "mallory", "trent"}
)

func put(c *cache, key string, n int) bool {
	_, ok := c.Put(key, &note{n, later}, writer(n), textOf(n))
	return ok
}

func textOf(n int) string { return "text of " + strconv.Itoa(n) + strings.Repeat("x", n%8*25) }

func writer(n int) *string { return &writers[n%len(writers)] }

// isNote reports whether the entry is what put made of n.
func isNote(e slabcache.Entry[note, string], n int) bool {
	return e.Value.number == n && e.Text == textOf(n) && e.Shared == writer(n)
}

// TestWhatIsFoundIsWhatWasPut, whatever was put, forgotten and cleared before: a
// plain map knows what a key may have. The bounds hold after every step.
func TestWhatIsFoundIsWhatWasPut(t *testing.T) {
	for _, bounds := range [][2]int{{1, 1 << 20}, {3, 1 << 20}, {50, 1 << 20}, {1000, 1 << 20}, {1000, 20_000}, {100_000, 50_000}} {
		t.Run(fmt.Sprint(bounds), func(t *testing.T) {
			c, model := newCache(bounds[0], bounds[1]), map[string]int{}
			found := 0
			for step := range 20_000 {
				key := strings.Repeat("k", rand.IntN(20)) + strconv.Itoa(rand.IntN(300))
				switch n := rand.IntN(1000); {
				case n == 0:
					c.Clear()
					clear(model)
					if c.Len() != 0 || c.Bytes() != 0 {
						t.Fatalf("%d entries of %d bytes are left", c.Len(), c.Bytes())
					}
				case n < 50:
					c.Forget(key)
					delete(model, key)
				case n < 400:
					kept, ok := c.Put(key, &note{step, later}, writer(step), textOf(step))
					if !ok || !isNote(kept, step) {
						t.Fatalf("%d was kept as %v", step, kept)
					}
					model[key] = step
				default:
					got, ok := c.Get(key)
					if want, had := model[key]; ok && (!had || !isNote(got, want)) {
						t.Fatalf("%q has %v, want %v", key, got, want)
					}
					if ok {
						found++
					}
				}
				if c.Len() > bounds[0] || c.Bytes() > bounds[1] || c.Len() > len(model) {
					t.Fatalf("%d entries of %d bytes; %d were put", c.Len(), c.Bytes(), len(model))
				}
			}
			if found == 0 && bounds[0] >= 50 { // of some six thousand keys
				t.Error("nothing was ever found")
			}
		})
	}
}

// TestNearlyAllThatFitsIsKept: the index, which is lossy, loses few.
func TestNearlyAllThatFitsIsKept(t *testing.T) {
	const entries = 20_000
	c := newCache(entries, 64<<20)
	for i := range entries {
		put(c, strconv.Itoa(i), i)
	}
	lost := 0
	for i := range entries {
		if got, ok := c.Get(strconv.Itoa(i)); !ok {
			lost++
		} else if !isNote(got, i) {
			t.Fatalf("%d has %v", i, got)
		}
	}
	if lost != entries-c.Len() || lost != int(c.Evicted()) || lost > entries/100 {
		t.Errorf("%d of %d are lost, %d are said to be there", lost, entries, c.Len())
	}
}

// TestWhatIsUsedOutlastsAFlood: the oldest go first, but for those in use, also
// when they are most of what is there.
func TestWhatIsUsedOutlastsAFlood(t *testing.T) {
	for _, busy := range []int{10, 400, 800} {
		t.Run(strconv.Itoa(busy), func(t *testing.T) {
			c := newCache(1000, 64<<20)
			for i := range busy {
				put(c, strconv.Itoa(i), i)
			}
			lost := 0
			for flood := range 20_000 {
				put(c, "flood"+strconv.Itoa(flood), flood)
				if flood%10 != 0 {
					continue
				}
				for i := range busy {
					if _, ok := c.Get(strconv.Itoa(i)); !ok {
						lost++
						put(c, strconv.Itoa(i), i)
					}
				}
			}
			// One in two hundred, or the index would be too small; usually one in
			// thousands.
			if asked := busy * 2000; lost > asked/200 {
				t.Errorf("%d of %d were missed", lost, asked)
			}
		})
	}
}

// TestWhatHasExpiredMakesRoom before the bounds are reached.
func TestWhatHasExpiredMakesRoom(t *testing.T) {
	c := newCache(100_000, 64<<20)
	for i := range 5000 {
		c.Put(strconv.Itoa(i), &note{i, time.Now().Unix() - 1}, writer(i), "old")
	}
	if c.Len() > 200 || c.Evicted() != 0 {
		t.Errorf("%d entries are kept that are of no use, %d were evicted", c.Len(), c.Evicted())
	}
}

func TestValueThatIsTooLargeIsNotKept(t *testing.T) {
	c := newCache(1000, 10_000)
	if _, ok := c.Put("large", &note{1, later}, writer(1), strings.Repeat("x", 20_000)); ok || c.Len() != 0 || c.Bytes() > 10_000 {
		t.Errorf("kept %d entries of %d bytes", c.Len(), c.Bytes())
	}
	if !put(c, "small", 1) {
		t.Error("nothing is kept any more")
	}
}

// TestReadersNeverSeeAnEntryInTheMaking, nor one key's value under another,
// while slabs come and go. For the race detector.
func TestReadersNeverSeeAnEntryInTheMaking(t *testing.T) {
	c := newCache(200, 64<<20)
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for !stop.Load() {
				n := rand.IntN(400)
				if got, ok := c.Get(strconv.Itoa(n)); ok && (got.Value.number%400 != n || !isNote(got, got.Value.number)) {
					t.Errorf("%d has %v", n, got)
					return
				}
			}
		})
	}
	for i := range 50_000 {
		put(c, strconv.Itoa(i%400), i)
		switch {
		case i%50 == 0:
			c.Forget(strconv.Itoa(rand.IntN(400)))
		case i%5000 == 0:
			c.Clear()
		}
	}
	stop.Store(true)
	readers.Wait()
}

// TestEntriesAreFewObjects, of which the collector looks at next to nothing: that is
// what the package is for.
func TestEntriesAreFewObjects(t *testing.T) {
	const entries = 50_000
	objects, scanned := heap()
	c := newCache(entries, 64<<20)
	for i := range entries {
		put(c, strconv.Itoa(i), i)
	}
	moreObjects, moreScanned := heap()
	if made := moreObjects - objects; made > entries/20 {
		t.Errorf("%d objects for %d entries", made, c.Len())
	}
	if more := (moreScanned - scanned) / entries; more > 16 {
		t.Errorf("the collector looks at %d bytes of each entry", more)
	}
	runtime.KeepAlive(c)
}

// heap returns how many objects there are, and how many bytes of them may be
// pointers.
func heap() (objects, scanned int64) {
	runtime.GC()
	samples := []metrics.Sample{{Name: "/gc/heap/objects:objects"}, {Name: "/gc/scan/heap:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64()), int64(samples[1].Value.Uint64())
}

// TestHandleLeadsToItsEntry while the slab is there, although it was forgotten; and
// never to that of another cache.
func TestHandleLeadsToItsEntry(t *testing.T) {
	c, other := newCache(100, 1<<20), newCache(100, 1<<20)
	kept, _ := c.Put("key", &note{1, later}, writer(1), textOf(1))
	put(other, "key", 2)
	found, _ := c.Get("key")
	if found.Handle != kept.Handle || kept.Handle == 0 {
		t.Errorf("handles %x and %x", kept.Handle, found.Handle)
	}
	c.Forget("key")
	if got, ok := c.At(kept.Handle); !ok || !isNote(got, 1) || got.Handle != kept.Handle {
		t.Errorf("%v, %v", got, ok)
	}
	if got, ok := other.At(kept.Handle); ok {
		t.Errorf("another cache has %v", got)
	}
	if got, ok := c.At(0); ok {
		t.Errorf("no handle leads to %v", got)
	}
	c.Clear()
	put(c, "key", 3)
	if got, ok := c.At(kept.Handle); ok {
		t.Errorf("after its slab was let go it leads to %v", got)
	}
}

func TestGetAllocatesNothing(t *testing.T) {
	c := newCache(100, 1<<20)
	put(c, "key", 1)
	key := []byte("key")
	if n := testing.AllocsPerRun(100, func() { c.Get(string(key)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGet(b *testing.B) {
	const entries = 10_000
	c := newCache(50_000, 64<<20)
	keys := make([]string, entries)
	for i := range keys {
		keys[i] = strings.Repeat("k", 500) + strconv.Itoa(i)
		put(c, keys[i], i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := c.Get(keys[i%entries]); !ok && i < 1000 {
			b.Log("missed one")
		}
	}
}
