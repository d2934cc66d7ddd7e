//go:build linux

package chaos

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

// lasting is an upstream whose /events last, as event streams or, where the
// client asks for one, as WebSockets.
func lasting(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/events":
		cluster.Slow(w, r)
	case r.Header.Get("Upgrade") == "websocket":
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		closed := conn.CloseRead(context.Background())
		for conn.Write(closed, websocket.MessageText, []byte("tick")) == nil {
			select {
			case <-closed.Done():
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	default:
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if _, err := fmt.Fprint(w, "data: tick\n\n"); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
}

// streams are answers that are being read.
type streams struct {
	open    atomic.Int32
	reading sync.WaitGroup
}

// openStreams opens n event streams and n WebSockets and reads them.
func openStreams(t *testing.T, node *cluster.Node, token string, n int) *streams {
	t.Helper()
	s := &streams{}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); s.reading.Wait() })
	client := &http.Client{Transport: node.Client().Transport} // without its timeout
	authorization := http.Header{"Authorization": {"Bearer " + token}}
	for range n {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost:8080/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header = authorization
		response, err := client.Do(request)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("open an event stream: %v %v", response, err)
		}
		lines := bufio.NewScanner(response.Body)
		s.read(lines.Scan, response.Body.Close)

		conn, _, err := websocket.Dial(ctx, "ws://localhost:8080/events", &websocket.DialOptions{HTTPClient: client, HTTPHeader: authorization})
		if err != nil {
			t.Fatalf("open a WebSocket: %v", err)
		}
		s.read(func() bool { _, _, err := conn.Read(ctx); return err == nil }, conn.CloseNow)
	}
	return s
}

// read reads one until it ends.
func (s *streams) read(next func() bool, end func() error) {
	s.open.Add(1)
	s.reading.Go(func() {
		for next() {
		}
		s.open.Add(-1)
		_ = end()
	})
}
