//go:build linux

package chaos

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/e2e/ledger"
)

// TestReloadsFailNothingAndLeaveNothing: reloads in quick succession, with
// settings that change and with configurations that are refused, under load by
// HTTP/1 and HTTP/2 and beside open streams. No request fails, no session and no
// stream is lost, and afterwards the process holds what another node holds that
// had the same load and no reload. A stream of a configuration that is long gone
// still ends with its session.
//
// One thing is Caddy's: when a configuration goes, Go's HTTP/1 server closes the
// connections that are idle, and a request that a client sends in that moment
// gets no answer; a client may ask again. It is counted.
//
// R-14, and `caddy reload` every second under load for a minute.
func TestReloadsFailNothingAndLeaveNothing(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Config{
		Nodes: 2, Upstream: http.HandlerFunc(lasting),
		Proxy: "stream_close_delay 1h", // else Caddy closes WebSockets when their configuration goes
	})
	node, control := c.Nodes[0], c.Nodes[1]
	load := moderate()
	load.Endpoints = []cluster.Endpoint{node, node.HTTP2(), control, control.HTTP2()}
	load.KeepAll = true // so that every token must still work at the end
	r := runOn(t, "R-14", c, load)
	token := c.SignIn(t, "streams@example.com").Connect(t, node, "jobs:read")
	streaming := pick(5, 25)
	lasting := []*streams{openStreams(t, node, token.Access, streaming), openStreams(t, control, token.Access, streaming)}

	reload, times := reloader(t, node), rounds(9, 100)
	for range times {
		r.sleep(pick(500*time.Millisecond, 600*time.Millisecond))
		reload()
	}
	r.sleep(500 * time.Millisecond)
	after, unloaded := r.idle(node), r.idle(control)
	left := lasting[0].open.Load()

	failed := r.load.Entries().Where(func(e ledger.Entry) bool { return e.Status == 0 && !e.Dropped || e.Status >= 500 })
	for _, e := range failed[:min(10, len(failed))] {
		t.Log(e)
	}
	dropped := r.load.Entries().Where(func(e ledger.Entry) bool { return e.Dropped })
	noted(t, "R-14", "reloads", times)
	exactly(t, "R-14", "requests that failed", len(failed), 0)
	noted(t, "R-14", fmt.Sprintf("requests sent just as their connection was closed, of %d", len(r.load.Entries())), len(dropped))
	exactly(t, "R-14", "event streams and WebSockets that are still open", left, int32(2*streaming))
	noted(t, "R-14", "held after the reloads", after)
	noted(t, "R-14", "held by a node without them", unloaded)
	within := func(what string, was, is, slack int64) {
		atMost(t, "R-14", fmt.Sprintf("%s, where the other node has %d", what, was), is, was*105/100+slack)
	}
	within("goroutines", int64(unloaded.Goroutines), int64(after.Goroutines), 5)
	within("files", int64(unloaded.Files), int64(after.Files), 5)
	within("connections to Postgres", poolSize+1, int64(after.PostgresConnections), 0)
	within("heap in KiB", unloaded.Heap>>10, after.Heap>>10, 2<<10)

	revoked := time.Now()
	if answer := cluster.Revoke(t.Context(), control, token.Refresh); !answer.OK() {
		t.Fatalf("revoke: %s", answer)
	}
	for _, s := range lasting {
		r.until("the streams have ended with their session", 10*time.Second, func() bool { return s.open.Load() == 0 })
	}
	atMost(t, "R-14", "until the streams of old configurations ended with their session", time.Since(revoked), 6*time.Second)
	r.settle()
}

// idle ends the load, waits until the node has let go of what it does not need,
// and measures what it holds.
func (r *run) idle(node *cluster.Node) (usage cluster.Usage) {
	r.Helper()
	r.load.Stop()
	lowest := 1 << 30
	// An old configuration goes with its last request; what it held follows.
	for unchanged := 0; unchanged < 3; unchanged++ {
		node.Client().CloseIdleConnections()
		r.sleep(300 * time.Millisecond)
		if usage = node.Usage(r); usage.Goroutines < lowest {
			lowest, unchanged = usage.Goroutines, 0
		}
	}
	return usage
}

// reloader returns a function that loads one configuration after another; each
// third is refused and changes nothing.
func reloader(t *testing.T, node *cluster.Node) func() {
	var n int
	return func() {
		t.Helper()
		n++
		switch n % 3 {
		case 0:
			node.Configure(t, "an_unknown_word")
			if err := node.Reload(); err == nil || !strings.Contains(err.Error(), "an_unknown_word") {
				t.Errorf("a configuration that is wrong was loaded: %v", err)
			}
			return
		case 1:
			node.Configure(t, fmt.Sprintf("refresh_grace %ds", 60+n)) // something else each time
		case 2:
			node.Configure(t, fmt.Sprintf("access_token_ttl 15m\nlogin_ttl %dh", 12+n))
		}
		if err := node.Reload(); err != nil {
			t.Errorf("reload: %v", err)
		}
	}
}
