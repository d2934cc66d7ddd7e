package caddymodule_test

import (
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// UPS-17: a line means the same in a Caddyfile and to validator.ParseRule, and what
// one refuses the other does too.
func TestRulesOfTextAndCaddyfileAreOne(t *testing.T) {
	setSecrets(t)
	catalog, err := oauth.NewCatalog([]oauth.Scope{{Name: "jobs:read", Description: "Search jobs"}, {Name: "jobs:write", Description: "Post jobs"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"GET /jobs jobs:read", "GET,POST /jobs/* jobs:read jobs:write", "* /me authenticated", "GET /health public", "GET /x any jobs:read jobs:write",
		"POST /jobs jobs:write roles=recruiter,admin", "GET /x authenticated roles=a tenant=b", "GET /jobs/{id} jobs:read", "* /* public",
		"GET /jobs", "GET", "GET /jobs any jobs:read", "GET /jobs public jobs:read", "GET /jobs jobs:read public", "GET /jobs authenticated jobs:read",
		"GET /jobs roles=x", "GET /jobs roles=x jobs:read", "GET /jobs jobs:read jobs:read", "GRAB /jobs jobs:read", "GET,GET /jobs jobs:read",
		"GET jobs jobs:read", "GET /jobs/../x jobs:read", "GET /jobs jobs:delete", "GET /jobs public roles=x", "GET /jobs jobs:read roles=",
	} {
		read, err := validator.ParseRule(line, "here")
		if err == nil {
			_, err = validator.New(validator.Config{
				Issuer: "i", Resource: "https://api.example.com", Catalog: catalog, Rules: []validator.Rule{read},
				Keys: validatortest.NewMinter(t), Sessions: validatortest.NewSessions(),
			})
		}
		refused := validate(t, strings.Replace(ruleTestConfig, "RULE", line, 1))
		if (err == nil) != (refused == nil) {
			t.Errorf("%s: ParseRule says %v, the Caddyfile %v", line, err, refused)
		}
		if err == nil && read.String() != line {
			t.Errorf("%s: read as %s", line, read)
		}
	}
}

const ruleTestConfig = `{
	admin off
	oauth {
		issuer https://api.example.com
		postgres {env.DATABASE_URL}
		secret {env.OAUTH_SECRET}
		scope jobs:read "Search jobs"
		scope jobs:write "Post jobs"
		login password
	}
}

:8080 {
	oauth_server
	oauth_protect {
		RULE
	}
}
`
