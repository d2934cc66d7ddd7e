//go:build linux

package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

const (
	// ClientID is a confidential client with an https redirect address: its
	// consent is asked for once.
	ClientID     = "partner"
	ClientSecret = "partner-secret-partner-secret-partner-secret"
	redirectURI  = "https://partner.example/callback"
	// Password of every user.
	Password = "correct horse battery"

	rootSecret = "0123456789abcdef0123456789abcdef0123456789abcdef"
)

// Config describes a cluster. The zero value is three nodes with the defaults
// of the Caddyfile.
type Config struct {
	// Nodes; zero: 3.
	Nodes int
	// Options are lines for the block of the global option oauth.
	Options string
	// Global are lines for the global options of Caddy.
	Global string
	// Proxy are lines for the block of reverse_proxy.
	Proxy string
	// Postgres is the server; nil: one is made.
	Postgres *postgrestest.Server
	// DSN is what the wires lead to; empty: Postgres directly. For a pooler.
	DSN string
	// Standby is a second server that the nodes' DSN names; Node.Second leads
	// there.
	Standby *postgrestest.Server
	// Namespaces puts each node into a network namespace of its own, where
	// Node.Partition can drop its packets. It needs root and iproute2.
	Namespaces bool
	// Upstream answers behind the gate; nil: Slow.
	Upstream http.Handler
	// NotStarted leaves it to the test to start the nodes.
	NotStarted bool
}

// Slow is the default upstream. It answers after the time that the query names, such as ?for=2s, and
// everything else at once.
func Slow(w http.ResponseWriter, r *http.Request) {
	if d, err := time.ParseDuration(r.URL.Query().Get("for")); err == nil {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"ok":true}`)
}

// Cluster is N gateways of one issuer on one Postgres.
type Cluster struct {
	Nodes    []*Node
	Postgres *postgrestest.Server
	// Issuer is the public address, a name only: the client of Balanced and those
	// of the nodes lead there.
	Issuer string
	// Reached counts the requests that came to the upstream.
	Reached atomic.Int64

	upstream *httptest.Server
	turn     atomic.Int64
	anyNode  *http.Client
	users    sync.Map // email -> hash made
}

// New starts a cluster and returns when every node is ready. It ends with the
// test.
func New(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	if cfg.Nodes == 0 {
		cfg.Nodes = 3
	}
	c := &Cluster{Postgres: cfg.Postgres}
	if c.Postgres == nil {
		c.Postgres = postgrestest.NewServer(t, postgrestest.ServerConfig{})
	}
	if cfg.DSN == "" {
		cfg.DSN = c.Postgres.DSN()
	}
	if cfg.Upstream == nil {
		cfg.Upstream = http.HandlerFunc(Slow)
	}
	address := "127.0.0.1:0"
	if cfg.Namespaces {
		address = "0.0.0.0:0" // the nodes reach it from their namespaces
	}
	c.upstream = serve(t, address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.Reached.Add(1)
		cfg.Upstream.ServeHTTP(w, r)
	}))
	c.Issuer = "http://localhost:8080" // a name; the nodes listen elsewhere
	c.anyNode = newClient(c.dialAny)
	t.Cleanup(c.anyNode.CloseIdleConnections)
	dir := t.TempDir()
	for i := range cfg.Nodes {
		c.Nodes = append(c.Nodes, newNode(t, c, cfg, i, filepath.Join(dir, fmt.Sprintf("node%d", i))))
	}
	if cfg.NotStarted {
		return c
	}
	for _, n := range c.Nodes {
		n.Start(t)
	}
	for _, n := range c.Nodes {
		n.AwaitReady(t)
	}
	return c
}

// dialAny connects to the next node that can be reached.
func (c *Cluster) dialAny(ctx context.Context, network, _ string) (conn net.Conn, err error) {
	first := int(c.turn.Add(1))
	for i := range c.Nodes {
		conn, err = new(net.Dialer).DialContext(ctx, network, c.Nodes[(first+i)%len(c.Nodes)].Address)
		if err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// AddUser makes a user with Password, unless there is one.
func (c *Cluster) AddUser(t testing.TB, email string) {
	t.Helper()
	if _, known := c.users.LoadOrStore(email, true); known {
		return
	}
	hash, err := passwordHash()
	if err != nil {
		t.Fatal(err)
	}
	c.Postgres.Exec(t, `INSERT INTO gpt_users (email, password_hash) VALUES ($1, $2)`, email, hash)
}

// passwordHash costs what it costs, and once is enough.
var passwordHash = sync.OnceValues(func() (string, error) { return issuer.HashPassword(context.Background(), Password) })

// serve is httptest.NewServer at an address.
func serve(t testing.TB, address string, handler http.Handler) *httptest.Server {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(handler)
	_ = s.Listener.Close()
	s.Listener = listener
	s.Start()
	t.Cleanup(s.Close)
	return s
}

var loopbacks atomic.Uint32

// loopback is an address of this machine that nobody else uses: a port that
// was free a moment ago need not be so when a node comes back to it.
func loopback() string {
	pid, n := os.Getpid(), loopbacks.Add(1)
	return net.IPv4(127, byte(128|pid&0x7f), byte(pid>>7)^byte(n>>8), byte(n)).String()
}
