package validator_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
