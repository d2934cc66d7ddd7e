package caddymodule

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

const realSite = `
	oauth_server
	oauth_protect {
		GET /jobs jobs:read
		GET /open public
	}
	reverse_proxy UPSTREAM
`

// newRealScene is a gate scene on real Postgres, with one live session in it.
// words are further lines of the option oauth.
func newRealScene(t *testing.T, words ...string) (*gateScene, *pgx.Conn) {
	t.Helper()
	s := prepareGateScene(t)
	s.words = strings.Join(words, "\n")
	dsn := postgrestest.New(t)
	s.dsn, s.real = dsn, true
	s.load("", realSite)
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	if _, err := db.Exec(t.Context(), `INSERT INTO gpt_sessions (id, user_id, client_id, scopes, granted_scopes, expires_at)
		VALUES ($1, 'user-1', 'gpt', '{jobs:read,jobs:write}', '{jobs:read,jobs:write}', now() + interval '1 day')`, testSession); err != nil {
		t.Fatal(err)
	}
	return s, db
}

// signingKey is the scene's key as a Caddyfile takes it.
func (s *gateScene) signingKey() string {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// thumbprint is the kid of the scene's key. RFC 7638.
func (s *gateScene) thumbprint() string {
	encode := base64.RawURLEncoding.EncodeToString
	x, y := make([]byte, 32), make([]byte, 32)
	s.key.X.FillBytes(x)
	s.key.Y.FillBytes(y)
	digest := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, encode(x), encode(y)))
	return encode(digest[:])
}

// TestRevocationInPsqlCutsOffTheNextRequest with strict; with live, and by
// default, within the bound.
func TestRevocationInPsqlCutsOffTheNextRequest(t *testing.T) {
	for name, c := range map[string]struct {
		words string
		bound time.Duration
	}{
		"strict": {"session_check strict", 0},
		"live":   {"session_check live\nmax_staleness 500ms", 500 * time.Millisecond},
		"silent": {"", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s, db := newRealScene(t, c.words)
			if got := s.get("/jobs"); got.status != http.StatusOK {
				t.Fatalf("%+v", got)
			}
			if _, err := db.Exec(t.Context(), "UPDATE gpt_sessions SET revoked_at = now() WHERE user_id = 'user-1'"); err != nil {
				t.Fatal(err)
			}
			for revoked := time.Now(); ; {
				late := time.Since(revoked)
				got := s.get("/jobs")
				if got.status == http.StatusUnauthorized {
					return
				}
				if late >= c.bound {
					t.Fatalf("%s after the revocation: %+v", late, got)
				}
			}
		})
	}
}

// V-08, ADM-05: TestRevocationHereCutsOffTheNextRequestHere: who was answered that a
// session is over finds it so at this node with the very next request, although
// the view decides.
func TestRevocationHereCutsOffTheNextRequestHere(t *testing.T) {
	s, db := newRealScene(t)
	store := running.Load().runtime.store
	desk := running.Load().administration(running.Load().runtime)
	for name, end := range map[string]func(session string) error{
		"revoked":           func(id string) error { return store.RevokeSession(t.Context(), id, "gpt", "revoked", issuer.Origin{}) },
		"ended by the user": func(id string) error { return store.EndUserSession(t.Context(), id, "user-1", issuer.Origin{}) },
		"ended with all": func(string) error {
			_, err := store.EndUserSessions(t.Context(), "user-1", issuer.Origin{})
			return err
		},
		"narrowed": func(id string) error {
			return store.NarrowSession(t.Context(), "user-1", id, oauth.NewScopeSet("jobs:read", "jobs:write"), oauth.NewScopeSet("jobs:write"), issuer.Origin{})
		},
		"revoked by an operator": func(id string) error {
			_, err := desk.RevokeSession(t.Context(), id)
			return err
		},
		"revoked by a filter": func(string) error {
			_, err := desk.RevokeSessions(t.Context(), admin.SessionQuery{User: "user-1"}, false, false, "")
			return err
		},
		"of a client that was disabled": func(string) error {
			_, err := desk.DisableClient(t.Context(), "gpt")
			return err
		},
	} {
		for range 8 { // without the wait some get through
			id := uuid.NewString()
			if _, err := desk.EnableClient(t.Context(), "gpt"); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(t.Context(), `INSERT INTO gpt_sessions (id, user_id, client_id, scopes, granted_scopes, expires_at)
				VALUES ($1, 'user-1', 'gpt', '{jobs:read,jobs:write}', '{jobs:read,jobs:write}', now() + interval '1 day')`, id); err != nil {
				t.Fatal(err)
			}
			request := "GET /jobs HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: Bearer " + s.token(func(c map[string]any) { c["sid"] = id }) + "\n\n"
			if got := s.raw(request); got.status != http.StatusOK {
				t.Fatalf("%s: before: %+v", name, got)
			}
			if err := end(id); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := s.raw(request); got.status != http.StatusUnauthorized && got.status != http.StatusForbidden {
				t.Fatalf("%s: the next request is answered %d", name, got.status)
			}
		}
	}
}

// TestLiveViewTellsItsState in the admin API and as gauges.
func TestLiveViewTellsItsState(t *testing.T) {
	s, _ := newRealScene(t)
	kept := gather(t)["caddy_oauth_tokens"] // of other tests
	if got := s.get("/jobs"); got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	var view *viewStatus
	for deadline := time.Now().Add(5 * time.Second); view == nil || !view.Fresh; time.Sleep(time.Millisecond) {
		if view = running.Load().status(httptest.NewRequest(http.MethodGet, "/oauth/status", nil)).View; view == nil {
			t.Fatal("no view by default")
		}
		if time.Now().After(deadline) {
			t.Fatalf("not fresh: %+v", view)
		}
	}
	if view.Server == "" || view.Staleness <= 0 || view.Staleness > 1 {
		t.Errorf("%+v", view)
	}
	if view.MaxStaleness != 1 || view.Restarts == 0 || view.LastRestart == "" || view.Reads == 0 {
		t.Errorf("%+v", view)
	}
	metrics := gather(t)
	for name, want := range map[string]float64{"view_fresh": 1, "view_max_staleness_seconds": 1, "view_poll_failures_total": 0} {
		if got, ok := metrics["caddy_oauth_"+name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := metrics["caddy_oauth_tokens"]; got != kept+1 {
		t.Errorf("%v tokens are kept, and were %v before", got, kept)
	}
	s.words = "session_check strict"
	s.load("", realSite)
	if view := running.Load().status(httptest.NewRequest(http.MethodGet, "/oauth/status", nil)).View; view != nil {
		t.Errorf("a view with strict: %+v", view)
	}
	if _, ok := gather(t)["caddy_oauth_view_fresh"]; ok {
		t.Error("metrics of a view with strict")
	}
}

// TestReloadUnderLoadDropsNoRequest, with the same and with changed settings.
//
func TestReloadUnderLoadDropsNoRequest(t *testing.T) {
	s, _ := newRealScene(t)
	token := s.token()
	var (
		stop   atomic.Bool
		sent   atomic.Int64
		failed sync.Map
		wait   sync.WaitGroup
	)
	for range 4 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			client := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{}}
			for !stop.Load() {
				request, _ := http.NewRequest(http.MethodGet, "http://"+s.address+"/jobs", nil)
				request.Header.Set("Authorization", "Bearer "+token)
				resp, err := client.Do(request)
				if err != nil { // see gateScene.raw: any client dials again
					resp, err = client.Do(request)
				}
				if err != nil {
					failed.Store(err.Error(), true)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					failed.Store(resp.Status, true)
				}
				sent.Add(1)
			}
		}()
	}
	for i := range 6 {
		s.load("", realSite+fmt.Sprintf("\nheader X-Version %d\n", i))
	}
	stop.Store(true)
	wait.Wait()
	failed.Range(func(problem, _ any) bool { t.Error(problem); return true })
	if sent.Load() < 20 {
		t.Errorf("only %d requests were sent", sent.Load())
	}
}

// TestUnreachableDatabaseIs503AndRecoversByItself
func TestUnreachableDatabaseIs503AndRecoversByItself(t *testing.T) {
	s, db := newRealScene(t)
	var name string
	if err := db.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), strings.Replace(s.dsn, "/"+name, "/postgres", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	allow := func(allowed bool) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS %t", name, allowed)); err != nil {
			t.Fatal(err)
		}
	}
	allow(false)
	defer allow(true)
	if _, err := admin.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name); err != nil {
		t.Fatal(err)
	}
	if got := s.get("/jobs"); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("%+v", got)
	}
	if got := s.get("/open"); got.status != http.StatusOK {
		t.Errorf("public: %+v", got)
	}
	const form = "grant_type=authorization_code&code=gpt_ac_x&client_id=gpt&client_secret=a-client-secret-that-is-long-enough"
	token := fmt.Sprintf("POST /oauth/token HTTP/1.1\nHost: a\nConnection: close\nContent-Type: application/x-www-form-urlencoded\nContent-Length: %d\n\n%s", len(form), form)
	if got := s.raw(token); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "temporarily_unavailable") {
		t.Errorf("token endpoint: %+v", got)
	}
	allow(true)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got := s.get("/jobs")
		if got.status == http.StatusOK && s.raw(token).status == http.StatusBadRequest { // the code is unknown
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no recovery: %+v", got)
		}
	}
}

// TestStartNamesTheHostOfAnUnreachableDatabaseAndNoPassword, after a bounded
// wait; the configuration in force stays.
func TestStartNamesTheHostOfAnUnreachableDatabaseAndNoPassword(t *testing.T) {
	s, _ := newRealScene(t)
	s.dsn = "postgres://someone:hunter2hunter2@127.0.0.1:1/none"
	err := s.tryLoad("", realSite)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	if got := s.get("/jobs"); got.status != http.StatusOK {
		t.Errorf("the old configuration does not serve: %+v", got)
	}
}

// TestHostHeadersChangeNothingInMetadata..
func TestHostHeadersChangeNothingInMetadata(t *testing.T) {
	s, _ := newRealScene(t)
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource"} {
		plain := s.raw("GET " + path + " HTTP/1.1\nHost: api.example.com\nConnection: close\n\n")
		evil := s.raw("GET " + path + " HTTP/1.1\nHost: evil.example\nConnection: close\nX-Forwarded-Host: evil.example\nForwarded: host=evil.example;proto=http\nX-Forwarded-Proto: http\n\n")
		if plain.status != http.StatusOK || plain.body != evil.body || bytes.Contains([]byte(evil.body), []byte("evil")) {
			t.Errorf("%s: %+v\n%+v", path, plain, evil)
		}
	}
}

// TestAdminIsNotReachableThroughTheSite. X-05.
func TestAdminIsNotReachableThroughTheSite(t *testing.T) {
	s, _ := newRealScene(t)
	for _, request := range []string{
		"GET /oauth/status HTTP/1.1\nHost: localhost:2019", "GET /config/ HTTP/1.1\nHost: localhost:2019", "GET /oauth/../oauth/status HTTP/1.1\nHost: localhost:2019",
	} {
		if got := s.raw(request + "\nConnection: close\n\n"); got.status < 400 {
			t.Errorf("%s: %+v", request, got)
		}
	}
}

// TestMetadataOfAnotherOriginIsServedInItsSite: RFC 9728 section 3.
func TestMetadataOfAnotherOriginIsServedInItsSite(t *testing.T) {
	s, _ := newRealScene(t)
	s.load("", `
	@other host other.example.com
	handle @other {
		oauth_server metadata
		oauth_protect {
			resource https://other.example.com/v1
			GET /v1/jobs jobs:read
		}
		reverse_proxy UPSTREAM
	}
	handle {
		oauth_server
		oauth_protect jobs:write
		reverse_proxy UPSTREAM
	}
`)
	at := func(host, path string) answer {
		return s.raw("GET " + path + " HTTP/1.1\nHost: " + host + "\nConnection: close\n\n")
	}
	const document = "/.well-known/oauth-protected-resource/v1"
	got := at("other.example.com", document)
	if got.status != http.StatusOK || !strings.Contains(got.body, `"resource":"https://other.example.com/v1"`) || strings.Contains(got.body, "jobs:write") {
		t.Errorf("%+v", got)
	}
	if got := at("api.example.com", document); got.status != http.StatusNotFound {
		t.Errorf("at the issuer's: %+v", got)
	}
	if got := at("other.example.com", "/oauth/jwks.json"); got.status == http.StatusOK {
		t.Errorf("more than metadata: %+v", got)
	}
	challenge := at("other.example.com", "/v1/jobs").header.Get("WWW-Authenticate")
	if !strings.Contains(challenge, `resource_metadata="https://other.example.com`+document+`"`) {
		t.Errorf("challenge %q", challenge)
	}
}

// A client that connects where the first challenge names no scope asks for what
// the metadata name: the scopes of the tools are among them, and a token for the
// resource may be had for those of a tool alone. RFC 9728 section 2.
func TestMetadataNameTheScopesOfTools(t *testing.T) {
	s, _ := newRealScene(t, "client robot {\n\tsecret a-secret-of-the-robot-that-is-long-enough\n\tgrants client_credentials\n}")
	s.load("", `
		oauth_server
		oauth_protect /mcp authenticated {
			resource /mcp
			tool search_jobs jobs:read
		}
		reverse_proxy UPSTREAM`)
	got := s.raw("GET /.well-known/oauth-protected-resource/mcp HTTP/1.1\nHost: api.example.com\nConnection: close\n\n")
	if !strings.Contains(got.body, `"scopes_supported":["jobs:read"]`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	_, said := s.postWith("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {"robot"}, "client_secret": {"a-secret-of-the-robot-that-is-long-enough"},
		"resource": {testIssuer + "/mcp"}})
	if said["scope"] != "jobs:read" {
		t.Errorf("%v", said)
	}
}
