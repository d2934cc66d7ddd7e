package caddymodule

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"pgregory.net/rapid"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// toolSite is an MCP server behind a gate.
const toolSite = `
	encode gzip
	oauth_protect {
		GET,POST,DELETE /mcp authenticated
		tool search_jobs jobs:read
		tool post_job jobs:write
		tool slow jobs:read
		tool whoami authenticated
	}
	reverse_proxy UPSTREAM {
		header_up Host {upstream_hostport}
	}
`

// newMCPServer has the tools of toolSite, and one that no rule names.
func newMCPServer() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "board", Version: "1"}, nil)
	answer := func(text func(*mcp.CallToolRequest) string) mcp.ToolHandlerFor[struct{}, any] {
		return func(_ context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text(r)}}}, nil, nil
		}
	}
	for _, name := range []string{"search_jobs", "post_job", "internal"} {
		mcp.AddTool(server, &mcp.Tool{Name: name}, answer(func(*mcp.CallToolRequest) string { return name }))
	}
	mcp.AddTool(server, &mcp.Tool{Name: "whoami"}, answer(func(r *mcp.CallToolRequest) string { return r.Extra.Header.Get("X-User-Id") }))
	return server
}

// mcpUpstream makes the upstream that MCP server.
func (s *gateScene) mcpUpstream(options mcp.StreamableHTTPOptions) {
	server := newMCPServer()
	s.upstream.serve(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &options))
}

// bearer adds an access token to each request.
type bearer struct{ token string }

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return http.DefaultTransport.RoundTrip(r)
}

// connect opens an MCP session with a token of the scope.
func (s *gateScene) connect(t *testing.T, version, scope string) *mcp.ClientSession {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint:   "http://" + s.address + "/mcp",
		HTTPClient: &http.Client{Transport: bearer{s.token(func(c map[string]any) { c["scope"] = scope })}},
	}, &mcp.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// MCP-11: the Go MCP SDK on both sides, in each version of the protocol, with
// and without sessions, with answers in JSON and in events.
func TestMCPServerIsServedThroughTheGate(t *testing.T) {
	s := newGateScene(t, toolSite)
	for name, options := range map[string]mcp.StreamableHTTPOptions{
		"sessions, events": {}, "sessions, JSON": {JSONResponse: true},
		"stateless, events": {Stateless: true}, "stateless, JSON": {Stateless: true, JSONResponse: true},
	} {
		for _, version := range []string{"2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"} {
			if version == "2026-07-28" && !options.Stateless {
				continue // the SDK serves it without sessions only
			}
			t.Run(name+" "+version, func(t *testing.T) {
				s.mcpUpstream(options)
				session := s.connect(t, version, "jobs:read")
				list, err := session.ListTools(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				var names []string
				for _, tool := range list.Tools {
					names = append(names, tool.Name)
				}
				slices.Sort(names)
				if !slices.Equal(names, []string{"search_jobs", "whoami"}) {
					t.Errorf("tools/list holds %v", names)
				}
				for tool, want := range map[string]string{"search_jobs": "search_jobs", "whoami": "user-1", "post_job": "", "internal": ""} {
					result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: tool})
					switch {
					case want == "" && err == nil:
						t.Errorf("%s was called", tool)
					case want != "" && err != nil:
						t.Errorf("%s: %v", tool, err) // also after a refused call: it ends the call, not the session
					case want != "" && result.Content[0].(*mcp.TextContent).Text != want:
						t.Errorf("%s: %v", tool, result.Content[0])
					}
				}
				if err := session.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}
	}
}

// MCP-11: what Streamable HTTP has in its header goes both ways untouched.
func TestHeaderOfStreamableHTTPPassesUntouched(t *testing.T) {
	s := newGateScene(t, toolSite)
	s.upstream.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Mcp-Session-Id"] = []string{"s-1"}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{}`)
	})
	const fields = "Host: a\nConnection: close\nAuthorization: Bearer TOKEN\nMcp-Session-Id: s-1\nMCP-Protocol-Version: 2025-11-25\nLast-Event-ID: 7_1\nOrigin: https://app.example\nMcp-Param-Region: eu\n"
	for request, want := range map[string]int{"GET /mcp": 200, "DELETE /mcp": 200, "POST /mcp": 200, "PUT /mcp": 403} {
		body := ""
		if strings.HasPrefix(request, "P") {
			body = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
		}
		got := s.raw(fmt.Sprintf("%s HTTP/1.1\n%sContent-Type: application/json\nContent-Length: %d\n\n%s", request, fields, len(body), body))
		if got.status != want {
			t.Errorf("%s: %d %s", request, got.status, got.body)
		}
		if want != 200 {
			continue
		}
		r := s.upstream.one(t)
		for name, value := range map[string]string{
			"Mcp-Session-Id": "s-1", "Mcp-Protocol-Version": "2025-11-25", "Last-Event-Id": "7_1", "Origin": "https://app.example", "Mcp-Param-Region": "eu",
		} {
			if r.header.Get(name) != value {
				t.Errorf("%s: %s: %q", request, name, r.header.Get(name))
			}
		}
		if got.header.Get("Mcp-Session-Id") != "s-1" || r.body != body {
			t.Errorf("%s: session %q, body %q", request, got.header.Get("Mcp-Session-Id"), r.body)
		}
	}
}

// MCP-03, by way of HTTP: hostile messages do not arrive, honest ones do, to the
// byte, also in chunks.
func TestMessagesArriveToTheByteOrNotAtAll(t *testing.T) {
	s := newGateScene(t, toolSite)
	token := s.token(func(c map[string]any) { c["scope"] = "jobs:read" })
	send := func(body string, chunked bool) answer {
		head := "POST /mcp HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nAuthorization: Bearer " + token + "\r\n"
		if !chunked {
			return s.exact(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body))
		}
		head += "Transfer-Encoding: chunked\r\n\r\n"
		for part := range slices.Chunk([]byte(body), 7) {
			head += fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
		}
		return s.exact(head + "0\r\n\r\n")
	}
	for _, body := range validatortest.HostileBodies("search_jobs", "post_job") {
		if len(body.Text) > 100<<10 {
			continue // the server closes before it has read it
		}
		for _, chunked := range []bool{false, true} {
			got := send(body.Text, chunked)
			if arrived := s.upstream.take(); len(arrived) != 0 || got.status != 400 && got.status != 403 {
				t.Errorf("%s, chunked %v: %d, %d arrived", body.Name, chunked, got.status, len(arrived))
			}
		}
	}
	for _, body := range validatortest.HonestBodies("search_jobs") {
		for _, chunked := range []bool{false, true} {
			got := send(body.Text, chunked)
			if got.status != http.StatusOK {
				t.Errorf("%s, chunked %v: %d %s", body.Name, chunked, got.status, got.body)
			} else if arrived := s.upstream.one(t); arrived.body != body.Text {
				t.Errorf("%s, chunked %v: %q arrived", body.Name, chunked, arrived.body)
			}
		}
	}
}

// H-04: reading the body does not let trailers name who is calling.
func TestTrailersOfMessagesCannotCarryIdentity(t *testing.T) {
	s := newGateScene(t, toolSite)
	const body = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
	got := s.raw(fmt.Sprintf("POST /mcp HTTP/1.1\nHost: a\nConnection: close\nContent-Type: application/json\nAuthorization: Bearer TOKEN\nTransfer-Encoding: chunked\nTrailer: X-User-Id, X-Checksum\n\n%x\n%s\n0\nX-User-Id: admin\nX-Checksum: 1\n\n", len(body), body))
	r := s.upstream.one(t)
	if got.status != http.StatusOK || r.body != body || r.trailer.Get("X-Checksum") != "1" || r.trailer["X-User-Id"] != nil || r.header.Get("X-User-Id") != "user-1" {
		t.Errorf("%d, body %q, header %v, trailer %v", got.status, r.body, r.header, r.trailer)
	}
}

// MCP-09, MCP-10: lists are filtered also where the server likes to compress, and
// not passed on where it does so unasked.
func TestToolListIsFilteredWhateverTheEncoding(t *testing.T) {
	s := newGateScene(t, toolSite)
	const list = `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"search_jobs"},{"name":"internal"},{"name":"post_job"}]}}`
	const request = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	ask := func() answer {
		return s.exact(fmt.Sprintf("POST /mcp HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nAccept-Encoding: gzip, br\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
			s.token(func(c map[string]any) { c["scope"] = "jobs:read" }), len(request), request))
	}
	s.upstream.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, list)
	})
	got := ask()
	if got.status != 200 || got.body != `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"search_jobs"}]}}` || got.header.Get("Content-Encoding") != "" {
		t.Errorf("%+v", got)
	}
	if got := s.upstream.one(t).header.Get("Accept-Encoding"); got != "identity" {
		t.Errorf("the server was asked for %q", got)
	}
	s.upstream.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		var compressed bytes.Buffer
		z := gzip.NewWriter(&compressed)
		_, _ = io.WriteString(z, list)
		_ = z.Close()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(compressed.Bytes())
	})
	if got := ask(); got.status != http.StatusBadGateway || strings.Contains(got.body, "internal") {
		t.Errorf("compressed unasked: %+v", got)
	}
	s.upstream.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\ndata: "+list+"}\n\n")
	})
	if got := ask(); strings.Contains(got.body, "internal") || !strings.Contains(got.body, "data: 1") {
		t.Errorf("malformed event: %+v", got)
	}
	// The answer ends without the mark of its end, also where the server's has one.
	s.upstream.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\ndata: "+list+"}")
	})
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.address+"/mcp", strings.NewReader(request))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+s.token())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil || string(body) != "data: 1\n\n" {
		t.Errorf("malformed last event: %q %v", body, err)
	}
}

// MCP-12: each event goes on when it is whole, on the answer to a message and on
// a stream of its own, filtered or not; and the stream ends with the session.
func TestEventsOfAnMCPServerAreNotHeld(t *testing.T) {
	s := newGateScene(t, toolSite)
	for _, c := range []struct{ method, body string }{
		{http.MethodPost, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}`},
		{http.MethodPost, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`},
		{http.MethodGet, ""},
	} {
		next := make(chan string)
		s.upstream.answerWith(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(w).Flush()
			for {
				select {
				case event := <-next:
					_, _ = io.WriteString(w, event)
					_ = http.NewResponseController(w).Flush()
				case <-r.Context().Done():
					return
				}
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		request, _ := http.NewRequestWithContext(ctx, c.method, "http://"+s.address+"/mcp", strings.NewReader(c.body))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Accept", "application/json, text/event-stream")
		request.Header.Set("Authorization", "Bearer "+s.token())
		resp, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			next <- fmt.Sprintf("data: %d\n\n", i)
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Errorf("%s: %q %v", c.method, line, err)
			}
			_, _ = lines.ReadString('\n')
		}
		if c.method == http.MethodGet { // W-02
			s.sessions.revoke(testSession)
			if _, err := io.Copy(io.Discard, lines); err == nil {
				t.Error("the stream ended in good order")
			}
		}
		resp.Body.Close()
		cancel()
	}
}

// MCP-13: the gate and what is said about it agree about tools as well.
func TestExplainTellsWhatALiveGateDoesWithTools(t *testing.T) {
	s := newGateScene(t, toolSite)
	requirement := rapid.SampledFrom([]string{"jobs:read", "jobs:write", "jobs:read jobs:write", "any jobs:read jobs:write", "authenticated", "public"})
	bodies := slices.Concat(validatortest.HostileBodies("a", "b"), validatortest.HonestBodies("a"), validatortest.HonestBodies("b"))
	bodies = slices.DeleteFunc(bodies, func(b validatortest.Body) bool { return len(b.Text) > 100<<10 })
	passed, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		site := "oauth_protect {\n* /mcp " + requirement.Draw(t, "path") + "\n"
		for _, tool := range []string{"a", "b"} {
			if rapid.Bool().Draw(t, "declared") || tool == "a" {
				site += "tool " + tool + " " + requirement.Draw(t, tool) + "\n"
			}
		}
		site += "}\nreverse_proxy UPSTREAM"
		s.load("", site)
		h := s.rehearse(t, site)
		for range 8 {
			body := rapid.SampledFrom(bodies).Draw(t, "body").Text
			held := rapid.SampledFrom([]string{"jobs:read", "jobs:write", "jobs:read jobs:write", "none"}).Draw(t, "held")
			q := rehearsedRequest{method: "POST", path: "/mcp", host: "api.example.com", client: "gpt", anyone: held == "none", scopes: strings.Fields(held), body: []byte(body)}
			wire := fmt.Sprintf("POST /mcp HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", len(body))
			if held != "none" {
				wire += "Authorization: Bearer " + s.token(func(c map[string]any) { c["scope"] = held }) + "\r\n"
			}
			told, err := h.explain(q)
			if err != nil {
				t.Fatalf("%v", err)
			}
			got := s.exact(wire + "\r\n" + body)
			arrived := len(s.upstream.take()) == 1
			if told.Passes() != arrived {
				t.Fatalf("%s%s: explained as %s, arrived %v: %d %s", site, body, told.Outcome, arrived, got.status, got.body)
			}
			if arrived {
				passed++
				continue
			}
			refused++
			if told.Answer.Status != got.status || told.Answer.Body != got.body || !slices.Equal(told.Answer.Header["Www-Authenticate"], got.header["Www-Authenticate"]) {
				t.Fatalf("%s%s: explained %+v, answered %+v", site, body, told.Answer, got)
			}
		}
	})
	if passed < 50 || refused < 50 {
		t.Errorf("%d passed and %d were refused: the requests show too little", passed, refused)
	}
}

// MCP-13: caddy oauth explain --tool.
func TestExplainNamesTheRuleOfATool(t *testing.T) {
	s := newGateScene(t, toolSite)
	h := s.rehearse(t, toolSite)
	for tool, want := range map[string]struct {
		outcome explain.Outcome
		rule    string
		missing []string
	}{
		"search_jobs": {explain.Allowed, "tool search_jobs jobs:read", nil},
		"post_job":    {explain.Refused, "tool post_job jobs:write", []string{"jobs:write"}},
		"internal":    {explain.Refused, "", nil},
	} {
		body, _ := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": tool}})
		e, err := h.explain(rehearsedRequest{method: "POST", path: "/mcp", host: "api.example.com", client: "gpt", scopes: []string{"jobs:read"}, body: body})
		if err != nil {
			t.Fatal(err)
		}
		rule := ""
		if len(e.Tools) == 1 {
			rule = e.Tools[0].Text
			if !strings.HasPrefix(e.Tools[0].Source, "Caddyfile:") {
				t.Errorf("%s: source %q", tool, e.Tools[0].Source)
			}
		}
		if e.Outcome != want.outcome || rule != want.rule || !slices.Equal(e.Missed, want.missing) || e.Rule == nil || e.Rule.Text != "GET,POST,DELETE /mcp authenticated" {
			t.Errorf("%s: %+v", tool, e)
		}
		var text strings.Builder
		if err := e.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if tool == "internal" && !strings.Contains(text.String(), `add a line such as "tool internal SCOPE"`) || tool == "post_job" && !strings.Contains(text.String(), "needed too") {
			t.Errorf("%s:\n%s", tool, text.String())
		}
	}
}
