package e2e

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"github.com/caddy-scope/caddy-scope/examples/jobboard"
)

// newToolScene puts the MCP server of the job board behind the gate of the
// tutorial, with rules for its tools; analyze_resume has none.
func newToolScene(t *testing.T, with sceneConfig) *scene {
	t.Helper()
	upstream := httptest.NewServer(jobboard.New().ToolsHandler())
	t.Cleanup(upstream.Close)
	with.Site = strings.Replace(tutorialSite(t), "localhost:9003", strings.TrimPrefix(upstream.URL, "http://"), 1)
	return newSceneWith(t, with)
}

// tutorialSite is what stands behind oauth_server in the Caddyfile with tools of
// docs/tutorial-mcp-server.md.
func tutorialSite(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/tutorial-mcp-server.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```caddyfile\n(.*?)\n}\n```").FindAllStringSubmatch(string(text), -1) {
		if _, site, ok := strings.Cut(block[1], "oauth_server\n"); ok && strings.Contains(site, "tool search_jobs") {
			return site
		}
	}
	t.Fatal("the tutorial has no Caddyfile with tools")
	return ""
}

// mcpSession is a connection of the Go MCP SDK, whose user is at a browser.
type mcpSession struct {
	*mcp.ClientSession
	t     *testing.T
	pages []string // of the last authorization
	asked url.Values
}

func (s *scene) connectMCP(browser context.Context, back *callback, config auth.AuthorizationCodeHandlerConfig) *mcpSession {
	s.t.Helper()
	session, err := s.tryMCP(browser, back, config)
	if err != nil {
		s.t.Fatal(err)
	}
	return session
}

// tryMCP is connectMCP for a client that may not get through.
func (s *scene) tryMCP(browser context.Context, back *callback, config auth.AuthorizationCodeHandlerConfig) (*mcpSession, error) {
	s.t.Helper()
	session := &mcpSession{t: s.t}
	config.RedirectURL, config.Client = back.URI, s.HTTP
	config.AuthorizationCodeFetcher = func(_ context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
		link, err := url.Parse(args.URL)
		if err != nil {
			return nil, err
		}
		session.asked = link.Query()
		session.pages = allow(s.t, browser, args.URL)
		if last := session.pages[len(session.pages)-1]; !strings.Contains(last, "You can close this window.") {
			return nil, fmt.Errorf("the user is shown %q", last)
		}
		answer := back.await(s.t)
		if answer.Has("error") {
			return nil, fmt.Errorf("%v", answer)
		}
		return &auth.AuthorizationResult{Code: answer.Get("code"), State: answer.Get("state"), Iss: answer.Get("iss")}, nil
	}
	handler, err := auth.NewAuthorizationCodeHandler(&config)
	if err != nil {
		return nil, err
	}
	session.ClientSession, err = mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(s.t.Context(),
		&mcp.StreamableClientTransport{Endpoint: s.Base + "/mcp", HTTPClient: s.HTTP, OAuthHandler: handler}, nil)
	if err != nil {
		return nil, err
	}
	s.t.Cleanup(func() { _ = session.Close() })
	return session, nil
}

func (s *mcpSession) wantTools(want ...string) {
	s.t.Helper()
	list, err := s.ListTools(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		s.t.Errorf("tools %v, want %v", names, want)
	}
}

// wantCall calls the tool, whose answer must have the text in it; "" wants it
// refused.
func (s *mcpSession) wantCall(tool string, arguments map[string]any, want string) {
	s.t.Helper()
	result, err := s.CallTool(s.t.Context(), &mcp.CallToolParams{Name: tool, Arguments: arguments})
	switch {
	case want == "" && err == nil:
		s.t.Errorf("%s was called", tool)
	case want == "":
	case err != nil:
		s.t.Fatalf("%s: %v", tool, err)
	case !strings.Contains(result.Content[0].(*mcp.TextContent).Text, want):
		s.t.Errorf("%s: %s", tool, result.Content[0].(*mcp.TextContent).Text)
	}
}

// MCP-14, trap 17: the Go MCP SDK goes from a bare 401 to calls of tools, however it
// is known; it steps up when a tool needs more; and a tool without a rule ends
// neither its session nor its patience.
func TestGoMCPSDKConnects(t *testing.T) {
	t.Parallel()
	document, port, trust := clientHost(t, "http://127.0.0.1/callback")
	s := newToolScene(t, sceneConfig{HTTPS: true, Trust: trust, Options: fmt.Sprintf(`registration {
			dynamic
			metadata_documents
			allow_address 127.0.0.1/32
			allow_port %s
		}`, port)})
	browser, back := newChromium(t), newCallback(t)
	jobs := map[string]string{"by its document": "job-101", "by registering itself": "job-102", "by the configuration": "job-103"}
	for name, config := range map[string]auth.AuthorizationCodeHandlerConfig{
		"by its document": {ClientIDMetadataDocumentConfig: &auth.ClientIDMetadataDocumentConfig{URL: document}},
		"by registering itself": {DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
			ClientName: "Go client", RedirectURIs: []string{back.URI}, TokenEndpointAuthMethod: "none", GrantTypes: []string{"authorization_code", "refresh_token"},
		}}},
		"by the configuration": {PreregisteredClient: &oauthex.ClientCredentials{ClientID: "demo-public"}},
	} {
		t.Run(name, func(t *testing.T) {
			session := s.in(t).connectMCP(browser, back, config)
			if session.asked.Get("resource") != s.Base+"/mcp" || session.asked.Get("scope") != "jobs:read" || session.asked.Get("code_challenge_method") != "S256" {
				t.Errorf("asked for %v", session.asked)
			}
			session.wantTools("search_jobs", "get_job")
			session.wantCall("search_jobs", map[string]any{"query": "engineer"}, `"jobs"`)

			session.wantCall("submit_application", map[string]any{"job_id": jobs[name]}, `"submitted"`)
			if scopes := strings.Fields(session.asked.Get("scope")); len(scopes) != 2 || !slices.Contains(scopes, "applications:write") || !slices.Contains(scopes, "jobs:read") {
				t.Errorf("step-up asked for %v", scopes)
			}
			if pages := strings.Join(session.pages, "\n"); !strings.Contains(pages, "Submit applications for you") {
				t.Errorf("the pages of the step-up:\n%s", pages)
			}
			session.wantTools("search_jobs", "get_job", "list_applications", "submit_application")
			session.wantCall("list_applications", nil, jobs[name])

			session.wantCall("analyze_resume", map[string]any{"job_id": "job-101"}, "")
			session.wantCall("get_job", map[string]any{"job_id": "job-101"}, `"job-101"`)
		})
	}
}
