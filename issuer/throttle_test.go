package issuer

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestThrottleStopsAtTheLimitAndOpensWhenTheWindowMoves(t *testing.T) {
	t.Parallel()
	clock := &pageClock{now: time.Now()}
	throttle := newThrottle(3, time.Minute, 10, clock.Now)
	for range 3 {
		if ok, _ := throttle.Allow("a"); !ok {
			t.Fatal("refused before the limit")
		}
		throttle.Fail("a")
		clock.advance(10 * time.Second)
	}
	if ok, wait := throttle.Allow("a"); ok || wait != 30*time.Second {
		t.Errorf("at the limit: ok %v, wait %v; want refusal for 30s", ok, wait)
	}
	if ok, _ := throttle.Allow("b"); !ok {
		t.Error("another key was refused")
	}
	clock.advance(30 * time.Second)
	if ok, _ := throttle.Reserve("a"); !ok {
		t.Error("still refused after the oldest failure left the window")
	}
	if ok, wait := throttle.Reserve("a"); ok || wait != 10*time.Second {
		t.Errorf("full again: ok %v, wait %v; want refusal for 10s", ok, wait)
	}
	throttle.Release("a")
	if ok, _ := throttle.Allow("a"); !ok {
		t.Error("Release gave nothing back")
	}
	throttle.Fail("a")
	throttle.Reset("a")
	if ok, _ := throttle.Allow("a"); !ok {
		t.Error("Reset forgot nothing")
	}
}

// parallel attempts are counted before their outcome is known.
func TestThrottleReservesAtMostTheLimitInParallel(t *testing.T) {
	t.Parallel()
	throttle := newThrottle(5, time.Minute, 10, time.Now)
	var passed atomic.Int32
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if ok, _ := throttle.Reserve("a"); ok {
				passed.Add(1)
			}
		})
	}
	all.Wait()
	if passed.Load() != 5 {
		t.Errorf("%d of 100 parallel attempts passed, want 5", passed.Load())
	}
}

func TestThrottleHoldsBoundedMemory(t *testing.T) {
	t.Parallel()
	throttle := newThrottle(2, time.Minute, 100, time.Now)
	for i := range 10_000 {
		throttle.Fail(strconv.Itoa(i))
		throttle.Fail("busy")
	}
	if n := throttle.failures.Len(); n > 100 {
		t.Errorf("%d keys kept, want at most 100", n)
	}
	if times, _ := throttle.failures.Get("busy"); len(times) > 2 || cap(times) > 2 {
		t.Errorf("a key keeps %d times (cap %d), want at most 2", len(times), cap(times))
	}
	if ok, _ := throttle.Allow("busy"); ok {
		t.Error("a busy key was forgotten for idle ones")
	}
}
