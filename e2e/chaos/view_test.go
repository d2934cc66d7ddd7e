//go:build linux

package chaos

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// readTimeout is how long a read of Postgres may take.
const readTimeout = 2 * time.Second

// callers ask every node for something with every token, all the time.
type callers struct {
	*run
	stop    context.CancelFunc
	ended   sync.WaitGroup
	mu      sync.Mutex
	answers map[string][]nodeAnswer // by the token's name
}

type nodeAnswer struct {
	node *cluster.Node
	cluster.Answer
}

// call starts a caller for each node and token.
func (r *run) call(tokens map[string]cluster.Token, pause time.Duration) *callers {
	c := &callers{run: r, answers: make(map[string][]nodeAnswer)}
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.Background())
	for name, token := range tokens {
		for _, n := range r.c.Nodes {
			c.ended.Go(func() {
				for ctx.Err() == nil {
					answer := n.Get(context.Background(), "/jobs", token.Access)
					c.mu.Lock()
					c.answers[name] = append(c.answers[name], nodeAnswer{n, answer})
					c.mu.Unlock()
					time.Sleep(pause)
				}
			})
		}
	}
	r.Cleanup(c.end)
	return c
}

func (c *callers) end() {
	c.stop()
	c.ended.Wait()
}

// refused waits until every node refuses the token with this status, and returns
// how long after committed the slowest still admitted a request: the time at
// which it was sent.
func (c *callers) refused(name string, status int, committed time.Time) (slowest time.Duration) {
	c.Helper()
	c.until(name+" is refused by every node", 20*time.Second, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		refusing := make(map[*cluster.Node]bool)
		for _, a := range c.answers[name] {
			refusing[a.node] = a.Status == status
		}
		for _, n := range c.c.Nodes {
			if !refusing[n] {
				return false
			}
		}
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.answers[name] {
		if a.OK() {
			slowest = max(slowest, a.Sent.Sub(committed))
		}
	}
	return slowest
}

// others returns the answers with the token that are not 200, but for those that
// were sent within a time in which they may.
func (c *callers) others(name string, except ...[2]time.Time) (others []cluster.Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.answers[name] {
		excused := a.Status == http.StatusOK
		for _, window := range except {
			excused = excused || a.Sent.After(window[0]) && a.Sent.Before(window[1])
		}
		if !excused {
			others = append(others, a.Answer)
		}
	}
	return others
}

// TestFourNodesMissNoRevocation, however it is made and whatever is between: by
// the API, by hand, by a transaction that commits late, by a database whose clock
// has jumped, without notifications, by TRUNCATE; one node comes through
// pgbouncer, and one is cut off for a while..
func TestFourNodesMissNoRevocation(t *testing.T) {
	t.Parallel()
	server, setClock := postgrestest.NewServerWithClock(t, postgrestest.ServerConfig{})
	c := cluster.New(t, cluster.Config{Nodes: 4, Postgres: server, NotStarted: true})
	c.Nodes[3].Wire.Lead(t, postgrestest.Pgbouncer(t, server.DSN()))
	for _, n := range c.Nodes {
		n.Start(t)
	}
	for _, n := range c.Nodes {
		n.AwaitReady(t)
	}
	r := &run{T: t, row: "R-07", c: c}

	const idOf = `UPDATE gpt_sessions SET revoked_at = now() WHERE id = $1`
	sql := func(statement string, args ...any) func(cluster.Token) time.Time {
		return func(token cluster.Token) time.Time {
			server.Exec(t, statement, append([]any{token.Session}, args...)...)
			return time.Now()
		}
	}
	const late = 3 * time.Second
	cases := []struct {
		name   string
		status int
		revoke func(cluster.Token) (committed time.Time)
	}{
		{"by the API", http.StatusUnauthorized, func(token cluster.Token) time.Time {
			if answer := cluster.Revoke(t.Context(), c.Nodes[0], token.Refresh); !answer.OK() {
				t.Errorf("revoke: %s", answer)
			}
			return time.Now()
		}},
		{"by hand", http.StatusUnauthorized, sql(idOf)},
		{"deleted", http.StatusUnauthorized, sql(`DELETE FROM gpt_sessions WHERE id = $1`)},
		{"narrowed", http.StatusForbidden, sql(`UPDATE gpt_sessions SET scopes = '{}' WHERE id = $1`)},
		{"by a transaction that commits three seconds late", http.StatusUnauthorized, func(token cluster.Token) time.Time {
			return commitLate(t, server, late, idOf, token.Session)
		}},
		{"by a database ten minutes ahead", http.StatusUnauthorized, func(token cluster.Token) time.Time {
			setClock(10 * time.Minute)
			r.until("the server's clock has jumped", 10*time.Second, func() bool {
				return postgrestest.Query[time.Time](t, server, `SELECT clock_timestamp()`).After(time.Now().Add(9 * time.Minute))
			})
			defer setClock(0)
			server.Exec(t, idOf, token.Session)
			return time.Now()
		}},
		{"without notifications", http.StatusUnauthorized, func(token cluster.Token) time.Time {
			silence(t, server)
			server.Exec(t, idOf, token.Session)
			return time.Now()
		}},
		{"without notifications, late", http.StatusUnauthorized, func(token cluster.Token) time.Time {
			return commitLate(t, server, late, idOf, token.Session)
		}},
		{"of a user who is deleted", http.StatusUnauthorized, func(cluster.Token) time.Time {
			server.Exec(t, `DELETE FROM gpt_users WHERE email = 'bob@example.com'`)
			return time.Now()
		}},
	}
	alice, bob := c.SignIn(t, "alice@example.com"), c.SignIn(t, "bob@example.com")
	tokens := map[string]cluster.Token{"kept": alice.Connect(t, c.Nodes[0], "jobs:read"), "cut off": alice.Connect(t, c.Nodes[1], "jobs:read")}
	for i, one := range cases {
		user := alice
		if one.name == "of a user who is deleted" {
			user = bob
		}
		tokens[one.name] = user.Connect(t, c.Nodes[i%4], "jobs:read")
	}
	calling := r.call(tokens, pick(100*time.Millisecond, 50*time.Millisecond))
	r.sleep(time.Second)
	for _, one := range cases {
		if before := calling.others(one.name); len(before) > 0 {
			t.Errorf("%s, before: %s", one.name, before[0])
		}
		atMost(t, r.row, "revoked "+one.name+", last admitted after", calling.refused(one.name, one.status, one.revoke(tokens[one.name])), bound)
	}
	if others := calling.others("kept"); len(others) > 0 {
		t.Errorf("a session that is alive was refused %d times, first: %s", len(others), others[0])
	}

	// One node's connections freeze, as with a proxy that is stopped.
	frozen, gone := c.Nodes[1], time.Now()
	frozen.Wire.Freeze()
	server.Exec(t, idOf, tokens["cut off"].Session)
	committed := time.Now()
	r.until("the node says that it cannot tell", 20*time.Second, func() bool {
		return frozen.Get(t.Context(), "/jobs", tokens["kept"].Access).Status == http.StatusServiceUnavailable
	})
	atMost(t, "R-13", "frozen, until the node refuses", time.Since(gone), pick(2*(bound+readTimeout), bound+readTimeout))
	r.sleep(pick(time.Second, 10*time.Second))
	frozen.Wire.Heal(t)
	healed := time.Now()
	r.until("the node has recovered", 30*time.Second, func() bool { return frozen.Get(t.Context(), "/jobs", tokens["kept"].Access).OK() })
	atMost(t, "R-13", "thawed, until the node admits again", time.Since(healed), 10*time.Second)
	atMost(t, "R-13", "revoked meanwhile, last admitted after", calling.refused("cut off", http.StatusUnauthorized, committed), bound)
	r.sleep(time.Second)
	if others := calling.others("kept", [2]time.Time{gone, healed.Add(5 * time.Second)}); len(others) > 0 {
		t.Errorf("a session that is alive was refused %d times by nodes that were not cut off or later, first: %s", len(others), others[0])
	}

	server.Exec(t, `TRUNCATE gpt_sessions CASCADE`)
	atMost(t, r.row, "revoked by TRUNCATE, last admitted after", calling.refused("kept", http.StatusUnauthorized, time.Now()), bound)
}

// commitLate revokes in a transaction that stays open meanwhile, while others
// come and go.
func commitLate(t *testing.T, server *postgrestest.Server, late time.Duration, statement string, args ...any) (committed time.Time) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, statement, args...); err != nil {
			return err
		}
		for end := time.Now().Add(late); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			server.Exec(t, `SELECT pg_current_xact_id()`)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

// TestPromotedStandbyWhoseTransactionIDsWentBack: its primary dies before all
// has reached it, so that it gives out again what the nodes have already passed.
// A revocation under such an id is seen as any other..
func TestPromotedStandbyWhoseTransactionIDsWentBack(t *testing.T) {
	t.Parallel()
	primary := postgrestest.NewServer(t, postgrestest.ServerConfig{})
	standby := primary.Standby(t, "s2") // asynchronous
	c := cluster.New(t, cluster.Config{Nodes: pick(2, 4), Postgres: primary, Standby: standby})
	r := &run{T: t, row: "R-02", c: c}
	user := c.SignIn(t, "alice@example.com")
	tokens := map[string]cluster.Token{"kept": user.Connect(t, c.Nodes[0], "jobs:read")}
	revocations := pick(5, 50)
	for i := range revocations {
		tokens[fmt.Sprint(i)] = user.Connect(t, c.Nodes[0], "jobs:read")
	}
	r.until("the standby has followed", 20*time.Second, func() bool {
		return postgrestest.Query[int](t, standby, `SELECT count(*) FROM gpt_sessions`) == len(tokens)
	})
	const nextID = `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`
	standby.Exec(t, `ALTER SYSTEM SET primary_conninfo = ''`)
	standby.Exec(t, `SELECT pg_reload_conf()`)
	r.until("the standby hears no more", 20*time.Second, func() bool {
		return postgrestest.Query[int](t, primary, `SELECT count(*) FROM pg_stat_replication`) == 0
	})
	calling := r.call(tokens, pick(100*time.Millisecond, 200*time.Millisecond))
	for range 20 * revocations {
		primary.Exec(t, `SELECT pg_current_xact_id()`)
	}
	before := postgrestest.Query[int64](t, primary, nextID)
	r.sleep(bound) // every node has passed it

	primary.Kill(t)
	killed := time.Now()
	standby.Promote(t)
	r.c.Postgres = standby
	var last int64
	var committed []time.Time
	for i := range revocations {
		standby.Exec(t, `UPDATE gpt_sessions SET revoked_at = now() WHERE id = $1`, tokens[fmt.Sprint(i)].Session)
		committed = append(committed, time.Now())
		if last = postgrestest.Query[int64](t, standby, nextID); last >= before {
			t.Fatalf("transaction ids did not go back: %d before, %d now", before, last)
		}
		// The first ones while the nodes still look for the server.
		calling.sleep(pick(50*time.Millisecond, 100*time.Millisecond))
	}
	var slowest time.Duration
	for i, at := range committed {
		slowest = max(slowest, calling.refused(fmt.Sprint(i), http.StatusUnauthorized, at))
	}
	noted(t, r.row, "revoked under ids that were passed", revocations)
	atMost(t, r.row, "revoked under ids that were passed, last admitted after, slowest", slowest, bound)
	noted(t, r.row, "next transaction id at the primary when it died, and at the standby after the last revocation", []int64{before, last})
	r.until("every node is ready again", 30*time.Second, func() bool { return allReady(c) && allFresh(t, c) })
	normal := time.Now()
	for _, n := range c.Nodes {
		if answer := n.Get(t.Context(), "/jobs", tokens["kept"].Access); !answer.OK() {
			t.Errorf("a session that is alive: %s", answer)
		}
	}
	if others := calling.others("kept", [2]time.Time{killed.Add(-time.Second), normal}); len(others) > 0 {
		t.Errorf("a session that is alive was refused %d times, first: %s", len(others), others[0])
	}
}

// TestMillionRevocationsAreNoBurden: a node that starts beside a million live
// revocations decides at once and holds nothing of them; and when the sessions of
// a client are revoked in one statement, a million of them in the long form, no
// view is stale for a moment.
func TestMillionRevocationsAreNoBurden(t *testing.T) {
	t.Parallel()
	many := pick(20_000, 1_000_000)
	c := cluster.New(t, cluster.Config{Nodes: 2})
	r := &run{T: t, row: "view", c: c}
	token := c.SignIn(t, "alice@example.com").Connect(t, c.Nodes[0], "jobs:read")
	admitted := func(n *cluster.Node) {
		if answer := n.Get(t.Context(), "/jobs", token.Access); !answer.OK() {
			t.Fatalf("%s: %s", n.Name, answer)
		}
	}
	// restart measures the last node from its start to a fresh view.
	restart := func() (took time.Duration, heap int64) {
		last := c.Nodes[1]
		last.Terminate()
		_ = last.Ended(t)
		last.Start(t)
		last.AwaitReady(t)
		took = r.until("the view is fresh", 30*time.Second, func() bool { return last.Status(t).View.Fresh })
		admitted(last)
		return took, last.Usage(t).Heap
	}
	_, without := restart()
	fill := func(statement string, args ...any) {
		t.Helper()
		if err := execWithoutLimit(c.Postgres, statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	fill(`INSERT INTO gpt_revocations (session_id, ended, expires_at)
		SELECT gen_random_uuid(), true, now() + interval '1 hour' FROM generate_series(1, $1)`, many)
	took, with := restart()
	noted(t, r.row, "live revocations", many)
	atMost(t, r.row, "from ready to fresh beside them", took, 5*time.Second)
	atMost(t, r.row, "heap that they take, MiB", (with-without)>>20, 16) // garbage of the start, more or less

	c.Postgres.Exec(t, `INSERT INTO gpt_clients (client_id) VALUES ('other')`)
	fill(`INSERT INTO gpt_sessions (user_id, client_id, scopes, granted_scopes, tokens_expire_at, expires_at)
		SELECT 'u' || n, 'other', '{jobs:read}', '{jobs:read}', now() + interval '15 minutes', now() + interval '1 day' FROM generate_series(1, $1) n`, many)
	for _, n := range c.Nodes {
		admitted(n)
	}
	start, disabled := time.Now(), make(chan error, 1)
	go func() {
		disabled <- execWithoutLimit(c.Postgres, `UPDATE gpt_clients SET disabled_at = now() WHERE client_id = 'other'`)
	}()
	stale := 0
	watch := func() {
		for _, n := range c.Nodes {
			if !n.Status(t).View.Fresh {
				stale++
			}
			admitted(n)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for waiting := true; waiting; watch() {
		select {
		case err := <-disabled:
			if err != nil {
				t.Fatal(err)
			}
			waiting = false
		default:
		}
	}
	noted(t, r.row, "the statement that revoked as many took", time.Since(start))
	for end := time.Now().Add(2 * bound); time.Now().Before(end); watch() {
	}
	exactly(t, r.row, "moments at which a view was stale", stale, 0)
}

// execWithoutLimit has no deadline, unlike Server.Exec.
func execWithoutLimit(server *postgrestest.Server, statement string, args ...any) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, server.DSN())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement, args...)
	return err
}
