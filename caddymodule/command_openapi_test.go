package caddymodule

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// RULE-11: TestDocumentIsCompletedForActions: what a custom GPT needs, from the rules.
func TestDocumentIsCompletedForActions(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	long := strings.Repeat("Finds jobs that suit somebody. ", 20)
	file := filepath.Join(t.TempDir(), "api.yaml")
	document := `openapi: 3.1.0
info: {title: Job board, version: "7"}
servers: [{url: "http://internal:9001/"}]
security: [{key: []}]
paths:
  /jobs/{id}: # one job
    parameters: [{$ref: '#/components/parameters/id'}]
    get:
      operationId: jobs/get
      description: ` + long + `
      responses: {"200": {description: OK, content: {application/json: {schema: {$ref: '#/components/schemas/Job'}}}}}
    delete: &delete {responses: {"204": {description: gone}}, servers: [{url: /}]}
    put: *delete
  /me: {$ref: '#/components/pathItems/Me'}
  /health: {get: {operationId: jobs_get, security: [{key: []}]}}
  /reports: {post: {operationId: report}}
components:
  parameters:
    id: {name: id, in: path, required: true, schema: {type: string}, description: ` + strings.Repeat("A very long name. ", 60) + `}
  pathItems:
    Me: {get: {summary: Who am I}}
  schemas: {Job: {type: object, properties: {n: {type: number, example: 1.50}}}}
  securitySchemes: {key: {type: apiKey, in: header, name: X-Key}}
`
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := oauthCommand(t, ruledConfig, "", "openapi", "--openapi", file, "--format", "json")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	notes, text := out[:strings.Index(out, "{\n")], out[strings.Index(out, "{\n"):]
	for _, want := range []string{
		"left out, because no rule lets anybody call it: PUT /jobs/{id}", `operationId "jobs/get" of GET /jobs/{id} is now "jobs_get"`,
		"shortened to 300 characters: description of GET /jobs/{id}", "shortened to 700 characters: a description in the parameters of /jobs/{id}",
		`operationId "jobs_get" of GET /health is now "jobs_get_2"`,
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not in\n%s", want, notes)
		}
	}
	type operation struct {
		OperationID string                `json:"operationId"`
		Description string                `json:"description"`
		Security    []map[string][]string `json:"security"`
		Servers     any                   `json:"servers"`
	}
	var got struct {
		Servers    []struct{ URL string }
		Security   any
		Paths      map[string]map[string]json.RawMessage
		Components struct {
			SecuritySchemes map[string]struct {
				Type  string
				Flows map[string]struct {
					AuthorizationURL string `json:"authorizationUrl"`
					TokenURL         string `json:"tokenUrl"`
					Scopes           map[string]string
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	flow := got.Components.SecuritySchemes["oauth"].Flows["authorizationCode"]
	if len(got.Servers) != 1 || got.Servers[0].URL != "https://api.example.com" || got.Security != nil || len(got.Components.SecuritySchemes) != 1 ||
		flow.AuthorizationURL != "https://api.example.com/oauth/authorize" || flow.TokenURL != "https://api.example.com/oauth/token" ||
		flow.Scopes["jobs:write"] != "Post jobs" || len(flow.Scopes) != 3 {
		t.Errorf("%s", text)
	}
	for name, want := range map[string]string{
		"/jobs/{id} get": `[{"oauth":["jobs:read"]}]`, "/jobs/{id} delete": `[{"oauth":["jobs:write"]}]`, "/me get": `[{"oauth":[]}]`, "/health get": `[]`,
		"/reports post": `[{"oauth":["admin"]},{"oauth":["jobs:write"]}]`,
	} {
		path, method, _ := strings.Cut(name, " ")
		var o operation
		if err := json.Unmarshal(got.Paths[path][method], &o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		security, _ := json.Marshal(o.Security)
		if string(security) != want || o.OperationID == "" || len(o.Description) > 300 || o.Servers != nil {
			t.Errorf("%s: %s", name, got.Paths[path][method])
		}
	}
	if got.Paths["/jobs/{id}"]["put"] != nil || !strings.Contains(text, `"example": 1.50`) {
		t.Errorf("%s", text)
	}
	kept, err := oauthCommand(t, ruledConfig, "", "openapi", "--openapi", file, "--full-text")
	if err != nil || !strings.Contains(kept, "# one job") || !strings.Contains(strings.Join(strings.Fields(kept), " "), strings.Join(strings.Fields(long), " ")) || strings.Contains(kept, "shortened") {
		t.Errorf("%v %s", err, kept)
	}
}

// RULE-11: TestDocumentOfRulesIsTheirs: random tables written as a document, and read
// again by a gate, are the same rules.
func TestDocumentOfRulesIsTheirs(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	dir := t.TempDir()
	written := 0
	configuration := func(block string) string {
		return "{\noauth {\nissuer https://api.example.com\npostgres postgres://127.0.0.1:1/none\nscope s1 One\nscope s2 Two\nscope s3 Three\nlogin password\n}\n}\napi.example.com {\noauth_server\noauth_protect {\n" + block + "}\nreverse_proxy 127.0.0.1:1\n}\n"
	}
	rapid.Check(t, func(rt *rapid.T) {
		if written > 40 { // enough
			return
		}
		var table strings.Builder
		for range rapid.IntRange(1, 6).Draw(rt, "rules") {
			fmt.Fprintf(&table, "%s /%s%s %s\n", rapid.SampledFrom([]string{"GET", "HEAD", "POST", "DELETE", "OPTIONS"}).Draw(rt, "method"),
				strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "{x}", "é", "~c"}), 1, 3).Draw(rt, "segments"), "/"), rapid.SampledFrom([]string{"", "", "/"}).Draw(rt, "end"),
				rapid.SampledFrom([]string{"s1", "s1 s2", "any s1 s3", "authenticated", "public"}).Draw(rt, "needs"))
		}
		was, err := tryRehearse(configuration(table.String()))
		if err != nil {
			return // rules that cannot stand beside each other
		}
		file := filepath.Join(dir, "api.yaml")
		if err := os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte(configuration(table.String())), 0o600); err != nil {
			rt.Fatal(err)
		}
		if out, err := runCommand(t, "openapi", "--config", filepath.Join(dir, "Caddyfile"), "--adapter", "caddyfile", "--output", file,
			"--format", rapid.SampledFrom([]string{"yaml", "json"}).Draw(rt, "format")); err != nil {
			rt.Fatalf("%v %s\n%s", err, out, table.String())
		}
		is, err := tryRehearse(configuration("openapi " + file + "\n"))
		if err != nil {
			rt.Fatalf("%v\n%s", err, table.String())
		}
		if before, now := ruleTexts(was), ruleTexts(is); !slices.Equal(before, now) {
			rt.Fatalf("%q became %q", before, now)
		}
		written++
	})
	if written < 20 {
		t.Errorf("%d documents show too little", written)
	}
}

func ruleTexts(h *rehearsal) []string {
	var texts []string
	for _, rule := range h.app.gates[0].resource.Rules() {
		texts = append(texts, rule.String())
	}
	slices.Sort(texts)
	return texts
}

// RULE-11: TestReadyDocumentIsCompleted: a large one, within the bounds of custom GPTs.
func TestReadyDocumentIsCompleted(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	file := readyDocument(t)
	config := "{\noauth {\nissuer https://api.example.com\npostgres postgres://127.0.0.1:1/none\nscopes_from " + file + "\nlogin password\n}\n}\napi.example.com {\noauth_server\noauth_protect {\nGET /api/* okta.users.read\nPOST /api/* okta.users.manage\n}\nreverse_proxy 127.0.0.1:1\n}\n"
	out, err := oauthCommand(t, config, "", "openapi", "--openapi", file, "--format", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{\n  \""):]), &got); err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool)
	for path, item := range got.Paths {
		for method, raw := range item {
			var o struct {
				OperationID          string `json:"operationId"`
				Summary, Description string
			}
			if method != "get" && method != "post" || json.Unmarshal(raw, &o) != nil {
				continue
			}
			if ids[o.OperationID] || o.OperationID == "" || len(o.OperationID) > 64 || len([]rune(o.Description)) > 300 || len([]rune(o.Summary)) > 300 {
				t.Errorf("%s %s: %+v", method, path, o)
			}
			ids[o.OperationID] = true
		}
	}
	if len(ids) < 200 {
		t.Errorf("%d operations", len(ids))
	}
}

// RATE-13: TestDocumentTellsOfRates: where a rule has a rate, or its gate, the
// operation has the answer of who comes too often; the API's own one stays.
func TestDocumentTellsOfRates(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	config := func(gateRate string) string {
		return "{\noauth {\nissuer https://api.example.com\npostgres postgres://127.0.0.1:1/none\nscope jobs:read Jobs\nlogin password\n}\n}\napi.example.com {\noauth_server\n" +
			"oauth_protect {\n" + gateRate + "GET /free jobs:read\nGET,POST,PUT,DELETE /jobs jobs:read {\nrate 30/m per user\n}\n}\nreverse_proxy 127.0.0.1:1\n}\n"
	}
	const limits = "rate 600/m per client\n"
	file := filepath.Join(t.TempDir(), "api.yaml")
	document := `openapi: 3.0.3
info: {title: Job board, version: "7"}
paths:
  /free: {get: {responses: &shared {"200": {description: OK}, default: {description: whatever}}}}
  /jobs:
    get: {responses: *shared}
    post: {summary: says nothing}
    put: {responses: {<<: *shared, "201": {description: made}}}
    delete: {responses: {"429": {description: of the API}}}
components: {responses: {RateLimited: {description: of the API}}}
`
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	type response struct {
		Ref         string `json:"$ref"`
		Description string
		Headers     map[string]struct{ Schema struct{ Type string } }
	}
	type written struct {
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Responses map[string]response }
	}
	write := func(config string, args ...string) (w written, limited string) {
		t.Helper()
		out, err := oauthCommand(t, config, "", append([]string{"openapi", "--format", "json"}, args...)...)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := json.Unmarshal([]byte(out[strings.Index(out, "{\n"):]), &w); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var found []string
		for path, item := range w.Paths {
			for method, raw := range item {
				var o struct{ Responses map[string]response }
				if method == "parameters" {
					continue
				}
				if err := json.Unmarshal(raw, &o); err != nil {
					t.Fatal(err)
				}
				if got, ok := o.Responses["429"]; ok {
					found = append(found, strings.TrimSpace(method+path+" "+strings.TrimPrefix(got.Ref, "#/components/responses/")))
				}
			}
		}
		slices.Sort(found)
		return w, strings.Join(found, ", ")
	}
	w, limited := write(config(""), "--openapi", file)
	if want := "delete/jobs, get/jobs RateLimited_2, post/jobs RateLimited_2, put/jobs RateLimited_2"; limited != want {
		t.Errorf("429 for %s, want %s", limited, want)
	}
	if got := w.Components.Responses["RateLimited_2"]; got.Headers["Retry-After"].Schema.Type != "integer" || !strings.Contains(got.Description, "Retry-After") || w.Components.Responses["RateLimited"].Description != "of the API" {
		t.Errorf("%+v", w.Components)
	}
	if put := string(w.Paths["/jobs"]["put"]); !strings.Contains(put, "made") || !strings.Contains(put, "whatever") {
		t.Errorf("the API's own responses are gone: %s", put)
	}
	for name, want := range map[string]string{"": "delete/jobs RateLimited, get/jobs RateLimited, post/jobs RateLimited, put/jobs RateLimited",
		limits: "delete/jobs RateLimited, get/free RateLimited, get/jobs RateLimited, post/jobs RateLimited, put/jobs RateLimited"} {
		if w, limited := write(config(name)); limited != want || len(w.Components.Responses) != 1 {
			t.Errorf("%q: 429 for %s, want %s; %+v", name, limited, want, w.Components.Responses)
		}
	}
	unlimited := strings.Replace(config(""), " {\nrate 30/m per user\n}", "", 1)
	if w, limited := write(unlimited); limited != "" || w.Components.Responses != nil {
		t.Errorf("429 without a rate: %s %+v", limited, w.Components.Responses)
	}
	// What was written is completed again without another word.
	again := filepath.Join(t.TempDir(), "again.yaml")
	if out, err := oauthCommand(t, config(limits), "", "openapi", "--output", again); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	first, _ := os.ReadFile(again)
	if out, err := oauthCommand(t, config(limits), "", "openapi", "--openapi", again, "--output", again); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if second, _ := os.ReadFile(again); string(first) != string(second) {
		t.Errorf("%s\nbecame\n%s", first, second)
	}
}
