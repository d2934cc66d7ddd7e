// Package issuertest sets the scene of a test of the authorization server in
// one line: a real issuer.Server over a real PostgreSQL, reached through HTTP
// only, with a user, three clients and browsers that sign in and allow.
//
//	scene := issuertest.New(t)
//	tokens := scene.Tokens(t, issuertest.Confidential)
//
// Everything a test sees came out of a socket; everything it changes behind the
// server's back, it changes in SQL.
package issuertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// Email and Password are ada's.
const (
	Email    = "ada@example.com"
	Password = "correct horse battery"
)

// Scene is one authorization server, alone with its database.
type Scene struct {
	URL     string // of the server; also the issuer, and the resource of most scopes
	DSN     string
	Server  *issuer.Server
	Store   *postgres.Store
	Clients *Clients
	Clock   *Clock // of the node; the database keeps real time
	Keys    *issuer.KeyRing
	Secrets *issuer.RootSecrets
	Logs    *observer.ObservedLogs // from level debug
	User    issuer.User            // ada

	t    testing.TB
	http *http.Client
	sql  *pgxpool.Pool
}

// MCP is the identifier of a second resource, the only one with scope mcp:tools.
func (s *Scene) MCP() string { return s.URL + "/mcp" }

// Option changes a scene before its server is made.
type Option func(*setup)

type setup struct {
	tls    bool
	host   string // in the address; empty: the loopback address
	change []func(*issuer.Config)
}

// TLS serves https, so that cookies carry the __Host- prefix.
func TLS() Option { return func(s *setup) { s.tls = true } }

// With changes the configuration of the server.
func With(change func(*issuer.Config)) Option {
	return func(s *setup) { s.change = append(s.change, change) }
}

// New sets the scene. It ends with the test.
func New(t testing.TB, opts ...Option) *Scene {
	t.Helper()
	var with setup
	for _, opt := range opts {
		opt(&with)
	}
	s := &Scene{t: t, Clock: &Clock{now: time.Now()}, DSN: postgrestest.Migrated(t)}
	s.connect()

	// The address is known before the server is: it is the issuer.
	var handler http.Handler
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	address := web.Listener.Addr().String()
	if with.host != "" {
		_, port, _ := net.SplitHostPort(address)
		address = net.JoinHostPort(with.host, port)
	}
	if with.tls {
		s.URL = "https://" + address
	} else {
		s.URL = "http://" + address
	}
	s.Server = s.newServer(with.change)
	handler = s.Server
	if with.tls {
		web.StartTLS()
	} else {
		web.Start()
	}
	t.Cleanup(web.Close)
	s.http = web.Client()
	s.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s
}

// connect opens the store and a connection for the test's own SQL, and brings
// the user in.
func (s *Scene) connect() {
	s.t.Helper()
	ctx := context.Background()
	db, err := postgres.Open(ctx, postgres.Config{DSN: s.DSN, MaxConns: 6, Timeout: 10 * time.Second})
	s.must(err)
	s.t.Cleanup(db.Close)
	s.Store = postgres.NewStore(db)
	s.sql, err = pgxpool.New(ctx, s.DSN)
	s.must(err)
	s.t.Cleanup(s.sql.Close)
	s.User, err = s.Store.CreateUser(ctx, Email, passwordHash(), issuer.Origin{})
	s.must(err)
}

// passwordHash is computed once: argon2 is slow on purpose.
var passwordHash = sync.OnceValue(func() string {
	hash, err := issuer.HashPassword(context.Background(), Password)
	if err != nil {
		panic(err)
	}
	return hash
})

func (s *Scene) newServer(change []func(*issuer.Config)) *issuer.Server {
	s.t.Helper()
	catalog, err := oauth.NewCatalog([]oauth.Scope{
		{Name: "jobs:read", Description: "Search jobs and view job details"},
		{Name: "applications:read", Description: "See your applications"},
		{Name: "applications:write", Description: "Submit applications for you", Implies: []string{"applications:read"}},
		{Name: "resume:read", Description: "Read your resume"},
		{Name: "mcp:tools", Description: "Use the tools"},
	})
	s.must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	s.Keys, err = issuer.NewStaticKeyRing([]*ecdsa.PrivateKey{key})
	s.must(err)
	s.Secrets, err = issuer.NewRootSecrets([]byte("a root secret of at least thirty-two bytes"))
	s.must(err)
	s.Clients = newClients(s)
	core, logs := observer.New(zapcore.DebugLevel)
	s.Logs = logs
	resources := []issuer.ProtectedResource{
		{Identifier: s.URL, Scopes: oauth.NewScopeSet("jobs:read", "applications:read", "applications:write", "resume:read"), Name: "Jobs"},
		{Identifier: s.MCP(), Scopes: oauth.NewScopeSet("mcp:tools"), Name: "Tools"},
	}
	cfg := issuer.Config{
		Issuer: s.URL, Catalog: catalog, Clients: s.Clients, Store: s.Store, Keys: s.Keys, Secrets: s.Secrets,
		Resources: func() []issuer.ProtectedResource { return resources },
		Grants:    issuer.GrantTypes(),
		Password:  true, Logger: zap.New(core), Now: s.Clock.Now,
	}
	for _, f := range change {
		f(&cfg)
	}
	server, err := issuer.New(cfg)
	s.must(err)
	return server
}

func (s *Scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// SQL runs one statement in the scene's database and returns its rows.
func (s *Scene) SQL(t testing.TB, query string, args ...any) [][]any {
	t.Helper()
	rows, err := s.sql.Query(context.Background(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

// Count returns the number that the query selects.
func (s *Scene) Count(t testing.TB, query string, args ...any) int {
	t.Helper()
	var n int
	if err := s.sql.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// Clock is a clock that moves when told to.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now is the time on the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
