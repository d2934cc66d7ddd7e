package validator_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

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
