package slabcache_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/slabcache"
)

// note is a value with a text of its own.
type note struct {
	text    string
	number  int
	expires int64
}

func newCache(entries, bytes int) *slabcache.Cache[note] {
	return slabcache.New(slabcache.Options[note]{
		MaxEntries: entries, MaxBytes: bytes, EntryBytes: 80,
		Text: func(n *note) int { return len(n.text) },
		Copy: func(to, from *note, text *slabcache.Text) {
			*to = note{text.Keep(from.text), from.number, from.expires}
		},
		Expires: func(n *note) int64 { return n.expires },
	})
}

var later = time.Now().Add(time.Hour).Unix()

func of(n int) *note { return &note{"text of " + strconv.Itoa(n), n, later} }

// TestWhatIsFoundIsWhatWasPut, whatever was put, forgotten and cleared before: a
// plain map knows what a key may have. The bounds hold after every step.
func TestWhatIsFoundIsWhatWasPut(t *testing.T) {
	for _, bounds := range [][2]int{{1, 1 << 20}, {3, 1 << 20}, {50, 1 << 20}, {1000, 1 << 20}, {1000, 20_000}, {100_000, 50_000}} {
		t.Run(fmt.Sprint(bounds), func(t *testing.T) {
			c, model := newCache(bounds[0], bounds[1]), map[string]*note{}
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
					value := of(step)
					value.text += strings.Repeat("x", rand.IntN(200))
					if kept := c.Put(key, value); kept == nil || *kept != *value {
						t.Fatalf("%v was kept as %v", value, kept)
					}
					model[key] = value
				default:
					got, ok := c.Get(key)
					if want := model[key]; ok && (want == nil || *got != *want) {
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
		c.Put(strconv.Itoa(i), of(i))
	}
	lost := 0
	for i := range entries {
		if got, ok := c.Get(strconv.Itoa(i)); !ok {
			lost++
		} else if got.number != i {
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
				c.Put(strconv.Itoa(i), of(i))
			}
			lost := 0
			for flood := range 20_000 {
				c.Put("flood"+strconv.Itoa(flood), of(flood))
				if flood%10 != 0 {
					continue
				}
				for i := range busy {
					if _, ok := c.Get(strconv.Itoa(i)); !ok {
						lost++
						c.Put(strconv.Itoa(i), of(i))
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
		c.Put(strconv.Itoa(i), &note{"old", i, time.Now().Unix() - 1})
	}
	if c.Len() > 200 || c.Evicted() != 0 {
		t.Errorf("%d entries are kept that are of no use, %d were evicted", c.Len(), c.Evicted())
	}
}

func TestValueThatIsTooLargeIsNotKept(t *testing.T) {
	c := newCache(1000, 10_000)
	if kept := c.Put("large", &note{strings.Repeat("x", 20_000), 1, later}); kept != nil || c.Len() != 0 || c.Bytes() > 10_000 {
		t.Errorf("kept %d entries of %d bytes", c.Len(), c.Bytes())
	}
	if c.Put("small", of(1)) == nil {
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
				if got, ok := c.Get(strconv.Itoa(n)); ok && (got.number%400 != n || got.text != of(got.number).text) {
					t.Errorf("%d has %v", n, got)
					return
				}
			}
		})
	}
	for i := range 50_000 {
		c.Put(strconv.Itoa(i%400), of(i))
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

// TestEntriesAreFewObjects: that is what the package is for.
func TestEntriesAreFewObjects(t *testing.T) {
	const entries = 50_000
	before := objects()
	c := newCache(entries, 64<<20)
	for i := range entries {
		c.Put(strconv.Itoa(i), of(i))
	}
	if made := objects() - before; made > entries/20 {
		t.Errorf("%d objects for %d entries", made, c.Len())
	}
	runtime.KeepAlive(c)
}

func objects() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapObjects)
}

func TestGetAllocatesNothing(t *testing.T) {
	c := newCache(100, 1<<20)
	c.Put("key", of(1))
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
		c.Put(keys[i], of(i))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := c.Get(keys[i%entries]); !ok && i < 1000 {
			b.Log("missed one")
		}
	}
}
