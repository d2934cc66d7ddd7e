package validator_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

func toolRule(name string, access validator.Access, scopes ...string) validator.Rule {
	return validator.Rule{Tool: name, Access: access, Scopes: oauth.NewScopeSet(scopes...)}
}

// boardTools are the rules for the tools of the job board.
func boardTools() *validator.Tools {
	return &validator.Tools{Rules: []validator.Rule{
		toolRule("search_jobs", validator.AccessScopes, "jobs:read"),
		toolRule("submit_application", validator.AccessScopes, "applications:write"),
		toolRule("list_applications", validator.AccessScopes, "applications:read"),
		toolRule("analyze_resume", validator.AccessScopes, "resume:read", "jobs:read"),
		toolRule("suggest", validator.AccessAny, "jobs:read", "resume:read"),
		toolRule("whoami", validator.AccessAuthenticated),
		toolRule("ping", validator.AccessPublic),
	}}
}

// newToolScene is a gate before an MCP server at /mcp, whose path asks for
// access and scopes.
func newToolScene(t testing.TB, access validator.Access, scopes ...string) *scene {
	return newScene(t, func(c *validator.Config) {
		path := accessRule("*", "/mcp", access)
		path.Scopes, path.Tools = oauth.NewScopeSet(scopes...), boardTools()
		c.Rules = append(c.Rules, path)
	})
}

// post makes a request that brings a message.
func post(body string, fields ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

func call(tool string) string {
	return `{"jsonrpc":"2.0","id":"one","method":"tools/call","params":{"name":"` + tool + `","arguments":{}}}`
}

// message sends a body with a token of the scopes; "none": without a token.
func (s *scene) message(body, scopes string, fields ...string) (validator.Decision, *validator.Refusal) {
	r := post(body, fields...)
	if scopes != "none" {
		r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims(scopes)))
	}
	return s.decide(r)
}

// MCP-01, MCP-02, trap 17: a call needs what the path and what the tool needs; the
// challenge names all of that in one go, and what the token holds, so that a
// client that replaces its scopes by it loses none; a tool that no line names
// cannot be called by anyone.
func TestToolRuleDecidesTheCall(t *testing.T) {
	t.Parallel()
	gates := map[string]*scene{
		"authenticated": newToolScene(t, validator.AccessAuthenticated),
		"jobs:read":     newToolScene(t, validator.AccessScopes, "jobs:read"),
		"public":        newToolScene(t, validator.AccessPublic),
	}
	for _, c := range []struct {
		name, path, body, scopes string
		status                   int
		challenge                string
	}{
		{"held", "authenticated", call("search_jobs"), "jobs:read", 0, ""},
		{"not held", "authenticated", call("submit_application"), "jobs:read", 403, `scope="applications:write jobs:read"`},
		{"implied", "authenticated", call("list_applications"), "applications:write", 0, ""},
		{"one of two missing", "authenticated", call("analyze_resume"), "resume:read", 403, `scope="jobs:read resume:read"`},
		{"any held", "authenticated", call("suggest"), "resume:read", 0, ""},
		{"any not held", "authenticated", call("suggest"), "applications:read", 403, `scope="applications:read jobs:read resume:read"`},
		{"authenticated", "authenticated", call("whoami"), "resume:read", 0, ""},
		{"public behind a path that is not", "authenticated", call("ping"), "none", 401, "Bearer resource_metadata="},
		{"public", "authenticated", call("ping"), "resume:read", 0, ""},
		{"undeclared", "authenticated", call("delete_everything"), "jobs:read applications:write resume:read", 403, ""},
		{"undeclared, in another case", "authenticated", call("Search_Jobs"), "jobs:read", 403, ""},
		{"undeclared, with a space", "authenticated", call("search_jobs "), "jobs:read", 403, ""},
		{"without a token", "authenticated", call("search_jobs"), "none", 401, "Bearer resource_metadata="},
		{"no call", "authenticated", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, "resume:read", 0, ""},

		{"path held, tool not", "jobs:read", call("submit_application"), "jobs:read", 403, `scope="applications:write jobs:read"`},
		{"tool held, path not", "jobs:read", call("submit_application"), "applications:write", 403, `scope="applications:read applications:write jobs:read"`},
		{"both held", "jobs:read", call("submit_application"), "applications:write jobs:read", 0, ""},
		{"authenticated, path not held", "jobs:read", call("whoami"), "resume:read", 403, `scope="jobs:read resume:read"`},
		{"no call, path not held", "jobs:read", `{"jsonrpc":"2.0","id":1,"method":"ping"}`, "resume:read", 403, `scope="jobs:read resume:read"`},
		{"without a token, path with scopes", "jobs:read", call("submit_application"), "none", 401, `Bearer scope="jobs:read", resource_metadata=`},

		{"public path, no call", "public", `{"jsonrpc":"2.0","id":1,"method":"initialize"}`, "none", 0, ""},
		{"public path, public tool", "public", call("ping"), "none", 0, ""},
		{"public path, tool without a token", "public", call("search_jobs"), "none", 401, `Bearer scope="jobs:read", resource_metadata=`},
		{"public path, tool held", "public", call("search_jobs"), "jobs:read", 0, ""},
		{"public path, tool not held", "public", call("submit_application"), "jobs:read", 403, `scope="applications:write jobs:read"`},
		{"public path, undeclared", "public", call("delete_everything"), "none", 403, ""},

		{"batch held", "authenticated", "[" + call("search_jobs") + "," + call("whoami") + "]", "jobs:read", 0, ""},
		{"batch, one not held", "authenticated", "[" + call("search_jobs") + "," + call("submit_application") + "," + call("analyze_resume") + "]", "jobs:read", 403, `scope="applications:write jobs:read resume:read"`},
		{"batch, one undeclared", "authenticated", "[" + call("search_jobs") + "," + call("nothing") + "]", "jobs:read", 403, ""},
		{"batch on a public path, one not public", "public", "[" + call("ping") + "," + call("search_jobs") + "]", "none", 401, `scope="jobs:read"`},
		{"batch on a public path, all public", "public", "[" + call("ping") + "," + call("ping") + "]", "none", 0, ""},
	} {
		t.Run(c.path+" "+c.name, func(t *testing.T) {
			t.Parallel()
			_, refusal := gates[c.path].message(c.body, c.scopes)
			if c.status == 0 {
				if refusal != nil {
					t.Errorf("refused: %v", refusal)
				}
				return
			}
			if refusal == nil || refusal.Status != c.status {
				t.Fatalf("got %v, want %d", refusal, c.status)
			}
			header := make(http.Header)
			validator.WriteRefusalHeader(header, refusal)
			if challenge := header.Get("WWW-Authenticate"); !strings.Contains(challenge, c.challenge) || c.challenge == "" && challenge != "" {
				t.Errorf("challenge %q, want %q", challenge, c.challenge)
			}
		})
	}
}

// MCP-03: what readers of JSON could differ on is refused, whatever it asks for;
// what honest clients send arrives as it was sent.
func TestMessagesWithTwoReadingsAreRefused(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	for _, body := range validatortest.HostileBodies("search_jobs", "submit_application") {
		t.Run(body.Name, func(t *testing.T) {
			t.Parallel()
			_, refusal := s.message(body.Text, "jobs:read")
			if refusal == nil || refusal.Status != 400 && refusal.Status != 403 {
				t.Errorf("%.200s: %v", body.Text, refusal)
			}
		})
	}
	for _, body := range validatortest.HonestBodies("search_jobs") {
		t.Run(body.Name, func(t *testing.T) {
			t.Parallel()
			r := post(body.Text)
			r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
			if _, refusal := s.decide(r); refusal != nil {
				t.Errorf("refused: %v", refusal)
			}
			if forwarded, err := io.ReadAll(r.Body); err != nil || string(forwarded) != body.Text {
				t.Errorf("forwarded %q %v", forwarded, err)
			}
		})
	}
}

// MCP-04: what says how to read a message is held to what is read.
func TestMessageHeaderMustFitTheMessage(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	encoded := func(name string) string { return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(name)) + "?=" }
	resource := `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///é"}}`
	list := `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	for _, c := range []struct {
		name, body string
		fields     []string
		status     int
	}{
		{"method and name", call("search_jobs"), []string{"Mcp-Method", "tools/call", "Mcp-Name", "search_jobs"}, 0},
		{"encoded name", call("search_jobs"), []string{"Mcp-Name", encoded("search_jobs")}, 0},
		{"encoded URI", resource, []string{"Mcp-Method", "resources/read", "Mcp-Name", encoded("file:///é")}, 0},
		{"parameters", call("search_jobs"), []string{"Mcp-Param-Region", "x"}, 0},
		{"other method", call("search_jobs"), []string{"Mcp-Method", "tools/list"}, 400},
		{"method in another case", call("search_jobs"), []string{"Mcp-Method", "Tools/Call"}, 400},
		{"encoded method", call("search_jobs"), []string{"Mcp-Method", encoded("tools/call")}, 400},
		{"other name", call("search_jobs"), []string{"Mcp-Name", "submit_application"}, 400},
		{"other name, encoded", call("search_jobs"), []string{"Mcp-Name", encoded("submit_application")}, 400},
		{"literal of an encoded name", call("search_jobs"), []string{"Mcp-Name", "=?BASE64?" + encoded("search_jobs")[9:]}, 400},
		{"no base64", call("search_jobs"), []string{"Mcp-Name", "=?base64?search_jobs?="}, 400},
		{"loose base64", call("search_jobs"), []string{"Mcp-Name", "=?base64?" + strings.TrimRight(base64.StdEncoding.EncodeToString([]byte("search_job")), "=") + "?="}, 400},
		{"empty name", call("search_jobs"), []string{"Mcp-Name", ""}, 400},
		{"other URI", resource, []string{"Mcp-Name", "file:///a"}, 400},
		{"a call in the header only", list, []string{"Mcp-Method", "tools/call", "Mcp-Name", "submit_application"}, 400},
		{"method twice", call("search_jobs"), []string{"Mcp-Method", "tools/call", "Mcp-Method", "tools/call"}, 400},
		{"name twice", call("search_jobs"), []string{"Mcp-Name", "search_jobs", "Mcp-Name", "submit_application"}, 400},
		{"about a batch", "[" + call("search_jobs") + "]", []string{"Mcp-Name", "search_jobs"}, 400},
		{"with an underscore", call("search_jobs"), []string{"Mcp_Name", "submit_application"}, 400},
		{"type with an underscore", call("search_jobs"), []string{"Content_Type", "application/x-yaml"}, 400},

		{"charset", call("search_jobs"), []string{"Content-Type", "application/json; charset=UTF-8"}, 0},
		{"identity", call("search_jobs"), []string{"Content-Encoding", "identity"}, 0},
		{"other charset", call("search_jobs"), []string{"Content-Type", "application/json; charset=utf-16"}, 415},
		{"other type", call("search_jobs"), []string{"Content-Type", "text/plain"}, 415},
		{"form", call("search_jobs"), []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		{"patch", call("search_jobs"), []string{"Content-Type", "application/json-patch+json"}, 415},
		{"two types in one", call("search_jobs"), []string{"Content-Type", "application/json, text/plain"}, 415},
		{"no type", call("search_jobs"), []string{"Content-Type", ""}, 415},
		{"gzip", call("search_jobs"), []string{"Content-Encoding", "gzip"}, 415},
		{"two encodings", call("search_jobs"), []string{"Content-Encoding", "identity", "Content-Encoding", "br"}, 415},
		{"WebSocket", call("search_jobs"), []string{"Upgrade", "websocket"}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := post(c.body)
			for i := 0; i < len(c.fields); i += 2 {
				if c.fields[i] == "Content-Type" {
					r.Header.Del("Content-Type")
				}
				r.Header[c.fields[i]] = append(r.Header[c.fields[i]], c.fields[i+1])
			}
			r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
			_, refusal := s.decide(r)
			if c.status == 0 && refusal != nil || c.status != 0 && (refusal == nil || refusal.Status != c.status) {
				t.Errorf("got %v, want %d", refusal, c.status)
			}
		})
	}
	r := post(call("search_jobs"))
	r.Header["Content-Type"] = []string{"application/json", "application/json"}
	r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
	if _, refusal := s.decide(r); refusal == nil || refusal.Status != 415 {
		t.Errorf("two types: %v", refusal)
	}
}

// watchedBody says how much of it was read.
type watchedBody struct {
	io.Reader
	read int
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.read += n
	return n, err
}

func (b *watchedBody) Close() error { return nil }

// endless never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// MCP-05: a body is read within a bound, and for those who show a good token only.
func TestBodiesAreReadWithinABoundAndForGoodTokensOnly(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	send := func(body io.Reader, length int64, token string) (*watchedBody, *validator.Refusal) {
		watched := &watchedBody{Reader: body}
		r := post("")
		r.Body, r.ContentLength = watched, length
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		_, refusal := s.decide(r)
		return watched, refusal
	}
	good := s.minter.Token(validatortest.Claims("jobs:read"))
	for name, token := range map[string]string{
		"no token": "", "bad token": "a.b.c", "expired": s.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "exp", 1)),
	} {
		if body, refusal := send(endless{}, -1, token); body.read != 0 || refusal == nil || refusal.Status != 401 {
			t.Errorf("%s: read %d bytes, %v", name, body.read, refusal)
		}
	}
	if body, refusal := send(endless{}, -1, good); body.read > 5<<20 || refusal == nil || refusal.Status != 413 {
		t.Errorf("endless: read %d bytes, %v", body.read, refusal)
	}
	if body, refusal := send(endless{}, 1<<40, good); body.read != 0 || refusal == nil || refusal.Status != 413 {
		t.Errorf("announced: read %d bytes, %v", body.read, refusal)
	}
	if _, refusal := send(http.MaxBytesReader(nil, io.NopCloser(endless{}), 100), -1, good); refusal == nil || refusal.Status != 413 {
		t.Errorf("a bound of the server's own: %v", refusal)
	}
	if _, refusal := send(io.MultiReader(strings.NewReader(call("search_jobs")[:20]), errorReader{}), -1, good); refusal == nil || refusal.Status != 400 {
		t.Errorf("torn off: %v", refusal)
	}
	big := strings.Replace(call("search_jobs"), `"arguments":{}`, `"arguments":{"text":"`+strings.Repeat("x", 3<<20)+`"}`, 1)
	if _, refusal := send(strings.NewReader(big), -1, good); refusal != nil {
		t.Errorf("three MiB: %v", refusal)
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// MCP-06: a request without a body opens or ends a stream: the rule of the path
// decides, and no body hides in one.
func TestStreamsAreOpenedByTheRuleOfThePath(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessScopes, "jobs:read")
	for _, method := range []string{"GET", "DELETE"} {
		_, refusal := s.call(method, "/mcp", s.minter.Token(validatortest.Claims("jobs:read")))
		if refusal != nil {
			t.Errorf("%s: %v", method, refusal)
		}
		_, refusal = s.call(method, "/mcp", s.minter.Token(validatortest.Claims("resume:read")))
		wantRefusal(t, refusal, 403, oauth.CodeInsufficientScope)
		upgrade := request(method, "/mcp") // whose messages nobody here would see
		upgrade.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
		upgrade.Header.Set("Connection", "upgrade")
		upgrade.Header.Set("Upgrade", "websocket")
		_, refusal = s.decide(upgrade)
		wantRefusal(t, refusal, 400, oauth.CodeInvalidRequest)
		r := post(call("submit_application"))
		r.Method = method
		r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
		_, refusal = s.decide(r)
		wantRefusal(t, refusal, 403, oauth.CodeInsufficientScope)
	}
}

// MCP-07: MCP 2025-11-25, basic/transports: a page of an origin that is not
// allowed gets 403, where the gate knows which are.
func TestOriginOfAPageIsHeldToTheConfiguration(t *testing.T) {
	t.Parallel()
	path := accessRule("*", "/mcp", validator.AccessAuthenticated)
	path.Tools = boardTools()
	gate := func(origins ...string) *scene {
		return newScene(t, func(c *validator.Config) { c.Rules, c.CORSOrigins = []validator.Rule{path}, origins })
	}
	for _, c := range []struct {
		origins []string
		origin  string
		refused bool
	}{
		{nil, "https://evil.example", false}, // the upstream's affair
		{[]string{"*"}, "https://evil.example", false},
		{[]string{"http://localhost:6274"}, "http://localhost:6274", false},
		{[]string{"http://localhost:6274"}, "https://api.example.com", false}, // its own
		{[]string{"http://localhost:6274"}, "https://evil.example", true},
		{[]string{"http://localhost:6274"}, "http://localhost:6275", true},
		{[]string{"http://localhost:6274"}, "null", true},
	} {
		s := gate(c.origins...)
		_, refusal := s.message(call("whoami"), "resume:read", "Origin", c.origin)
		if (refusal != nil) != c.refused || c.refused && refusal.Status != 403 {
			t.Errorf("cors %v, Origin %s: %v", c.origins, c.origin, refusal)
		}
	}
}

// MCP-08: refusals of a message are JSON-RPC errors with its id, so that a client
// takes them for the end of the call and not of the connection.
func TestRefusedMessageIsAnsweredAsOne(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	for _, c := range []struct {
		name, body, scopes string
		fields             []string
		status             int
		code               int64
		id                 string
	}{
		{"insufficient scope", call("submit_application"), "jobs:read", nil, 403, 403, `"one"`},
		{"undeclared", call("nothing"), "jobs:read", nil, 403, 403, `"one"`},
		{"mismatch", call("search_jobs"), "jobs:read", []string{"Mcp-Name", "x"}, 400, -32020, `"one"`},
		{"number", strings.Replace(call("nothing"), `"one"`, "17", 1), "jobs:read", nil, 403, 403, "17"},
		{"malformed", "{", "jobs:read", nil, 400, -32700, ""},
		{"two readings", strings.Replace(call("search_jobs"), `"method"`, `"Method"`, 1), "jobs:read", nil, 400, -32600, ""},
		{"name missing", `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{}}`, "jobs:read", nil, 400, -32600, "5"},
		{"id that is none", strings.Replace(call("nothing"), `"one"`, `{"a":1}`, 1), "jobs:read", nil, 403, 403, ""},
		{"long id", strings.Replace(call("nothing"), `"one"`, `"`+strings.Repeat("x", 1000)+`"`, 1), "jobs:read", nil, 403, 403, ""},
		{"batch", "[" + call("nothing") + "]", "jobs:read", nil, 403, 403, `"one"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, refusal := s.message(c.body, c.scopes, c.fields...)
			if refusal == nil {
				t.Fatal("let through")
			}
			w := httptest.NewRecorder()
			validator.WriteRefusal(w, post(c.body), refusal)
			var answer struct {
				Version string          `json:"jsonrpc"`
				ID      json.RawMessage `json:"id"`
				Error   struct {
					Code int64
					Data struct {
						Error string `json:"error"`
					}
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			if w.Code != c.status || answer.Version != "2.0" || answer.Error.Code != c.code || string(answer.ID) != c.id || answer.Error.Data.Error != refusal.Code {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}

// toolsRead returns every tool that a Go reader of the body would call: the
// standard library's (which ignores case and lets the last member win), one that
// lets the first win, one that stops after the first value, and the MCP SDK's.
func toolsRead(body []byte) (tools []string) {
	type params struct {
		Name string `json:"name"`
	}
	type message struct {
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
	}
	add := func(method string, raw json.RawMessage) {
		var p params
		if method == "tools/call" && json.Unmarshal(raw, &p) == nil {
			tools = append(tools, p.Name)
		}
	}
	var one message
	if json.NewDecoder(bytes.NewReader(body)).Decode(&one) == nil {
		add(one.Method, one.Params)
	}
	var several []message
	if json.NewDecoder(bytes.NewReader(body)).Decode(&several) == nil {
		for _, m := range several {
			add(m.Method, m.Params)
		}
	}
	first := firstMembers(body)
	add(text(first["method"]), first["params"])
	if inner := firstMembers(first["params"]); text(first["method"]) == "tools/call" {
		tools = append(tools, text(inner["name"]))
	}
	var raw []json.RawMessage
	if json.Unmarshal(body, &raw) != nil {
		raw = []json.RawMessage{body}
	}
	for _, r := range raw {
		if m, err := jsonrpc.DecodeMessage(r); err == nil {
			if request, ok := m.(*jsonrpc.Request); ok {
				add(request.Method, request.Params)
			}
		}
	}
	return tools
}

// firstMembers reads an object as one who lets the first of two members win.
func firstMembers(raw json.RawMessage) map[string]json.RawMessage {
	members := make(map[string]json.RawMessage)
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return nil
	}
	for decoder.More() {
		name, err := decoder.Token()
		var value json.RawMessage
		if err != nil || decoder.Decode(&value) != nil {
			return members
		}
		if _, seen := members[name.(string)]; !seen {
			members[name.(string)] = value
		}
	}
	return members
}

func text(raw json.RawMessage) (s string) {
	_ = json.Unmarshal(raw, &s)
	return s
}

// MCP-03: the tool that an upstream executes is one whose rule allowed it: what
// passes is read by no Go reader as a call of another tool. (The readers of
// other languages: e2e.TestNoReaderFindsAnotherTool.)
func FuzzNoReaderFindsAnotherTool(f *testing.F) {
	for _, body := range slices.Concat(validatortest.HostileBodies("search_jobs", "submit_application"), validatortest.HonestBodies("search_jobs")) {
		f.Add([]byte(body.Text))
	}
	s := newToolScene(f, validator.AccessAuthenticated)
	token := s.minter.Token(validatortest.Claims("jobs:read"))
	allowed := []string{"search_jobs", "suggest", "whoami", "ping"}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := post(string(body))
		r.Header.Set("Authorization", "Bearer "+token)
		decision, refusal := s.decide(r)
		if refusal != nil {
			return
		}
		forwarded, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(forwarded, body) {
			t.Fatalf("%q became %q", body, forwarded)
		}
		for _, tool := range toolsRead(forwarded) {
			if !slices.Contains(allowed, tool) {
				t.Fatalf("%q passed by %s, and is read as a call of %q", body, decision.Rule, tool)
			}
		}
	})
}

// What tool rules cost, and that other requests pay nothing for them.
func BenchmarkAuthorizeToolCall(b *testing.B) {
	s := newScene(b, func(c *validator.Config) {
		path := accessRule("*", "/mcp", validator.AccessAuthenticated)
		path.Tools = boardTools()
		c.Rules, c.Tokens = append(c.Rules, path), validator.NewTokenCache(1000, 1<<20)
	})
	authorization := []string{"Bearer " + s.minter.Token(validatortest.Claims("jobs:read"))}
	for _, size := range []int{0, 1 << 10, 64 << 10} {
		body := strings.Replace(call("search_jobs"), `"arguments":{}`, `"arguments":{"q":"`+strings.Repeat("x", size)+`"}`, 1)
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			r := post(body)
			r.Header["Authorization"] = authorization
			for b.Loop() {
				r.Body = io.NopCloser(strings.NewReader(body))
				if _, err := s.Authorize(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
