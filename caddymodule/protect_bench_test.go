package caddymodule

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// BenchmarkProxiedRequest takes a request through Caddy and a reverse_proxy,
// with and without the gate: what differs is what the gate costs. It is in one
// process, without the client's connection; `make bench` measures the whole.
func BenchmarkProxiedRequest(b *testing.B) {
	const proxy = "\nreverse_proxy UPSTREAM {\ntransport http {\nkeepalive_idle_conns_per_host 1024\n}\n}"
	for _, bc := range []struct{ name, site string }{
		{"plain", ""},
		{"public", "oauth_protect {\nGET /jobs/* public\n}"},
		{"live", "oauth_protect {\nGET /jobs/* jobs:read\n}"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			s := newGateScene(b, "respond 404")
			s.upstream.address = cannedUpstream(b)
			s.load("", bc.site+proxy)
			handler := activeServer(b)
			authorization := "Bearer " + s.token()
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodGet, "/jobs/job-1", nil)
				r.Header = http.Header{"User-Agent": {"bench"}, "Accept": {"application/json"}, "Authorization": {authorization}}
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatalf("status %d: %s", w.Code, w.Body)
				}
			}
		})
	}
}

// activeServer is Caddy's server of the loaded configuration.
func activeServer(t testing.TB) http.Handler {
	t.Helper()
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		return server
	}
	t.Fatal("no server")
	return nil
}

// cannedUpstream answers every request with the same bytes and reads no more of
// it than where it ends.
func cannedUpstream(t testing.TB) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for reader := bufio.NewReader(conn); ; {
					line, err := reader.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}
