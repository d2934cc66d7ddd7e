package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// instantStore answers a refresh without a database, so that what is measured is
// the endpoint itself.
type instantStore struct {
	Store
	session Session
}

func (s *instantStore) FindSession(context.Context, string, string) (Session, error) {
	return s.session, nil
}

func (s *instantStore) RotateRefreshToken(context.Context, Rotation, Origin) (Rotated, error) {
	return Rotated{Session: s.session}, nil
}

func (s *instantStore) Client(_ context.Context, clientID string) (*Client, error) {
	return &Client{ID: clientID, AuthMethods: []string{"none"}, Grants: []string{"authorization_code", "refresh_token"}, RedirectURIs: []string{"http://127.0.0.1/callback"}}, nil
}

// refreshServer returns a server and the body of a refresh.
func refreshServer(t testing.TB) (*Server, string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	keys, err := NewStaticKeyRing([]*ecdsa.PrivateKey{key})
	must(err)
	secrets, err := NewRootSecrets(NewRootSecret())
	must(err)
	catalog, err := oauth.NewCatalog([]oauth.Scope{{Name: "jobs:read", Description: "Search jobs"}})
	must(err)
	scopes := oauth.NewScopeSet("jobs:read")
	store := &instantStore{session: Session{ID: uuid.NewString(), UserID: "user-1", ClientID: "app", Resource: "https://api.example.com",
		Scopes: scopes, GrantedScopes: scopes, Counter: 2, AuthTime: time.Now(), Remaining: 24 * time.Hour}}
	logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.InfoLevel))
	server, err := New(Config{Issuer: "https://api.example.com", Catalog: catalog, Clients: store, Store: store, Keys: keys, Secrets: secrets, Logger: logger,
		Resources: func() []ProtectedResource { return nil }})
	must(err)
	token, err := secrets.mintRefreshToken(refreshToken{store.session.ID, 1})
	must(err)
	return server, url.Values{"grant_type": {"refresh_token"}, "client_id": {"app"}, "refresh_token": {token}}.Encode()
}

func refreshOnce(t testing.TB, server *Server, body string) {
	r := httptest.NewRequest(http.MethodPost, "/oauth/token", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	server.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

func BenchmarkRefresh(b *testing.B) {
	server, body := refreshServer(b)
	b.ReportAllocs()
	for b.Loop() {
		refreshOnce(b, server, body)
	}
}

func BenchmarkSignAccessToken(b *testing.B) {
	server, _ := refreshServer(b)
	payload := []byte(strings.Repeat("x", 300))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := server.cfg.Keys.sign(accessTokenType, payload); err != nil {
			b.Fatal(err)
		}
	}
}
