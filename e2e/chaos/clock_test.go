//go:build linux

package chaos

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// TestClocksThatJumpBringNothingBack: the database's clock is set ten minutes
// ahead, ten minutes back and an hour back, with a node restarted after it. What
// expired, was used or was revoked stays so, tokens live no longer than they
// may, whoever looks is told, and service goes on. R-09.
//
// The node's clock cannot be set from outside of a Go program; that half of the
// row is postgres.TestClocksThatDifferLetNoTokenLiveLonger, by its injected Now.
func TestClocksThatJumpBringNothingBack(t *testing.T) {
	t.Parallel()
	const life, leeway = 4 * time.Second, 5 * time.Second
	server, set := postgrestest.NewServerWithClock(t, postgrestest.ServerConfig{})
	c := cluster.New(t, cluster.Config{Nodes: 2, Postgres: server, NotStarted: true})
	first, brief := c.Nodes[0], c.Nodes[1]
	brief.Configure(t, "access_token_ttl "+life.String())
	for _, n := range c.Nodes {
		n.Start(t)
		n.AwaitReady(t)
	}
	r := &run{T: t, c: c}
	ctx, user := t.Context(), c.SignIn(t, "alice@example.com")
	authorize := func() cluster.Code {
		code, err := user.Authorize(ctx, first, "jobs:read")
		if err != nil {
			t.Fatalf("authorize: %v", err)
		}
		return code
	}
	used := authorize()
	kept, answer := cluster.Redeem(ctx, first, used)
	if !answer.OK() {
		t.Fatalf("redeem: %s", answer)
	}
	revoked := user.Connect(t, first, "jobs:read")
	if answer := cluster.Revoke(ctx, first, revoked.Refresh); !answer.OK() {
		t.Fatalf("revoke: %s", answer)
	}
	jump := func(ahead time.Duration) {
		t.Helper()
		set(ahead)
		r.until("the server's clock has jumped", 5*time.Second, func() bool {
			return postgrestest.Query[float64](t, server, `SELECT abs(extract(epoch FROM clock_timestamp()) - $1::float8)`, time.Now().Add(ahead).Unix()) < 3
		})
	}
	skewShown := func(shown bool) {
		t.Helper()
		took := r.until("whoever looks is told", 10*time.Second, func() bool {
			return bytes.Contains(first.Get(ctx, "/oauth/healthz/ready", "").Body, []byte("clock_skew_seconds")) == shown
		})
		atMost(t, "R-09", "until the difference is shown, or not any more", took, 5*time.Second)
	}
	// holds: nothing comes alive, and whoever is new is served, as far as served
	// says so.
	holds := func(when string, served bool) {
		t.Helper()
		for _, n := range c.Nodes {
			if answer := n.Get(ctx, "/jobs", revoked.Access); answer.Status != http.StatusUnauthorized {
				t.Errorf("%s, %s: a revoked session: %s", when, n.Name, answer)
			}
			if _, answer := cluster.Refresh(ctx, n, revoked.Refresh); answer.Status != http.StatusBadRequest {
				t.Errorf("%s, %s: the refresh token of a revoked session: %s", when, n.Name, answer)
			}
			if answer := n.Get(ctx, "/jobs", kept.Access); !answer.OK() {
				t.Errorf("%s, %s: a token in its life: %s", when, n.Name, answer)
			}
		}
		if _, answer := cluster.Redeem(ctx, first, used); answer.Status != http.StatusBadRequest {
			t.Errorf("%s: a used code: %s", when, answer)
		}
		if token := user.Connect(t, first, "jobs:read"); served && !first.Get(ctx, "/jobs", token.Access).OK() {
			t.Errorf("%s: a new token is refused", when)
		}
	}

	// 1. Ahead: a code has expired by the clock that decides about rows.
	unused := authorize()
	jump(10 * time.Minute)
	skewShown(true)
	if _, answer := cluster.Redeem(ctx, first, unused); answer.Status != http.StatusBadRequest {
		t.Errorf("ten minutes ahead: an expired code: %s", answer)
	}
	holds("ten minutes ahead", true)
	jump(0)
	skewShown(false)

	// 2. Back, while tokens of a short life end.
	for _, back := range pick([]time.Duration{-time.Hour}, []time.Duration{-10 * time.Minute, -time.Hour}) {
		unused = authorize()
		short, answer := cluster.Refresh(ctx, brief, user.Connect(t, brief, "jobs:read").Refresh)
		if !answer.OK() {
			t.Fatalf("refresh: %s", answer)
		}
		issued := answer.Sent.Add(answer.Took)
		jump(back)
		if _, answer := cluster.Redeem(ctx, first, unused); answer.Status != http.StatusBadRequest {
			t.Errorf("%s: a code from the future: %s", back, answer)
		}
		r.sleep(1500 * time.Millisecond) // the nodes have looked at the clock again
		holds(back.String(), true)
		var passed time.Duration
		for answer := brief.Get(ctx, "/jobs", short.Access); time.Since(issued) < life+leeway+2*time.Second; answer = brief.Get(ctx, "/jobs", short.Access) {
			if answer.OK() {
				passed = answer.Sent.Sub(issued)
			}
			time.Sleep(50 * time.Millisecond)
		}
		atMost(t, "R-09", back.String()+", a token of 4 s passed for", passed, life+leeway)
		if back == -time.Hour {
			// 3. A node that starts now sees two clocks and cannot know.
			first.Terminate()
			_ = first.Ended(t)
			first.Start(t)
			first.AwaitReady(t)
			skewShown(true)
			holds("an hour back, after a restart", false)
			if answer := first.Get(ctx, "/jobs", short.Access); answer.Status != http.StatusUnauthorized {
				t.Errorf("an hour back, after a restart: an expired token: %s", answer)
			}
		}
		jump(0)
		skewShown(false)
	}
	holds("put right", true)
}
