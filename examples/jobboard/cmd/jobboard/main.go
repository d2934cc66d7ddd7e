// Command jobboard runs the sample job board by itself: jobs on
// 127.0.0.1:9001, applications and resumes on 127.0.0.1:9002, an MCP server on
// 127.0.0.1:9003.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/caddy-scope/caddy-scope/examples/jobboard"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	started := func() {
		fmt.Printf("jobs on http://%s/jobs, applications and resumes on http://%s, MCP server on http://%s/mcp\n",
			jobboard.JobsAddress, jobboard.PeopleAddress, jobboard.ToolsAddress)
	}
	if err := jobboard.New().ListenAndServe(ctx, jobboard.JobsAddress, jobboard.PeopleAddress, jobboard.ToolsAddress, started); err != nil {
		fmt.Fprintln(os.Stderr, "jobboard:", err)
		os.Exit(1)
	}
}
