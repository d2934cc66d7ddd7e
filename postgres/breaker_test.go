package postgres

import (
	"context"
	"testing"
	"time"
)

// M4.2: after a few unanswered commits one write at a time finds out whether
// the server is back; the others are refused at once.
func TestBreakerLetsOneProbeThroughAtATime(t *testing.T) {
	t.Parallel()
	var b breaker
	now := time.Now()
	for range breakAfter {
		if _, ok := b.enter(now); !ok {
			t.Fatal("refused before anything failed")
		}
		b.leave(false, context.DeadlineExceeded, now)
	}
	if _, ok := b.enter(now); ok {
		t.Fatal("let through right after the last failure")
	}
	now = now.Add(probeEvery)
	probe, ok := b.enter(now)
	if !probe || !ok {
		t.Fatal("no probe")
	}
	if _, ok := b.enter(now); ok {
		t.Fatal("two probes at once")
	}
	b.leave(probe, context.DeadlineExceeded, now)
	if _, ok := b.enter(now); ok {
		t.Fatal("let through after a failed probe")
	}
	probe, _ = b.enter(now.Add(probeEvery))
	b.leave(probe, nil, now)
	if probe, ok := b.enter(now); probe || !ok {
		t.Fatal("still refused after a probe that was answered")
	}
}
