package caddymodule

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// lasting answers in the ways that last; gone gets a value when the upstream is
// let go of.
func lasting(gone chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() { gone <- struct{}{} }()
		switch r.URL.Path {
		case "/ws":
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer conn.CloseNow()
			_ = conn.Write(r.Context(), websocket.MessageText, []byte("hello"))
			_, _, _ = conn.Read(context.Background())
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "hello")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/download":
			w.Header().Set("Content-Length", "1000000000")
			for chunk := make([]byte, 32<<10); r.Context().Err() == nil; time.Sleep(20 * time.Millisecond) {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}
	}
}

const streamSite = "oauth_protect {\n GET /* jobs:read\n}\nreverse_proxy UPSTREAM"

// openStream begins an answer that lasts, and returns what blocks until it ends.
func (s *gateScene) openStream(t *testing.T, kind, token string) (ended func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	if kind == "/ws" {
		conn, _, err := websocket.Dial(ctx, "ws://"+s.address+kind, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.CloseNow() })
		return func() error {
			for {
				if _, _, err := conn.Read(ctx); err != nil {
					return err
				}
			}
		}
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if path, ok := strings.CutSuffix(kind, " over HTTP/2"); ok {
		kind, transport = path, &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+kind, nil)
	request.Header.Set("Authorization", "Bearer "+token)
	resp, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	body := bufio.NewReader(resp.Body)
	if _, err := body.ReadByte(); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v", kind, resp.StatusCode, err)
	}
	return func() error {
		_, err := io.Copy(io.Discard, body)
		if err == nil {
			err = io.EOF
		}
		return err
	}
}

// TestOpenStreamsEndWithTheSession, with the token, and when nobody can say; and
// the upstream is let go of. W-02.
func TestOpenStreamsEndWithTheSession(t *testing.T) {
	const global = "servers {\n\t\tprotocols h1 h2c\n\t}"
	kinds := []string{"/ws", "/events", "/events over HTTP/2", "/download", "/download over HTTP/2"}
	for name, c := range map[string]struct {
		life   time.Duration
		end    func(*gateScene)
		within time.Duration
	}{
		"revoked": {time.Minute, func(s *gateScene) { s.sessions.revoke(testSession) }, 3 * time.Second},
		// Within the leeway in which requests are let through, so is this one.
		"expired":        {-2 * time.Second, func(*gateScene) {}, 8 * time.Second},
		"unconfirmable":  {time.Minute, func(s *gateScene) { s.sessions.down.Store(true) }, 10 * time.Second},
		"scope narrowed": {time.Minute, func(s *gateScene) { s.sessions.narrow(testSession) }, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := newGateSceneWith(t, global, streamSite)
			gone := make(chan struct{}, len(kinds))
			s.upstream.answerWith(lasting(gone))
			token := s.token(func(claims map[string]any) {
				claims["iat"], claims["exp"] = time.Now().Add(-time.Minute).Unix(), time.Now().Add(c.life).Unix()
			})
			ends := make(chan error, len(kinds))
			for _, kind := range kinds {
				ended := s.openStream(t, kind, token)
				go func() { ends <- ended() }()
			}
			select {
			case err := <-ends:
				t.Fatalf("a stream ended by itself: %v", err)
			case <-time.After(1200 * time.Millisecond): // two checks
			}
			c.end(s)
			deadline := time.After(c.within)
			for range kinds {
				select {
				case err := <-ends:
					if errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
				case <-deadline:
					t.Fatalf("a stream is still open after %s", c.within)
				}
			}
			for range kinds {
				select {
				case <-gone:
				case <-time.After(3 * time.Second):
					t.Fatal("the upstream still serves a stream")
				}
			}
		})
	}
}

// TestDownloadsOfAFileEndWithTheSession: a file goes out by another way than a
// proxied body, in one call, with a write deadline that Caddy renews for each
// part of it. Many at once, so that the end comes at every point of a part:
// a deadline that is over was renewed and the rest of the file went out. W-02.
func TestDownloadsOfAFileEndWithTheSession(t *testing.T) {
	const downloads = 24
	root := t.TempDir()
	file, err := os.Create(filepath.Join(root, "large"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Truncate(1<<40), file.Close()); err != nil {
		t.Fatal(err)
	}
	s := newGateScene(t, "root "+root+"\noauth_protect {\n GET /* jobs:read\n}\nfile_server")
	ends := make(chan error, downloads)
	for range downloads {
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.address+"/large", nil)
		request.Header.Set("Authorization", "Bearer "+s.token())
		resp, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		go func() {
			for chunk := make([]byte, 256<<10); ; { // as fast as it goes: no write waits
				if _, err := resp.Body.Read(chunk); err != nil {
					ends <- err
					return
				}
			}
		}()
	}
	s.sessions.revoke(testSession)
	deadline := time.After(20 * time.Second) // a busy machine has much to do here
	for i := range downloads {
		select {
		case err := <-ends:
			if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error("half a file ended like a whole one")
			}
		case <-deadline:
			t.Fatalf("%d of %d downloads go on after their session was revoked", downloads-i, downloads)
		}
	}
}

// TestStreamsUntilClose go on, and a public rule's are nobody's to end.
func TestStreamsUntilClose(t *testing.T) {
	for name, site := range map[string]string{
		"until_close": "oauth_protect {\n GET /* jobs:read\n streams until_close\n}\nreverse_proxy UPSTREAM",
		"public":      "oauth_protect {\n GET /* public\n}\nreverse_proxy UPSTREAM",
	} {
		t.Run(name, func(t *testing.T) {
			s := newGateScene(t, site)
			s.upstream.answerWith(lasting(make(chan struct{}, 1)))
			ends := make(chan error, 1)
			ended := s.openStream(t, "/events", s.token())
			go func() { ends <- ended() }()
			s.sessions.revoke(testSession)
			select {
			case err := <-ends:
				t.Errorf("ended: %v", err)
			case <-time.After(2 * time.Second):
			}
		})
	}
}
