//go:build unix

package postgres_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// scene is a store with one user, signed in, and two clients.
type scene struct {
	*testing.T
	ctx   context.Context
	dsn   string
	db    *postgres.DB
	store *postgres.Store
	sql   *pgx.Conn
	user  issuer.User
	login issuer.Login
}

func newScene(t *testing.T, change ...func(*postgres.Config)) *scene {
	t.Helper()
	s := &scene{T: t, ctx: context.Background(), dsn: postgrestest.Migrated(t)}
	cfg := postgres.Config{DSN: s.dsn, Timeout: 10 * time.Second}
	for _, f := range change {
		f(&cfg)
	}
	db, err := postgres.Open(s.ctx, cfg)
	s.must(err)
	t.Cleanup(db.Close)
	s.db, s.store = db, postgres.NewStore(db)
	s.sql, err = pgx.Connect(s.ctx, s.dsn)
	s.must(err)
	t.Cleanup(func() { s.sql.Close(s.ctx) })
	s.must(s.store.EnsureClients(s.ctx, []postgres.ClientRow{{ID: "app", Name: "App"}, {ID: "other"}}))
	s.user, err = s.store.CreateUser(s.ctx, "Demo@Example.com", "hash", issuer.Origin{})
	s.must(err)
	s.login, err = s.store.CreateLogin(s.ctx, digest(), s.user.ID, "password", time.Hour, issuer.Origin{})
	s.must(err)
	return s
}

// sceneOn is a scene on a database of the caller's, which dsn leads to and cfg
// opens.
func sceneOn(t *testing.T, dsn string, cfg postgres.Config) *scene {
	t.Helper()
	s := &scene{T: t, ctx: context.Background(), dsn: dsn}
	s.must(postgres.Migrate(s.ctx, postgres.MigrateConfig{DSN: dsn, Schema: cfg.Schema}))
	var err error
	s.db, err = postgres.Open(s.ctx, cfg)
	s.must(err)
	t.Cleanup(s.db.Close)
	s.store, s.sql = postgres.NewStore(s.db), connect(t, dsn)
	if cfg.Schema != "" {
		s.exec(`SET search_path = ` + cfg.Schema)
	}
	s.must(s.store.EnsureClients(s.ctx, []postgres.ClientRow{{ID: "app"}}))
	s.user, err = s.store.CreateUser(s.ctx, rand.Text()+"@example.com", "hash", issuer.Origin{})
	s.must(err)
	s.login, err = s.store.CreateLogin(s.ctx, digest(), s.user.ID, "password", time.Hour, issuer.Origin{})
	s.must(err)
	return s
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) exec(sql string, args ...any) {
	s.Helper()
	_, err := s.sql.Exec(s.ctx, sql, args...)
	s.must(err)
}

func (s *scene) count(sql string, args ...any) (n int) {
	s.Helper()
	s.must(s.sql.QueryRow(s.ctx, sql, args...).Scan(&n))
	return n
}

// code stores a code for the scopes and returns its digest.
func (s *scene) code(scopes ...string) issuer.Digest {
	s.Helper()
	d := digest()
	s.must(s.store.CreateAuthorizationCode(s.ctx, issuer.AuthorizationCode{Digest: d, RequestID: uuid.NewString(), ClientID: "app", UserID: s.user.ID,
		LoginID: s.login.ID, RedirectURI: "https://app.test/cb", Resource: "https://api.test", Scopes: oauth.NewScopeSet(scopes...), AuthTime: time.Now()}, 5*time.Minute, issuer.Origin{}))
	return d
}

var lifetime = issuer.SessionLifetime{TTL: 24 * time.Hour, AccessTokenTTL: 15 * time.Minute}

func (s *scene) session(scopes ...string) issuer.Session {
	s.Helper()
	session, err := s.store.RedeemAuthorizationCode(s.ctx, s.code(scopes...), lifetime, issuer.Origin{})
	s.must(err)
	return session
}

func (s *scene) rotate(id string, counter int64, grace time.Duration) (issuer.Rotated, error) {
	return s.store.RotateRefreshToken(s.ctx, issuer.Rotation{SessionID: id, ClientID: "app", Counter: counter, Grace: grace, AccessTokenTTL: 15 * time.Minute}, issuer.Origin{})
}

func digest() issuer.Digest {
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	return sha256.Sum256(random)
}
