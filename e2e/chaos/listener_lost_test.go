//go:build linux

package chaos

import (
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/e2e/ledger"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// TestLostListenerLosesNoRevocation: the connection by which a node hears of
// revocations is ended by the server, by a restart and by a network that drops
// it, again and again, while sessions are being revoked. Every node keeps the
// bound all the same; the ledger holds it to that. R-08.
func TestLostListenerLosesNoRevocation(t *testing.T) {
	t.Parallel()
	load := moderate()
	load.Flows = pick(6, 12) // one flow in three ends in a revocation
	r := newRun(t, "R-08", cluster.Config{Nodes: 2}, load)
	const listener = `query LIKE '%gpt_revocations%' AND pid <> pg_backend_pid()`
	var trusted time.Duration
	for range rounds(1, 20) {
		for name, lose := range map[string]func(){
			"ended by the server": func() { r.c.Postgres.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE `+listener) },
			"restart":             func() { r.c.Postgres.Stop(t); r.c.Postgres.Start(t) },
			"reset":               func() { r.c.Nodes[0].Wire.Reset() },
		} {
			r.sleep(pick(500*time.Millisecond, 2*time.Second))
			lose()
			trusted = max(trusted, r.until(name+": the views are fresh again", 10*time.Second, func() bool { return allFresh(t, r.c) }))
		}
	}
	r.settle()
	revoked := r.load.Entries().Of(ledger.Revoke).Where(ledger.Entry.OK)
	noted(t, "R-08", "revocations meanwhile", len(revoked))
	atMost(t, "R-08", "until every view is trusted again, slowest", trusted, pick(5*time.Second, 2*time.Second))
}

// TestPoolerIsFoundOutAndPolled: PgBouncer in transaction mode, which nobody
// declared, swallows LISTEN. The nodes find it out at start, poll, and keep the
// bound. R-08.
func TestPoolerIsFoundOutAndPolled(t *testing.T) {
	t.Parallel()
	server := postgrestest.NewServer(t, postgrestest.ServerConfig{})
	c := cluster.New(t, cluster.Config{Nodes: 2, Postgres: server, DSN: postgrestest.Pgbouncer(t, server.DSN())})
	r := runOn(t, "R-08", c, moderate())
	user := c.SignIn(t, "alice@example.com")
	waits, _ := revokeAndWait(t, c, []*cluster.Browser{user}, rounds(20, 200))
	r.settle()
	noted(t, "R-08", "behind PgBouncer, revocations", len(waits))
	atMost(t, "R-08", "behind PgBouncer, refused elsewhere after, slowest", quantile(waits, 1), bound)
	broken := r.load.Entries().Where(func(e ledger.Entry) bool { return e.Status == 0 || e.Status >= 500 })
	exactly(t, "R-08", "behind PgBouncer, requests that failed", len(broken), 0)
}
