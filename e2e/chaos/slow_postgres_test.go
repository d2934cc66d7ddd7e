//go:build linux

package chaos

import (
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/e2e/ledger"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// TestSlowPostgresIsAnsweredInTime: latency, jitter, a trickle and resets in
// the middle of answers. Clients are answered in time, fail only when Postgres
// was too slow for them, and nothing is done twice. R-12.
func TestSlowPostgresIsAnsweredInTime(t *testing.T) {
	t.Parallel()
	faults := []struct {
		name string
		// mild: nothing takes so long that anybody should be refused.
		mild bool
		in   func(w *postgrestest.Wire)
	}{
		{"50 ms more", true, func(w *postgrestest.Wire) { w.Delay(25*time.Millisecond, 0) }},
		{"500 ms more", false, func(w *postgrestest.Wire) { w.Delay(250*time.Millisecond, 0) }},
		{"2 s more", false, func(w *postgrestest.Wire) { w.Delay(time.Second, 0) }},
		{"up to 1 s more", false, func(w *postgrestest.Wire) { w.Delay(0, 500*time.Millisecond) }},
		{"1 KiB a second", false, func(w *postgrestest.Wire) { w.Trickle(1 << 10) }},
		{"reset in the middle of answers", false, nil},
	}
	if !*long {
		faults = append(faults[:1], faults[4:]...)
	}
	r := newRun(t, "R-12", cluster.Config{Nodes: pick(2, 3)}, moderate())
	type phase struct {
		window
		name string
		mild bool
	}
	var phases []phase
	for _, fault := range faults {
		r.sleep(pick(500*time.Millisecond, 3*time.Second))
		from := r.load.Now()
		for end := time.Now().Add(pick(2*time.Second, 20*time.Second)); time.Now().Before(end); r.sleep(100 * time.Millisecond) {
			for i, n := range r.c.Nodes {
				if fault.in != nil {
					fault.in(n.Wire)
				} else {
					n.Wire.ResetAfter(100 + 400*i) // of the next answers
				}
			}
		}
		phases = append(phases, phase{window{from, r.load.Now()}, fault.name, fault.mild})
		for _, n := range r.c.Nodes {
			n.Wire.Heal(t)
		}
		r.until(fault.name+": every node is ready again", 20*time.Second, func() bool { return allReady(r.c) })
	}
	r.settle()
	for _, p := range phases {
		entries := r.load.Entries().Sent(p.from, p.before).Where(func(e ledger.Entry) bool { return e.Node != "psql" && e.Wrong == "" })
		tokens, gate := entries.Of(ledger.Redeem, ledger.Refresh, ledger.Revoke), entries.Of(ledger.Gate)
		noted(t, "R-12", p.name+", answers at /token", tokens.Statuses())
		noted(t, "R-12", p.name+", answers at the gate", gate.Statuses())
		atMost(t, "R-12", p.name+", /token, p99", tokens.Quantile(0.99), 3*time.Second)
		atMost(t, "R-12", p.name+", gate, p99", gate.Quantile(0.99), 3*time.Second)
		if p.mild {
			exactly(t, "R-12", p.name+", refused", len(entries.Where(func(e ledger.Entry) bool { return e.Status >= 500 })), 0)
		}
	}
}
