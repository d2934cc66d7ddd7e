package caddymodule

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/ratelimit"
	"github.com/caddy-scope/caddy-scope/validator"
)

const (
	testIssuer  = "https://api.example.com"
	testKID     = "test-key"
	sceneSecret = "a-client-secret-that-is-long-enough"
	testSession = "11111111-1111-4111-8111-111111111111"
)

// gateScene is a real Caddy in this process with a gate before a recording
// upstream, and sessions that the test holds in its hand. Caddy runs one
// configuration per process, so these tests do not run in parallel.
type gateScene struct {
	words    string // further lines of the option oauth
	login    string // the block of login password, if any
	t        testing.TB
	address  string
	upstream *recorder
	key      *ecdsa.PrivateKey
	sessions *heldSessions
	dsn      string
	real     bool   // Postgres decides, not sessions
	admin    string // address of the admin API; empty: off
}

// heldSessions stands in for Postgres.
type heldSessions struct {
	mu   sync.Mutex
	live map[string]*validator.Session
	down atomic.Bool
}

func (s *heldSessions) ReadSession(_ context.Context, id string) (validator.Session, error) {
	if s.down.Load() {
		return validator.Session{}, errors.New("connection refused")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	session, ok := s.live[id]
	if !ok {
		return validator.Session{}, validator.ErrSessionEnded
	}
	return *session, nil
}

func (s *heldSessions) Held(uint64) (validator.Session, bool) { return validator.Session{}, false }

func (s *heldSessions) revoke(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, id)
}

// restore undoes revoke and narrow.
func (s *heldSessions) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[testSession] = &validator.Session{UserID: "user-1", ClientID: "gpt", Scopes: oauth.NewScopeSet("jobs:read", "jobs:write")}
}

func (s *heldSessions) narrow(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.live[id]
	s.live[id] = &validator.Session{UserID: was.UserID, ClientID: was.ClientID, Scopes: oauth.NewScopeSet("jobs:write")}
}

type heldKeys struct{ key *ecdsa.PrivateKey }

func (k heldKeys) VerificationKey(kid string) (*ecdsa.PublicKey, bool) {
	return &k.key.PublicKey, kid == testKID
}

// newGateScene runs Caddy with the site, in which UPSTREAM stands for the
// address of the recorder.
// words are further lines of the option oauth.
func newGateScene(t testing.TB, site string, words ...string) *gateScene {
	t.Helper()
	return newGateSceneWith(t, "", site, words...)
}

// newGateSceneWith also puts lines into the global options.
func newGateSceneWith(t testing.TB, global, site string, words ...string) *gateScene {
	t.Helper()
	s := prepareGateScene(t)
	s.words = strings.Join(words, "\n")
	keys, err := issuer.NewStaticKeyRing([]*ecdsa.PrivateKey{s.key})
	if err != nil {
		t.Fatal(err)
	}
	limiter := ratelimit.NewLimiter(ratelimit.NewTableOf(1024, nil), [32]byte{})
	opened := openRuntime
	openRuntime = func(*App, context.Context) (*runtime, error) {
		return &runtime{limiter: limiter, keys: keys, verify: heldKeys{s.key}, sessions: s.sessions, ready: func(context.Context) error { return nil }}, nil
	}
	t.Cleanup(func() { openRuntime = opened })
	s.load(global, site)
	return s
}

// prepareGateScene has everything but a configuration.
func prepareGateScene(t testing.TB) *gateScene {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &gateScene{
		t: t, key: key, dsn: "postgres://nobody@127.0.0.1:1/none", address: freeAddress(t), upstream: newRecorder(t),
		sessions: &heldSessions{live: map[string]*validator.Session{
			testSession: {UserID: "user-1", ClientID: "gpt", Scopes: oauth.NewScopeSet("jobs:read", "jobs:write")},
		}},
	}
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *gateScene) load(global, site string) {
	s.t.Helper()
	if err := s.tryLoad(global, site); err != nil {
		s.t.Fatal(err)
	}
}

func (s *gateScene) tryLoad(global, site string) error {
	s.t.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.caddyfile(global, site)), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	s.awaitAlone()
	return nil
}

// awaitAlone returns when only the new configuration takes connections. Caddy
// listens on a socket of its own for each and closes that of the old one beside
// whoever loads, so that for a moment the kernel gives connections to both, and a
// request of the test would be answered by the configuration before.
func (s *gateScene) awaitAlone() {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); s.listening() > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("the configuration before still takes connections at %s", s.address)
		}
	}
}

// listening counts the sockets that take connections at the port of the scene;
// 0 where the system does not tell.
func (s *gateScene) listening() (n int) {
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		sockets, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(sockets)) { // sl local_address rem_address st …
			const listens = "0A"
			if fields := strings.Fields(line); len(fields) > 3 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", number)) && fields[3] == listens {
				n++
			}
		}
	}
	return n
}

func (s *gateScene) caddyfile(global, site string) string {
	caddyfile := fmt.Sprintf(`{
	admin %s
	persist_config off
	auto_https off
	grace_period 1s
	log {
		output discard
	}
	%s
	oauth {
		issuer %s
		postgres "%s"
		signing_key %s
		scope jobs:read "Search jobs"
		scope jobs:write "Post jobs"
		client gpt {
			secret `+sceneSecret+`
			redirect_uri https://chatgpt.com/cb
		}
		login password %s
		%s
	}
}
http://%s {
	%s
}
`, cmp.Or(s.admin, "off"), global, testIssuer, s.dsn, s.signingKey(), s.login, s.words, s.address, strings.ReplaceAll(site, "UPSTREAM", s.upstream.address))
	// The site is addressed by every Host.
	return strings.Replace(caddyfile, "http://"+s.address, ":"+s.address[strings.LastIndex(s.address, ":")+1:], 1)
}

// token signs an access token of the test session.
func (s *gateScene) token(change ...func(claims map[string]any)) string {
	s.t.Helper()
	now := time.Now()
	claims := map[string]any{
		"iss": testIssuer, "aud": testIssuer, "sub": "user-1", "client_id": "gpt", "sid": testSession,
		"jti": "22222222-2222-4222-8222-222222222222", "scope": "jobs:read jobs:write",
		"iat": now.Unix(), "exp": now.Add(15 * time.Minute).Unix(),
	}
	for _, c := range change {
		c(claims)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		s.t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	kid := testKID
	if s.real {
		kid = s.thumbprint()
	}
	signed := encode([]byte(`{"alg":"ES256","kid":"`+kid+`","typ":"at+jwt"}`)) + "." + encode(payload)
	digest := sha256.Sum256([]byte(signed))
	r, sig, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		s.t.Fatal(err)
	}
	if half := new(big.Int).Rsh(elliptic.P256().Params().N, 1); sig.Cmp(half) > 0 { // low S
		sig.Sub(elliptic.P256().Params().N, sig)
	}
	raw := make([]byte, 64)
	r.FillBytes(raw[:32])
	sig.FillBytes(raw[32:])
	return signed + "." + encode(raw)
}

// answer is what a raw request got.
type answer struct {
	status int
	header http.Header
	body   string
}

// dial connects to Caddy. A connection that waits in the queue of the listener
// that a reload closes is reset by the kernel; any client dials again.
func (s *gateScene) dial() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.address)
	for n := 0; errors.Is(err, syscall.ECONNRESET) && n < 3; n++ {
		conn, err = net.Dial("tcp", s.address)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// raw sends bytes as they are and reads one answer. In request, TOKEN stands
// for a good access token, and lines end in "\n".
func (s *gateScene) raw(request string) answer {
	s.t.Helper()
	request = strings.ReplaceAll(request, "\n", "\r\n")
	return s.exact(strings.ReplaceAll(request, "TOKEN", s.token()))
}

// exact is raw without replacements.
func (s *gateScene) exact(request string) answer {
	s.t.Helper()
	answers := s.rawBytes(request, 1)
	if len(answers) == 0 { // reset while it was sent; see dial
		answers = s.rawBytes(request, 1)
	}
	if len(answers) == 0 {
		s.t.Fatalf("no answer to %q", request)
	}
	return answers[0]
}

// rawAll reads up to n answers.
func (s *gateScene) rawAll(request string, n int) []answer {
	s.t.Helper()
	request = strings.ReplaceAll(request, "\n", "\r\n")
	return s.rawBytes(strings.ReplaceAll(request, "TOKEN", s.token()), n)
}

func (s *gateScene) rawBytes(request string, n int) []answer {
	s.t.Helper()
	conn := s.dial()
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return nil
	}
	var answers []answer
	for reader := bufio.NewReader(conn); len(answers) < n; {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			break
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond)) // for more answers
		answers = append(answers, answer{resp.StatusCode, resp.Header, string(body)})
	}
	return answers
}

// get is a request with the token for path.
func (s *gateScene) get(path string, headers ...string) answer {
	s.t.Helper()
	return s.raw("GET " + path + " HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: Bearer TOKEN\n" + strings.Join(append(headers, "", ""), "\n"))
}

// recorder is an upstream that remembers what it received.
type recorder struct {
	address string
	mu      sync.Mutex
	got     []received
	handler http.Handler // answers, if set
	whole   http.Handler // takes requests as they come, if set
}

type received struct {
	method, uri string
	header      http.Header
	trailer     http.Header
	body        string
}

func newRecorder(t testing.TB) *recorder {
	r := new(recorder)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.address = server.Listener.Addr().String()
	return r
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	whole := r.whole
	r.mu.Unlock()
	if whole != nil {
		whole.ServeHTTP(w, req)
		return
	}
	var body []byte
	if req.Header.Get("Upgrade") == "" {
		body, _ = io.ReadAll(req.Body)
	}
	r.mu.Lock()
	r.got = append(r.got, received{req.Method, req.RequestURI, req.Header.Clone(), req.Trailer.Clone(), string(body)})
	handler := r.handler
	r.mu.Unlock()
	if handler != nil {
		handler.ServeHTTP(w, req)
		return
	}
	_, _ = io.WriteString(w, "ok")
}

func (r *recorder) answerWith(handler http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handler = handler
}

// serve has requests answered by a handler that reads their bodies itself; they
// are not remembered.
func (r *recorder) serve(handler http.Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.whole = handler
}

// take returns what came since the last call.
func (r *recorder) take() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

// one returns the only request that came since the last call.
func (r *recorder) one(t *testing.T) received {
	t.Helper()
	got := r.take()
	if len(got) != 1 {
		t.Fatalf("the upstream received %d requests, want 1", len(got))
	}
	return got[0]
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
