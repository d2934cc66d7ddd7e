//go:build linux

package e2e

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/oauth2"

	"github.com/caddy-scope/caddy-scope/caddymodule/doctor"
	"github.com/caddy-scope/caddy-scope/dpop/dpoptest"
)

// product is the other side of a tutorial: the hosts of ChatGPT and Claude, with
// the documents that they publish and the addresses that users come back to.
type product struct {
	key   *dpoptest.Key // of private_key_jwt
	calls chan *url.URL

	mu        sync.Mutex
	documents map[string]any // by URL
}

func newProduct(t *testing.T, m *machine) *product {
	t.Helper()
	p := &product{key: dpoptest.NewKey(t, "RS256"), calls: make(chan *url.URL, 8), documents: make(map[string]any)}
	certificate := m.certificate(t, productHosts...)
	serveAt(t, productAddress+":443", &certificate, p)
	return p
}

// publish serves a document at its URL from now on.
func (p *product) publish(address string, document any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.documents[address] = document
}

// publishes serves the document that the doctor knows of a product, and returns
// what stands in it.
func (p *product) publishes(t *testing.T, name string) (clientID, redirect string) {
	t.Helper()
	library, err := doctor.Known()
	if err != nil {
		t.Fatal(err)
	}
	known, err := library.Select([]string{name})
	if err != nil {
		t.Fatal(err)
	}
	way := known[0].Registration[0]
	if way.By != doctor.ByDocument {
		t.Fatalf("%s registers by %s first", name, way.By)
	}
	p.publish(way.ClientID, way.Document)
	return way.ClientID, way.RedirectURIs[0]
}

// ServeHTTP implements http.Handler.
func (p *product) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	address := "https://" + r.Host + r.URL.Path
	p.mu.Lock()
	document, published := p.documents[address]
	p.mu.Unlock()
	switch {
	case published:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(document)
	case strings.Contains(r.URL.Path, "callback") || strings.Contains(r.URL.Path, "redirect"):
		p.calls <- &url.URL{Scheme: "https", Host: r.Host, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
		_, _ = io.WriteString(w, "<title>product</title>You are connected.")
	default:
		http.NotFound(w, r)
	}
}

// back is where the next user came back to.
func (p *product) back(t *testing.T) *url.URL {
	t.Helper()
	select {
	case u := <-p.calls:
		return u
	case <-time.After(20 * time.Second):
		t.Fatal("the user was not sent back to the product")
		return nil
	}
}

// wire is an OAuth client as products have it: each of its own habits.
type wire struct {
	t        *testing.T
	http     *http.Client
	server   serverFacts
	clientID string
	redirect string
	resource string // sent with every request, byte for byte as found; empty: never
	pkce     bool
	// authenticate adds to a token request what the client proves itself by.
	authenticate func(url.Values)
}

// serverFacts are members of RFC 8414 metadata that clients go by.
type serverFacts struct {
	Issuer    string   `json:"issuer"`
	Authorize string   `json:"authorization_endpoint"`
	Token     string   `json:"token_endpoint"`
	Register  string   `json:"registration_endpoint"`
	Methods   []string `json:"token_endpoint_auth_methods_supported"`
	PKCE      []string `json:"code_challenge_methods_supported"`
	Iss       bool     `json:"authorization_response_iss_parameter_supported"`
	Documents bool     `json:"client_id_metadata_document_supported"`
	Scopes    []string `json:"scopes_supported"`
}

// get reads a JSON document, which must be there.
func (c *wire) get(address string, into any) {
	c.t.Helper()
	res, err := c.http.Get(address)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		c.t.Fatalf("%s: %s %s", address, res.Status, res.Header.Get("Content-Type"))
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		c.t.Fatalf("%s: %v", address, err)
	}
}

// discover goes from the URL of an MCP server to the facts about its
// authorization server, as the MCP specification says, and returns the scope to
// ask for: that of the challenge, or all that the resource knows.
func (c *wire) discover(server string) (scope string) {
	c.t.Helper()
	res, err := c.http.Post(server, "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}`))
	if err != nil {
		c.t.Fatal(err)
	}
	_ = res.Body.Close()
	challenge := res.Header.Get("WWW-Authenticate")
	if res.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(challenge, "Bearer ") {
		c.t.Fatalf("%s: %s %s", server, res.Status, challenge)
	}
	var resource struct {
		Resource string
		Servers  []string `json:"authorization_servers"`
		Scopes   []string `json:"scopes_supported"`
	}
	c.get(attribute(challenge, "resource_metadata"), &resource)
	if resource.Resource != server || len(resource.Servers) != 1 {
		c.t.Fatalf("the metadata are those of %q, not of %q", resource.Resource, server)
	}
	c.resource = resource.Resource
	c.get(resource.Servers[0]+"/.well-known/oauth-authorization-server", &c.server)
	if c.server.Issuer != resource.Servers[0] {
		c.t.Fatalf("issuer %q, authorization_servers %q", c.server.Issuer, resource.Servers[0])
	}
	return cmp.Or(attribute(challenge, "scope"), strings.Join(resource.Scopes, " "))
}

// attribute is one of a challenge, as most clients read it.
func attribute(challenge, name string) string {
	_, rest, _ := strings.Cut(challenge, " "+name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// authorization is an authorization request, and what is kept for its answer.
type authorization struct {
	url, state, verifier string
}

func (c *wire) authorization(scope string) authorization {
	a := authorization{state: uuid.NewString(), verifier: oauth2.GenerateVerifier()}
	query := url.Values{"response_type": {"code"}, "client_id": {c.clientID}, "redirect_uri": {c.redirect}, "scope": {scope}, "state": {a.state}}
	if c.pkce {
		query.Set("code_challenge", oauth2.S256ChallengeFromVerifier(a.verifier))
		query.Set("code_challenge_method", "S256")
	}
	if c.resource != "" {
		query.Set("resource", c.resource)
	}
	a.url = c.server.Authorize + "?" + query.Encode()
	return a
}

// tokens are an answer of the token endpoint.
type tokens struct {
	Access    string `json:"access_token"`
	Type      string `json:"token_type"`
	ExpiresIn int    `json:"expires_in"`
	Refresh   string `json:"refresh_token"`
	Scope     string `json:"scope"`
	Error     string `json:"error"`
	status    int
}

// redeem takes what the user came back with, and exchanges it.
func (c *wire) redeem(a authorization, back *url.URL) tokens {
	c.t.Helper()
	answer := back.Query()
	back.RawQuery = ""
	if back.String() != c.redirect || answer.Get("state") != a.state || answer.Has("error") {
		c.t.Fatalf("the answer: %s %v", back, answer)
	}
	if c.server.Iss && answer.Get("iss") != c.server.Issuer {
		c.t.Fatalf("iss %q, of %q", answer.Get("iss"), c.server.Issuer)
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {answer.Get("code")}, "redirect_uri": {c.redirect}}
	if c.pkce {
		form.Set("code_verifier", a.verifier)
	}
	got := c.token(form)
	if got.Access == "" || !strings.EqualFold(got.Type, "bearer") || got.ExpiresIn == 0 || got.Refresh == "" {
		c.t.Fatalf("tokens: %+v", got)
	}
	return got
}

func (c *wire) refresh(old tokens) tokens {
	c.t.Helper()
	return c.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {old.Refresh}})
}

// token sends a token request and reads what comes back.
func (c *wire) token(form url.Values) (got tokens) {
	c.t.Helper()
	form.Set("client_id", c.clientID)
	if c.resource != "" {
		form.Set("resource", c.resource)
	}
	if c.authenticate != nil {
		c.authenticate(form)
	}
	res, err := c.http.PostForm(c.server.Token, form)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		c.t.Fatalf("%s: %v", res.Status, err)
	}
	got.status = res.StatusCode
	return got
}

// call sends an API request and returns the answer without its body.
func (c *wire) call(method, address, token string) *http.Response {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, address, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res
}
