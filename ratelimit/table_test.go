package ratelimit

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// clock is one that a test moves.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1_700_000_000, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func newScene() (*Table, *clock) {
	c := new(clock)
	return NewTable(c.now), c
}

func limitOf(t testing.TB, rate string) *Limit {
	t.Helper()
	parsed, err := ParseRate(rate)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLimit("test", rate+" per user", parsed)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// keyOf returns keys that share a place where the first numbers agree modulo
// places.
func keyOf(n, owner uint64) (key Key) {
	binary.LittleEndian.PutUint64(key[:8], n)
	binary.LittleEndian.PutUint64(key[8:], owner)
	return key
}

// bucket is the definition, counted in whole units and looked at from the
// beginning each time: a request passes when with it no span of time that ends now
// holds more than the quota and what that span makes good.
type bucket struct {
	passed []int64
}

func (b *bucket) allows(now int64, l *Limit) bool {
	for i, since := range b.passed {
		if held := int64(len(b.passed)-i) + 1; (held-int64(l.Quota))*l.interval > now-since {
			return false
		}
	}
	return int64(l.Quota) >= 1
}

// TestTableDecidesAsTheDefinitionDoes: what the table lets through at random times
// is what a naive reading of the bound lets through, no more and no less, and what
// it says is left is what then passes. RATE-01.
func TestTableDecidesAsTheDefinitionDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := Rate{rapid.IntRange(1, 12).Draw(t, "quota"), time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second}
		limit, err := NewLimit("test", "x", rate)
		if err != nil {
			t.Fatal(err)
		}
		table, clock := newScene()
		reference := make([]bucket, 3)
		for range rapid.IntRange(1, 80).Draw(t, "requests") {
			clock.advance(time.Duration(rapid.Int64Range(0, 2*limit.interval).Draw(t, "pause")))
			caller := rapid.IntRange(0, 2).Draw(t, "caller")
			b, now := &reference[caller], clock.at.Load()
			want := b.allows(now, limit)
			state := table.Take(keyOf(7, uint64(caller)+1), limit)
			if state.Allowed != want {
				t.Fatalf("allowed %v, want %v, after %v at %d of %s", state.Allowed, want, b.passed, now, rate)
			}
			if want {
				b.passed = append(b.passed, now)
			}
			left := 0
			for more := *b; more.allows(now, limit); left++ {
				more.passed = append(more.passed[:len(more.passed):len(more.passed)], now)
			}
			if state.Remaining != left {
				t.Fatalf("remaining %d, want %d", state.Remaining, left)
			}
			if !want && (b.allows(now+int64(state.Wait)-1, limit) || !b.allows(now+int64(state.Wait), limit)) {
				t.Fatalf("%s to wait is not when the next one passes", state.Wait)
			}
		}
	})
}

// FuzzTable lets bytes say who comes when. Whatever they say, nobody passes more
// often than the bound, and a refusal never lasts longer than the window.
func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 0, 0, 255, 1, 2, 3})
	f.Fuzz(func(t *testing.T, moves []byte) {
		limit := limitOf(t, "3/5s")
		table, clock := newScene()
		passed := make(map[byte][]int64)
		for _, move := range moves {
			clock.advance(time.Duration(move>>4) * 200 * time.Millisecond)
			caller := move & 15
			state := table.Take(keyOf(uint64(caller), 1), limit)
			if state.Wait < 0 || state.Wait > limit.Window+time.Second || state.Remaining < 0 || state.Remaining > limit.Quota {
				t.Fatalf("%+v", state)
			}
			if !state.Allowed {
				continue
			}
			now := clock.at.Load()
			passed[caller] = append(passed[caller], now)
			for i, since := range passed[caller] {
				if n := int64(len(passed[caller]) - i); n > int64(limit.Quota)+(now-since)/limit.interval {
					t.Fatalf("%d passed in %s", n, time.Duration(now-since))
				}
			}
		}
	})
}

// TestFloodOfCallersForgetsNoExhaustedOne: a caller that has nothing left stays so,
// however many others come once, and the memory does not grow. RATE-02.
func TestFloodOfCallersForgetsNoExhaustedOne(t *testing.T) {
	table, _ := newScene()
	limit := limitOf(t, "5/h")
	exhausted := keyOf(99, 99)
	for range 5 {
		table.Take(exhausted, limit)
	}
	for n := range uint64(3 * Capacity) {
		table.Take(keyOf(n, 1), limit)
	}
	if table.Forgotten() == 0 {
		t.Fatal("the flood found room for everybody, so it shows nothing")
	}
	if state := table.Take(exhausted, limit); state.Allowed {
		t.Error("an exhausted caller began anew after others had come once each")
	}
}

// TestExhaustedCallerIsForgottenAtTheStatedCost: only where as many as a place
// holds have each spent more than it.
func TestExhaustedCallerIsForgottenAtTheStatedCost(t *testing.T) {
	table, _ := newScene()
	limit := limitOf(t, "5/h")
	exhausted := keyOf(99, 99)
	for range 5 {
		table.Take(exhausted, limit)
	}
	spend := func(owners uint64) {
		for owner := range owners {
			for range 5 {
				table.Take(keyOf(99, owner+1000), limit)
			}
		}
	}
	spend(perPlace - 1)
	if table.Take(exhausted, limit).Allowed {
		t.Fatal("forgotten while its place had room")
	}
	before := table.Forgotten()
	spend(perPlace)
	if table.Forgotten() == before {
		t.Error("a place holds more than it has room for")
	}
}

// TestParallelRequestsShareOneQuota. RATE-01.
func TestParallelRequestsShareOneQuota(t *testing.T) {
	table, _ := newScene()
	limit := limitOf(t, "50/m")
	var passed atomic.Int32
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if table.Take(keyOf(1, 1), limit).Allowed {
				passed.Add(1)
			}
		})
	}
	all.Wait()
	if passed.Load() != 50 {
		t.Errorf("%d of 200 passed, want 50", passed.Load())
	}
}

// TestRefusedByOneLimitTakesOfNone. RATE-03.
func TestRefusedByOneLimitTakesOfNone(t *testing.T) {
	table, _ := newScene()
	limiter := NewLimiter(table, [32]byte{1})
	wide, narrow := limitOf(t, "5/m"), limitOf(t, "2/h")
	uses := []Use{{wide, limiter.Key(wide, "u")}, {narrow, limiter.Key(narrow, "u")}}
	var states [2]State
	for range 10 {
		limiter.Take(uses, states[:])
	}
	refused := limiter.Take(uses, states[:])
	if len(refused) != 1 || refused[0].Allowed || refused[0].Limit != narrow {
		t.Fatalf("refused by %+v", refused)
	}
	if state := table.Take(uses[0].Key, wide); state.Remaining != 2 {
		t.Errorf("%d of 5 are left of the wide limit after 2 that passed and one more", state.Remaining)
	}
}

// TestFirstRefusalIsNewsOncePerWindow. RATE-08.
func TestFirstRefusalIsNewsOncePerWindow(t *testing.T) {
	table, clock := newScene()
	limit := limitOf(t, "10/m")
	news := 0
	for range 600 { // ten minutes, at a request a second
		if state := table.Take(keyOf(1, 1), limit); state.News {
			news++
		}
		clock.advance(time.Second)
	}
	if news < 9 || news > 10 {
		t.Errorf("%d times news in ten windows", news)
	}
}

// TestHeadersSayHowTheCallerStands. RATE-05.
func TestHeadersSayHowTheCallerStands(t *testing.T) {
	table, clock := newScene()
	minute, hour := limitOf(t, "2/m"), limitOf(t, "5/h")
	limiter := NewLimiter(table, [32]byte{})
	uses := []Use{{minute, limiter.Key(minute, "u")}, {hour, limiter.Key(hour, "u")}}
	var states [2]State
	header := make(http.Header)
	SetHeader(header, limiter.Take(uses, states[:]))
	for name, want := range map[string]string{
		"RateLimit":        `"2/m per user";r=1;t=30, "5/h per user";r=4;t=720`,
		"RateLimit-Policy": `"2/m per user";q=2;w=60, "5/h per user";q=5;w=3600`,
		"Retry-After":      "",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	limiter.Take(uses, states[:])
	clock.advance(1500 * time.Millisecond)
	header = make(http.Header)
	SetHeader(header, limiter.Take(uses, states[:]))
	for name, want := range map[string]string{
		"RateLimit": `"2/m per user";r=0;t=29`, "RateLimit-Policy": `"2/m per user";q=2;w=60`, "Retry-After": "29",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s of a refusal: %s, want %s", name, got, want)
		}
	}
	clock.advance(29 * time.Second)
	if states := limiter.Take(uses, states[:]); !states[0].Allowed {
		t.Error("refused after waiting as long as Retry-After said")
	}
}

// TestKeysAreOfOneLimitAndOneSecret: the same caller has a count of its own under
// each limit.
func TestKeysAreOfOneLimitAndOneSecret(t *testing.T) {
	a, b := NewLimiter(nil, [32]byte{1}), NewLimiter(nil, [32]byte{2})
	limits := []*Limit{limitOf(t, "2/m"), limitOf(t, "3/m")}
	seen := make(map[Key]bool)
	for _, limiter := range []*Limiter{a, b} {
		for _, limit := range limits {
			for _, caller := range []string{"u", "v", string(make([]byte, 500))} {
				seen[limiter.Key(limit, caller)] = true
			}
		}
	}
	if len(seen) != 12 {
		t.Errorf("%d keys of 12", len(seen))
	}
	same, _ := NewLimit("test", "2/m per user", Rate{2, time.Minute})
	if a.Key(same, "u") != a.Key(limits[0], "u") {
		t.Error("the same limit, made by another node, has other keys")
	}
}

// TestNetworkOfAnAddress: nobody has more than one count by having an IPv6 network.
// RATE-04.
func TestNetworkOfAnAddress(t *testing.T) {
	for address, want := range map[string]string{
		"198.51.100.7": "198.51.100.7/32", "::ffff:198.51.100.7": "198.51.100.7/32",
		"2001:db8::1": "2001:db8::/64", "2001:db8::ffff:1": "2001:db8::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := Network(netip.MustParseAddr(address)).String(); got != want {
			t.Errorf("%s is counted as %s, want %s", address, got, want)
		}
	}
	if Network(netip.Addr{}).IsValid() {
		t.Error("callers whose address is not known share a count")
	}
}

func TestParseRateRefusesWhatIsNoRate(t *testing.T) {
	for _, text := range []string{"", "30", "/m", "0/m", "-1/m", "+3/m", "03/m", "30/", "30/x", "30/0s", "30/1500ms", "30/25h", "1000001/s", "30/m/s", "3e1/m"} {
		if rate, err := ParseRate(text); err == nil {
			t.Errorf("%q is read as %s", text, rate)
		}
	}
	for text, want := range map[string]Rate{
		"30/m": {30, time.Minute}, "10/s": {10, time.Second}, "500/1h": {500, time.Hour}, "9/d": {9, 24 * time.Hour}, "5/10s": {5, 10 * time.Second}, "5/90s": {5, 90 * time.Second},
	} {
		rate, err := ParseRate(text)
		if err != nil || rate != want {
			t.Errorf("%q: %v, %v", text, rate, err)
		}
		if again, err := ParseRate(rate.String()); err != nil || again != rate {
			t.Errorf("%q is written %s, which is read as %v, %v", text, rate, again, err)
		}
	}
}

// BenchmarkTake is what a limited request pays, and without an allocation.
func BenchmarkTake(b *testing.B) {
	limiter := NewLimiter(NewTable(nil), [32]byte{1})
	limit := limitOf(b, "1000000/s")
	callers := make([]string, 10_000)
	for i := range callers {
		callers[i] = fmt.Sprintf("user-%d", i)
	}
	var states [1]State
	var uses [1]Use
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		uses[0] = Use{limit, limiter.Key(limit, callers[i%len(callers)])}
		limiter.Take(uses[:], states[:])
	}
}
