//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const mcpURL = "https://api.example.com/mcp"

// startMCP is the reader's MCP server at localhost:9001, with the tools of the
// tutorials. Each says for whom it was called.
func startMCP(t *testing.T) {
	t.Helper()
	server := mcp.NewServer(&mcp.Implementation{Name: "job board", Version: "1"}, nil)
	for _, name := range []string{"search_jobs", "submit_application", "delete_everything"} {
		mcp.AddTool(server, &mcp.Tool{Name: name}, func(_ context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
			h := r.Extra.Header
			said := name + " for " + h.Get("X-User-Id") + " by " + h.Get("X-Client-Id") + " with " + h.Get("X-Scopes") + h.Get("Authorization")
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: said}}}, nil, nil
		})
	}
	mux := http.NewServeMux()
	mux.Handle("/mcp", mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil))
	serveAt(t, "127.0.0.1:9001", nil, mux)
}

// bearer adds an access token to each request.
type bearer struct {
	token string
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// session opens an MCP session with an access token.
func (c *wire) session(token string) *mcp.ClientSession {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	c.t.Cleanup(cancel)
	client := mcp.NewClient(&mcp.Implementation{Name: "product", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: c.resource, HTTPClient: &http.Client{Transport: bearer{token, c.http.Transport}}}, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = session.Close() })
	return session
}

// tools are those that the session lists.
func (c *wire) tools(session *mcp.ClientSession) (names []string) {
	c.t.Helper()
	list, err := session.ListTools(c.t.Context(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	slices.Sort(names)
	return names
}

// use calls a tool, which must answer.
func (c *wire) use(session *mcp.ClientSession, tool string) string {
	c.t.Helper()
	result, err := session.CallTool(c.t.Context(), &mcp.CallToolParams{Name: tool})
	if err != nil || result.IsError {
		c.t.Fatalf("%s: %v %v", tool, err, result)
	}
	return result.Content[0].(*mcp.TextContent).Text
}

// challenged calls a tool without a session, and returns the status and the
// challenge.
func (c *wire) challenged(token, tool string) (status int, challenge string) {
	c.t.Helper()
	body := `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"` + tool + `","arguments":{}}}`
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.resource, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode, res.Header.Get("WWW-Authenticate")
}

// connect goes from the first 401 to tokens, with the person in the browser, who
// is told about both scopes.
func (c *wire) connect(browser context.Context, back func() *url.URL, pages ...string) tokens {
	c.t.Helper()
	scope := c.discover(mcpURL)
	if scope != "applications:write jobs:read" {
		c.t.Errorf("the scope to ask for is %q", scope)
	}
	return c.ask(browser, scope, back, append(pages, "Search jobs and view job details", "Submit applications for you")...)
}

// ask has the person allow the scope, on pages that say what they must.
func (c *wire) ask(browser context.Context, scope string, back func() *url.URL, pages ...string) tokens {
	c.t.Helper()
	asked := c.authorization(scope)
	seen := strings.Join(allow(c.t, browser, asked.url), "\n")
	for _, want := range pages {
		if !strings.Contains(seen, want) {
			c.t.Errorf("the pages do not say %q:\n%s", want, seen)
		}
	}
	return c.redeem(asked, back())
}

// works: both tools are listed and answer, told who calls; the third one is
// nobody's.
func (c *wire) works(held tokens) {
	c.t.Helper()
	session := c.session(held.Access)
	if got := c.tools(session); !slices.Equal(got, []string{"search_jobs", "submit_application"}) {
		c.t.Errorf("the tools are %q", got)
	}
	for _, tool := range []string{"search_jobs", "submit_application"} {
		want := tool + " for " + payload(c.t, held.Access)["sub"].(string) + " by " + c.clientID + " with applications:write jobs:read"
		if got := c.use(session, tool); got != want {
			c.t.Errorf("the MCP server saw %q, want %q", got, want)
		}
	}
	if status, _ := c.challenged(held.Access, "delete_everything"); status != http.StatusForbidden {
		c.t.Errorf("a tool without a line: %d", status)
	}
}

// assertion signs as a client does that publishes its keys. RFC 7523.
func (p *product) assertion(clientID, audience string) func(url.Values) {
	return func(form url.Values) {
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", p.key.Sign(map[string]any{"alg": p.key.Algorithm, "kid": "1"}, map[string]any{
			"iss": clientID, "sub": clientID, "aud": audience, "jti": uuid.NewString(), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		}))
	}
}

// TUT-02, DOC-02: docs/tutorial-chatgpt-app.md, followed to the letter; ChatGPT is known by its document,
// offers no or a signed proof, sends the resource as it found it, and checks iss.
func TestTutorialChatGPTApp(t *testing.T) {
	m := onReadersMachine(t)
	if m == nil {
		return
	}
	startMCP(t)
	f := follow(t, m, "tutorial-chatgpt-app.md")
	f.section("1. Build")
	f.section("2. Say what may be done")
	f.section("3. Start")
	add := f.section("4. Add it in ChatGPT")
	add.mentions(t, "`"+mcpURL+"`")

	id, redirect := m.product.publishes(t, "chatgpt")
	jwk := m.product.key.JWK()
	jwk["kid"], jwk["alg"], jwk["use"] = "1", "RS256", "sig"
	m.product.publish("https://chatgpt.com/oauth/jwks.json", map[string]any{"keys": []any{jwk}})
	chatGPT := &wire{t: t, http: m.http(t), clientID: id, redirect: redirect, pkce: true}
	chatGPT.authenticate = m.product.assertion(id, "https://api.example.com")
	browser := newChromium(t)
	back := func() *url.URL { return m.product.back(t) }
	held := chatGPT.connect(browser, back, "ChatGPT", "published by chatgpt.com")
	if s := chatGPT.server; !s.Iss || !s.Documents || !slices.Contains(s.PKCE, "S256") || !slices.Contains(s.Methods, "none") {
		t.Errorf("what ChatGPT looks for: %+v", s)
	}

	f.section("5. Try it").mentions(t, "search_jobs", "submit_application", "X-User-Id")
	chatGPT.works(held)
	held = chatGPT.refresh(held)
	chatGPT.authenticate = nil                                                // the other method of its document
	chatGPT.works(chatGPT.ask(browser, "applications:write jobs:read", back)) // allowed before

	f.section("6. Switch it off")
	chatGPT.cutOff(mcpURL, held)

	wrong := f.section("What can go wrong")
	f.end()
	stranger := *chatGPT
	stranger.clientID = "https://claude.ai/oauth/mcp-oauth-client-metadata"
	if pages := allow(t, browser, stranger.authorization("jobs:read").url); !strings.Contains(pages[0], wrong.quoted(t, 1)) {
		t.Errorf("a client that no policy lets in: %s", pages)
	}
	f.ownHostIsRefused()
}

// ownHostIsRefused: the last thing that can go wrong. The MCP server refuses the
// public host name, with or without a token of ours.
func (f *tutorial) ownHostIsRefused() {
	f.t.Helper()
	if out := f.print(`curl -s -o /dev/null -w '%{http_code}' http://localhost:9001/mcp -H 'Host: api.example.com' -d '{}'`); out != "403" {
		f.t.Errorf("an MCP server that is asked under the public name: %s", out)
	}
}

// TUT-03, DOC-02: docs/tutorial-claude-connector.md, followed to the letter; Claude by its document, and where
// it does not use that, registering anew for each connection.
func TestTutorialClaudeConnector(t *testing.T) {
	m := onReadersMachine(t)
	if m == nil {
		return
	}
	startMCP(t)
	f := follow(t, m, "tutorial-claude-connector.md")
	f.section("1. Build")
	f.section("2. Say what may be done")
	f.section("3. Start")
	add := f.section("4. Add it in Claude")
	add.mentions(t, "`"+mcpURL+"`")

	id, redirect := m.product.publishes(t, "claude")
	claude := &wire{t: t, http: m.http(t), clientID: id, redirect: redirect, pkce: true}
	browser := newChromium(t)
	back := func() *url.URL { return m.product.back(t) }
	held := claude.connect(browser, back, "Claude", "published by claude.ai")
	if s := claude.server; !s.Documents || !slices.Contains(s.Methods, "none") || !slices.Contains(s.Scopes, "offline_access") {
		t.Errorf("what Claude looks for: %+v", s)
	}

	f.section("5. Try it").mentions(t, "X-User-Id")
	claude.works(held)
	held = claude.refresh(held)
	// It registers anew for each connection, and appends offline_access.
	byItself := *claude
	byItself.register(map[string]any{"client_name": "Claude", "redirect_uris": []string{redirect}, "grant_types": []string{"authorization_code", "refresh_token"},
		"response_types": []string{"code"}, "token_endpoint_auth_method": "client_secret_post"})
	second := byItself.ask(browser, "applications:write jobs:read offline_access", back, "Nobody has checked its name", "claude.ai")
	byItself.works(second)

	f.section("6. Switch it off")
	claude.cutOff(mcpURL, held)
	byItself.cutOff(mcpURL, second)

	wrong := f.section("What can go wrong")
	f.end()
	stranger := *claude
	stranger.clientID = "https://chatgpt.com/oauth/client.json"
	if pages := allow(t, browser, stranger.authorization("jobs:read").url); !strings.Contains(pages[0], wrong.quoted(t, 1)) {
		t.Errorf("a client that no policy lets in: %s", pages)
	}
	f.ownHostIsRefused()
}

// register registers the client, and makes it the one that was registered.
func (c *wire) register(metadata map[string]any) {
	c.t.Helper()
	body, err := json.Marshal(metadata)
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := c.http.Post(c.server.Register, "application/json", strings.NewReader(string(body)))
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var client struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	if err := json.NewDecoder(res.Body).Decode(&client); err != nil || res.StatusCode != http.StatusCreated {
		c.t.Fatalf("register: %s %v", res.Status, err)
	}
	c.clientID, c.authenticate = client.ID, nil
	if client.Secret != "" {
		c.authenticate = func(form url.Values) { form.Set("client_secret", client.Secret) }
	}
}

// TUT-04, DOC-02: docs/tutorial-claude-code.md, followed to the letter; Claude Code listens at a port of localhost
// that it finds free, is known by its document or registers itself, and signs in
// anew when its refresh token is dead.
func TestTutorialClaudeCode(t *testing.T) {
	m := onReadersMachine(t)
	if m == nil {
		return
	}
	startMCP(t)
	f := follow(t, m, "tutorial-claude-code.md")
	f.section("1. Build")
	f.section("2. Say what may be done")
	f.section("3. Start")
	f.section("4. Add it in Claude Code")
	if args, err := os.ReadFile(filepath.Join(m.dir, "claude.args")); err != nil || string(args) != "mcp add --transport http jobs "+mcpURL+"\n" {
		t.Errorf("claude was run with %q: %v", args, err)
	}

	id, redirect := m.product.publishes(t, "claude-code")
	local := newCallback(t)
	_, port, _ := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(local.URI, "http://"), "/callback"))
	code := &wire{t: t, http: m.http(t), clientID: id, redirect: strings.Replace(redirect, "{port}", port, 1), pkce: true}
	back := func() *url.URL {
		to, err := url.Parse(code.redirect)
		if err != nil {
			t.Fatal(err)
		}
		to.RawQuery = local.await(t).Encode()
		return to
	}
	browser := newChromium(t)
	held := code.connect(browser, back, "Claude Code", "published by claude.ai", "an app on this computer")

	f.section("5. Try it").mentions(t, "X-User-Id", "`search_jobs` only")
	code.works(held)
	held = code.refresh(held)
	// Another program on the same computer is capped.
	other := *code
	other.register(map[string]any{"client_name": "Some editor", "redirect_uris": []string{"http://127.0.0.1:3118/callback"}, "application_type": "native",
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"}, "token_endpoint_auth_method": "none"})
	other.redirect = local.URI
	localBack := func() *url.URL {
		to, _ := url.Parse(local.URI)
		to.RawQuery = local.await(t).Encode()
		return to
	}
	capped := other.ask(browser, "applications:write jobs:read", localBack, "Nobody has checked its name")
	if got := other.tools(other.session(capped.Access)); capped.Scope != "jobs:read" || !slices.Equal(got, []string{"search_jobs"}) {
		t.Errorf("a program that registered itself got %q and sees %q", capped.Scope, got)
	}
	if status, challenge := other.challenged(capped.Access, "submit_application"); status != http.StatusForbidden || attribute(challenge, "error") != "insufficient_scope" {
		t.Errorf("submit_application: %d %s", status, challenge)
	}

	f.section("6. Switch it off")
	code.cutOff(mcpURL, held)

	wrong := f.section("What can go wrong")
	f.end()
	for row, change := range []func(*wire){
		func(c *wire) { c.redirect = "https://elsewhere.example/callback" },
		func(c *wire) { c.clientID = "https://chatgpt.com/oauth/client.json" },
	} {
		stranger := *code
		change(&stranger)
		if pages := allow(t, browser, stranger.authorization("jobs:read").url); !strings.Contains(pages[0], wrong.quoted(t, row)) {
			t.Errorf("row %d: %s", row, pages)
		}
	}
	f.ownHostIsRefused()
}
