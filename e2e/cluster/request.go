//go:build linux

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Answer is what came of a request; Err when nothing did.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Sent   time.Time
	Took   time.Duration
	Err    error
	// Dropped: it was sent on a kept connection that the server closed at the same
	// moment. RFC 9112 section 9.3.1.
	Dropped bool
}

// OK reports a 2xx.
func (a Answer) OK() bool { return a.Err == nil && a.Status/100 == 2 }

func (a Answer) String() string {
	if a.Err != nil {
		return fmt.Sprintf("%v after %s", a.Err, a.Took.Round(time.Millisecond))
	}
	return fmt.Sprintf("%d %s after %s", a.Status, strings.TrimSpace(string(a.Body)), a.Took.Round(time.Millisecond))
}

// requestLimit is when a client gives up.
const requestLimit = 20 * time.Second

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// newClient follows no redirect: they lead to the client's address.
func newClient(dial dialer) *http.Client {
	return &http.Client{
		Timeout:       requestLimit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 512, DisableCompression: true},
	}
}

// Endpoint is where requests go: a node, or the balancer.
type Endpoint interface {
	via() *http.Client
	at() *Cluster
}

func (n *Node) via() *http.Client { return n.client }
func (n *Node) at() *Cluster      { return n.cluster }

// Balanced is the balancer: each new connection goes to the next node, and on
// to another if that one cannot be reached.
func (c *Cluster) Balanced() Endpoint { return balanced{c} }

type balanced struct{ *Cluster }

func (b balanced) via() *http.Client { return b.anyNode }
func (b balanced) at() *Cluster      { return b.Cluster }

// Relay is an endpoint that asks for a node before every request.
func (c *Cluster) Relay(next func() *Node) Endpoint {
	return relay{c, &http.Client{
		Timeout:       requestLimit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     roundTripper(func(r *http.Request) (*http.Response, error) { return next().client.Transport.RoundTrip(r) }),
	}}
}

type relay struct {
	cluster *Cluster
	client  *http.Client
}

func (r relay) via() *http.Client { return r.client }
func (r relay) at() *Cluster      { return r.cluster }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// HTTP2 is the node by HTTP/2, every request on one connection.
func (n *Node) HTTP2() Endpoint {
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	client := newClient(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, n.Address)
	})
	client.Transport.(*http.Transport).Protocols = &h2c
	return relay{n.cluster, client}
}

// Client is the HTTP client that leads the issuer's address to this node.
func (n *Node) Client() *http.Client { return n.client }

// Get asks the node for a path, with the access token unless it is empty.
func (n *Node) Get(ctx context.Context, path, token string) Answer { return Get(ctx, n, path, token) }

// Get asks an endpoint for a path, with the access token unless it is empty.
func Get(ctx context.Context, e Endpoint, path, token string) Answer {
	return Call(ctx, e, http.MethodGet, path, token)
}

// Call is Get with another method.
func Call(ctx context.Context, e Endpoint, method, path, token string) Answer {
	request, err := http.NewRequestWithContext(ctx, method, e.at().Issuer+path, nil)
	if err != nil {
		return Answer{Err: err}
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return do(e.via(), request)
}

// Post sends a form as the client ClientID.
func Post(ctx context.Context, e Endpoint, path string, form url.Values) Answer {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.at().Issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		return Answer{Err: err}
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(ClientID, ClientSecret)
	return do(e.via(), request)
}

func do(client *http.Client, request *http.Request) (a Answer) {
	var kept, answered bool
	request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{
		GotConn:              func(conn httptrace.GotConnInfo) { kept = conn.Reused },
		GotFirstResponseByte: func() { answered = true },
	}))
	a.Sent = time.Now()
	defer func() { a.Took = time.Since(a.Sent) }()
	response, err := client.Do(request)
	if err != nil {
		a.Err = err
		a.Dropped = kept && !answered && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
		return a
	}
	defer func() { _ = response.Body.Close() }()
	a.Status, a.Header = response.StatusCode, response.Header
	a.Body, a.Err = io.ReadAll(response.Body)
	return a
}

// Token is an answer of the token endpoint.
type Token struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Session string `json:"-"` // sid
}

// Redeem exchanges a code.
func Redeem(ctx context.Context, e Endpoint, code Code) (Token, Answer) {
	return token(Post(ctx, e, "/oauth/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {code.Code}, "redirect_uri": {redirectURI}, "code_verifier": {code.Verifier},
	}))
}

// Refresh exchanges a refresh token.
func Refresh(ctx context.Context, e Endpoint, refresh string) (Token, Answer) {
	return token(Post(ctx, e, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}))
}

func token(a Answer) (Token, Answer) {
	var t Token
	if !a.OK() {
		return t, a
	}
	if a.Err = json.Unmarshal(a.Body, &t); a.Err == nil {
		t.Session, a.Err = sessionOf(t.Access)
	}
	return t, a
}

// Revoke ends the session of a token by RFC 7009.
func Revoke(ctx context.Context, e Endpoint, token string) Answer {
	return Post(ctx, e, "/oauth/revoke", url.Values{"token": {token}})
}
