package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/caddy-scope/caddy-scope/caddymodule/doctor"
	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/examples/jobboard"
)

// diagnose runs the doctor for one product, on the configuration that the gateway
// runs and, for all that changes nothing there, on the gateway itself.
func (s *scene) diagnose(product string) doctor.Product {
	s.t.Helper()
	run := exec.CommandContext(s.t.Context(), cluster.Binary(s.t), "oauth", "doctor", "--config", s.Caddyfile, "--adapter", "caddyfile", "--product", product, "--live", "--json")
	var said bytes.Buffer
	run.Env, run.Stderr = append(s.env(), "SSL_CERT_FILE="+s.CA), &said
	out, err := run.Output()
	var report doctor.Report
	if json.Unmarshal(out, &report) != nil || len(report.Products) == 0 {
		s.t.Fatalf("doctor: %v\n%s\n%s", err, out, &said)
	}
	if p := report.Products[0]; (err == nil) != (p.Verdict == doctor.Works) {
		s.t.Errorf("the exit status of %q: %v", p.Verdict, err)
	}
	return report.Products[0]
}

// checks are those that came out so. That servers of products do not reach
// localhost is left out.
func checks(p doctor.Product, outcome doctor.Outcome) (names []string) {
	for _, r := range p.Results {
		if r.Outcome == outcome && r.Check != "address" {
			names = append(names, r.Check)
		}
	}
	return names
}

// agreement is a configuration of which the doctor and a client that nobody here
// wrote must say the same.
type agreement struct {
	name     string
	old, new string // in the configuration
	product  string
	verdict  doctor.Verdict
	check    string // that fails, or is warned of
	client   func(*scene) error
	says     string // the client, where it does not work
}

// DOC-04: what the doctor says comes true. Where a product works, a client of its
// kind gets to its call; where one fails, the client fails at that step.
func TestDoctorAgreesWithRealClients(t *testing.T) {
	t.Parallel()
	tools := httptest.NewServer(jobboard.New().ToolsHandler())
	t.Cleanup(tools.Close)
	s := newSceneWith(t, sceneConfig{HTTPS: true, Admin: true, Global: "order route before oauth_server", Options: `registration {
			dynamic
		}
		client acme {
			secret {env.DEMO_CLIENT_SECRET}
			grants client_credentials
			scope  jobs:read
		}`, Site: fmt.Sprintf(`handle /mcp {
		oauth_protect jobs:read {
			resource /mcp
			tool search_jobs jobs:read
			tool get_job     jobs:read
		}
		reverse_proxy %s
	}
	handle {
		%sreverse_proxy API
	}`, strings.TrimPrefix(tools.URL, "http://"), strings.Replace(jobBoardRules, "GET  /resume         resume:read\n", "", 1))})
	browser, back := newChromium(t), newCallback(t)
	sdk := func(s *scene) error { return s.callsByGoSDK(browser, back) }
	const answers = "\toauth_server\n"
	healthy, err := os.ReadFile(s.Caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []agreement{
		{"as it should be", "", "", "vscode", doctor.Works, "", sdk, ""},
		{"challenge deleted", answers, answers + "header -WWW-Authenticate\n", "vscode", doctor.Works, "challenge", sdk, ""},
		{"metadata of another resource", answers, "route /.well-known/oauth-protected-resource/mcp {\nheader Content-Type application/json\nrespond `{\"resource\":\"https://other.example/mcp\",\"authorization_servers\":[\"" + s.Base + "\"]}`\n}\n" + answers, "vscode", doctor.Fails, "resource-metadata", sdk, "Unauthorized"},
		{"metadata of another issuer", answers, "route /.well-known/oauth-authorization-server {\nheader Content-Type application/json\nrespond `{\"issuer\":\"https://other.example\"}`\n}\n" + answers, "vscode", doctor.Fails, "server-metadata", sdk, "issuer"},
		{"no registration", "registration {\n\t\t\tdynamic\n\t\t}", "", "vscode", doctor.NotServed, "", sdk, "registration"},
		{"registration wants a token", "\t\t\tdynamic\n", "\t\t\tdynamic\n\t\t\tinitial_access_token an-initial-access-token-that-is-long\n", "cline", doctor.Fails, "registration", sdk, "register"},
		{"policy against it", "login password", "login password\nclient_policy * {\ndeny\n}", "cline", doctor.NotServed, "", sdk, "register"},
		{"scopes that open nothing", "login password", "login password\nclient_policy loopback {\nscopes resume:read\n}", "cline", doctor.Fails, "scope", sdk, "scope"},
		{"partner as it should be", "", "", "partner", doctor.Works, "", (*scene).callsByClientCredentials, ""},
		{"partner without a scope of the API", "scope  jobs:read", "scope  resume:read", "partner", doctor.Fails, "token", (*scene).callsByClientCredentials, "invalid_scope"},
		{"partner without the grant", "grants client_credentials", "grants device_code", "partner", doctor.NotServed, "", (*scene).callsByClientCredentials, "grant_type"},
		{"GPT that must send a challenge", "pkce         optional", "", "chatgpt-actions", doctor.Fails, "pkce", (*scene).asksAsGPT, "code_challenge"},
		{"GPT of another callback", "redirect_uri https://chatgpt.com/aip/g-123/oauth/callback", "redirect_uri https://chatgpt.com/aip/g-123/callback", "chatgpt-actions", doctor.Fails, "redirect", (*scene).asksAsGPT, "not registered for it"},
	} {
		t.Run(a.name, func(t *testing.T) {
			s := s.in(t)
			s.reload(func(string) string {
				if !strings.Contains(string(healthy), a.old) {
					t.Fatalf("%q is not in the configuration", a.old)
				}
				return strings.Replace(string(healthy), a.old, a.new, 1)
			})
			p := s.diagnose(a.product)
			outcome := doctor.Fail
			if p.Verdict == doctor.Works {
				outcome = doctor.Warn
			}
			got := checks(p, outcome)
			if p.Verdict != a.verdict || a.check == "" && len(got) > 0 || a.check != "" && !slices.Equal(got, []string{a.check}) {
				t.Errorf("the doctor says: %s, %q: %+v", p.Verdict, got, p)
			}
			switch err := a.client(s); {
			case a.says == "" && err != nil:
				t.Errorf("the client does not work: %v", err)
			case a.says != "" && (err == nil || !strings.Contains(err.Error(), a.says)):
				t.Errorf("the client says %v, want %q", err, a.says)
			}
		})
	}
}

// DOC-04: the file is not what runs.
func TestDoctorTellsThatAnotherConfigurationRuns(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, sceneConfig{HTTPS: true})
	if p := s.diagnose("strict-library"); p.Verdict != doctor.Works {
		t.Errorf("before: %+v", p)
	}
	text, err := os.ReadFile(s.Caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.Caddyfile, strings.Replace(string(text), "login password", "login password\nopenid", 1))
	if p := s.diagnose("strict-library"); !slices.Equal(checks(p, doctor.Fail), []string{"same-as-configured"}) {
		t.Errorf("after: %+v", p)
	}
}

// callsByGoSDK is a client that registers itself, a tool call, and its end.
func (s *scene) callsByGoSDK(browser context.Context, back *callback) error {
	s.t.Helper()
	session, err := s.tryMCP(browser, back, auth.AuthorizationCodeHandlerConfig{DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{
		Metadata: &oauthex.ClientRegistrationMetadata{
			ClientName: "Go client", RedirectURIs: []string{back.URI}, TokenEndpointAuthMethod: "none", GrantTypes: []string{"authorization_code", "refresh_token"},
		},
	}})
	if err == nil {
		session.wantCall("search_jobs", map[string]any{"query": "engineer"}, `"jobs"`)
	}
	return err
}

// callsByClientCredentials is a partner's server.
func (s *scene) callsByClientCredentials() error {
	service := clientcredentials.Config{ClientID: "acme", ClientSecret: clientSecret, TokenURL: s.Base + "/oauth/token"}
	_, err := service.Token(context.WithValue(s.t.Context(), oauth2.HTTPClient, s.HTTP))
	return err
}

// asksAsGPT sends the user as the builder of a custom GPT does: neither a
// code_challenge nor a resource. The error is what the GPT or the user is told.
func (s *scene) asksAsGPT() error {
	s.t.Helper()
	query := url.Values{"response_type": {"code"}, "client_id": {"career-copilot"}, "redirect_uri": {"https://chatgpt.com/aip/g-123/oauth/callback"},
		"scope": {"jobs:read"}, "state": {"s"}}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.Base+"/oauth/authorize?"+query.Encode(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := s.HTTP.Transport.RoundTrip(req) // follows no redirect
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	switch to := res.Header.Get("Location"); {
	case to == "" && strings.Contains(string(page), `name="password"`), strings.HasPrefix(to, s.Base):
		return nil // the user signs in
	case to != "":
		return errors.New(to)
	}
	return errors.New(string(page))
}
