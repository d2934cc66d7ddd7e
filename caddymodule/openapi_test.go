package caddymodule

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// RULE-06: TestRulesOfAnOpenAPIDocument: its security requirements are the rules of a
// live gate, and a line of the block replaces what it says.
func TestRulesOfAnOpenAPIDocument(t *testing.T) {
	s := newGateScene(t, "oauth_protect {\nopenapi testdata/openapi/jobs.yaml {\nexcept DELETE /jobs/{id}\n}\n* /v1/either public\nGET /other jobs:write\n}"+proxied,
		"scopes_from testdata/openapi/jobs.yaml")
	token := func(scopes string) string {
		return "Authorization: Bearer " + s.token(func(c map[string]any) { c["scope"] = scopes }) + "\n"
	}
	for _, c := range []struct {
		name, request, auth string
		want                int
	}{
		{"security of the document", "GET /v1/jobs", token("jobs:read"), 200},
		{"HEAD comes with GET", "HEAD /v1/jobs/7", token("jobs:read"), 200},
		{"another scope", "GET /v1/jobs", token("jobs:write"), 403},
		{"of the operation", "POST /v1/jobs", token("jobs:write"), 200},
		{"of the operation, another scope", "POST /v1/jobs", token("jobs:read"), 403},
		{"no scope named", "GET /v1/me", token("jobs:write"), 200},
		{"no scope named, nobody", "GET /v1/me", "", 401},
		{"public", "GET /v1/health", "", 200},
		{"replaced by a line", "GET /v1/either", "", 200},
		{"a line of its own", "GET /other", token("jobs:write"), 200},
		{"excepted", "DELETE /v1/jobs/7", token("jobs:read jobs:write"), 403},
		{"without the prefix of the server", "GET /jobs", token("jobs:read"), 403},
		{"not in the document", "PUT /v1/jobs", token("jobs:write"), 403},
	} {
		if got := s.raw(c.request + " HTTP/1.1\nHost: api.example.com\nConnection: close\n" + c.auth + "\n"); got.status != c.want {
			t.Errorf("%s: %d %s, want %d", c.name, got.status, got.body, c.want)
		}
	}
	h := rehearseCaddyfile(t, s.caddyfile("", "oauth_protect {\nopenapi testdata/openapi/jobs.yaml\n}"+proxied))
	told, err := h.explain(rehearsedRequest{method: "POST", path: "/v1/jobs", anyone: true})
	if err != nil || told.Rule == nil || told.Rule.Source != "testdata/openapi/jobs.yaml:9" {
		t.Errorf("%v %+v", err, told)
	}
}

// RULE-07: TestBrokenOpenAPIDocumentLeavesTheOldConfiguration: it is an error when the
// configuration is loaded, and what was loaded before goes on.
func TestBrokenOpenAPIDocumentLeavesTheOldConfiguration(t *testing.T) {
	document, err := os.ReadFile("testdata/openapi/jobs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "api.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(document))
	site := "oauth_protect {\nopenapi " + file + "\n}" + proxied
	s := newGateScene(t, site, "scopes_from "+file)
	asked := func() int { return s.get("/v1/jobs").status }
	if got := asked(); got != 200 {
		t.Fatalf("%d", got)
	}
	for name, text := range map[string]string{
		"no YAML": "a: [", "no document": "a: 1", "unclear": strings.Replace(string(document), "security: []", "security: [{}]", 1),
		"gone": "", "an undeclared scope": strings.ReplaceAll(string(document), "[jobs:read]", "[jobs:list]"),
		"a rule twice": strings.Replace(string(document), "/me:", "/jobs/{name}:", 1),
	} {
		if write(text); text == "" {
			os.Remove(file)
		}
		err := s.tryLoad("", site)
		if err == nil || !strings.Contains(err.Error(), "api.yaml") {
			t.Errorf("%s: %v", name, err)
		}
		if got := asked(); got != 200 {
			t.Errorf("%s: the old configuration answers %d", name, got)
		}
	}
	write(strings.ReplaceAll(string(document), "security:\n  - oauth: [jobs:read]", "security:\n  - oauth: [admin]"))
	s.load("", site)
	if got := asked(); got != 403 {
		t.Errorf("the changed document is not in force: %d", got)
	}
}

// RULE-08: TestReadyOpenAPIDocumentIsImported: that of a public API with some hundreds of
// operations, and its scopes.
func TestReadyOpenAPIDocumentIsImported(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	file := readyDocument(t)
	const caddyfile = `{
	oauth {
		issuer https://api.example.com
		postgres postgres://127.0.0.1:1/none
		scopes_from %[1]s
		login password
	}
}
api.example.com {
	oauth_server
	oauth_protect {
		openapi %[1]s {
			scheme oauth2
			%[2]s
		}
	}
	reverse_proxy 127.0.0.1:1
}
`
	if _, err := tryRehearse(fmt.Sprintf(caddyfile, file, "")); err == nil || !strings.Contains(err.Error(), "POST /api/v1/sessions (createSession): no alternative is of scheme oauth2") {
		t.Fatalf("%v", err)
	}
	h := rehearseCaddyfile(t, fmt.Sprintf(caddyfile, file, `except DELETE /api/v1/api-tokens/current
			except POST /api/v1/sessions
			except GET /api/v1/users/{userId}/factors/questions
			except POST /integrations/api/v1/api-services`))
	if n := len(h.app.gates[0].resource.Rules()); n < 300 {
		t.Errorf("%d rules", n)
	}
	told, err := h.explain(rehearsedRequest{method: "DELETE", path: "/api/v1/users/42", scopes: []string{"okta.users.read"}})
	if err != nil || told.Rule == nil || strings.Join(told.Missed, " ") != "okta.users.manage" {
		t.Errorf("%v %+v", err, told)
	}
}

// readyDocument unpacks the document of a public API.
func readyDocument(t testing.TB) string {
	t.Helper()
	packed, err := os.Open("../openapi/testdata/okta-management.yaml.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	reader, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "api.yaml")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// RULE-10: TestCrossingOperationsShareWhatBothRequire: which of them the upstream serves
// is not known.
func TestCrossingOperationsShareWhatBothRequire(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	load := func(first, second, line string) (*rehearsal, error) {
		file := filepath.Join(t.TempDir(), "api.yaml")
		document := `openapi: 3.1.0
components: {securitySchemes: {oauth: {type: oauth2, flows: {authorizationCode: {scopes: {a: A, b: B, c: C}}}}}}
paths:
  /groups/{id}/apps: {get: {security: ` + first + `}}
  /groups/rules/{id}: {get: {security: ` + second + `}}
  /groups/rules/{id}/{x}: {get: {security: [{oauth: [a]}]}}
  /groups/{id}/apps/{x}: {get: {security: [{oauth: [b]}]}}
  /{any}/rules/apps/y: {get: {security: [{oauth: [c]}]}}
`
		if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
			t.Fatal(err)
		}
		return tryRehearse("{\noauth {\nissuer https://api.example.com\npostgres postgres://127.0.0.1:1/none\nscopes_from " + file + "\nlogin password\n}\n}\napi.example.com {\noauth_server\noauth_protect {\nopenapi " + file + "\n" + line + "\n}\nreverse_proxy 127.0.0.1:1\n}\n")
	}
	for _, c := range []struct{ first, second, want string }{
		{"[{oauth: [a]}]", "[{oauth: [b]}]", "scopes a b"},
		{"[{oauth: [a]}]", "[{oauth: [a]}]", "scopes a"},
		{"[{oauth: []}]", "[{oauth: [b]}]", "scopes b"},
		{"[]", "[{oauth: [b]}]", "scopes b"},
		{"[]", "[{oauth: []}]", "authenticated "},
		{"[{oauth: [a]}, {oauth: [b]}]", "[]", "any a b"},
		{"[{oauth: [a]}, {oauth: [b]}]", "[{oauth: [b]}]", "scopes b"},
		{"[{oauth: [a]}, {oauth: [b]}]", "[{oauth: [b]}, {oauth: [c]}]", "what they require together is no rule: write a line for it"},
		{"[{oauth: [a]}, {oauth: [b]}]", "[{oauth: [c]}]", "what they require together is no rule: write a line for it"},
	} {
		h, err := load(c.first, c.second, "")
		if err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		told, err := h.explain(rehearsedRequest{method: "GET", path: "/groups/rules/apps", anyone: true})
		if err != nil || told.Rule == nil || told.Rule.Access+" "+strings.Join(told.Rule.Scopes, " ") != c.want {
			t.Errorf("%+v: %v %+v", c, err, told.Rule)
		}
		told, err = h.explain(rehearsedRequest{method: "GET", path: "/groups/rules/apps/y", anyone: true})
		if err != nil || told.Rule == nil || strings.Join(told.Rule.Scopes, " ") != "a b c" {
			t.Errorf("three cross: %v %+v", err, told.Rule)
		}
	}
	h, err := load("[{oauth: [a]}, {oauth: [b]}]", "[{oauth: [c]}]", "GET /groups/rules/apps b c")
	if err != nil {
		t.Fatal(err)
	}
	told, err := h.explain(rehearsedRequest{method: "GET", path: "/groups/rules/apps", anyone: true})
	if err != nil || told.Rule == nil || !strings.HasPrefix(told.Rule.Source, "Caddyfile:") {
		t.Errorf("a line decides: %v %+v", err, told.Rule)
	}
}
