//go:build linux

package chaos

import (
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/e2e/ledger"
)

// TestKilledNodeTakesNothingAlong: kill -9 of one of three gateways under load.
// Requests in flight on it are lost, and nothing else: the others answer
// everything, and sessions, refresh families and a consent in progress go on
// there. R-05.
func TestKilledNodeTakesNothingAlong(t *testing.T) {
	t.Parallel()
	load := moderate()
	load.Flows, load.Callers = 2, 6
	c := cluster.New(t, cluster.Config{Nodes: 3})
	load.Endpoints = []cluster.Endpoint{c.Balanced()}
	r := runOn(t, "R-05", c, load)
	user := c.SignIn(t, "in-progress@example.com")
	killed := c.Nodes[0]
	var restart time.Duration
	for range rounds(1, 10) {
		r.sleep(pick(time.Second, 5*time.Second))
		// The page of consent comes from the node that then dies; the decision
		// goes to another.
		var requests int
		_, err := user.Authorize(t.Context(), c.Relay(func() *cluster.Node {
			if requests++; requests == 1 {
				return killed
			}
			if requests == 2 {
				killed.Kill()
			}
			return c.Nodes[1]
		}), "jobs:read", "applications:write")
		if err != nil {
			t.Errorf("the consent in progress did not go on: %v", err)
		}
		if requests < 2 {
			t.Error("nothing was asked after the node was killed")
		}
		r.sleep(pick(time.Second, 5*time.Second))
		started := time.Now()
		killed.Start(t)
		killed.AwaitReady(t)
		restart = max(restart, time.Since(started))
	}
	r.sleep(time.Second)
	r.settle()

	lost := r.load.Entries().Where(func(e ledger.Entry) bool { return e.Status == 0 })
	unwilling := r.load.Entries().Where(func(e ledger.Entry) bool { return e.Status >= 500 })
	// Each client has one request under way, or two where it asks twice at once.
	atMost(t, "R-05", "requests lost with a node, each time", len(lost), rounds(1, 10)*(2*load.Flows+load.Callers))
	exactly(t, "R-05", "failures at other nodes", len(unwilling), 0)
	atMost(t, "R-05", "from the start of the process until it is ready, slowest", restart, pick(20*time.Second, 2*time.Second))
}
