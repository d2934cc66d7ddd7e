package caddymodule

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"pgregory.net/rapid"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
	"github.com/caddy-scope/caddy-scope/caddymodule/rules"
)

const ruledConfig = `{
	oauth {
		issuer https://api.example.com
		postgres postgres://127.0.0.1:1/none
		secret 0123456789abcdef0123456789abcdef
		scope jobs:read "Search jobs"
		scope jobs:write "Post jobs" {
			implies jobs:read
		}
		scope admin "Everything else"
		client reader {
			redirect_uri http://127.0.0.1/cb
			scope jobs:read
		}
		client gpt {
			secret a-client-secret-that-is-long-enough
			redirect_uri https://chatgpt.com/cb
			scope jobs:read jobs:write
		}
		client resource-server {
			secret a-client-secret-that-is-long-enough
			introspect https://api.example.com
		}
		registration {
			dynamic
		}
		client_policy * {
			scopes jobs:read
		}
		login password
	}
}
api.example.com {
	oauth_server
	handle /admin/* {
		oauth_protect admin
		reverse_proxy 127.0.0.1:1
	}
	handle {
		oauth_protect {
			GET /jobs/* jobs:read
			DELETE /jobs/{id} jobs:write
			GET /me authenticated
			GET /health public
			POST /reports any admin jobs:write
		}
		reverse_proxy 127.0.0.1:1
	}
}
`

// RULE-01: TestRulesCommandListsTheWholeTable: file and line, what users must grant with
// the hierarchy worked out, and the clients that can get such a token.
func TestRulesCommandListsTheWholeTable(t *testing.T) {
	out, err := oauthCommand(t, ruledConfig, "", "rules")
	if err != nil {
		t.Fatal(err)
	}
	out = regexp.MustCompile(`\S+/Caddyfile:`).ReplaceAllString(out, "Caddyfile:")
	for _, want := range []string{
		"resource https://api.example.com  (gate Caddyfile:36; what no rule covers is refused: 403)",
		"*        *     admin  admin        NONE     Caddyfile:36",
		"GET      /jobs/*     jobs:read             jobs:read|jobs:write  reader gpt (registered)  Caddyfile:41",
		"DELETE   /jobs/{id}  jobs:write            jobs:write            gpt                      Caddyfile:42",
		"GET      /me         authenticated         anything              reader gpt (registered)  Caddyfile:43",
		"GET      /health     public                -                     anyone                   Caddyfile:44",
		"POST     /reports    any admin jobs:write  admin|jobs:write      gpt                      Caddyfile:45",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	out, err = oauthCommand(t, ruledConfig, "", "rules", "--json")
	var report rules.Report
	if err != nil || json.Unmarshal([]byte(out), &report) != nil || len(report.Tables) != 2 || len(report.Tables[1].Rules) != 5 {
		t.Errorf("%v %s", err, out)
	}
	ungated := ruledConfig[:strings.Index(ruledConfig, "\thandle /admin")] + "\treverse_proxy 127.0.0.1:1\n}\n"
	if _, err := oauthCommand(t, ungated, "", "rules"); err == nil || !strings.Contains(err.Error(), "no oauth_protect") {
		t.Errorf("%v", err)
	}
}

// RULE-02: TestRulesAreRightAboutWhoGetsPast: random tables, hierarchies and clients; for
// every set of scopes that a client may be granted the rehearsed gate is asked.
func TestRulesAreRightAboutWhoGetsPast(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	names := []string{"s1", "s2", "s3"}
	asked := 0
	rapid.Check(t, func(t *rapid.T) {
		if asked > 3000 { // enough
			return
		}
		var scopes, clients, table strings.Builder
		for i, name := range names {
			fmt.Fprintf(&scopes, "scope %s \"S\" {\n", name)
			if later := names[i+1:]; len(later) > 0 && rapid.Bool().Draw(t, "implies") {
				fmt.Fprintf(&scopes, "implies %s\n", rapid.SampledFrom(later).Draw(t, "implied"))
			}
			scopes.WriteString("}\n")
			fmt.Fprintf(&clients, "client c%d {\nredirect_uri http://127.0.0.1/cb\nscope %s\n}\n", i,
				strings.Join(rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID).Draw(t, "client"), " "))
		}
		for i := range rapid.IntRange(1, 4).Draw(t, "rules") {
			fmt.Fprintf(&table, "GET /r%d/{x} %s\n", i, rapid.SampledFrom([]string{"s1", "s2", "s3", "s1 s2", "s2 s3", "any s1 s3", "any s2 s3", "authenticated", "public"}).Draw(t, "needs"))
		}
		h := rehearseCaddyfile(t, fmt.Sprintf("{\noauth {\nissuer https://api.example.com\npostgres postgres://127.0.0.1:1/none\n%s%slogin password\n}\n}\napi.example.com {\noauth_server\noauth_protect {\n%s}\nreverse_proxy 127.0.0.1:1\n}\n",
			scopes.String(), clients.String(), table.String()))
		report, err := h.app.rulesReport()
		if err != nil {
			t.Fatalf("%v", err)
		}
		for _, row := range report.Tables[0].Rules {
			path := strings.ReplaceAll(row.Path, "{x}", "1")
			for _, reach := range h.app.clientReaches() {
				reaches := false
				for mask := range 1 << len(names) {
					var granted []string
					for i, name := range names {
						if mask&(1<<i) != 0 {
							granted = append(granted, name)
						}
					}
					told, err := h.explain(rehearsedRequest{method: "GET", path: path, client: reach.client, scopes: granted})
					if err != nil {
						t.Fatalf("%v", err)
					}
					passes := told.Outcome == explain.Allowed
					reaches = reaches || passes && reach.scopes.ContainsAll(granted)
					enough := !slices.ContainsFunc(row.Grants, func(group []string) bool {
						return !slices.ContainsFunc(group, func(s string) bool { return slices.Contains(granted, s) })
					})
					if enough != passes {
						t.Fatalf("%+v: %v is enough: %t; it passes: %t", row, granted, enough, passes)
					}
					asked++
				}
				if row.Access != "public" && reaches != slices.Contains(row.Clients, reach.client) {
					t.Fatalf("%+v: %s reaches it: %t\n%s", row, reach.client, reaches, clients.String())
				}
			}
		}
	})
	if asked < 1000 {
		t.Errorf("%d requests show too little", asked)
	}
}

// RULE-03: TestRulesAndADocumentAreHeldAgainstEachOther
func TestRulesAndADocumentAreHeldAgainstEachOther(t *testing.T) {
	file := filepath.Join(t.TempDir(), "api.yaml")
	write := func(paths string) {
		if err := os.WriteFile(file, []byte("openapi: 3.1.0\nservers: [{url: 'https://api.example.com/'}]\npaths:\n"+paths), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := strings.Replace(ruledConfig, "oauth_protect admin", "oauth_protect /admin/* admin", 1)
	const complete = `  /jobs/{id}: {get: {operationId: getJob}, delete: {}}
  /me: {get: {}}
  /health: {get: {}}
  /reports: {post: {}}
  /admin/users: {get: {}}
`
	write(complete)
	if out, err := oauthCommand(t, config, "", "rules", "--openapi", file); err != nil || !strings.Contains(out, "6 operations, 0 without a rule, 0 that cannot be compared; 0 rules without an operation") {
		t.Errorf("%v %s", err, out)
	}
	write(strings.Replace(complete, "  /me: {get: {}}", "  /jobs/{id}/notes/: {get: {}}\n  /jobs/{id}/notes: {post: {operationId: addNote}}\n  /files/{name}.pdf: {get: {}}", 1))
	out, err := oauthCommand(t, config, "", "rules", "--openapi", file, "--json")
	if err == nil {
		t.Error("the exit status is 0")
	}
	var report rules.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	c := report.OpenAPI
	if len(c.Unruled) != 1 || c.Unruled[0].ID != "addNote" || c.Unruled[0].Method != "POST" || !strings.HasSuffix(c.Unruled[0].Source, "api.yaml:6") ||
		len(c.Undocumented) != 1 || c.Undocumented[0].Path != "/me" || len(c.Odd) != 1 || !strings.Contains(c.Odd[0].Problem, "template in part") {
		t.Errorf("%+v", c)
	}
	if out, _ := oauthCommand(t, config, "", "rules", "--openapi", file); !regexp.MustCompile(`no rule +POST /jobs/\{id\}/notes +addNote`).MatchString(out) {
		t.Errorf("%s", out)
	}
	if out, err := oauthCommand(t, config, "", "rules", "--openapi", file, "--prefix", "/v1"); err == nil || !strings.Contains(out, "without a rule") || !strings.Contains(out, "/v1/health") {
		t.Errorf("%s", out)
	}
	if _, err := oauthCommand(t, config, "", "rules", "--openapi", "none.yaml"); err == nil || !strings.Contains(err.Error(), "--openapi: stat none.yaml") {
		t.Errorf("%v", err)
	}
}

// rehearseCaddyfile makes a rehearsal of a whole configuration.
func rehearseCaddyfile(t require, caddyfile string) *rehearsal {
	t.Helper()
	h, err := tryRehearse(caddyfile)
	if err != nil {
		t.Fatalf("%v\n%s", err, caddyfile)
	}
	return h
}

func tryRehearse(caddyfile string) (*rehearsal, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, err
	}
	return newRehearsal(config)
}
