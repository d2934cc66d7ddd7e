package openapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/openapi"
)

// listed parses a document and writes its operations in one line.
func listed(name, content, prefix string) (string, error) {
	d, err := openapi.Parse(name, []byte(content))
	if err != nil {
		return "", err
	}
	operations, err := d.Operations(prefix)
	if err != nil {
		return "", err
	}
	var texts []string
	for _, o := range operations {
		if o.Problem != nil {
			return "", o.Problem
		}
		texts = append(texts, o.Method+" "+o.Path)
	}
	return strings.Join(texts, ", "), nil
}

// RULE-07: TestBrokenDocumentsAreErrorsWithTheirPlace
func TestBrokenDocumentsAreErrorsWithTheirPlace(t *testing.T) {
	t.Parallel()
	const start = "openapi: 3.0.3\n"
	for _, c := range []struct{ name, content, want string }{
		{"empty", "", "is empty"},
		{"no YAML", "a: [", "is no YAML"},
		{"no JSON", `{"openapi": "3.1.0",`, "is no JSON: line 1"},
		{"two JSON documents", "{}\n{}", "something follows"},
		{"no document", "a: 1", "is no OpenAPI document"},
		{"a list", "- 1", "api.yaml:1: a mapping is expected"},
		{"Swagger", "swagger: '2.0'", "api.yaml:1: Swagger 2.0 is not supported"},
		{"later version", "openapi: 4.0.0", "api.yaml:1: OpenAPI 4.0.0 is not supported"},
		{"paths twice", start + "paths: {}\npaths: {}", "api.yaml:3: paths stands twice, first at line 2"},
		{"a path twice", start + "paths:\n  /a: {}\n  /a: {}", "api.yaml:4: /a stands twice"},
		{"an operation twice", start + "paths:\n  /a:\n    get: {}\n    get: {}", "api.yaml:5: get stands twice"},
		{"relative path", start + "paths:\n  a: {}", "api.yaml:3: path \"a\" does not begin with a slash"},
		{"reference to elsewhere", start + "paths:\n  /a: {$ref: 'other.yaml#/a'}", "api.yaml:3: $ref \"other.yaml#/a\" leads out of the document"},
		{"reference to nothing", start + "paths:\n  /a: {$ref: '#/components/pathItems/A'}", "leads nowhere"},
		{"reference that is no pointer", start + "paths:\n  /a: {$ref: '#A'}", "is no JSON pointer"},
		{"circle", start + "paths:\n  /a: {$ref: '#/paths/~1b'}\n  /b: {$ref: '#/paths/~1a'}", "leads in a circle"},
		{"beside a reference", start + "paths:\n  /a: {$ref: '#/paths/~1b', get: {}}\n  /b: {}", "get stands beside $ref"},
		{"merged with itself", start + "paths: &p\n  <<: *p", "merges itself"},
		{"JSON nested too deep", `{"openapi":"3.1.0","x":` + strings.Repeat("[", 5000), "nested too deep"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got, err := listed("api.yaml", c.content, ""); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "api.yaml:") {
				t.Errorf("got %q and %v, want %q", got, err, c.want)
			}
		})
	}
}

// TestOperationsHaveThePathsThatTheGateSees: prefixes of servers, escapes,
// names of parameters.
func TestOperationsHaveThePathsThatTheGateSees(t *testing.T) {
	t.Parallel()
	const get = ": {get: {}}\n"
	for _, c := range []struct{ name, servers, path, prefix, want string }{
		{"no server", "", "/jobs", "", "GET /jobs"},
		{"server without a path", "servers: [{url: 'https://a.example'}]", "/jobs", "", "GET /jobs"},
		{"server with a path", "servers: [{url: 'https://a.example/v1/'}]", "/jobs/", "", "GET /v1/jobs/"},
		{"server that is a path", "servers: [{url: /v1}]", "/", "", "GET /v1/"},
		{"servers with one path", "servers: [{url: 'https://a.example/v1'}, {url: 'http://b.example:8/v1/'}]", "/jobs", "", "GET /v1/jobs"},
		{"variable in the host", "servers: [{url: 'https://{host}/v1', variables: {host: {default: a}}}]", "/jobs", "", "GET /v1/jobs"},
		{"variable with one value", "servers: [{url: 'https://a.example/{v}', variables: {v: {default: v2, enum: [v2]}}}]", "/jobs", "", "GET /v2/jobs"},
		{"given prefix", "servers: [{url: 'https://a.example/v1'}, {url: /v2}]", "/jobs", "/api", "GET /api/jobs"},
		{"given no prefix", "servers: [{url: 'https://a.example/v1'}]", "/jobs", "/", "GET /jobs"},
		{"parameter", "", "/jobs/{job.id}/notes", "", "GET /jobs/{job_id}/notes"},
		{"escape", "", "/caf%C3%A9", "", "GET /café"},

		{"servers with two paths", "servers: [{url: 'https://a.example/v1'}, {url: /v2}]", "/jobs", "", "different paths (/v1/, /v2/)"},
		{"variable with several values", "servers: [{url: '/{v}', variables: {v: {default: v2, enum: [v1, v2]}}}]", "/jobs", "", "a variable with several values"},
		{"variable that is not declared", "servers: [{url: '/{v}'}]", "/jobs", "", "a variable with several values"},
		{"relative server", "servers: [{url: v1}]", "/jobs", "", "has no path that can be told"},
		{"part of a segment", "", "/files/{name}.json", "", "is a template in part"},
		{"two in a segment", "", "/files/{a}{b}", "", "is a template in part"},
		{"more than a segment", "", "/files/{+path}", "", "is no template such as {id}"},
		{"escaped slash", "", "/a%2Fb", "", "has an escape that no path of a rule has"},
		{"star", "", "/a/*", "", "has * ? or #"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := listed("api.yaml", "openapi: 3.1.0\n"+c.servers+"\npaths:\n  '"+c.path+"'"+get, c.prefix)
			if err != nil {
				got = err.Error()
				if !strings.HasPrefix(got, "api.yaml:") || !strings.Contains(got, "GET "+c.path) || !strings.Contains(got, c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestReferencesAliasesAndMergesAreFollowed
func TestReferencesAliasesAndMergesAreFollowed(t *testing.T) {
	t.Parallel()
	const document = `openapi: 3.1.0
servers: [{url: /v1}]
x-common: &common {get: {operationId: one}, put: {}}
paths:
  x-note: nothing
  /a: {$ref: '#/components/pathItems/A', summary: of A}
  /b: {<<: *common, get: {operationId: own, servers: [{url: /v2}]}}
  /c: *common
components:
  pathItems:
    A: {$ref: '#/components/pathItems/A~1B%20C'}
    "A/B C": {servers: [{url: /v3}], post: {}, head: {}, options: {}, patch: {}, delete: {}}
`
	const want = "POST /v3/a, DELETE /v3/a, OPTIONS /v3/a, HEAD /v3/a, PATCH /v3/a, GET /v2/b, PUT /v1/b, GET /v1/c, PUT /v1/c"
	if got, err := listed("api.yaml", document, ""); err != nil || got != want {
		t.Errorf("%s %v", got, err)
	}
}

// TestJSONIsReadAsYAMLIs, with tabs, which YAML forbids, and with its lines.
func TestJSONIsReadAsYAMLIs(t *testing.T) {
	t.Parallel()
	const document = "\xef\xbb\xbf{\n\t\"openapi\": \"3.0.3\",\n\t\"paths\": {\n\t\t\"/a/{id}\": {\n\t\t\t\"get\": {\"operationId\": \"a\"},\n\t\t\t\"trace\": {}\n\t\t}\n\t}\n}\n"
	_, err := listed("api.json", document, "")
	if want := "api.json:6: TRACE /a/{id}: the gate refuses TRACE, whatever a rule says"; fmt.Sprint(err) != want {
		t.Errorf("%v", err)
	}
	if got, err := listed("api.json", strings.Replace(document, "trace", "put", 1), ""); err != nil || got != "GET /a/{id}, PUT /a/{id}" {
		t.Errorf("%s %v", got, err)
	}
}
