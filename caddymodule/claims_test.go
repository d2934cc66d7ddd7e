package caddymodule

import (
	"strings"
	"testing"
)

// claimedConfig has a rule and a tool that ask something of the user.
const claimedConfig = `{
	admin off
	oauth {
		issuer https://api.example.com
		postgres postgres://nobody@127.0.0.1:1/none
		secret a-secret-of-the-test-that-is-long-enough
		scope jobs:read "Search jobs"
		scope jobs:write "Post jobs"
		client gpt {
			name GPT
			secret a-client-secret-that-is-long-enough
			redirect_uri https://chatgpt.com/cb
		}
		login forward https://app.example.com/me {
			user_header X-User
			claim roles X-Roles list
			claim org X-Org
			sign_in https://app.example.com/in
		}
	}
}
api.example.com {
	oauth_server
	handle {
		oauth_protect {
			GET  /jobs     jobs:read
			PUT /jobs     jobs:write roles=recruiter,admin org=acme
			GET  /admin    authenticated roles=admin
			POST /mcp      authenticated
			tool post_job  jobs:write roles=recruiter
			tool search    jobs:read
			identity_headers {
				claim roles X-User-Roles
			}
		}
		reverse_proxy localhost:9001
	}
}
`

// withoutTools is the same without an MCP server: a gate with rules for tools
// takes messages only.
var withoutTools = strings.NewReplacer("tool post_job  jobs:write roles=recruiter\n", "", "tool search    jobs:read\n", "").Replace(claimedConfig)

// USR-20: explain says what is asked of the user, what is missing, and that no
// scope helps; the headers that go upstream hold the claims.
func TestExplainKnowsWhatIsAskedOfTheUser(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for _, c := range []struct {
		args string
		want []string
		not  string
	}{
		{"--method PUT --path /jobs --scope jobs:write --user roles=recruiter --user org=acme", []string{"allowed", "jobs:write, of a user with roles=recruiter,admin and org=acme", "X-User-Roles  recruiter"}, "user lacks"},
		{"--method PUT --path /jobs --scope jobs:write --user roles=recruiter", []string{"refused", "user lacks  org=acme", "no scope helps", "403 Forbidden", `"access_denied"`}, "Www-Authenticate"},
		{"--method PUT --path /jobs --scope jobs:read --user roles=recruiter --user org=acme", []string{"insufficient_scope", "missing     jobs:write"}, "user lacks"},
		{"--path /admin --user roles=admin", []string{"allowed", "any live session, of a user with roles=admin"}, ""},
		{"--path /mcp --tool post_job --scope jobs:write --user roles=guest", []string{"refused", "user lacks  roles=recruiter"}, ""},
		{"--path /mcp --tool post_job --scope jobs:write --user roles=guest,recruiter", []string{"allowed"}, ""},
	} {
		config := withoutTools
		if strings.Contains(c.args, "--tool") {
			config = claimedConfig
		}
		out, _ := oauthCommand(t, config, "", append([]string{"explain"}, strings.Fields(c.args)...)...)
		for _, want := range c.want {
			if !strings.Contains(squeezed(out), squeezed(want)) {
				t.Errorf("%s: no %q in\n%s", c.args, want, out)
			}
		}
		if c.not != "" && strings.Contains(out, c.not) {
			t.Errorf("%s: %q in\n%s", c.args, c.not, out)
		}
	}
	if out, err := oauthCommand(t, claimedConfig, "", "explain", "--path", "/admin", "--user", "roles"); err == nil {
		t.Errorf("--user without a value: %s", out)
	}
}

func squeezed(text string) string { return strings.Join(strings.Fields(text), " ") }

// USR-21: the table, the rule tests and the document say it too.
func TestToolsOfTheOwnerKnowWhatIsAskedOfTheUser(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	out, err := oauthCommand(t, claimedConfig, "", "rules")
	if err != nil || !strings.Contains(squeezed(out), "PUT /jobs jobs:write roles=recruiter,admin org=acme jobs:write gpt") {
		t.Errorf("rules: %v\n%s", err, out)
	}
	out, err = ruleTest(t, withoutTools, `PUT /jobs with jobs:write roles=recruiter org=acme -> allow
PUT /jobs with jobs:write roles=guest,admin org=acme -> allow
PUT /jobs with jobs:write roles=recruiter -> 403 access_denied
PUT /jobs with jobs:write -> 403 access_denied
GET /admin with no scope roles=admin -> allow
`)
	if err != nil || !strings.Contains(out, "rules.test: 5 cases, 0 failed") || !strings.Contains(out, "passed all") {
		t.Errorf("test: %v\n%s", err, out)
	}
	out, err = ruleTest(t, claimedConfig, `POST /mcp with jobs:write roles=recruiter calling post_job -> allow
POST /mcp with jobs:write calling post_job -> 403 access_denied
`, "--generate=false")
	if err != nil {
		t.Errorf("test of tools: %v\n%s", err, out)
	}
	out, err = oauthCommand(t, claimedConfig, "", "openapi")
	if err != nil || !strings.Contains(out, "Post jobs. For users with roles=recruiter,admin and org=acme") {
		t.Errorf("openapi: %v\n%s", err, out)
	}
}

// USR-22: another requirement on the user is a change, told by who gains and who
// loses.
func TestDiffTellsWhatIsAskedOfTheUser(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for name, c := range map[string]struct {
		old, new string
		want     []string
	}{
		"asked":           {"GET  /jobs     jobs:read", "GET  /jobs     jobs:read org=acme", []string{"GET /jobs", "no more by", "jobs:read"}},
		"dropped":         {"jobs:write roles=recruiter,admin org=acme", "jobs:write org=acme", []string{"PUT /jobs", "callable now by", "jobs:write+org=acme"}},
		"one value fewer": {"roles=recruiter,admin org=acme", "roles=admin org=acme", []string{"PUT /jobs", "no more by", "jobs:write+org=acme+roles=recruiter"}},
		"of a tool":       {"tool post_job  jobs:write roles=recruiter", "tool post_job  jobs:write", []string{"tool post_job", "callable now by"}},
		"another order":   {"roles=recruiter,admin org=acme", "org=acme roles=admin,recruiter", []string{"nothing changes"}},
	} {
		out, _ := diffCommandOutput(t, claimedConfig, strings.Replace(claimedConfig, c.old, c.new, 1))
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", name, want, out)
			}
		}
	}
}
