package issuertest

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/fetch"
)

// ClientHost is a web server of clients: their metadata documents and keys.
type ClientHost struct {
	web *httptest.Server

	mu      sync.Mutex
	answers map[string]http.HandlerFunc // by path
	hits    map[string]int
}

// NewClientHost starts a host that ends with the test. To the fetcher of Fetch it
// is example.com.
func NewClientHost(t testing.TB) *ClientHost {
	h := &ClientHost{answers: map[string]http.HandlerFunc{}, hits: map[string]int{}}
	h.web = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.hits[r.URL.Path]++
		answer := h.answers[r.URL.Path]
		h.mu.Unlock()
		if answer == nil {
			answer = http.NotFound
		}
		answer(w, r)
	}))
	t.Cleanup(h.web.Close)
	return h
}

// URL is the address of a path of the host.
func (h *ClientHost) URL(path string) string { return "https://" + h.Name() + path }

// Name is host and port.
func (h *ClientHost) Name() string {
	_, port, _ := net.SplitHostPort(h.web.Listener.Addr().String())
	return "example.com:" + port
}

// Fetch is how a server reaches the host, which is on this machine.
func (h *ClientHost) Fetch() fetch.Config {
	address := h.web.Listener.Addr().(*net.TCPAddr).AddrPort()
	return fetch.Config{
		AllowedAddresses: []netip.Prefix{netip.PrefixFrom(address.Addr(), address.Addr().BitLen())},
		AllowedPorts:     []uint16{address.Port()},
		RootCAs:          h.web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		LookUp:           func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{address.Addr()}, nil },
	}
}

// Answer sets what a path answers from now on.
func (h *ClientHost) Answer(path string, answer http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers[path] = answer
}

// Hits is how often a path was asked for.
func (h *ClientHost) Hits(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hits[path]
}

// Publish puts a good metadata document at the path, after change, and returns
// its client_id.
func (h *ClientHost) Publish(path string, change func(document map[string]any)) (clientID string) {
	document := map[string]any{
		"client_id": h.URL(path), "client_name": "Chat", "redirect_uris": []string{ClientHostRedirect},
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
	}
	if change != nil {
		change(document)
	}
	h.Answer(path, JSON(document))
	return h.URL(path)
}

// ClientHostRedirect is the redirect URI of published clients.
const ClientHostRedirect = "https://chat.example/callback"

// JSON answers with a document.
func JSON(document any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(document)
	}
}

// SelfRegistration lets clients register themselves in both ways; host may be nil.
func SelfRegistration(host *ClientHost, change ...func(*issuer.Registration)) Option {
	return With(func(c *issuer.Config) {
		c.Registration = &issuer.Registration{Dynamic: true, MetadataDocuments: true}
		if host != nil {
			c.Registration.Fetch = host.Fetch()
		}
		for _, f := range change {
			f(c.Registration)
		}
	})
}
