//go:build linux

package chaos

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// pollEvery is how often a node looks by itself.
const pollEvery = bound / 4

// TestRevocationReachesEveryNodeSoon: revoked at one node, refused at the
// others; by notification at once, and without it by the next poll. R-07.
func TestRevocationReachesEveryNodeSoon(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Config{Nodes: 3})
	var users []*cluster.Browser
	for i := range 4 {
		users = append(users, c.SignIn(t, fmt.Sprintf("user%d@example.com", i)))
	}
	measure := func(how string, limit time.Duration) {
		waits := revokeAndWait(t, c, users, pick(80, 1000))
		noted(t, "R-07", how+", revocations", len(waits)/2)
		noted(t, "R-07", how+", refused elsewhere after, median", quantile(waits, 0.5))
		atMost(t, "R-07", how+", refused elsewhere after, p99", quantile(waits, 0.99), limit)
		atMost(t, "R-07", how+", refused elsewhere after, slowest", quantile(waits, 1), bound)
	}
	measure("with NOTIFY", pick(500*time.Millisecond, 200*time.Millisecond))
	silence(t, c.Postgres)
	measure("without NOTIFY", pick(bound, pollEvery+100*time.Millisecond))
}

// silence takes the notification out of the triggers.
func silence(t *testing.T, s *postgrestest.Server) {
	t.Helper()
	s.Exec(t, `DO $$ BEGIN
		EXECUTE replace(pg_get_functiondef('gpt_session_changed'::regproc), 'PERFORM pg_notify(''gpt_revocations'', '''');', '');
	END $$`)
	if postgrestest.Query[bool](t, s, `SELECT prosrc LIKE '%pg_notify%' FROM pg_proc WHERE proname = 'gpt_session_changed'`) {
		t.Fatal("the trigger still notifies")
	}
}

// revokeAndWait revokes n sessions at the first node and returns, for each and
// every other node, how long after the answer the token was refused there.
func revokeAndWait(t *testing.T, c *cluster.Cluster, users []*cluster.Browser, n int) (waits []time.Duration) {
	t.Helper()
	ctx := context.Background()
	var mu sync.Mutex
	var work sync.WaitGroup
	for w, user := range users {
		work.Go(func() {
			for range n / len(users) {
				token := user.Connect(t, c.Nodes[w%len(c.Nodes)], "jobs:read")
				others := c.Nodes[1:]
				for _, node := range others { // each now decides by itself
					if answer := node.Get(ctx, "/jobs", token.Access); !answer.OK() {
						t.Errorf("before the revocation: %s", answer)
					}
				}
				if answer := cluster.Revoke(ctx, c.Nodes[0], token.Refresh); !answer.OK() {
					t.Errorf("revoke: %s", answer)
				}
				revoked := time.Now()
				var refusals sync.WaitGroup
				for _, node := range others {
					refusals.Go(func() {
						// Counted to the sending of the request that was refused.
						answer := node.Get(ctx, "/jobs", token.Access)
						for ; answer.Status == http.StatusOK && time.Since(revoked) < 5*bound; answer = node.Get(ctx, "/jobs", token.Access) {
						}
						if answer.Status != http.StatusUnauthorized {
							t.Errorf("after the revocation: %s", answer)
						}
						mu.Lock()
						defer mu.Unlock()
						waits = append(waits, max(0, answer.Sent.Sub(revoked)))
					})
				}
				refusals.Wait()
			}
		})
	}
	work.Wait()
	return waits
}

func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}
