//go:build linux

package chaos

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/migrations"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// TestNodesThatStartAtOnceMigrateOnce: nodes start at the same moment on an
// empty schema, on an old one, and through a pooler; whichever is at a migration
// is killed, and another. Each migration is applied once, every node becomes
// ready, and nobody waits for nobody. R-17.
func TestNodesThatStartAtOnceMigrateOnce(t *testing.T) {
	t.Parallel()
	server := postgrestest.NewServer(t, postgrestest.ServerConfig{})
	pooler := postgrestest.Pgbouncer(t, server.DSN())
	for _, form := range []struct {
		name    string
		dsn     string
		version int // of the schema that is there
		kills   int
	}{
		{"empty", server.DSN(), 0, 0},
		{"empty, killed at it", server.DSN(), 0, 3},
		{"old, killed at it", server.DSN(), 3, 2},
		{"through PgBouncer, killed at it", pooler, 0, 2},
	} {
		if !*long && form.kills == 0 {
			continue // is in the next
		}
		var slowest time.Duration
		var killed int
		for range rounds(1, 20) {
			took, n := startAtOnce(t, server, form.dsn, form.version, form.kills)
			slowest, killed = max(slowest, took), killed+n
		}
		noted(t, "R-17", form.name+": nodes at once", pick(4, 8))
		noted(t, "R-17", form.name+": killed", killed)
		// A step outside transactions is left to who was killed at it for 12 s.
		limit := pick(90*time.Second, 10*time.Second)
		if form.kills > 0 {
			limit = pick(90*time.Second, 30*time.Second)
		}
		atMost(t, "R-17", form.name+": until every node is ready, slowest", slowest, limit)
	}
}

// startAtOnce starts nodes on a schema of the version, kills so many of them
// while they are at a migration, and starts those again. It returns how long it
// took from the last start until all were ready.
func startAtOnce(t *testing.T, server *postgrestest.Server, dsn string, version, kills int) (took time.Duration, killed int) {
	t.Helper()
	all, err := migrations.All()
	if err != nil {
		t.Fatal(err)
	}
	emptied(t, server, version)
	c := cluster.New(t, cluster.Config{Nodes: pick(4, 8), Postgres: server, DSN: dsn, NotStarted: true})
	watch, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Close(context.Background()) }()
	for _, n := range c.Nodes {
		n.Start(t)
	}
	started := time.Now()
	for killed < kills && time.Since(started) < 20*time.Second {
		var at string
		err := watch.QueryRow(t.Context(), `SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory'`).Scan(&at)
		i := slices.IndexFunc(c.Nodes, func(n *cluster.Node) bool { return n.Name == at })
		if err != nil || i < 0 {
			continue
		}
		c.Nodes[i].Kill()
		c.Nodes[i].Start(t)
		killed++
		started = time.Now()
	}
	if killed < kills {
		t.Errorf("only %d nodes were caught at a migration", killed)
	}
	for _, n := range c.Nodes {
		n.AwaitReady(t)
	}
	took = time.Since(started)

	if applied := postgrestest.Query[int](t, server, `SELECT count(*) FROM gpt_schema_migrations WHERE applied_at IS NOT NULL AND lease_holder IS NULL`); applied != len(all) {
		t.Errorf("%d of %d migrations are applied", applied, len(all))
	}
	token := c.SignIn(t, "alice@example.com").Connect(t, c.Nodes[0], "jobs:read")
	for _, n := range c.Nodes {
		if answer := n.Get(t.Context(), "/jobs", token.Access); !answer.OK() {
			t.Errorf("%s: %s", n.Name, answer)
		}
		n.Terminate()
	}
	for _, n := range c.Nodes {
		_ = n.Ended(t)
	}
	return took, killed
}

// emptied removes every table and brings the schema to a version.
func emptied(t *testing.T, server *postgrestest.Server, version int) {
	t.Helper()
	server.Exec(t, `DROP SCHEMA public CASCADE`)
	server.Exec(t, `CREATE SCHEMA public`)
	if version == 0 {
		return
	}
	cfg := postgres.MigrateConfig{DSN: server.DSN()}
	if err := postgres.Migrate(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := postgres.MigrateDown(context.Background(), cfg, version); err != nil {
		t.Fatal(err)
	}
}
