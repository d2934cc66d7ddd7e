package caddymodule

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ruleTest runs `caddy oauth test` with the lines as a file.
func ruleTest(t *testing.T, config, lines string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.test")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := oauthCommand(t, config, "", append([]string{"test", file}, args...)...)
	return strings.ReplaceAll(out, filepath.Dir(file)+"/", ""), err
}

// RULE-12: TestRuleTestsOfTheExamplePass: Caddyfile.example comes with a file of rule
// tests, and the generated cases hold for it.
func TestRuleTestsOfTheExamplePass(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("DEMO_CLIENT_SECRET", "a-client-secret-that-is-long-enough")
	out, err := runCommand(t, "test", "../Caddyfile.example.test", "--config", "../Caddyfile.example", "--adapter", "caddyfile")
	if err != nil || !strings.Contains(out, "passed all") {
		t.Errorf("%v\n%s", err, out)
	}
}

// RULE-12: TestRuleTestsSayWhatFailed
func TestRuleTestsSayWhatFailed(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	const lines = `# comments and empty lines

GET /jobs/1 with jobs:read -> allow          # a comment at the end
GET /jobs/1 with jobs:write -> allow
GET /jobs/1 -> 401
DELETE /jobs/1 with jobs:read -> 403 insufficient_scope
DELETE /jobs/1 as gpt with jobs:write -> allowed
GET /me with no scope -> allow
PUT /jobs/1 with jobs:write -> 403 access_denied
GET /jobs/../me with jobs:write -> 400 invalid_request
GET /oauth/token -> authorization_server
GET /up on other.example.com -> refuse
OPTIONS /jobs/1 from https://app.example for GET -> preflight
`
	if out, err := ruleTest(t, ruledConfig, lines, "--generate=false"); err != nil || !strings.HasSuffix(out, "rules.test: 11 cases, 0 failed\npassed all 11\n") {
		t.Errorf("%v\n%s", err, out)
	}
	report := filepath.Join(t.TempDir(), "report.xml")
	out, err := ruleTest(t, ruledConfig, "GET /jobs/1 with jobs:read -> allow\nGET /jobs/1 without token -> allow\nDELETE /jobs/1 with jobs:read -> 401\nGET /jobs/1 as nobody with jobs:read -> allow\n", "--junit", report)
	if err == nil {
		t.Error("the exit status is 0")
	}
	for _, want := range []string{
		"FAIL rules.test:2: GET /jobs/1 without token -> allow\n     expected allow, got refused 401", "by the rule GET /jobs/* jobs:read at",
		"FAIL rules.test:3: DELETE /jobs/1 with jobs:read -> 401\n     expected 401, got refused 403 insufficient_scope", "missing jobs:write",
		"FAIL rules.test:4", "client nobody is not registered", "rules.test: 4 cases, 3 failed\ngenerated: ", "FAILED 3 of ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var suites struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Name    string  `xml:"name,attr"`
				Line    string  `xml:"line,attr"`
				Failure *string `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	if suites.Failures != 3 || len(suites.Suites) != 2 || suites.Suites[0].Cases[1].Line != "2" || suites.Suites[0].Cases[1].Failure == nil || suites.Suites[0].Cases[0].Failure != nil ||
		suites.Tests != 4+len(suites.Suites[1].Cases) {
		t.Errorf("%s", text)
	}
}

// TestRuleTestFilesAreReadStrictly: a line that is wrong is an error with its
// place, not a test that passes.
func TestRuleTestFilesAreReadStrictly(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for line, want := range map[string]string{
		"GET":                                   "a method and a path are expected",
		"GET jobs -> allow":                     `path "jobs" does not begin with a slash`,
		"GET /jobs":                             "what is expected is missing",
		"GET /jobs ->":                          "is followed by nothing",
		"GET /jobs -> pass":                     `"pass" is no expectation`,
		"GET /jobs -> allow it":                 `"it" is not expected at the end`,
		"GET /jobs jobs:read -> allow":          `"jobs:read" is not expected here`,
		"GET /jobs with -> allow":               "with: the scopes of the token are missing",
		"GET /jobs with a with b -> allow":      "with stands here twice",
		"GET /jobs on -> allow":                 "on: one word is expected",
		"GET /jobs without scope -> allow":      "without: only token can follow",
		"GET /jobs as gpt without token -> 401": "without token contradicts",
	} {
		if _, err := ruleTest(t, ruledConfig, "\n"+line+"\n"); err == nil || !strings.Contains(err.Error(), "rules.test:2: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
	if _, err := ruleTest(t, ruledConfig, "# nothing\n"); err == nil || !strings.Contains(err.Error(), "has no case") {
		t.Errorf("%v", err)
	}
	if _, err := oauthCommand(t, ruledConfig, "", "test", "no-such-file"); err == nil {
		t.Error("a file that is not there")
	}
}

// RULE-13: TestGeneratedCasesFindAGateThatIsPassedBy: what is written in the gate does not
// help when another route takes the requests, or takes them in another spelling.
func TestGeneratedCasesFindAGateThatIsPassedBy(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	if out, err := oauthCommand(t, ruledConfig, "", "test"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	const head = "{\noauth {\nissuer https://api.example.com\npostgres postgres://127.0.0.1:1/none\nscope a A\nscope b B\nclient c {\nredirect_uri http://127.0.0.1/cb\n}\nlogin password\n}\n}\napi.example.com {\noauth_server\n"
	for _, c := range []struct {
		name, site string
		want       []string
	}{
		{"a handle before the gate", "handle /jobs* {\nreverse_proxy 127.0.0.1:1\n}\nhandle {\noauth_protect {\nGET /jobs/{id} a\n}\nreverse_proxy 127.0.0.1:2\n}\n",
			[]string{"expected 401 by GET /jobs/{id} a, got not_gated: no gate stands before reverse_proxy 127.0.0.1:1"}},
		{"a route in another case", "handle /Secret/* {\noauth_protect {\nGET /secret/{id} a\n}\nreverse_proxy 127.0.0.1:2\n}\n", nil},
		{"a path that only the proxy folds", "handle /a/b/* {\noauth_protect {\nGET /a/b/{id} a\n}\nreverse_proxy 127.0.0.1:2\n}\nhandle {\nreverse_proxy 127.0.0.1:2\n}\n",
			[]string{"GET /a/b%5cany", "expected refuse, got not_gated: no gate stands before reverse_proxy 127.0.0.1:2"}},
		{"a path that goes elsewhere", "handle /a/b/* {\noauth_protect {\nGET /a/b/{id} a\n}\nreverse_proxy 127.0.0.1:2\n}\nhandle {\nreverse_proxy 127.0.0.1:3\n}\n", nil},
		{"a prefix that is taken away", "handle_path /v1/* {\noauth_protect {\nGET /jobs/{id} a\nDELETE /jobs/{id} a b\n}\nreverse_proxy 127.0.0.1:2\n}\n", nil},
		{"two sites", "oauth_protect {\nGET /one a\n}\nreverse_proxy 127.0.0.1:2\n}\ntwo.example.com {\noauth_server metadata\noauth_protect {\nresource https://two.example.com\nPOST /two/* any a b\n}\nreverse_proxy 127.0.0.1:2\n", nil},
	} {
		out, err := oauthCommand(t, head+c.site+"}\n", "", "test")
		if (err != nil) != (c.want != nil) {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is not in\n%s", c.name, want, out)
			}
		}
	}
}
