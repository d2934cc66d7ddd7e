package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const conformanceSuite = "node_modules/@modelcontextprotocol/conformance/dist/index.js"

// check is one line of a checks.json of the suite.
type check struct {
	ID, Name, Status, ErrorMessage string
}

// conformance runs the MCP conformance suite and returns its checks by scenario.
// line is told each line that it prints.
func (s *scene) conformance(line func(string), args ...string) map[string][]check {
	s.t.Helper()
	out := s.t.TempDir()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	run := exec.CommandContext(ctx, nodeBinary(s.t), slices.Concat([]string{conformanceSuite}, args, []string{"--output-dir", out})...)
	run.Dir, run.Env = "clients", append(os.Environ(), "NODE_EXTRA_CA_CERTS="+s.CA)
	printed, err := run.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	var all lockedBuffer
	run.Stderr = &all
	if err := run.Start(); err != nil {
		s.t.Fatal(err)
	}
	for lines := bufio.NewScanner(printed); lines.Scan(); {
		_, _ = all.Write(append(lines.Bytes(), '\n'))
		if line != nil {
			line(lines.Text())
		}
	}
	if err := run.Wait(); err != nil { // a check failed that the revision requires
		s.t.Errorf("the suite: %v\n%s", err, &all)
	}
	results := make(map[string][]check)
	files, err := filepath.Glob(filepath.Join(out, "*", "checks.json"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("the suite has no results: %v\n%s", err, &all)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		var checks []check
		if err := json.Unmarshal(text, &checks); err != nil {
			s.t.Fatalf("%s: %v", file, err)
		}
		results[scenarioOf(filepath.Base(filepath.Dir(file)))] = checks
	}
	return results
}

var resultTime = regexp.MustCompile(`-\d{4}-\d{2}-\d{2}T[\d-]+Z$`)

// scenarioOf is the scenario of a folder of results.
func scenarioOf(folder string) string {
	folder = strings.TrimPrefix(strings.TrimPrefix(folder, "authorization-"), "server-")
	return resultTime.ReplaceAllString(folder, "")
}

func counts(results map[string][]check) (passed, failed int) {
	for _, checks := range results {
		for _, c := range checks {
			switch c.Status {
			case "SUCCESS":
				passed++
			case "FAILURE":
				failed++
			}
		}
	}
	return passed, failed
}

// CLI-04: every authorization server scenario of the suite passes, with a person in
// Chromium. Failed, skipped and warned about: nothing.
func TestMCPConformanceOfTheAuthorizationServer(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, sceneConfig{HTTPS: true, Options: "registration {\n\tmetadata_documents\n}"})
	browser := newChromium(t)
	next := false
	results := s.conformance(func(line string) {
		if next {
			allow(t, browser, strings.TrimSpace(line))
		}
		next = strings.HasPrefix(line, "Access the following URL")
	}, "authorization", "--url", s.Base, "--client-id", "demo-public", "--resource", s.Base, "--port", freePort(t))
	if len(results) != 2 {
		t.Errorf("%d scenarios, of 2", len(results))
	}
	for scenario, checks := range results {
		if len(checks) == 0 {
			t.Errorf("%s: checked nothing", scenario)
		}
		for _, c := range checks {
			if c.Status != "SUCCESS" {
				t.Errorf("%s: %s is %s: %s", scenario, c.ID, c.Status, c.ErrorMessage)
			}
		}
	}
}

// CLI-05: an MCP server does as well behind the gate as in front of it: in every
// scenario that either revision of the protocol knows, each check has the result
// that it has without the gate, and none fails that the revision requires.
func TestMCPConformanceBehindTheGate(t *testing.T) {
	t.Parallel()
	documented, err := os.ReadFile("../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	for revision, mode := range map[string]string{"2025-11-25": "-stateless=false", "2026-07-28": "-stateless=true"} {
		t.Run(revision, func(t *testing.T) {
			t.Parallel()
			upstream := startMCPServer(t, mode)
			s := newMCPScene(t, upstream, `client robot {
			secret {env.DEMO_CLIENT_SECRET}
			grants client_credentials
		}`, "")
			direct := s.conformance(nil, "server", "--requirements", revision, "--url", "http://"+upstream+"/mcp")
			gated := s.conformance(nil, "server", "--requirements", revision, "--url", bringToken(s)+"/mcp")
			for _, scenario := range slices.Sorted(maps.Keys(direct)) {
				compareChecks(t, scenario, gated[scenario], direct[scenario])
			}
			passed, failed := counts(gated)
			if line := fmt.Sprintf("%s: %d scenarios, %d checks pass, %d fail", revision, len(gated), passed, failed); !strings.Contains(string(documented), line) {
				t.Errorf("docs/conformance.md does not say %q", line)
			}
		})
	}
}

func compareChecks(t *testing.T, scenario string, gated, direct []check) {
	t.Helper()
	if len(direct) != len(gated) {
		t.Errorf("%s: %d checks, %d without the gate", scenario, len(gated), len(direct))
		return
	}
	for i, want := range direct {
		if got := gated[i]; got.ID != want.ID || got.Status != want.Status {
			t.Errorf("%s: %s is %s (%s), without the gate %s", scenario, got.ID, got.Status, got.ErrorMessage, want.Status)
		}
	}
}

// bringToken is a client's half of the authorization, which the suite does not
// have: it puts a token of the robot on each request and passes it on.
func bringToken(s *scene) string {
	s.t.Helper()
	config := clientcredentials.Config{ClientID: "robot", ClientSecret: clientSecret, TokenURL: s.Base + "/oauth/token", Scopes: []string{"tools:use"},
		EndpointParams: url.Values{"resource": {s.Base + "/mcp"}}}
	token, err := config.Token(context.WithValue(s.t.Context(), oauth2.HTTPClient, s.HTTP))
	if err != nil {
		s.t.Fatal(err)
	}
	gate, err := url.Parse(s.Base)
	if err != nil {
		s.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	own := server.Listener.Addr().String()
	server.Config.Handler = &httputil.ReverseProxy{Transport: s.HTTP.Transport, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = gate.Scheme, gate.Host
		if r.In.Host == own {
			r.Out.Host = gate.Host
		}
		r.Out.Header.Set("Authorization", "Bearer "+token.AccessToken)
	}}
	server.Start()
	s.t.Cleanup(server.Close)
	return server.URL
}
