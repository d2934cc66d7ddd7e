//go:build linux

package chaos

import (
	"context"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/e2e/ledger"
)

// bound is max_staleness, how long after a revocation a request may pass.
const bound = time.Second

// run is a cluster under load.
type run struct {
	*testing.T
	row  string
	c    *cluster.Cluster
	load *ledger.Load
}

// newRun starts a cluster and its load.
func newRun(t *testing.T, row string, cfg cluster.Config, load ledger.Config) *run {
	t.Helper()
	return runOn(t, row, cluster.New(t, cfg), load)
}

// runOn starts the load of a cluster.
func runOn(t *testing.T, row string, c *cluster.Cluster, load ledger.Config) *run {
	t.Helper()
	r := &run{T: t, row: row, c: c}
	r.load = ledger.NewLoad(t, r.c, ledger.Open(t, filepath.Join(t.TempDir(), "ledger")), load)
	r.load.Start()
	return r
}

// moderate is a load that leaves a 2-core machine, which also runs the
// database, the clients and what else is tested, some room.
func moderate() ledger.Config {
	return ledger.Config{
		Flows: pick(4, 8), FlowPause: pick(150*time.Millisecond, 60*time.Millisecond),
		Callers: pick(8, 16), CallPause: pick(40*time.Millisecond, 15*time.Millisecond),
		Users: pick(2, 8), Ahead: pick(10, 40),
	}
}

// settle ends the load, holds everything that was seen to the invariants, and
// says how much that was.
func (r *run) settle() {
	r.Helper()
	r.load.Stop()
	left := r.load.Left()
	violations := r.load.Settle(context.Background(), bound)
	for i, v := range violations {
		if i == 20 {
			r.Errorf("… and %d more", len(violations)-i)
			break
		}
		r.Error(v)
	}
	all := r.load.Entries()
	noted(r, r.row, "flows to their end", r.load.Flows())
	noted(r, r.row, "requests at the gate", len(all.Of(ledger.Gate)))
	noted(r, r.row, "refresh tokens in hand at the end, each used", left)
	exactly(r, r.row, "violations of I1 to I5", len(violations), 0)
}

// sleep lets the load, or the fault, go on.
func (r *run) sleep(d time.Duration) { time.Sleep(d) }

// until polls, with a limit, and returns how long it took.
func (r *run) until(what string, limit time.Duration, ok func() bool) time.Duration {
	r.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			r.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(start)
}

// isReady reports whether the node says it can serve.
func isReady(n *cluster.Node) bool {
	return n.Get(context.Background(), "/oauth/healthz/ready", "").Status == http.StatusOK
}

// countReady asks all nodes at once.
func countReady(c *cluster.Cluster) int {
	var ready atomic.Int32
	var asked sync.WaitGroup
	for _, n := range c.Nodes {
		asked.Go(func() {
			if isReady(n) {
				ready.Add(1)
			}
		})
	}
	asked.Wait()
	return int(ready.Load())
}

func allReady(c *cluster.Cluster) bool { return countReady(c) == len(c.Nodes) }

// answerLimit is within which the gate says 503 when Postgres says nothing. The
// short form, beside which everything else is tested, allows for a busy machine.
func answerLimit() time.Duration { return pick(4*time.Second, 2*time.Second) }

// prober asks every node for something again and again.
type prober struct {
	stop   context.CancelFunc
	ended  sync.WaitGroup
	mu     sync.Mutex
	failed []cluster.Answer
	took   []time.Duration
}

// probe asks every node for the paths until Stop; an answer that is no 200 is a
// failure.
func (r *run) probe(paths ...string) *prober {
	p := &prober{}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	for _, n := range r.c.Nodes {
		p.ended.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				answer := n.Get(context.Background(), paths[i%len(paths)], "")
				p.mu.Lock()
				p.took = append(p.took, answer.Took)
				if answer.Status != http.StatusOK {
					p.failed = append(p.failed, answer)
				}
				p.mu.Unlock()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	return p
}

func (p *prober) end() {
	p.stop()
	p.ended.Wait()
}
