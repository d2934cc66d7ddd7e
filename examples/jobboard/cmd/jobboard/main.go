// Command jobboard runs the sample job board by itself: jobs on
// 127.0.0.1:9001, applications and resumes on 127.0.0.1:9002, an MCP server on
// 127.0.0.1:9003.
//
//	jobboard -gate http://localhost:8080
//
// serves only requests that show, by an identity token, that they came through a
// gate of this issuer.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/caddy-scope/caddy-scope/authserver"
	"github.com/caddy-scope/caddy-scope/examples/jobboard"
	"github.com/caddy-scope/caddy-scope/identity"
	"github.com/caddy-scope/caddy-scope/oauth"
)

func main() {
	issuer := flag.String("gate", "", "issuer of the gate; empty: X-User-Id is believed")
	audience := flag.String("audience", "", "aud of its identity tokens (the issuer and #upstream)")
	flag.Parse()
	board := jobboard.New()
	if *issuer != "" {
		var err error
		if board.Gate, err = gate(*issuer, *audience); err != nil {
			fmt.Fprintln(os.Stderr, "jobboard:", err)
			os.Exit(2)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	started := func() {
		fmt.Printf("jobs on http://%s/jobs, applications and resumes on http://%s, MCP server on http://%s/mcp\n",
			jobboard.JobsAddress, jobboard.PeopleAddress, jobboard.ToolsAddress)
	}
	if err := board.ListenAndServe(ctx, jobboard.JobsAddress, jobboard.PeopleAddress, jobboard.ToolsAddress, started); err != nil {
		fmt.Fprintln(os.Stderr, "jobboard:", err)
		os.Exit(1)
	}
}

// gate checks identity tokens with the keys that the issuer publishes.
func gate(issuer, audience string) (*identity.Verifier, error) {
	server, err := authserver.New(authserver.Config{Issuer: issuer})
	if err != nil {
		return nil, err
	}
	if audience == "" {
		audience = oauth.UpstreamAudience(issuer)
	}
	return identity.NewVerifier(identity.VerifierConfig{Issuer: issuer, Audience: audience, Keys: server})
}
