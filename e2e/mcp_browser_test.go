package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// MCP-15, trap 4, trap 7: a client that is a page of another origin, as the MCP
// Inspector is one, finds the authorization server from a bare 401, registers, gets a token,
// and calls tools: nothing that it must read or send is kept from it.
func TestClientInABrowserConnectsAcrossOrigins(t *testing.T) {
	t.Parallel()
	server := mcp.NewServer(&mcp.Implementation{Name: "board", Version: "1"}, nil)
	for _, name := range []string{"search_jobs", "post_job"} {
		mcp.AddTool(server, &mcp.Tool{Name: name}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "it is done"}}}, nil, nil
		})
	}
	sessions := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet { // that the request came is enough
			w.Header().Set("Content-Type", "text/event-stream")
			return
		}
		sessions.ServeHTTP(w, r)
	}))
	t.Cleanup(upstream.Close)
	s := newSceneWith(t, sceneConfig{Options: "registration {\n\t\t\tdynamic\n\t\t}", Site: fmt.Sprintf(`oauth_protect {
		resource /mcp
		GET,POST,DELETE /mcp jobs:read
		tool search_jobs jobs:read
		tool post_job    applications:write
		cors *
	}
	reverse_proxy %s {
		header_up Host {upstream_hostport}
	}`, strings.TrimPrefix(upstream.URL, "http://"))})
	page := httptest.NewServer(http.FileServer(http.Dir("testdata"))) // http://127.0.0.1, the gateway is http://localhost
	t.Cleanup(page.Close)

	browser := newChromium(t)
	if err := chromedp.Do(browser, chromedp.Navigate(page.URL+"/browser_client.html?mcp="+url.QueryEscape(s.Base+"/mcp"))); err != nil {
		t.Fatal(err)
	}
	signIn(t, browser)
	if err := chromedp.Do(browser, chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Allow"))); err != nil {
		t.Fatal(err)
	}
	var report struct {
		Bare struct {
			Status int
			Scope  string
		}
		Discovered struct {
			Resource   string
			Registered int
		}
		Token  int
		Opened struct {
			Status          int
			Session, Server string
		}
		Listed []string
		Called struct {
			Status int
			Text   string
		}
		Beyond struct {
			Status int
			Scope  string
		}
		Resumed, Ended int
		Error          string
	}
	text := ""
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var err error
		if text, err = chromedp.Run(browser, chromedp.Evaluate[string](`document.title === "done" ? document.getElementById("report").textContent : ""`)); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the page does not end")
		}
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil || report.Error != "" {
		t.Fatalf("%v %s", err, text)
	}
	for what, ok := range map[string]bool{
		"bare":       report.Bare.Status == 401 && report.Bare.Scope == "jobs:read",
		"discovered": report.Discovered.Resource == s.Base+"/mcp" && report.Discovered.Registered == 201,
		"token":      report.Token == 200,
		"opened":     report.Opened.Status == 200 && report.Opened.Session != "" && report.Opened.Server == "board",
		"listed":     len(report.Listed) == 1 && report.Listed[0] == "search_jobs",
		"called":     report.Called.Status == 200 && report.Called.Text == "it is done",
		"beyond":     report.Beyond.Status == 403 && report.Beyond.Scope == "applications:write jobs:read",
		"resumed":    report.Resumed == 200,
		"ended":      report.Ended == 204,
	} {
		if !ok {
			t.Errorf("%s: %s", what, text)
		}
	}
}
