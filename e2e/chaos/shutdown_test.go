//go:build linux

package chaos

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/e2e/ledger"
)

// TestTerminatedNodeFinishesItsRequests: SIGTERM under load, behind a balancer
// that looks at the readiness check. The check fails first, requests in flight
// are answered, and no client sees a broken connection. R-20.
func TestTerminatedNodeFinishesItsRequests(t *testing.T) {
	t.Parallel()
	const delay = time.Second // the balancer looks five times meanwhile
	var underWay atomic.Int32
	c := cluster.New(t, cluster.Config{Nodes: 2, Global: "shutdown_delay " + delay.String(), Upstream: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" {
			underWay.Add(1)
			defer underWay.Add(-1)
		}
		cluster.Slow(w, r)
	})})
	load := moderate()
	load.Endpoints = []cluster.Endpoint{balancer(t, c, delay/5)}
	r := runOn(t, "R-20", c, load)
	leaving := c.Nodes[0]
	token := c.SignIn(t, "slow@example.com").Connect(t, leaving, "jobs:read")
	for range rounds(1, 10) {
		r.sleep(pick(time.Second, 3*time.Second))
		// 1. Requests that are under way when the signal comes, and after.
		const inFlight = 20
		var slow sync.WaitGroup
		var cut atomic.Int32
		for range inFlight {
			slow.Go(func() {
				if answer := leaving.Get(context.Background(), "/jobs?for=3s", token.Access); !answer.OK() {
					cut.Add(1)
					t.Log(answer)
				}
			})
		}
		r.until("the requests are under way", 10*time.Second, func() bool { return underWay.Load() == inFlight })
		// 2. The signal: first the readiness check fails, then the door closes.
		leaving.Terminate()
		r.until("the readiness check fails", delay, func() bool {
			return leaving.Get(context.Background(), "/oauth/healthz/ready", "").Status == http.StatusServiceUnavailable
		})
		if answer := leaving.Get(context.Background(), "/jobs", token.Access); !answer.OK() {
			t.Errorf("refused before the balancer could know: %s", answer)
		}
		// 3. The end.
		if err := leaving.Ended(t); err != nil {
			t.Errorf("the process ended with %v", err)
		}
		slow.Wait()
		exactly(t, "R-20", "requests in flight that were cut off", cut.Load(), 0)
		leaving.Start(t)
		leaving.AwaitReady(t)
	}
	r.sleep(500 * time.Millisecond)
	r.settle()
	broken := r.load.Entries().Where(func(e ledger.Entry) bool { return e.Status == 0 || e.Status >= 500 })
	for i, e := range broken {
		if i < 10 {
			t.Log(e)
		}
	}
	exactly(t, "R-20", "requests that failed", len(broken), 0)
}

// balancer sends each request to the next node whose readiness check was passed
// when it last looked.
func balancer(t *testing.T, c *cluster.Cluster, every time.Duration) cluster.Endpoint {
	var ready atomic.Pointer[[]*cluster.Node]
	look := func() {
		var up []*cluster.Node
		for _, n := range c.Nodes {
			if isReady(n) {
				up = append(up, n)
			}
		}
		ready.Store(&up)
	}
	look()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for t.Context().Err() == nil {
			look()
			time.Sleep(every)
		}
	}()
	t.Cleanup(func() { <-ended })
	var turn atomic.Int64
	return c.Relay(func() *cluster.Node {
		up := *ready.Load()
		return up[int(turn.Add(1))%len(up)]
	})
}
