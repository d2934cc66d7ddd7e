package caddymodule

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/issuer"
)

// openServer gives the rehearsal an authorization server of its own, with the
// settings of the configuration, an empty store, and keys that exist for this
// run. Clients that publish documents are given by client_id.
func (h *rehearsal) openServer(documents map[string][]byte) error {
	secrets := h.app.secrets
	if secrets == nil {
		var err error
		if secrets, err = issuer.NewRootSecrets(issuer.NewRootSecret()); err != nil {
			return err
		}
	}
	keys, err := issuer.NewStaticKeyRing([]*ecdsa.PrivateKey{h.key})
	if err != nil {
		return err
	}
	store := newRehearsalStore("")
	for id, document := range documents {
		store.documents[id] = document
	}
	rt := &runtime{store: store, keys: keys, verify: keys, sessions: store, ready: func(context.Context) error { return nil }}
	config, err := h.app.issuerConfig(rt)
	if err != nil {
		return err
	}
	switch { // everybody is signed in by the first method
	case config.Password:
		store.method = "password"
	case len(config.Methods) > 0:
		store.method = config.Methods[0].Name
	}
	for i := range config.Methods {
		if config.Methods[i].App != nil {
			config.Methods[i].App = rehearsalApp{}
		}
	}
	config.Secrets, config.Clients = secrets, configuredClients(h.app.clients)
	if rt.server, err = issuer.New(config); err != nil {
		return err
	}
	rt.proofs = &dpop.Verifier{Nonces: secrets.Nonces(time.Now), Store: store}
	h.app.runtime = rt
	return nil
}

// rehearsalApp stands in for an app that has its users signed in, which is not
// asked: it has whoever is signed in here.
type rehearsalApp struct{}

// Identify implements issuer.App.
func (rehearsalApp) Identify(context.Context, http.Header) (issuer.ExternalUser, error) {
	return issuer.ExternalUser{}, nil
}

// SignInURL implements issuer.App.
func (rehearsalApp) SignInURL(returnTo string) string { return returnTo }

// configuredClients are the clients of the configuration, none of which is
// disabled: that stands in the database.
type configuredClients map[string]*issuer.Client

// Client implements issuer.ClientSource.
func (c configuredClients) Client(_ context.Context, clientID string) (*issuer.Client, error) {
	client, ok := c[clientID]
	if !ok {
		return nil, issuer.ErrNotFound
	}
	return client, nil
}

// RoundTrip implements http.RoundTripper: the request goes through the sites of
// the configuration.
func (h *rehearsal) RoundTrip(r *http.Request) (*http.Response, error) {
	var wire bytes.Buffer
	if err := r.Write(&wire); err != nil {
		return nil, err
	}
	var last *http.Response
	for _, server := range h.serversFor(r.URL.Host) {
		arrived, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire.Bytes())))
		if err != nil {
			return nil, err
		}
		w := h.serve(server, arrived, r.URL.Scheme == "https")
		last = w.response(r)
		// Nothing: no site of this server has the host. A redirect to the very same
		// address: it is what listens for plain http.
		if w.status != 0 && w.header.Get("Location") != r.URL.String() {
			return last, nil
		}
	}
	if last == nil {
		return nil, fmt.Errorf("no site listens on the port of %s", r.URL.Host)
	}
	return nil, fmt.Errorf("no site answers %s", r.URL)
}

// serve is one request to one server.
func (h *rehearsal) serve(server *caddyhttp.Server, r *http.Request, secure bool) *answerWriter {
	r.RemoteAddr = "127.0.0.1:1"
	if secure && len(server.TLSConnPolicies) > 0 {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: hostname(r.Host), NegotiatedProtocol: "http/1.1"}
	}
	w := &answerWriter{header: make(http.Header)}
	serveQuietly(server, w, r)
	return w
}

// response is the answer as a client has it.
func (w *answerWriter) response(r *http.Request) *http.Response {
	header := w.sent
	if header == nil {
		header = w.header
	}
	return &http.Response{
		StatusCode: w.status, Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), Header: header, Request: r,
		Body: io.NopCloser(strings.NewReader(w.body.String())),
	}
}
