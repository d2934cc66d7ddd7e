package e2e

import (
	"bufio"
	"context"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

// UPS-16: examples/middleware. A service that is not behind Caddy takes the tokens
// of the issuer by its own rules, refuses what the issuer has revoked within the
// bound, and ends the streams of such a session.
func TestServiceGatesItself(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	log := &lockedBuffer{}
	service := exec.Command(cluster.Program(t, "github.com/caddy-scope/caddy-scope/examples/middleware"))
	service.Env = append(p.env, "LISTEN="+strings.TrimPrefix(strings.Replace(p.Gate, "localhost", "127.0.0.1", 1), "http://"))
	service.Stdout, service.Stderr = log, log
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = service.Process.Kill()
		_ = service.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	p.run(filepath.Join("..", "examples", "second-gate", "issuer.Caddyfile"), p.Issuer+"/oauth/healthz/ready", http.StatusOK)
	p.until("the service answers", func() bool { return p.send(http.MethodGet, p.Gate+"/health", "").status == http.StatusOK })

	token := p.token("jobs:read")
	if got := p.send(http.MethodGet, p.Gate+"/jobs", token); got.status != http.StatusOK || !strings.Contains(got.body, `"client":"partner","scopes":"jobs:read","user":""`) {
		t.Fatalf("%d %s", got.status, got.body)
	}
	for address, want := range map[string]int{"/jobs": http.StatusUnauthorized, "/other": http.StatusForbidden} {
		if got := p.send(http.MethodGet, p.Gate+address, ""); got.status != want {
			t.Errorf("%s without a token: %d", address, got.status)
		}
	}
	if got := p.send(http.MethodPost, p.Gate+"/jobs", token); got.status != http.StatusForbidden {
		t.Errorf("without the scope: %d", got.status)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Gate+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	stream, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	events := bufio.NewScanner(stream.Body)
	if !events.Scan() || events.Text() != "data: tick" {
		t.Fatalf("%q %v", events.Text(), events.Err())
	}
	p.form("/oauth/revoke", url.Values{"token": {token}})
	revoked := time.Now()
	ended := make(chan error, 1)
	go func() {
		for events.Scan() {
		}
		ended <- events.Err()
	}()
	p.refusedAfter(revoked, 2*time.Second, token, http.StatusUnauthorized)
	if err := <-ended; err != nil {
		t.Errorf("the stream did not end: %v", err)
	}
}
