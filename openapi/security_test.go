package openapi_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/openapi"
)

const head = `openapi: 3.1.0
info: {title: T, version: "1"}
components:
  securitySchemes:
    oauth:
      type: oauth2
      flows:
        authorizationCode:
          authorizationUrl: https://a.example/a
          tokenUrl: https://a.example/t
          scopes: {a: A, b: B, c: C}
    other: {type: oauth2, flows: {}}
    oidc: {$ref: '#/components/securitySchemes/aliased'}
    aliased: {type: openIdConnect, openIdConnectUrl: https://a.example}
    key: {type: apiKey, in: header, name: X-Key}
    bearer: {type: http, scheme: bearer}
`

// operation returns a document with one operation.
func operation(text string) string {
	return head + "paths:\n  /jobs/{id}:\n    get:\n      operationId: getJob\n      " + text + "\n"
}

// RULE-06: TestSecurityRequirementsBecomeRequirements: OpenAPI 3.1.1 section 4.8.30.
func TestSecurityRequirementsBecomeRequirements(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		ours       []string
		want       string // "access scopes", or part of an error
	}{
		{"scopes", "security: [{oauth: [b, a]}]", nil, "scopes a b"},
		{"no scope", "security: [{oauth: []}]", nil, "authenticated "},
		{"public", "security: []", nil, "public "},
		{"alternatives of one scope", "security: [{oauth: [a]}, {oauth: [b]}]", nil, "any a b"},
		{"an alternative that asks for more", "security: [{oauth: [a]}, {oauth: [a, b]}]", nil, "scopes a"},
		{"an alternative that asks for nothing", "security: [{oauth: [a]}, {oauth: []}]", nil, "authenticated "},
		{"the same twice", "security: [{oauth: [a]}, {oauth: [a]}]", nil, "scopes a"},
		{"OpenID Connect behind a reference", "security: [{oidc: [a]}]", nil, "scopes a"},
		{"a named scheme beside others", "security: [{oauth: [a], key: []}, {key: []}]", []string{"oauth"}, "scopes a"},
		{"a bearer scheme that is named", "security: [{bearer: []}]", []string{"bearer"}, "authenticated "},
		{"roles of a bearer scheme", "security: [{bearer: [a]}]", []string{"bearer"}, "scopes a"},
		{"two named schemes", "security: [{oauth: [a], other: [b]}]", []string{"oauth", "other"}, "scopes a b"},

		{"nothing said", "summary: x", nil, "neither it nor the document says what it requires"},
		{"optional", "security: [{}, {oauth: [a]}]", nil, "credentials are optional"},
		{"optional beside a named scheme", "security: [{oauth: [a]}, {}]", []string{"oauth"}, "credentials are optional"},
		{"alternatives that are no rule", "security: [{oauth: [a, b]}, {oauth: [c]}]", nil, "([a b] or [c])"},
		{"another scheme", "security: [{oauth: [a]}, {key: []}]", nil, "scheme key is of type apiKey"},
		{"another scheme beside it", "security: [{oauth: [a], key: []}]", nil, "scheme key is of type apiKey"},
		{"two tokens", "security: [{oauth: [a], other: [b]}]", nil, "two tokens are needed, of oauth and other"},
		{"none of the named schemes", "security: [{key: []}]", []string{"oauth"}, "no alternative is of scheme oauth"},
		{"undeclared scheme", "security: [{nope: []}]", nil, "nope is not declared"},
		{"no list", "security: {oauth: [a]}", nil, "security is no list"},
		{"scopes that are no list", "security: [{oauth: a}]", nil, "are no list"},
		{"a scope that is none", "security: [{oauth: ['a b']}]", nil, `"a b" is no name of a scope`},
		{"a scheme twice", "security: [{oauth: [a], oauth: [b]}]", nil, "oauth stands twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := requirementOf(operation(c.text), c.ours)
			if err == nil {
				if got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
				return
			}
			var unclear *openapi.Error
			if !errors.As(err, &unclear) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(unclear.Source, "api.yaml:") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if unclear.Operation != "GET /jobs/{id} (getJob)" && !strings.Contains(c.want, "twice") {
				t.Errorf("the error names no operation: %v", err)
			}
		})
	}
}

// requirementOf reads the only operation of a document.
func requirementOf(document string, ours []string) (string, error) {
	d, err := openapi.Parse("api.yaml", []byte(document))
	if err != nil {
		return "", err
	}
	operations, err := d.Operations("")
	if err != nil {
		return "", err
	}
	s, err := d.Security(ours)
	if err != nil {
		return "", err
	}
	r, err := s.Of(operations[0])
	return r.Access + " " + r.Scopes.String(), err
}

// TestSecurityOfTheDocumentHoldsWhereAnOperationSaysNothing
func TestSecurityOfTheDocumentHoldsWhereAnOperationSaysNothing(t *testing.T) {
	t.Parallel()
	general := strings.Replace(operation("summary: x"), "paths:", "security: [{oauth: [c]}]\npaths:", 1)
	if got, err := requirementOf(general, nil); err != nil || got != "scopes c" {
		t.Errorf("%q %v", got, err)
	}
	own := strings.Replace(operation("security: []"), "paths:", "security: [{oauth: [c]}]\npaths:", 1)
	if got, err := requirementOf(own, nil); err != nil || got != "public " {
		t.Errorf("%q %v", got, err)
	}
}

// TestScopesOfTheFlows
func TestScopesOfTheFlows(t *testing.T) {
	t.Parallel()
	d, err := openapi.Parse("api.yaml", []byte(operation("security: []")))
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Security(nil)
	if err != nil {
		t.Fatal(err)
	}
	scopes, err := s.Scopes(func(name string) bool { return name == "c" })
	var got []string
	for _, scope := range scopes {
		got = append(got, scope.Name+" "+scope.Description)
	}
	if err != nil || strings.Join(got, ", ") != "a A, b B" {
		t.Errorf("%q %v", got, err)
	}
	bare, err := openapi.Parse("api.yaml", []byte(strings.Replace(head, "b: B", "b: ''", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if s, err = bare.Security(nil); err != nil {
		t.Fatal(err)
	}
	if _, err = s.Scopes(func(name string) bool { return name == "c" }); err == nil || !strings.Contains(err.Error(), "api.yaml:11: scope b has no description") {
		t.Errorf("%v", err)
	}
	if _, err := d.Security([]string{"nope"}); err == nil || !strings.Contains(err.Error(), "scheme nope") {
		t.Errorf("%v", err)
	}
}
