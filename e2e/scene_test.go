package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

const (
	email    = "ada@example.com"
	password = "correct horse battery"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// scene is a running gateway with an upstream that records what it received.
type scene struct {
	t         *testing.T
	Base      string // http://localhost:PORT, the issuer
	DSN       string
	Caddyfile string
	Admin     string // the address of the admin API; empty: none
	CA        string // a file with the certificate that the gateway's is signed with; empty: plain http
	HTTP      *http.Client
	Upstream  *recorder
	Log       *lockedBuffer
	trust     string
}

// sceneConfig is what a test wants otherwise than newScene has it.
type sceneConfig struct {
	Options string // goes into the oauth block
	Global  string // goes beside the oauth block
	Admin   bool   // with an admin API, to reload by
	Site    string // in place of the gate and the recorder behind it; BASE stands for the issuer, API for the recorder
	Scopes  string // in place of those of the job board
	Trust   string // a file with certificates that the gateway trusts
	Login   string // in place of login password
	HTTPS   bool   // with certificates of Caddy's own, as strict clients demand
}

// lockedBuffer collects the log of the gateway while it runs.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// recorder is an upstream that answers 200 and remembers every request.
type recorder struct {
	*httptest.Server
	mu       sync.Mutex
	requests []recorded
}

type recorded struct {
	Method, RequestURI string
	Header             http.Header
}

func newRecorder(t *testing.T) *recorder {
	r := &recorder{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// ServeHTTP implements http.Handler.
func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, recorded{req.Method, req.RequestURI, req.Header.Clone()})
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"ok":true}`)
}

// Last returns the request that arrived last.
func (r *recorder) Last(t *testing.T) recorded {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.requests) == 0 {
		t.Fatal("the upstream received nothing")
	}
	return r.requests[len(r.requests)-1]
}

// Count returns how many requests arrived.
func (r *recorder) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.requests)
}

// newScene starts a gateway with the demo clients, a user and the recorder
// behind the rules of the job board. options is put into the oauth block.
func newScene(t *testing.T, options string) *scene {
	t.Helper()
	return newSceneWith(t, sceneConfig{Options: options})
}

func newSceneWith(t *testing.T, with sceneConfig) *scene {
	t.Helper()
	s := &scene{t: t, DSN: postgrestest.New(t), Upstream: newRecorder(t), Log: &lockedBuffer{}, trust: with.Trust}
	dir := t.TempDir()
	storage := filepath.Join(dir, "storage")
	s.Base, s.Caddyfile = "http://localhost:"+freePort(t), filepath.Join(dir, "Caddyfile")
	admin := "off"
	if with.Admin {
		s.Admin = "localhost:" + freePort(t)
		admin = s.Admin
	}
	tls := "auto_https off"
	if with.HTTPS {
		tls = "auto_https disable_redirects\n\tskip_install_trust"
		s.Base = strings.Replace(s.Base, "http:", "https:", 1)
		s.CA = filepath.Join(storage, "pki", "authorities", "local", "root.crt")
	}
	site := cmp.Or(with.Site, jobBoardRules+"reverse_proxy "+strings.TrimPrefix(s.Upstream.URL, "http://"))
	writeFile(t, s.Caddyfile, fmt.Sprintf(`{
	admin %s
	%s
	%s
	storage file_system %s
	oauth {
		issuer   %s
		postgres {env.DATABASE_URL}
		secret   {env.OAUTH_SECRET}

		%s

		client demo-public {
			name         "Demo CLI"
			redirect_uri http://127.0.0.1/callback
			redirect_uri http://localhost/callback
		}
		client demo-confidential {
			name         "Demo Server"
			secret       {env.DEMO_CLIENT_SECRET}
			redirect_uri http://127.0.0.1/callback
		}
		client career-copilot {
			name         "Career Copilot"
			secret       {env.DEMO_CLIENT_SECRET}
			redirect_uri https://chat.openai.com/aip/g-123/oauth/callback
			redirect_uri https://chatgpt.com/aip/g-123/oauth/callback
			pkce         optional
		}
		%s
		%s
	}
}

%s {
	bind 127.0.0.1
	oauth_server
	%s
}
`, admin, tls, with.Global, storage, s.Base, cmp.Or(with.Scopes, jobBoardScopes), cmp.Or(with.Login, "login password"), with.Options, s.Base, strings.NewReplacer("BASE", s.Base, "API", strings.TrimPrefix(s.Upstream.URL, "http://")).Replace(site)))
	s.start()
	s.addUser()
	return s
}

const (
	jobBoardScopes = `scope jobs:read          "Search jobs and view job details"
		scope applications:read  "See your applications"
		scope applications:write "Submit applications for you" {
			implies applications:read
		}
		scope resume:read        "Read your resume"`
	jobBoardRules = `oauth_protect {
		GET  /jobs           jobs:read
		GET  /jobs/*         jobs:read
		GET  /applications   applications:read
		POST /applications   applications:write
		GET  /resume         resume:read
		GET  /health         public
		*    /me             authenticated
	}
	`
)

// in is the scene for a subtest.
func (s *scene) in(t *testing.T) *scene {
	same := *s
	same.t = t
	return &same
}

// addUser creates the person who signs in.
func (s *scene) addUser() {
	s.t.Helper()
	hash, err := issuer.HashPassword(s.t.Context(), password)
	if err != nil {
		s.t.Fatal(err)
	}
	s.sql(`INSERT INTO gpt_users (email, password_hash) VALUES ($1, $2)`, email, hash)
}

const clientSecret = "demo-secret-demo-secret-demo-secret-0001"

func (s *scene) env() []string {
	env := append(os.Environ(),
		"DATABASE_URL="+s.DSN,
		"OAUTH_SECRET=0123456789abcdef0123456789abcdef0123456789abcdef",
		"DEMO_CLIENT_SECRET="+clientSecret,
	)
	if s.trust != "" {
		env = append(env, "SSL_CERT_FILE="+s.trust)
	}
	return env
}

// start runs the gateway until the test ends and waits until it is ready.
func (s *scene) start() {
	s.t.Helper()
	run := exec.Command(cluster.Binary(s.t), "run", "--config", s.Caddyfile, "--adapter", "caddyfile")
	run.Env, run.Stdout, run.Stderr = s.env(), s.Log, s.Log
	if err := run.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- run.Wait() }()
	s.t.Cleanup(func() {
		_ = run.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(15 * time.Second):
			_ = run.Process.Kill()
			s.t.Error("the gateway did not stop within 15 s")
		}
		if s.t.Failed() {
			s.t.Log(s.Log.String())
		}
	})
	deadline := time.Now().Add(60 * time.Second)
	for {
		if s.HTTP == nil {
			s.HTTP = s.trusting()
		}
		if s.HTTP != nil && s.ready() {
			return
		}
		select {
		case err := <-exited:
			exited <- err
			s.t.Fatalf("the gateway ended at start: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the gateway is not ready after 60 s")
		}
	}
}

func (s *scene) ready() bool {
	res, err := s.HTTP.Get(s.Base + "/oauth/healthz/ready")
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// trusting returns a client that trusts the gateway's certificate, or nil while
// Caddy has made none.
func (s *scene) trusting() *http.Client {
	s.t.Helper()
	if s.CA == "" {
		return http.DefaultClient
	}
	root, err := os.ReadFile(s.CA)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(root) {
		return nil // half written
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// reload changes the configuration by `caddy reload`.
func (s *scene) reload(change func(config string) string) {
	s.t.Helper()
	text, err := os.ReadFile(s.Caddyfile)
	if err != nil {
		s.t.Fatal(err)
	}
	writeFile(s.t, s.Caddyfile, change(string(text)))
	reload := exec.CommandContext(s.t.Context(), cluster.Binary(s.t), "reload", "--force", "--config", s.Caddyfile, "--adapter", "caddyfile", "--address", s.Admin)
	reload.Env = s.env()
	if out, err := reload.CombinedOutput(); err != nil {
		s.t.Fatalf("reload: %v\n%s", err, out)
	}
}

// sql runs one statement, as an operator in psql would.
func (s *scene) sql(statement string, args ...any) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.DSN)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(s.t.Context())) }()
	if _, err := conn.Exec(s.t.Context(), statement, args...); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

// api sends a request with the access token and returns status and header.
func (s *scene) api(method, path, token string) (int, http.Header) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.Base+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := s.HTTP.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Header
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// payload decodes the claims of an access token, unverified.
func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("access token has %d parts", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}
