package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
)

// exitNo is the exit status of a command whose answer is no.
const exitNo = 2

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain", Short: "Tells what the gate answers a request, and why", Args: cobra.NoArgs,
		Long: `
Tells which rule decides about a request, with file and line, the scopes that
are needed and missing, and the status, headers and body that are sent. It
works offline: the request goes through the sites of the configuration and the
gate itself, but nothing is proxied and no database is asked.

With --id it tells about a request that was refused, by the id in its response
header X-Request-Id and in the log; the server's admin API is asked.

Exit status: 0 the request passes, 2 it is refused, 1 neither is known.`,
		Example: "  caddy oauth explain --method DELETE --path /jobs/7 --scope jobs:read\n" +
			"  caddy oauth explain --method POST --path /jobs --scope jobs:write --user roles=recruiter\n" +
			"  caddy oauth explain --path /mcp --tool search_jobs --scope jobs:read\n" +
			"  caddy oauth explain --path /jobs/7 --token token.txt --json\n" +
			"  caddy oauth explain --id 0b0e6d2c-6a4e-4f0b-8d3e-2f6f3f1f9a10",
		RunE: explainRequest,
	}
	flags := cmd.Flags()
	flags.String("method", "GET", "Method of the request; with a body POST unless named")
	flags.String("path", "", "Path of the request, as it is sent, with the query if it has one")
	flags.String("host", "", "Host of the request (default: the issuer's)")
	flags.StringSlice("scope", nil, "Scopes of the access token; none: without credentials")
	flags.StringArray("user", nil, "What the user has, as CLAIM=VALUE or CLAIM=VALUE,VALUE; again for each claim")
	flags.String("token", "", "File that holds an access token; - is standard input")
	flags.String("tool", "", "Tool of an MCP server that the request calls")
	flags.String("body", "", "File that holds the JSON body of the request; - is standard input")
	flags.String("client", "", "Client that the access token is of (default: the first one)")
	flags.String("id", "", "Explain the request with this id, by the admin API")
	flags.String("address", "", "Address of the admin API, for --id (default: "+caddy.DefaultAdminListen+")")
	flags.Bool("json", false, "Answer in JSON")
	cmd.MarkFlagsOneRequired("path", "id")
	cmd.MarkFlagsMutuallyExclusive("path", "id")
	cmd.MarkFlagsMutuallyExclusive("scope", "token")
	cmd.MarkFlagsMutuallyExclusive("tool", "body")
	return cmd
}

func explainRequest(cmd *cobra.Command, _ []string) error {
	cmd.SilenceUsage = true
	e, err := explanationFor(cmd)
	if err != nil {
		return err
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		err = writeJSON(cmd.OutOrStdout(), e)
	} else {
		err = e.WriteText(cmd.OutOrStdout())
	}
	if err == nil && !e.Passes() {
		return exitWith(cmd, exitNo)
	}
	return err
}

func explanationFor(cmd *cobra.Command) (*explain.Explanation, error) {
	flags := cmd.Flags()
	if id, _ := flags.GetString("id"); id != "" {
		address, _ := flags.GetString("address")
		return explanationOf(cmd.Context(), address, id)
	}
	var q rehearsedRequest
	q.method, _ = flags.GetString("method")
	q.path, _ = flags.GetString("path")
	q.host, _ = flags.GetString("host")
	q.client, _ = flags.GetString("client")
	q.scopes, _ = flags.GetStringSlice("scope")
	q.user, _ = flags.GetStringArray("user")
	var err error
	if file, _ := flags.GetString("token"); file != "" {
		if q.token, err = readToken(cmd, file); err != nil {
			return nil, err
		}
	}
	if q.body, err = requestBody(cmd); err != nil {
		return nil, err
	}
	if q.body != nil && !flags.Changed("method") {
		q.method = http.MethodPost
	}
	q.anyone = q.token == "" && !flags.Changed("scope") && !flags.Changed("user") && q.client == ""
	config, err := commandConfigJSON(cmd)
	if err != nil {
		return nil, err
	}
	h, err := newRehearsal(config)
	if err != nil {
		return nil, err
	}
	return h.explain(q)
}

// requestBody returns the body that the flags ask for; nil: none.
func requestBody(cmd *cobra.Command) ([]byte, error) {
	if tool, _ := cmd.Flags().GetString("tool"); tool != "" {
		return toolCall(tool)
	}
	file, _ := cmd.Flags().GetString("body")
	if file == "" {
		return nil, nil
	}
	return readFile(cmd, "body", file, 8<<20)
}

// toolCall is a message that calls a tool of an MCP server.
func toolCall(tool string) ([]byte, error) {
	return json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": tool, "arguments": struct{}{}}})
}

// readFile reads the file that a flag names; - is standard input.
func readFile(cmd *cobra.Command, flag, file string, longest int64) ([]byte, error) {
	from := cmd.InOrStdin()
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		defer opened.Close()
		from = opened
	}
	content, err := io.ReadAll(io.LimitReader(from, longest))
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return content, nil
}

func readToken(cmd *cobra.Command, file string) (string, error) {
	text, err := readFile(cmd, "token", file, 64<<10)
	if err != nil {
		return "", err
	}
	token := strings.TrimPrefix(strings.TrimSpace(string(text)), "Bearer ")
	if token == "" {
		return "", errors.New("--token: the file is empty")
	}
	return token, nil
}

// explanationOf asks a running server why it refused a request.
func explanationOf(ctx context.Context, address, id string) (*explain.Explanation, error) {
	var e explain.Explanation
	if err := askAdmin(ctx, address, refusedPath+url.PathEscape(id), &e); err != nil {
		return nil, err
	}
	return &e, nil
}

func writeJSON(to io.Writer, value any) error {
	encoder := json.NewEncoder(to)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// exitWith ends the command with a status of its own, which only Caddy can make
// of an error.
func exitWith(cmd *cobra.Command, status int) error {
	cmd.SilenceErrors = true
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return status, nil })(cmd, nil)
}
