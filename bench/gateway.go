package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const startLimit = 60 * time.Second

// gateway is one running Caddy with one scenario's configuration.
type gateway struct {
	scenario scenario
	address  string
	admin    string // Caddy's own API, for profiles
	requests [][]byte
	process  *exec.Cmd
	exited   chan error
	log      bytes.Buffer
}

func startGateway(ctx context.Context, caddy string, s *scene, sc scenario) (*gateway, error) {
	g := &gateway{scenario: sc, exited: make(chan error, 1)}
	var err error
	if g.address, err = freeAddress(); err != nil {
		return nil, err
	}
	if g.admin, err = freeAddress(); err != nil {
		return nil, err
	}
	config := filepath.Join(s.dir, sc.name+".Caddyfile")
	if err := os.WriteFile(config, []byte(g.caddyfile(s)), 0o600); err != nil {
		return nil, err
	}
	g.process = exec.Command(caddy, "run", "--config", config, "--adapter", "caddyfile")
	g.process.Env = append(os.Environ(), "DATABASE_URL="+s.database.DSN(), "SIGNING_KEY="+s.signingKey,
		"OAUTH_SECRET=0123456789abcdef0123456789abcdef0123456789abcdef")
	g.process.Stdout, g.process.Stderr = &g.log, &g.log
	if err := g.process.Start(); err != nil {
		return nil, err
	}
	go func() { g.exited <- g.process.Wait() }()
	if g.requests, err = g.makeRequests(s); err == nil {
		err = g.waitReady(ctx)
	}
	if err != nil {
		g.stop()
		return nil, fmt.Errorf("%w\n%s", err, g.log.String())
	}
	return g, nil
}

// caddyfile: the same reverse_proxy everywhere, with an idle pool that is
// larger than the load, so that connections are kept.
func (g *gateway) caddyfile(s *scene) string {
	var b strings.Builder
	fmt.Fprintf(&b, "{\n\tadmin %s\n\tauto_https off\n\tpersist_config off\n\tstorage file_system %s\n", g.admin, filepath.Join(s.dir, g.scenario.name))
	if g.scenario.site != "" {
		fmt.Fprintf(&b, `	oauth {
		issuer      http://%s
		postgres    {env.DATABASE_URL}
		secret      {env.OAUTH_SECRET}
		signing_key {env.SIGNING_KEY}
		scope jobs:read          "Search jobs and view job details"
		scope applications:read  "See your applications"
		scope applications:write "Submit applications for you"
		scope resume:read        "Read your resume"
		client %s {
			name         "Bench"
			redirect_uri http://127.0.0.1/callback
		}
		login password
		%s
	}
`, g.address, clientID, g.scenario.option)
	}
	fmt.Fprintf(&b, `}

http://%s {
	bind 127.0.0.1
	%s
	reverse_proxy %s {
		transport http {
			keepalive_idle_conns_per_host 1024
		}
	}
}
`, g.address, g.scenario.site, s.address)
	return b.String()
}

// makeRequests prepares the bytes of one request for each session.
func (g *gateway) makeRequests(s *scene) ([][]byte, error) {
	signer, err := newTokenSigner(s)
	if err != nil {
		return nil, err
	}
	requests := make([][]byte, len(s.sessions))
	for i, session := range s.sessions {
		credentials := ""
		if g.scenario.credentials {
			token, err := signer.token("http://"+g.address, session)
			if err != nil {
				return nil, err
			}
			credentials = "Authorization: Bearer " + token + "\r\n"
		}
		requests[i] = fmt.Appendf(nil, "GET /jobs/job-1 HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: application/json\r\n%s\r\n", g.address, credentials)
	}
	return requests, nil
}

// waitReady asks until a request of the load is answered with 200.
func (g *gateway) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var last error
	for {
		var s *sample
		if s, last = closedLoop(ctx, g.address, 1, 20*time.Millisecond, g.requests); last == nil {
			if s.Requests > 0 && s.Errors == 0 {
				return nil
			}
			last = fmt.Errorf("%d of %d requests were refused", s.Errors, s.Requests)
		}
		select {
		case err := <-g.exited:
			g.exited <- err
			return errors.Join(errors.New("caddy ended at start"), err)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (g *gateway) pid() int { return g.process.Process.Pid }

// measurement is one load run against one gateway.
type measurement struct {
	Requests   int     `json:"requests"`
	PerSecond  float64 `json:"requests_per_second"`
	CPUMicros  float64 `json:"cpu_us_per_request"`
	P50Micros  float64 `json:"p50_us"`
	P99Micros  float64 `json:"p99_us"`
	MemoryByte int64   `json:"memory_bytes"`
}

// measure loads the gateway. A request that is not answered with 200 spoils the
// comparison, so it is an error.
func (g *gateway) measure(ctx context.Context, conns int, duration time.Duration) (m measurement, err error) {
	before, err := cpuTime(g.pid())
	if err != nil {
		return m, err
	}
	load, err := closedLoop(ctx, g.address, conns, duration, g.requests)
	if err != nil {
		return m, err
	}
	if load.Requests == 0 || load.Errors > 0 {
		return m, fmt.Errorf("%d of %d requests failed", load.Errors, load.Requests)
	}
	after, err := cpuTime(g.pid())
	if err != nil {
		return m, err
	}
	m = measurement{
		Requests:  load.Requests,
		PerSecond: float64(load.Requests) / load.Elapsed.Seconds(),
		CPUMicros: float64((after - before).Microseconds()) / float64(load.Requests),
		P50Micros: float64(load.quantile(0.50).Microseconds()),
		P99Micros: float64(load.quantile(0.99).Microseconds()),
	}
	m.MemoryByte, err = residentMemory(g.pid())
	return m, err
}

// writeProfile takes a CPU profile while the gateway is loaded.
func (g *gateway) writeProfile(ctx context.Context, conns int, dir string) error {
	const seconds = 5
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	loaded := make(chan error, 1)
	go func() {
		_, err := closedLoop(ctx, g.address, conns, (seconds+2)*time.Second, g.requests)
		loaded <- err
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", g.admin, seconds), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	profile, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, g.scenario.name+".pprof"), profile, 0o644), <-loaded)
}

func (g *gateway) stop() {
	_ = g.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.exited:
	case <-time.After(15 * time.Second):
		_ = g.process.Process.Kill()
		<-g.exited
	}
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// tokenSigner makes the access tokens that the authorization server would have
// issued for the sessions, without the detour of a thousand sign-ins.
type tokenSigner struct {
	key    *scene
	header jws.Headers
}

func newTokenSigner(s *scene) (*tokenSigner, error) {
	public, err := jwk.FromRaw(&s.key.PublicKey)
	if err != nil {
		return nil, err
	}
	if err := jwk.AssignKeyID(public); err != nil { // RFC 7638, as the server does
		return nil, err
	}
	header := jws.NewHeaders()
	return &tokenSigner{s, header}, errors.Join(header.Set(jws.TypeKey, "at+jwt"), header.Set(jws.KeyIDKey, public.KeyID()))
}

func (t *tokenSigner) token(issuer string, session uuid.UUID) (string, error) {
	now := time.Now().Unix()
	payload, err := json.Marshal(map[string]any{
		"iss": issuer, "aud": issuer, "sub": userID, "client_id": clientID, "sid": session.String(), "scope": "jobs:read",
		"jti": uuid.NewString(), "iat": now, "exp": now + 3600,
	})
	if err != nil {
		return "", err
	}
	half := new(big.Int).Rsh(t.key.key.Params().N, 1)
	for { // the gate takes the lower s only; every second signature has it
		token, err := jws.Sign(payload, jws.WithKey(jwa.ES256, t.key.key, jws.WithProtectedHeaders(t.header)))
		if err != nil {
			return "", fmt.Errorf("sign: %w", err)
		}
		signature, err := base64.RawURLEncoding.DecodeString(string(token[bytes.LastIndexByte(token, '.')+1:]))
		if err != nil {
			return "", err
		}
		if new(big.Int).SetBytes(signature[32:]).Cmp(half) <= 0 {
			return string(token), nil
		}
	}
}
