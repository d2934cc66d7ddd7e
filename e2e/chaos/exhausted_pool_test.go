//go:build linux

package chaos

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

// poolSize is how many connections a node's pool has.
const poolSize = 10

// TestExhaustedPoolRefusesWhoWaits: a lock holds every connection that comes
// near it. Who only waits for a connection is refused within a second; what
// needs none is answered at once; and nothing is left of it. R-11.
func TestExhaustedPoolRefusesWhoWaits(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Config{Nodes: 1})
	node, user := c.Nodes[0], c.SignIn(t, "alice@example.com")
	token := user.Connect(t, node, "jobs:read")
	// A view that has just begun to follow forgets what was read before.
	(&run{T: t, c: c}).until("the view follows", 10*time.Second, func() bool { return allFresh(t, c) })
	if answer := node.Get(t.Context(), "/jobs", token.Access); !answer.OK() {
		t.Fatal(answer)
	}
	burst := pick(50, 400)
	refreshAll(node, token.Refresh, burst) // so that the base has the client's connections too
	base := node.Usage(t)

	for name, statement := range map[string]string{
		"a row that every write waits for":            `SELECT FROM gpt_sessions FOR UPDATE`,
		"a table that every read and write waits for": `LOCK TABLE gpt_sessions IN ACCESS EXCLUSIVE MODE`,
	} {
		release := lock(t, c, statement)
		pages := (&run{T: t, c: c}).probe("/oauth/jwks.json", "/.well-known/oauth-authorization-server", "/oauth/healthz/live")
		times := rounds(1, 10)
		var waited []time.Duration
		for range times {
			for _, answer := range refreshAll(node, token.Refresh, burst) {
				if answer.Status != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
					t.Errorf("with every connection held: %s, Retry-After %q", answer, answer.Header.Get("Retry-After"))
				}
				waited = append(waited, answer.Took)
			}
		}
		if answer := node.Get(t.Context(), "/jobs", token.Access); !answer.OK() {
			t.Errorf("a session that the node knows: %s", answer)
		}
		pages.end()
		release()

		// Whoever has a connection is at the lock, for as long as a call may take;
		// all others wait for one.
		slices.Sort(waited)
		noted(t, "R-11", name+", refreshes at once", burst)
		atMost(t, "R-11", name+", who waited was refused after, slowest", waited[len(waited)-1-times*poolSize], pick(1800*time.Millisecond, time.Second))
		atMost(t, "R-11", name+", who was at it was refused after, slowest", waited[len(waited)-1], pick(4*time.Second, 3*time.Second))
		exactly(t, "R-11", name+", JWKS, metadata and health not answered 200", len(pages.failed), 0)
		atMost(t, "R-11", name+", JWKS, metadata and health, p99", quantile(pages.took, 0.99), pick(time.Second, 50*time.Millisecond))
	}
	r := &run{T: t, c: c}
	r.until("the refresh token works again", 10*time.Second, func() bool {
		_, answer := cluster.Refresh(t.Context(), node, token.Refresh)
		return answer.OK()
	})
	var after cluster.Usage
	r.until("goroutines are back to what they were", 10*time.Second, func() bool {
		after = node.Usage(t)
		return after.Goroutines*100 <= base.Goroutines*105
	})
	noted(t, "R-11", "before", base)
	noted(t, "R-11", "after", after)
}

// refreshAll sends the same refresh token n times at once.
func refreshAll(node *cluster.Node, refresh string, n int) []cluster.Answer {
	answers := make([]cluster.Answer, n)
	var sent sync.WaitGroup
	for i := range answers {
		sent.Go(func() { _, answers[i] = cluster.Refresh(context.Background(), node, refresh) })
	}
	sent.Wait()
	return answers
}

// lock holds what the statement takes until the returned function is called.
func lock(t *testing.T, c *cluster.Cluster, statement string) func() {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, c.Postgres.DSN())
	if err != nil {
		t.Fatal(err)
	}
	release := sync.OnceFunc(func() { _ = conn.Close(ctx) })
	t.Cleanup(release)
	if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatal(err)
	}
	return release
}
