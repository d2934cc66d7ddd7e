package caddymodule

import (
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/validator"
)

// UPS-17: a line means the same in a Caddyfile and to validator.ParseRule, and what
// one refuses the other does too.
func TestRulesOfTextAndCaddyfileAreOne(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"GET /jobs jobs:read", "GET,POST /jobs/* jobs:read jobs:write", "* /me authenticated", "GET /health public", "GET /x any jobs:read jobs:write",
		"POST /jobs jobs:write roles=recruiter,admin", "GET /x authenticated roles=a tenant=b", "GET /jobs/{id} jobs:read", "* /* public",
		"GET /jobs", "GET", "GET /jobs any jobs:read", "GET /jobs public jobs:read", "GET /jobs jobs:read public", "GET /jobs authenticated jobs:read",
		"GET /jobs roles=x", "GET /jobs roles=x jobs:read", "GET /jobs jobs:read jobs:read", "get /jobs jobs:read", "GRAB /jobs jobs:read", "GET,GET /jobs jobs:read",
		"GET jobs jobs:read", "GET /jobs/../x jobs:read", "GET /jobs jobs:delete", "GET /jobs public roles=x", "GET /jobs jobs:read roles=", "GET /jobs a\"b",
	} {
		read, err := validator.ParseRule(line, "")
		if err == nil {
			_, err = newTableOf(read)
		}
		config := strings.Replace(ruleTestConfig, "RULE", line, 1)
		refused := validate(t, config)
		if (err == nil) != (refused == nil) {
			t.Errorf("%s: ParseRule says %v, the Caddyfile %v", line, err, refused)
		}
		if err == nil && read.String() != line {
			t.Errorf("%s: read as %s", line, read)
		}
	}
}
