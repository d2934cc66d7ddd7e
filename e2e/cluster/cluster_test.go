//go:build linux

package cluster_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// TestClusterIsADeployment: what one node issues every node takes, and what
// one ends every node refuses; a node goes and comes back.
func TestClusterIsADeployment(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Config{Nodes: 2})
	first, second := c.Nodes[0], c.Nodes[1]
	token := c.SignIn(t, "alice@example.com").Connect(t, first, "jobs:read")
	if answer := second.Get(t.Context(), "/jobs", token.Access); answer.Status != http.StatusOK {
		t.Fatalf("the second node: %s", answer)
	}
	token, answer := cluster.Refresh(t.Context(), second, token.Refresh)
	if !answer.OK() {
		t.Fatalf("refresh: %s", answer)
	}
	if !second.Status(t).View.Fresh || second.Metrics(t)["caddy_oauth_view_fresh"] != 1 {
		t.Errorf("the view is not fresh: %+v", second.Status(t))
	}
	if err := first.Reload(); err != nil {
		t.Errorf("reload: %v", err)
	}
	second.Kill()
	if answer := cluster.Get(t.Context(), c.Balanced(), "/jobs", token.Access); !answer.OK() {
		t.Errorf("balanced with a dead node: %s", answer)
	}
	second.Start(t)
	second.AwaitReady(t)
	if answer := cluster.Revoke(t.Context(), first, token.Refresh); !answer.OK() {
		t.Fatalf("revoke: %s", answer)
	}
	for _, n := range c.Nodes {
		for deadline := time.Now().Add(5 * time.Second); n.Get(t.Context(), "/jobs", token.Access).Status != http.StatusUnauthorized; {
			if time.Now().After(deadline) {
				t.Errorf("%s still admits a revoked session", n.Name)
				break
			}
		}
	}
	t.Log(first.Usage(t))
}

// TestStandbyTakesOver: what failover tests build on.
func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	primary := postgrestest.NewServer(t, postgrestest.ServerConfig{})
	standby := primary.Standby(t, "s2")
	primary.AwaitSynchronous(t, "s2")
	primary.Exec(t, `CREATE TABLE kept (n int)`)
	primary.Exec(t, `INSERT INTO kept VALUES (1)`)
	primary.Kill(t)
	standby.Promote(t)
	standby.Exec(t, `INSERT INTO kept VALUES (2)`)
	primary.ReturnAsStandby(t, standby, "s1")
	for deadline := time.Now().Add(20 * time.Second); postgrestest.Query[int](t, primary, `SELECT count(*) FROM kept`) != 2; {
		if time.Now().After(deadline) {
			t.Fatal("the old primary does not follow")
		}
	}
	if !postgrestest.Query[bool](t, primary, `SELECT pg_is_in_recovery()`) {
		t.Error("the old primary is no standby")
	}
}
