//go:build linux

package chaos

import (
	"slices"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/e2e/ledger"
)

// TestPostgresKilledUnderLoad: kill -9 of the postmaster in the middle of flows
// and requests, and a restart. While it is away nothing is admitted that cannot
// be told, and whoever asks is answered; afterwards no token is lost, no code
// was spent twice, and service is there again without a restart of a gateway.
//
func TestPostgresKilledUnderLoad(t *testing.T) {
	t.Parallel()
	r := newRun(t, "R-01", cluster.Config{Nodes: pick(2, 3)}, moderate())
	documents := r.probe("/oauth/jwks.json", "/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource")
	var down, back []window
	for range rounds(1, 20) {
		r.sleep(pick(1500*time.Millisecond, 3*time.Second))
		r.c.Postgres.Kill(t)
		killed := r.load.Now() // until here some of its processes could answer
		r.sleep(pick(3*time.Second, 10*time.Second))
		down = append(down, window{killed + bound, r.load.Now()})
		r.c.Postgres.Start(t)
		back = append(back, window{r.load.Now(), r.load.Now() + 5*time.Second})
		r.until("every node is ready", 10*time.Second, func() bool { return allReady(r.c) })
	}
	r.sleep(pick(2*time.Second, 6*time.Second))
	documents.end()
	r.settle()

	entries := r.load.Entries()
	away := sentIn(entries, down)
	tokens, gate := away.Of(ledger.Redeem, ledger.Refresh, ledger.Revoke), away.Of(ledger.Gate).Where(func(e ledger.Entry) bool { return e.Wrong == "" })
	for _, e := range answeredIn(tokens, down).Where(func(e ledger.Entry) bool { return e.Node != "psql" }) {
		if e.Status != 503 || e.RetryAfter == "" {
			t.Errorf("without Postgres the token endpoint answered %s, Retry-After %q", e, e.RetryAfter)
		}
	}
	noted(t, "R-01", "times the server was killed", len(down))
	noted(t, "R-01", "answers at /token while Postgres was away", len(tokens))
	noted(t, "R-01", "answers at the gate while Postgres was away", gate.Statuses())
	atMost(t, "R-01", "/token while Postgres was away, p99", tokens.Quantile(0.99), 3*time.Second)
	atMost(t, "R-01", "gate while Postgres was away, p99", gate.Quantile(0.99), 3*time.Second)
	exactly(t, "R-01", "2xx at the gate while Postgres was away, after the bound", len(answeredIn(gate, down).Where(ledger.Entry.OK)), 0)
	exactly(t, "R-01", "JWKS and metadata not answered 200", len(documents.failed), 0)
	var slowest time.Duration
	for _, w := range back {
		first := entries.Where(func(e ledger.Entry) bool {
			return e.Kind != ledger.Gate && e.Kind != ledger.Authorize && e.Node != "psql" && e.OK() && e.Returned >= w.from
		})
		if len(first) == 0 {
			t.Fatal("no success after the restart")
		}
		slowest = max(slowest, first[0].Returned-w.from)
	}
	atMost(t, "R-01", "first success at /token after Postgres was ready again, slowest", slowest, 5*time.Second)
}

// window is a part of a run.
type window struct{ from, before time.Duration }

// sentIn keeps what was sent within one of the windows.
func sentIn(entries ledger.Entries, windows []window) ledger.Entries {
	return entries.Where(func(e ledger.Entry) bool {
		return slices.ContainsFunc(windows, func(w window) bool { return w.from <= e.Sent && e.Sent < w.before })
	})
}

// answeredIn keeps what was answered within one of the windows.
func answeredIn(entries ledger.Entries, windows []window) ledger.Entries {
	return entries.Where(func(e ledger.Entry) bool {
		return slices.ContainsFunc(windows, func(w window) bool { return w.from <= e.Returned && e.Returned < w.before })
	})
}
