// Package cluster runs what a deployment runs, for tests: N gateways, each a
// process of the real binary, one Postgres server, and between each gateway and
// Postgres a wire that fails as networks do (postgrestest.Wire). Clients go the
// whole way: sign-in, consent, code, token, gate.
//
//	c := cluster.New(t, cluster.Config{Nodes: 3})
//	user := c.SignIn(t, "alice@example.com")
//	token := user.Connect(t, c.Nodes[0], "jobs:read")
//	c.Nodes[1].Wire.Freeze()
//	answer := c.Nodes[1].Get(ctx, "/jobs", token.Access)
//
// What happens to a node is a method of Node (Kill, Terminate, Pause, Reload),
// to its network one of its Wire, to the database one of Cluster.Postgres.
// Methods that take a testing.TB end the test when they fail; those that do not
// report, since under a fault an answer is whatever it is.
//
// A package that uses it calls Main from its TestMain. It needs Linux: the
// processes end with the test by its means, and are measured in /proc.
package cluster
