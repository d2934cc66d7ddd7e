package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

const gateSecret, partnerSecret = "gate-secret-gate-secret-gate-secret", "partner-secret-partner-secret-partner"

// pair is an authorization server and a second Caddy that only gates.
type pair struct {
	t            *testing.T
	Issuer, Gate string
	Upstream     *recorder
	env          []string
	dsn          string
	homes        map[string]string // of each Caddy, by its file
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, Issuer: "http://localhost:" + freePort(t), Gate: "http://localhost:" + freePort(t), Upstream: newRecorder(t), dsn: postgrestest.Migrated(t)}
	p.homes = make(map[string]string)
	p.env = append(os.Environ(),
		"ISSUER="+p.Issuer, "GATE="+p.Gate, "API="+strings.TrimPrefix(p.Upstream.URL, "http://"), "DATABASE_URL="+p.dsn,
		"GATE_SECRET="+gateSecret, "PARTNER_SECRET="+partnerSecret)
	return p
}

// run starts a Caddy with the file until stop is called, and returns once it answers at address.
func (p *pair) run(file, address string, status int) (stop func()) {
	p.t.Helper()
	log, home := &lockedBuffer{}, p.homes[file]
	if home == "" {
		home = p.t.TempDir()
		p.homes[file] = home
	}
	command := exec.Command(cluster.Binary(p.t), "run", "--config", file, "--adapter", "caddyfile")
	command.Env = append(p.env, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	running := true
	stop = func() {
		if !running {
			return
		}
		running = false
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = command.Process.Kill()
			p.t.Errorf("%s did not stop within 30 s", file)
		}
		if p.t.Failed() {
			p.t.Log(log.String())
		}
	}
	p.t.Cleanup(stop)
	p.until(file+" answers", func() bool {
		select {
		case err := <-ended:
			p.t.Fatalf("%s ended: %v\n%s", file, err, log)
		default:
		}
		return p.send(http.MethodGet, address, "").status == status
	})
	return stop
}

func (p *pair) until(what string, holds func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("never: %s", what)
		}
	}
}

func (p *pair) send(method, address, token string) response {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, address, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answered, err := http.DefaultClient.Do(r)
	if err != nil {
		return response{}
	}
	defer answered.Body.Close()
	body, _ := io.ReadAll(answered.Body)
	return response{status: answered.StatusCode, header: answered.Header, body: string(body)}
}

// form sends a form to the authorization server as the client partner.
func (p *pair) form(path string, form url.Values) map[string]any {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.Issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("partner", partnerSecret)
	answered, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answered.Body.Close()
	body, _ := io.ReadAll(answered.Body)
	if answered.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %d %s", path, answered.StatusCode, body)
	}
	var members map[string]any
	_ = json.Unmarshal(body, &members)
	return members
}

func (p *pair) token(scope string) string {
	p.t.Helper()
	token, _ := p.form("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {scope}})["access_token"].(string)
	return token
}

// refusedAfter polls until the token is refused with status, and holds that no
// request is admitted that began later than bound after since.
func (p *pair) refusedAfter(since time.Time, bound time.Duration, token string, status int) {
	p.t.Helper()
	p.until("the token is refused", func() bool {
		began := time.Now()
		got := p.send(http.MethodGet, p.Gate+"/jobs", token).status
		if late := began.Sub(since) - bound; late > 0 && got == http.StatusOK {
			p.t.Fatalf("admitted %s after the bound", late)
		}
		if got != http.StatusOK && got != status {
			p.t.Fatalf("answered %d", got)
		}
		return got == status
	})
}

// UPS-13: docs and examples/second-gate. The first Caddy issues, the second gates
// without its database and secrets; what is revoked at the first is refused at the
// second within the bound. While the first is away the second goes on to the bound,
// then answers 503, and 401 never.
func TestSecondGateSeesRevocationsOfTheFirst(t *testing.T) {
	t.Parallel()
	const bound = 2 * time.Second // of gate.Caddyfile
	p := newPair(t)
	example := func(name string) string { return filepath.Join("..", "examples", "second-gate", name) }
	// The second one starts first, and waits for nobody.
	p.run(example("gate.Caddyfile"), p.Gate+"/jobs", http.StatusUnauthorized)
	if got := p.send(http.MethodGet, p.Gate+"/jobs", "eyJhbGciOiJFUzI1NiIsImtpZCI6ImtpZCIsInR5cCI6ImF0K2p3dCJ9.e30."+strings.Repeat("A", 86)); got.status != http.StatusServiceUnavailable {
		t.Errorf("before the issuer is there: %d %s", got.status, got.body)
	}
	stop := p.run(example("issuer.Caddyfile"), p.Issuer+"/oauth/healthz/ready", http.StatusOK)

	token := p.token("jobs:read")
	p.until("the keys are read", func() bool { return p.send(http.MethodGet, p.Gate+"/jobs", token).status == http.StatusOK })
	if got := p.Upstream.Last(t).Header; got.Get("X-Client-Id") != "partner" || got.Get("X-Scopes") != "jobs:read" || got.Get("Authorization") != "" {
		t.Errorf("the upstream received %v", got)
	}
	if got := p.send(http.MethodPost, p.Gate+"/jobs", token); got.status != http.StatusForbidden || !strings.Contains(got.header.Get("WWW-Authenticate"), "insufficient_scope") {
		t.Errorf("without the scope: %d %s", got.status, got.body)
	}
	// Who has no token is led to the issuer.
	challenge := p.send(http.MethodGet, p.Gate+"/jobs", "").header.Get("WWW-Authenticate")
	if !strings.Contains(challenge, p.Gate+"/.well-known/oauth-protected-resource") {
		t.Errorf("challenge: %s", challenge)
	}
	document := p.send(http.MethodGet, p.Gate+"/.well-known/oauth-protected-resource", "")
	var metadata struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers"`
	}
	if err := json.Unmarshal([]byte(document.body), &metadata); err != nil || metadata.Resource != p.Gate || len(metadata.Servers) != 1 || metadata.Servers[0] != p.Issuer {
		t.Errorf("metadata: %s", document.body)
	}

	p.form("/oauth/revoke", url.Values{"token": {token}})
	p.refusedAfter(time.Now(), bound, token, http.StatusUnauthorized)

	token = p.token("jobs:read jobs:write")
	if got := p.send(http.MethodGet, p.Gate+"/jobs", token); got.status != http.StatusOK {
		t.Fatalf("a new session: %d %s", got.status, got.body)
	}
	stop()
	p.refusedAfter(time.Now(), bound, token, http.StatusServiceUnavailable)
	p.run(example("issuer.Caddyfile"), p.Issuer+"/oauth/healthz/ready", http.StatusOK)
	p.until("the session goes on", func() bool { return p.send(http.MethodGet, p.Gate+"/jobs", token).status == http.StatusOK })
}

// UPS-14: a second gate on the same Postgres sees what any psql revokes, as the
// first one does, and changes nothing there.
func TestSecondGateOnTheSamePostgres(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	file := filepath.Join(t.TempDir(), "Caddyfile")
	text, err := os.ReadFile(filepath.Join("..", "examples", "second-gate", "gate.Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(text), "client second-gate {env.GATE_SECRET}", "", 1)
	config = strings.Replace(config, "max_staleness 2s", "max_staleness 2s\n\t\tpostgres {env.DATABASE_URL}", 1)
	writeFile(t, file, config)
	p.run(filepath.Join("..", "examples", "second-gate", "issuer.Caddyfile"), p.Issuer+"/oauth/healthz/ready", http.StatusOK)
	p.run(file, p.Gate+"/jobs", http.StatusUnauthorized)
	token := p.token("jobs:read")
	if got := p.send(http.MethodGet, p.Gate+"/jobs", token); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	s := &scene{t: t, DSN: p.dsn}
	s.sql(`UPDATE gpt_sessions SET revoked_at = now()`)
	p.refusedAfter(time.Now(), 2*time.Second, token, http.StatusUnauthorized)
}

// UPS-15: who answers at the address of the issuer and is another keeps the second
// gate from starting, with an error that says so.
func TestSecondGateRefusesAnotherIssuer(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"issuer":"https://auth.example.com","jwks_uri":"`+p.Upstream.URL+`"}`)
	}))
	defer other.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	home := t.TempDir()
	command := exec.CommandContext(ctx, cluster.Binary(t), "run", "--config", filepath.Join("..", "examples", "second-gate", "gate.Caddyfile"), "--adapter", "caddyfile")
	command.Env = append(p.env, "ISSUER="+other.URL, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
	out, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the metadata name another issuer") {
		t.Errorf("%v\n%s", err, out)
	}
}
