package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

const (
	clientID = "bench"
	userID   = "user-1"
)

// scene is what every scenario shares: a database with live sessions, the key
// that signs their tokens, and an upstream.
type scene struct {
	dir        string
	caddy      string // the binary
	database   *postgres.Embedded
	dsn        string // of the database that is used
	key        *ecdsa.PrivateKey
	signingKey string // as the word signing_key takes it
	sessions   []uuid.UUID
	users      []string // of the sessions; nil: userID
	upstream   *http.Server
	address    string // of the upstream
}

// sceneConfig makes a scene.
type sceneConfig struct {
	sessions int
	// settings of Postgres besides the scene's own.
	settings map[string]string
	// data is where Postgres keeps its data when the scene is closed; empty: nowhere.
	data string
}

func newScene(ctx context.Context, c sceneConfig) (s *scene, err error) {
	s = &scene{}
	started := s // a return that fails sets s
	defer func() {
		if err != nil {
			started.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "caddy-scope-bench"); err != nil {
		return nil, err
	}
	// Postgres may run as another user, who has to get through.
	if err := os.Chmod(s.dir, 0o711); err != nil {
		return nil, err
	}
	config := postgres.EmbeddedConfig{DataDir: cmp.Or(c.data, filepath.Join(s.dir, "postgres")), Ephemeral: c.data == "",
		Settings: map[string]string{
			"track_activity_query_size": "16384", // whole statements: see token_endpoint.go
			// Ephemeral is for its watchdog; writes are to cost what they cost.
			"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB",
		}}
	maps.Copy(config.Settings, c.settings)
	if s.database, err = postgres.StartEmbedded(ctx, config); err != nil {
		return nil, err
	}
	s.dsn = s.database.DSN()
	if err := postgres.Migrate(ctx, postgres.MigrateConfig{DSN: s.dsn}); err != nil {
		return nil, err
	}
	if err := s.makeKey(); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	for range c.sessions {
		s.sessions = append(s.sessions, uuid.New())
	}
	return s, s.insertSessions(ctx)
}

func (s *scene) makeKey() (err error) {
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	s.signingKey = base64.StdEncoding.EncodeToString(block)
	return nil
}

// minter signs the tokens that the authorization server would have issued for
// the sessions, without the detour of ten thousand sign-ins.
func (s *scene) minter() (*minter, error) {
	public, err := jwk.FromRaw(&s.key.PublicKey)
	if err != nil {
		return nil, err
	}
	if err := jwk.AssignKeyID(public); err != nil { // RFC 7638, as the server does
		return nil, err
	}
	return &minter{validatortest.Minter{Key: s.key}, `{"alg":"ES256","kid":"` + public.KeyID() + `","typ":"at+jwt"}`}, nil
}

type minter struct {
	validatortest.Minter
	header string
}

func (m *minter) token(issuer string, session uuid.UUID, user string) (string, error) {
	now := time.Now().Unix()
	payload, err := json.Marshal(map[string]any{
		"iss": issuer, "aud": issuer, "sub": user, "client_id": clientID, "sid": session.String(), "scope": "jobs:read",
		"jti": uuid.NewString(), "iat": now, "exp": now + 3600,
	})
	return m.Sign(m.header, string(payload)), err
}

func (s *scene) insertSessions(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return fmt.Errorf("insert sessions: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, `INSERT INTO gpt_clients (client_id) VALUES ($1) ON CONFLICT DO NOTHING`, clientID); err != nil {
		return fmt.Errorf("insert client: %w", err)
	}
	scopes := []string{"jobs:read"}
	expires := time.Now().Add(24 * time.Hour)
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"gpt_sessions"},
		[]string{"id", "user_id", "client_id", "scopes", "granted_scopes", "expires_at"},
		pgx.CopyFromSlice(len(s.sessions), func(i int) ([]any, error) {
			return []any{s.sessions[i], userID, clientID, scopes, scopes, expires}, nil
		}))
	if err != nil {
		return fmt.Errorf("insert sessions: %w", err)
	}
	if _, err := conn.Exec(ctx, `ANALYZE gpt_sessions`); err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	return nil
}

// listen starts the upstream: a fixed answer of the size of a small API's.
func (s *scene) listen() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.address = listener.Addr().String()
	body := append([]byte(`{"jobs":[`), bytes.Repeat([]byte(`{"id":"job-1","title":"Engineer"},`), 15)...)
	body = append(body, `{}]}`...)
	s.upstream = &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body)
		}),
	}
	go func() { _ = s.upstream.Serve(listener) }()
	return nil
}

func (s *scene) close() {
	if s.upstream != nil {
		_ = s.upstream.Close()
	}
	if s.database != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = s.database.Stop(ctx)
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}
