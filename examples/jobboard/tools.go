package jobboard

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// ToolsHandler is an MCP server (Streamable HTTP) at /mcp whose tools are the
// operations of the two APIs. It keeps no sessions, and serves every version of
// the protocol.
func (b *Board) ToolsHandler() http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "jobboard", Title: "Job board", Version: "1.0.0"}, &mcp.ServerOptions{
		Instructions: "Find jobs with search_jobs, see whether one fits with analyze_resume, then apply with submit_application.",
	})
	reads := &mcp.ToolAnnotations{ReadOnlyHint: true}
	mcp.AddTool(server, &mcp.Tool{Name: "search_jobs", Title: "Search jobs", Annotations: reads,
		Description: "Finds jobs by words, location, skill, and whether they can be done remotely."},
		tool(b.JobsHandler(), func(in searchInput) (string, string, any) { return http.MethodGet, "/jobs?" + in.parameters(), nil }))
	mcp.AddTool(server, &mcp.Tool{Name: "get_job", Title: "See a job", Annotations: reads,
		Description: "Shows one job with its whole description."},
		tool(b.JobsHandler(), func(in jobInput) (string, string, any) {
			return http.MethodGet, "/jobs/" + url.PathEscape(in.JobID), nil
		}))
	mcp.AddTool(server, &mcp.Tool{Name: "list_applications", Title: "See my applications", Annotations: reads,
		Description: "Lists the user's applications and how they stand."},
		tool(b.PeopleHandler(), func(struct{}) (string, string, any) { return http.MethodGet, "/applications", nil }))
	mcp.AddTool(server, &mcp.Tool{Name: "submit_application", Title: "Apply for a job",
		Description: "Applies for a job in the user's name. Ask the user first."},
		tool(b.PeopleHandler(), func(in applyInput) (string, string, any) { return http.MethodPost, "/applications", in }))
	mcp.AddTool(server, &mcp.Tool{Name: "analyze_resume", Title: "Compare my resume with a job", Annotations: reads,
		Description: "Says how well the user's resume fits a job, and what it lacks."},
		tool(b.PeopleHandler(), func(in jobInput) (string, string, any) { return http.MethodPost, "/resume/analyze", in }))
	mux := http.NewServeMux()
	mux.Handle("/mcp", mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{Stateless: true}))
	mux.HandleFunc("GET /health", health)
	return mux
}

type searchInput struct {
	Query    string `json:"query,omitempty" jsonschema:"words that must stand in the job"`
	Location string `json:"location,omitempty" jsonschema:"a city or country"`
	Skill    string `json:"skill,omitempty" jsonschema:"a skill that is asked for, such as go"`
	Remote   bool   `json:"remote,omitempty" jsonschema:"only jobs that can be done remotely"`
}

func (in searchInput) parameters() string {
	query := make(url.Values)
	for name, value := range map[string]string{"q": in.Query, "location": in.Location, "skill": in.Skill} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if in.Remote {
		query.Set("remote", "true")
	}
	return query.Encode()
}

type jobInput struct {
	JobID string `json:"job_id" jsonschema:"the id of the job, such as job-101"`
}

type applyInput struct {
	JobID       string `json:"job_id" jsonschema:"the id of the job, such as job-101"`
	CoverLetter string `json:"cover_letter,omitempty" jsonschema:"why the user wants the job, in the user's words"`
}

// tool makes a tool of an operation of an API, for the caller that X-User-Id
// names.
func tool[In any](api http.Handler, operation func(In) (method, target string, body any)) mcp.ToolHandlerFor[In, any] {
	return func(ctx context.Context, request *mcp.CallToolRequest, in In) (*mcp.CallToolResult, any, error) {
		method, target, body := operation(in)
		var sent io.Reader
		if body != nil {
			encoded, err := json.Marshal(body)
			if err != nil {
				return nil, nil, err
			}
			sent = bytes.NewReader(encoded)
		}
		r, err := http.NewRequestWithContext(ctx, method, target, sent)
		if err != nil {
			return nil, nil, err
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header["X-User-Id"] = request.Extra.Header["X-User-Id"]
		answer := &toolAnswer{header: make(http.Header)}
		api.ServeHTTP(answer, r)
		return &mcp.CallToolResult{
			Content: []mcp.Content{&mcp.TextContent{Text: answer.String()}},
			IsError: answer.status >= http.StatusBadRequest, // for the model to read
		}, nil, nil
	}
}

// toolAnswer keeps what an API answers.
type toolAnswer struct {
	bytes.Buffer
	header http.Header
	status int
}

func (a *toolAnswer) Header() http.Header    { return a.header }
func (a *toolAnswer) WriteHeader(status int) { a.status = status }
