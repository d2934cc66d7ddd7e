package validator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-scope/caddy-scope/validator"
)

const listTools = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`

// answer lets an upstream write through the filter of a request.
func (s *scene) answer(t require, body, scopes string, upstream func(w http.ResponseWriter)) (*httptest.ResponseRecorder, error) {
	t.Helper()
	decision, refusal := s.message(body, scopes)
	if refusal != nil {
		t.Fatalf("%v", refusal)
	}
	w := httptest.NewRecorder()
	filter := decision.FilterTools(w)
	if filter == nil {
		upstream(w)
		return w, nil
	}
	upstream(filter)
	return w, filter.Close()
}

// require is what *testing.T and *rapid.T share here.
type require interface {
	Helper()
	Fatalf(format string, args ...any)
}

func writing(kind string, parts ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Length", "999")
		for _, part := range parts {
			if _, err := w.Write([]byte(part)); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// MCP-09: a list holds the tools that the token may call; everything else, ids,
// order and spelling included, stays as the server wrote it.
func TestToolListHoldsWhatTheTokenMayCall(t *testing.T) {
	t.Parallel()
	const (
		list = "{ \"jsonrpc\":\"2.0\", \"id\" : 7e0, \"result\":{\"nextCursor\":\"c\",\"cacheScope\":\"public\", \"tools\" : [ {\"name\":\"search_jobs\",\"title\":\"é\\u00e9\"},\n" +
			"{\"name\":\"submit_application\",\"inputSchema\":{\"tools\":[1]}}, {\"title\":\"x\",\"name\":\"whoami\"},{\"name\":\"undeclared\"},{\"name\":7},\"odd\",{}], \"ttlMs\":5} }"
		want = "{ \"jsonrpc\":\"2.0\", \"id\" : 7e0, \"result\":{\"nextCursor\":\"c\",\"cacheScope\":\"private\", \"tools\" : [{\"name\":\"search_jobs\",\"title\":\"é\\u00e9\"},{\"title\":\"x\",\"name\":\"whoami\"}], \"ttlMs\":5} }"
		call = `{"jsonrpc":"2.0","id":2,"result":{"content":[{"type":"text","text":"\"tools\""}],"structuredContent":{"tools":[{"name":"undeclared"}]}}}`
	)
	s := newToolScene(t, validator.AccessAuthenticated)
	for _, c := range []struct {
		name, kind, answer, want string
	}{
		{"list", "application/json", list, want},
		{"with a charset", "application/json; charset=utf-8", list, want},
		{"batch", "application/json", "[" + call + "," + list + "]", "[" + call + "," + want + "]"},
		{"none left", "application/json", `{"result":{"tools":[{"name":"submit_application"}]}}`, `{"result":{"tools":[]}}`},
		{"all left", "application/json", `{"result":{"tools":[ {"name":"ping"} ]}}`, `{"result":{"tools":[ {"name":"ping"} ]}}`},
		{"empty", "application/json", `{"result":{"tools":[]}}`, `{"result":{"tools":[]}}`},
		{"no list", "application/json", call, call},
		{"a request of the server", "application/json", `{"method":"sampling/createMessage","params":{"tools":[{"name":"undeclared"}]}}`, `{"method":"sampling/createMessage","params":{"tools":[{"name":"undeclared"}]}}`},
		{"error", "application/json", `{"error":{"code":1,"message":"tools"}}`, `{"error":{"code":1,"message":"tools"}}`},
		{"nothing", "application/json", "", ""},
		{"other type", "text/plain", list, list},
		{"event", "text/event-stream", "id: 1\nevent: message\ndata: " + strings.ReplaceAll(list, "\n", "") + "\n\n", "id: 1\nevent: message\ndata: " + want + "\n\n"},
		{"event on lines", "text/event-stream", ": hi\ndata: " + strings.ReplaceAll(list, "\n", "\ndata:") + "\nid: 2\n\n", ": hi\ndata: " + want + "\nid: 2\n\n"},
		{"event with CR LF", "text/event-stream", "data:{\"result\":{\"tools\":[{\"name\":\"x\"}]}}\r\nid:3\r\n\r\n", "data: {\"result\":{\"tools\":[]}}\nid:3\r\n\r\n"},
		{"event with a mark", "text/event-stream", "\ufeffdata: {\"result\":{\"tools\":[{\"name\":\"x\"}]}}\n\n", "data: {\"result\":{\"tools\":[]}}\n\n"},
		{"several events", "text/event-stream", "data: " + call + "\n\n: alive\n\ndata: " + strings.ReplaceAll(list, "\n", "") + "\n\n", "data: " + call + "\n\n: alive\n\ndata: " + want + "\n\n"},
		{"event without an end", "text/event-stream", "data: {\"result\":{\"tools\":[{\"name\":\"x\"}]}}", "data: {\"result\":{\"tools\":[]}}\n"},
		{"no message", "text/event-stream", "event: endpoint\ndata: /messages?session=1\n\nretry: 3\n\n", "event: endpoint\ndata: /messages?session=1\n\nretry: 3\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, err := s.answer(t, listTools, "jobs:read", writing(c.kind, c.answer))
			if err != nil || w.Body.String() != c.want {
				t.Errorf("%v\ngot  %q\nwant %q", err, w.Body, c.want)
			}
			if length := w.Header().Get("Content-Length"); c.kind != "text/plain" && length == "999" || strings.HasPrefix(c.kind, "application/json") && c.want != "" && length != fmt.Sprint(len(c.want)) {
				t.Errorf("Content-Length %q", length)
			}
		})
	}
	for name, c := range map[string]struct {
		scene  *scene
		scopes string
		want   string
	}{
		"by hierarchy":  {s, "applications:write", `{"result":{"tools":[{"name":"list_applications"},{"name":"submit_application"}]}}`},
		"public path":   {newToolScene(t, validator.AccessPublic), "none", `{"result":{"tools":[{"name":"search_jobs"},{"name":"list_applications"},{"name":"submit_application"}]}}`},
		"beyond a path": {newToolScene(t, validator.AccessScopes, "jobs:read"), "jobs:read", `{"result":{"tools":[{"name":"search_jobs"}]}}`},
		"declared": {newScene(t, func(c *validator.Config) {
			path := accessRule("*", "/mcp", validator.AccessAuthenticated)
			path.Tools = boardTools()
			path.Tools.ListDeclared = true
			c.Rules = []validator.Rule{path}
		}), "resume:read", `{"result":{"tools":[{"name":"search_jobs"},{"name":"list_applications"},{"name":"submit_application"}]}}`},
	} {
		w, err := c.scene.answer(t, listTools, c.scopes, writing("application/json",
			`{"result":{"tools":[{"name":"undeclared"},{"name":"search_jobs"},{"name":"list_applications"},{"name":"submit_application"}]}}`))
		if err != nil || w.Body.String() != c.want {
			t.Errorf("%s: %v %s", name, err, w.Body)
		}
	}
}

// MCP-09: wherever the network tears a stream apart, the same bytes come out, and
// each event as soon as it is whole.
func TestEventsAreFilteredWhereverTheyAreTorn(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	const stream = ": hello\r\n\r\ndata: {\"method\":\"notifications/progress\"}\n\nid: 1\rdata: {\"result\":\rdata: {\"tools\":[{\"name\":\"x\"},{\"name\":\"ping\"}]}}\r\rdata: {\"id\":2}\r\n\r\n"
	const want = ": hello\r\n\r\ndata: {\"method\":\"notifications/progress\"}\n\nid: 1\rdata: {\"result\":\ndata: {\"tools\":[{\"name\":\"ping\"}]}}\n\rdata: {\"id\":2}\r\n\r\n"
	for first := range len(stream) {
		for _, second := range []int{first, (first + len(stream)) / 2, len(stream)} {
			w, err := s.answer(t, listTools, "jobs:read", writing("text/event-stream", stream[:first], stream[first:second], stream[second:]))
			if err != nil || w.Body.String() != want {
				t.Fatalf("torn at %d and %d: %v %q", first, second, err, w.Body)
			}
		}
	}
	decision, _ := s.message(listTools, "jobs:read")
	w := httptest.NewRecorder()
	filter := decision.FilterTools(w)
	filter.Header().Set("Content-Type", "text/event-stream")
	_, _ = filter.Write([]byte("data: 1\n\ndata: 2"))
	_ = http.NewResponseController(filter).Flush()
	if w.Body.String() != "data: 1\n\n" || !w.Flushed {
		t.Errorf("%q flushed %v", w.Body, w.Flushed)
	}
}

// MCP-10: what cannot be read is not passed on, and nothing is held without a
// bound.
func TestUnreadableToolListIsNotPassedOn(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	list := `{"result":{"tools":[{"name":"undeclared"}]}}`
	encoded := func(kind string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			writing(kind, list)(w)
		}
	}
	for name, upstream := range map[string]func(http.ResponseWriter){
		"encoded":        encoded("application/json"),
		"encoded stream": encoded("text/event-stream"),
		"malformed":      writing("application/json", list+"}"),
		"too large":      writing("application/json", list, strings.Repeat(" ", 5<<20)),
	} {
		w, err := s.answer(t, listTools, "jobs:read", upstream)
		if err == nil || w.Code != http.StatusBadGateway || strings.Contains(w.Body.String(), "undeclared") || w.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s: %v %d %.100s", name, err, w.Code, w.Body)
		}
	}
	for name, parts := range map[string][]string{
		"malformed event": {"data: 1\n\n", "data: " + list + "}\n\n", "data: 3\n\n"},
		"endless event":   {"data: 1\n\n", "data: ", strings.Repeat("x", 5<<20), "\n\n"},
	} {
		w, err := s.answer(t, listTools, "jobs:read", writing("text/event-stream", parts...))
		if err == nil || w.Body.String() != "data: 1\n\n" {
			t.Errorf("%s: %v %.100q", name, err, w.Body)
		}
	}
}

// Only answers that may list tools are looked at: one request in many.
func TestOtherAnswersAreNotFiltered(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	for _, body := range []string{call("search_jobs"), `{"jsonrpc":"2.0","id":1,"method":"initialize"}`} {
		if decision, _ := s.message(body, "jobs:read"); decision.FilterTools(httptest.NewRecorder()) != nil {
			t.Errorf("the answer to %s is filtered", body)
		}
	}
	decision, _ := s.call("GET", "/mcp", "")
	if decision.FilterTools(httptest.NewRecorder()) != nil {
		t.Error("the answer to a refused request is filtered")
	}
}

// The filter against a model: encoding/json.
func TestFilteredListAgreesWithAModel(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	callable := map[string]bool{"search_jobs": true, "suggest": true, "whoami": true, "ping": true}
	name := rapid.SampledFrom([]string{"search_jobs", "suggest", "whoami", "ping", "submit_application", "analyze_resume", "undeclared", "ping ", ""})
	filler := rapid.SampledFrom([]string{`"x":1,`, `"a":{"name":"ping","tools":[{}]},`, `"s":"}]\",{\\",`, `"é":[[],[{}]], `, ""})
	rapid.Check(t, func(t *rapid.T) {
		var tools, left []string
		for range rapid.IntRange(0, 6).Draw(t, "tools") {
			tool := name.Draw(t, "name")
			text := "{" + filler.Draw(t, "before") + `"name":` + quote(tool) + "}"
			tools = append(tools, text)
			if callable[tool] {
				left = append(left, text)
			}
		}
		before, space := filler.Draw(t, "member"), rapid.SampledFrom([]string{"", " ", "\n\t"}).Draw(t, "space")
		render := func(tools []string) string {
			return `{"id":1,"result":{` + before + `"tools":[` + space + strings.Join(tools, space+","+space) + space + `]}}`
		}
		w, err := s.answer(t, listTools, "jobs:read", writing("application/json", render(tools)))
		var got, want any
		if err != nil || json.Unmarshal(w.Body.Bytes(), &got) != nil || json.Unmarshal([]byte(render(left)), &want) != nil {
			t.Fatalf("%v %s", err, w.Body)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got %s, want %s", w.Body, render(left))
		}
	})
}

func quote(s string) string {
	quoted, _ := json.Marshal(s)
	return string(quoted)
}
