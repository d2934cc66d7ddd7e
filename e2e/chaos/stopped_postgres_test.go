//go:build linux

package chaos

import (
	"syscall"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/e2e/ledger"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// TestStoppedPostgresIsAPartition: SIGSTOP of the whole server, whose sockets
// stay open and take what is sent. As R-06, for every node at once. R-13.
func TestStoppedPostgresIsAPartition(t *testing.T) {
	t.Parallel()
	r := newRun(t, "R-13", cluster.Config{Nodes: pick(2, 3)}, moderate())
	var unready, normal time.Duration
	var away []window
	for range rounds(1, 5) {
		r.sleep(pick(time.Second, 5*time.Second))
		r.c.Postgres.Pause()
		from := r.load.Now() // until here some of its processes could answer
		unready = max(unready, r.until("no node says that it is ready", 15*time.Second, func() bool { return countReady(r.c) == 0 }))
		r.sleep(pick(2*time.Second, 30*time.Second))
		away = append(away, window{from + bound, r.load.Now()})
		r.c.Postgres.Continue()
		back := time.Now()
		r.until("every node is back", 30*time.Second, func() bool { return allFresh(t, r.c) && allReady(r.c) })
		normal = max(normal, time.Since(back))
	}
	r.sleep(time.Second)
	r.settle()
	gate := sentIn(r.load.Entries(), away).Of(ledger.Gate).Where(func(e ledger.Entry) bool { return e.Wrong == "" })
	noted(t, "R-13", "answers of the gates meanwhile", answeredIn(gate, away).Statuses())
	exactly(t, "R-13", "2xx meanwhile, after the bound", len(answeredIn(gate, away).Where(ledger.Entry.OK)), 0)
	atMost(t, "R-13", "gate meanwhile, slowest answer", gate.Quantile(1), answerLimit())
	atMost(t, "R-13", "until every node says that it is not ready, slowest", unready, 5*time.Second)
	atMost(t, "R-13", "from SIGCONT until all is normal, slowest", normal, 10*time.Second)
}

// TestOneStoppedBackendHurtsOneConnection: SIGSTOP of the backend that the view
// of a node follows, then of one of its pool. The node goes on. R-13.
func TestOneStoppedBackendHurtsOneConnection(t *testing.T) {
	t.Parallel()
	r := newRun(t, "R-13", cluster.Config{Nodes: 1}, moderate())
	node := r.c.Nodes[0]
	var phases []window
	for _, which := range []string{`query LIKE '%gpt_revocations%'`, `query NOT LIKE '%gpt_revocations%'`} {
		r.sleep(time.Second)
		pid := postgrestest.Query[int](t, r.c.Postgres, `SELECT pid FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND `+which+` ORDER BY random() LIMIT 1`)
		from := r.load.Now()
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		r.sleep(pick(2500*time.Millisecond, 30*time.Second))
		r.until("the view has another connection", 5*time.Second, func() bool { return node.Status(t).View.Fresh })
		phases = append(phases, window{from, r.load.Now()})
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	r.settle()
	meanwhile := sentIn(r.load.Entries(), phases).Where(func(e ledger.Entry) bool { return e.Node == node.Name && e.Wrong == "" })
	hurt := meanwhile.Where(func(e ledger.Entry) bool { return e.Status >= 500 || e.Status == 0 })
	noted(t, "R-13", "one stopped backend, answers meanwhile", meanwhile.Statuses())
	// Who was on it, and who shared its round trip.
	atMost(t, "R-13", "one stopped backend, failures", len(hurt), 2*moderate().Flows+moderate().Callers)
	atMost(t, "R-13", "one stopped backend, slowest answer", meanwhile.Quantile(1), 3*time.Second)
}

func allFresh(t *testing.T, c *cluster.Cluster) bool {
	t.Helper()
	for _, n := range c.Nodes {
		if !n.Status(t).View.Fresh {
			return false
		}
	}
	return true
}
