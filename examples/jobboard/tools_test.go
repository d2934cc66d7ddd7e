package jobboard

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// asUser says who is calling, as a gateway does.
type asUser string

func (u asUser) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if u != "" {
		r.Header.Set("X-User-Id", string(u))
	}
	return http.DefaultTransport.RoundTrip(r)
}

func connectTools(t *testing.T, url string, user asUser) func(tool string, arguments map[string]any) (text string, failed bool) {
	t.Helper()
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: url + "/mcp", HTTPClient: &http.Client{Transport: user}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	list, err := session.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	slices.Sort(names)
	if want := []string{"analyze_resume", "get_job", "list_applications", "search_jobs", "submit_application"}; !slices.Equal(names, want) {
		t.Errorf("tools %v", names)
	}
	return func(tool string, arguments map[string]any) (string, bool) {
		t.Helper()
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: arguments})
		if err != nil {
			t.Fatalf("%s: %v", tool, err)
		}
		return result.Content[0].(*mcp.TextContent).Text, result.IsError
	}
}

// The tools do what the APIs do, for the user whom the header names.
func TestToolsActForTheCaller(t *testing.T) {
	t.Parallel()
	board := New()
	server := httptest.NewServer(board.ToolsHandler())
	t.Cleanup(server.Close)
	ann, bob := connectTools(t, server.URL, "ann"), connectTools(t, server.URL, "bob")
	for _, step := range []struct {
		call      func(string, map[string]any) (string, bool)
		tool      string
		arguments map[string]any
		want      string
		failed    bool
	}{
		{ann, "search_jobs", map[string]any{"query": "engineer", "remote": true}, `"id": "job-`, false},
		{ann, "search_jobs", map[string]any{"query": "nothing has these words"}, `"total": 0`, false},
		{ann, "get_job", map[string]any{"job_id": "job-101"}, `"id": "job-101"`, false},
		{ann, "get_job", map[string]any{"job_id": "../health"}, "no such", true},
		{ann, "analyze_resume", map[string]any{"job_id": "job-101"}, `"score"`, false},
		{ann, "list_applications", nil, `"total": 0`, false},
		{ann, "submit_application", map[string]any{"job_id": "job-101", "cover_letter": "Please."}, `"status": "submitted"`, false},
		{ann, "submit_application", map[string]any{"job_id": "job-101"}, "you have applied for this job", true},
		{ann, "list_applications", nil, `"total": 1`, false},
		{bob, "list_applications", nil, `"total": 0`, false},
	} {
		if text, failed := step.call(step.tool, step.arguments); !strings.Contains(text, step.want) || failed != step.failed {
			t.Errorf("%s %v: failed %v\n%s", step.tool, step.arguments, failed, text)
		}
	}
	nobody := connectTools(t, server.URL, "")
	if text, failed := nobody("list_applications", nil); !failed || !strings.Contains(text, "X-User-Id") {
		t.Errorf("nobody: %s", text)
	}
}
