package validator_test

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"

	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

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
