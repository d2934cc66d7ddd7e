package caddymodule

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/validator"
)

// rehearsal is a configuration as Caddy provisions it, that never starts: no
// listener, no database, nothing proxied. Requests go through Caddy's own
// routes and the gates themselves, so that what they are told is what would
// happen.
type rehearsal struct {
	app  *App
	http *caddyhttp.App
	key  *ecdsa.PrivateKey

	inEarnest   bool // gates refuse also what they only observe
	notes       []string
	explanation *explain.Explanation // of the request under way, by the gate it met last
	decided     *validator.Rule      // about it; nil: none
	refused     *validator.Refusal   // of it; nil: none
	rules       map[string]*validator.Rule
	session     *validator.Session // of the token under way
}

// rehearsedRequest is a request to explain.
type rehearsedRequest struct {
	method string
	path   string // with the query, as the client writes it
	host   string // empty: the issuer's
	origin string // of a CORS preflight or a browser's request; empty: none
	// preflightFor is the method that a CORS preflight asks for; empty: it is none.
	preflightFor string
	client       string // whose token it is; empty: the first of the configuration
	scopes       []string
	user         []string // what the user has, as CLAIM=VALUE,VALUE
	anyone       bool     // without credentials
	token        string   // an access token, instead of scopes
	body         []byte   // in JSON; nil: none
}

// newRehearsal provisions the configuration, which is JSON.
func newRehearsal(config []byte) (*rehearsal, error) {
	config, notes, err := withoutEffects(config)
	if err != nil {
		return nil, err
	}
	var parsed caddy.Config
	if err := json.Unmarshal(config, &parsed); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	parsed.Logging = quietLogging("ERROR")
	if parsed.AppsRaw[appName] == nil {
		return nil, errNoOption
	}
	if parsed.AppsRaw["http"] == nil {
		return nil, errors.New("the configuration has no site, so no request would be answered")
	}
	ctx, err := caddy.ProvisionContext(&parsed)
	if err != nil {
		return nil, err
	}
	loaded, err := ctx.App(appName)
	if err != nil {
		return nil, err
	}
	sites, err := ctx.App("http")
	if err != nil {
		return nil, err
	}
	h := &rehearsal{app: loaded.(*App), http: sites.(*caddyhttp.App), notes: notes}
	if h.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	h.app.command, h.app.rehearsal = true, h
	h.app.runtime = &runtime{verify: h, sessions: h}
	close(h.app.started)
	return h, nil
}

// explain takes the request through the site that it would come to.
func (h *rehearsal) explain(q rehearsedRequest) (*explain.Explanation, error) {
	if q.host == "" {
		q.host = h.app.issuerURL.Host
	}
	var first *explain.Explanation
	for _, server := range h.serversFor(q.host) {
		e, err := h.send(server, q, "")
		if err != nil {
			return nil, err
		}
		if e.Gate != "" && !q.anyone { // now it is known whom the token is for
			token, notes, err := h.tokenFor(q, e.Resource)
			if err != nil {
				return nil, err
			}
			if e, err = h.send(server, q, token); err != nil {
				return nil, err
			}
			e.Notes = append(e.Notes, notes...)
		}
		if first == nil {
			first = e
		}
		if e.Outcome != explain.NotGated {
			first = e
			break
		}
	}
	if first == nil {
		return nil, fmt.Errorf("no site listens on the port of %s", q.host)
	}
	first.Notes = append(first.Notes, h.notes...)
	return first, nil
}

// serversFor returns the servers that a request to host may come to, those with
// gates first.
func (h *rehearsal) serversFor(host string) []*caddyhttp.Server {
	_, port, _ := net.SplitHostPort(host)
	gated := make(map[string]bool)
	if h.app.survey != nil {
		for _, s := range h.app.survey.gates {
			name, _, _ := strings.Cut(s.site, "/")
			gated[name] = true
		}
	}
	var names []string
	for name, server := range h.http.Servers {
		if port == "" || listensOn(server, port) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if gated[a] != gated[b] && gated[a] {
			return -1
		} else if gated[a] != gated[b] {
			return 1
		}
		return strings.Compare(a, b)
	})
	servers := make([]*caddyhttp.Server, len(names))
	for i, name := range names {
		servers[i] = h.http.Servers[name]
	}
	return servers
}

func listensOn(server *caddyhttp.Server, port string) bool {
	return slices.ContainsFunc(server.Listen, func(address string) bool {
		parsed, err := caddy.ParseNetworkAddress(address)
		return err == nil && fmt.Sprint(parsed.StartPort) == port
	})
}

// send gives Caddy the bytes of a request, as a client would.
func (h *rehearsal) send(server *caddyhttp.Server, q rehearsedRequest, token string) (*explain.Explanation, error) {
	if strings.ContainsAny(q.method+q.path+q.host+q.origin+q.preflightFor, " \t\r\n") {
		return nil, errors.New("a method, path or host with a space or a line break in it is no request: percent-encode it")
	}
	wire := q.method + " " + q.path + " HTTP/1.1\r\nHost: " + q.host + "\r\n"
	if token != "" {
		wire += "Authorization: Bearer " + token + "\r\n"
	}
	if q.origin != "" {
		wire += "Origin: " + q.origin + "\r\n"
	}
	if q.preflightFor != "" {
		wire += "Access-Control-Request-Method: " + q.preflightFor + "\r\n"
	}
	if q.body != nil {
		wire += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(q.body))
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire + "\r\n" + string(q.body))))
	if err != nil {
		return nil, fmt.Errorf("this is no HTTP request, and would be answered 400 before any gate: %w", err)
	}
	r.RemoteAddr = "127.0.0.1:1"
	if len(server.TLSConnPolicies) > 0 {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: hostname(q.host), NegotiatedProtocol: "http/1.1"}
	}
	h.explanation, h.decided, h.refused = nil, nil, nil
	w := &answerWriter{header: make(http.Header), bodiless: r.Method == http.MethodHead}
	serveQuietly(server, w, r)
	e := h.explanation
	if e == nil {
		e = explain.Request(r)
		e.Outcome = explain.NotGated
	}
	e.Handler = w.header.Get(handlerMark)
	if e.Answer == nil && e.Handler == "" && w.status != 0 { // answered on the way: a redirect, respond, an error
		e.Answer = w.answer()
	}
	if e.Outcome == explain.Refused && w.header.Get(handlerMark) == "" {
		e.Answer = w.answer() // as it was written, also by handle_errors
	}
	return e, nil
}

// serveQuietly is the server of a request; a handler may abort it.
func serveQuietly(server *caddyhttp.Server, w http.ResponseWriter, r *http.Request) {
	defer func() {
		if recovered := recover(); recovered != nil && recovered != http.ErrAbortHandler {
			panic(recovered)
		}
	}()
	server.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})))
}

// rehearsed notes a request that passes the gate.
func (p *Protect) rehearsed(r *http.Request, outcome explain.Outcome, decision *validator.Decision) {
	if p.app.rehearsal == nil {
		return
	}
	e := explain.Request(r)
	e.Outcome, e.Gate, e.Resource = outcome, p.Source, p.resource.Identifier()
	if decision != nil {
		e.Decide(decision.Rule, decision.Identity)
		e.NoteRates()
		if decision.Authenticated() {
			e.Forwarded = make(http.Header)
			p.headers.SetIdentity(e.Forwarded, &decision.Identity)
			if p.minter != nil {
				p.headers.SetToken(e.Forwarded, "(signed, for this request)")
			}
		}
	}
	p.app.rehearsal.explanation = e
	if decision != nil {
		p.app.rehearsal.decided = decision.Rule
	}
}

// answeredBy notes that oauth_server answers.
func (h *rehearsal) answeredBy(r *http.Request, source string) {
	h.explanation = explain.Request(r)
	h.explanation.Outcome, h.explanation.Handler = explain.AuthorizationServer, strings.TrimSpace("oauth_server "+source)
}

// VerificationKey implements validator.KeySource: the keys of the
// configuration, and the one that stands in for those in the database.
func (h *rehearsal) VerificationKey(kid string) (*ecdsa.PublicKey, bool) {
	if kid == rehearsalKey {
		return &h.key.PublicKey, true
	}
	for _, key := range h.app.keys {
		if id, err := issuer.KeyID(&key.PublicKey); err == nil && id == kid {
			return &key.PublicKey, true
		}
	}
	return nil, false
}

// ReadSession implements validator.SessionReader: every session lives.
func (h *rehearsal) ReadSession(context.Context, string) (validator.Session, error) {
	return *h.session, nil
}

// Held implements validator.SessionReader: another request has another session.
func (h *rehearsal) Held(uint64) (validator.Session, bool) { return validator.Session{}, false }

// answerWriter keeps an answer.
type answerWriter struct {
	header   http.Header
	sent     http.Header
	status   int
	body     strings.Builder
	bodiless bool // as an answer to HEAD is on the wire
}

func (w *answerWriter) Header() http.Header { return w.header }

func (w *answerWriter) WriteHeader(status int) {
	if w.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		w.status, w.sent = status, w.header.Clone()
	}
}

func (w *answerWriter) Write(b []byte) (int, error) {
	if w.WriteHeader(http.StatusOK); w.bodiless {
		return len(b), nil
	}
	return w.body.Write(b)
}

func (w *answerWriter) answer() *explain.Answer {
	return &explain.Answer{Status: w.status, Header: w.sent, Body: w.body.String()}
}
