//go:build linux

package chaos

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// pollEvery is how often a node looks by itself.
const pollEvery = bound / 4

// TestRevocationReachesEveryNodeSoon: revoked at one node, refused at the others.
// By notification at once while the machine has room; within the bound when it
// has none; and without notifications by the next poll. R-07.
func TestRevocationReachesEveryNodeSoon(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Config{Nodes: pick(3, 4)})
	var users []*cluster.Browser
	for i := range 4 {
		users = append(users, c.SignIn(t, fmt.Sprintf("user%d@example.com", i)))
	}
	background := users[0].Connect(t, c.Nodes[0], "jobs:read")
	measure := func(how string, load float64, users []*cluster.Browser, revocations int, median, p99 time.Duration) {
		end := occupy(t, c, background, load)
		refused, admitted := revokeAndWait(t, c, users, revocations)
		noted(t, "R-07", how+", revocations", revocations)
		noted(t, "R-07", how+", nodes that are asked", len(refused)/revocations)
		noted(t, "R-07", how+", CPU in use", fmt.Sprintf("%.0f %%", 100*end()))
		if p99 == 0 { // the bound is all that is asked for
			noted(t, "R-07", how+", refused elsewhere after, median", quantile(refused, 0.5))
			noted(t, "R-07", how+", refused elsewhere after, p99", quantile(refused, 0.99))
		} else {
			atMost(t, "R-07", how+", refused elsewhere after, median", quantile(refused, 0.5), median)
			atMost(t, "R-07", how+", refused elsewhere after, p99", quantile(refused, 0.99), p99)
		}
		atMost(t, "R-07", how+", last admitted elsewhere after, slowest", quantile(admitted, 1), bound)
	}
	measure("at 30 % load", 0.3, users[:1], pick(40, 1000), pick(300*time.Millisecond, 10*time.Millisecond), pick(bound, 100*time.Millisecond))
	measure("at full load", 1, users, pick(20, 1000), 0, 0)
	silence(t, c.Postgres)
	measure("without NOTIFY", 0.3, users, pick(40, 1000), pick(bound, pollEvery), pick(bound, pollEvery+100*time.Millisecond))
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
// every other node, how long after the answer the first request that was refused
// and the last that was admitted were sent. As many users are at it at once.
func revokeAndWait(t *testing.T, c *cluster.Cluster, users []*cluster.Browser, n int) (refused, admitted []time.Duration) {
	t.Helper()
	ctx := context.Background()
	var mu sync.Mutex
	var work sync.WaitGroup
	for w, user := range users {
		work.Go(func() {
			for i := w; i < n; i += len(users) {
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
						var last time.Duration
						answer := node.Get(ctx, "/jobs", token.Access)
						for ; answer.Status == http.StatusOK && last < 5*bound; answer = node.Get(ctx, "/jobs", token.Access) {
							last = max(0, answer.Sent.Sub(revoked))
							time.Sleep(min(last/10, 5*time.Millisecond)) // asking must not be what slows it down
						}
						if answer.Status != http.StatusUnauthorized {
							t.Errorf("after the revocation: %s", answer)
						}
						mu.Lock()
						defer mu.Unlock()
						refused, admitted = append(refused, max(0, answer.Sent.Sub(revoked))), append(admitted, last)
					})
				}
				refusals.Wait()
			}
		})
	}
	work.Wait()
	return refused, admitted
}

// occupy asks every node for something with the token until end, so often that
// the machine is busy for about the share of the time; 1: as often as it can. end
// returns how busy it was with all that it did.
func occupy(t *testing.T, c *cluster.Cluster, token cluster.Token, share float64) (end func() (was float64)) {
	t.Helper()
	const least, most = 100 * time.Microsecond, 100 * time.Millisecond
	var pause atomic.Int64 // of every caller, after each request
	if share < 1 {
		pause.Store(int64(10 * time.Millisecond))
	}
	ctx, stop := context.WithCancel(context.Background())
	var working sync.WaitGroup
	for range 4 {
		for _, node := range c.Nodes {
			working.Go(func() {
				for ctx.Err() == nil {
					if answer := node.Get(context.Background(), "/jobs", token.Access); !answer.OK() {
						t.Errorf("in the background: %s", answer)
					}
					time.Sleep(time.Duration(pause.Load()))
				}
			})
		}
	}
	start := cpuTime(t)
	working.Go(func() {
		for before := start; share < 1 && ctx.Err() == nil; {
			time.Sleep(200 * time.Millisecond)
			now := cpuTime(t)
			factor := 0.8
			if now.busySince(before) > share {
				factor = 1.2
			}
			pause.Store(min(max(int64(least), int64(factor*float64(pause.Load()))), int64(most)))
			before = now
		}
	})
	return func() float64 {
		stop()
		working.Wait()
		return cpuTime(t).busySince(start)
	}
}

// cpuTimes of the machine since it was started, in some unit.
type cpuTimes struct{ all, idle int64 }

func cpuTime(t *testing.T) (now cpuTimes) {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line)[1:] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatalf("/proc/stat: %q", line)
		}
		now.all += n
		if i == 3 || i == 4 { // idle, and waiting for a disk
			now.idle += n
		}
	}
	return now
}

func (c cpuTimes) busySince(before cpuTimes) float64 {
	if c.all == before.all {
		return 0
	}
	return 1 - float64(c.idle-before.idle)/float64(c.all-before.all)
}

func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}
