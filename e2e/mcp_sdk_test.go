package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

// mcpServer is the Go SDK's server for conformance tests: an MCP server with
// everything a client can ask for, and without any authorization.
const mcpServer = "github.com/modelcontextprotocol/go-sdk/conformance/everything-server"

// startMCPServer runs it until the test ends and returns its address.
func startMCPServer(t *testing.T, args ...string) string {
	t.Helper()
	address := "127.0.0.1:" + freePort(t)
	run := exec.Command(cluster.Program(t, mcpServer), append([]string{"-http", address}, args...)...)
	log := &lockedBuffer{}
	run.Stdout, run.Stderr = log, log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = run.Process.Kill()
		_ = run.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("the MCP server does not listen:\n%s", log)
		}
	}
}

// newMCPScene puts an MCP server behind the gate.
func newMCPScene(t *testing.T, upstream, options, trust string) *scene {
	t.Helper()
	return newSceneWith(t, sceneConfig{
		HTTPS: true, Admin: true, Trust: trust,
		// Else Caddy itself answers 200, with nothing, to a Host that no site has.
		Global: "servers {\n\t\tstrict_sni_host on\n\t}",
		Scopes: `scope tools:use  "Use the tools"
		scope tools:more "Use the tools that change something"`,
		Options: options,
		Site: fmt.Sprintf(`oauth_protect {
		* /mcp tools:use
		resource BASE/mcp
	}
	reverse_proxy %s`, upstream),
	})
}

// CLI-03: the TypeScript SDK's client goes from a bare 401 to a tool call, known by its
// metadata document or registering itself; its session outlives expired tokens,
// a revocation and a rule that asks for more.
func TestMCPSDKConnects(t *testing.T) {
	t.Parallel()
	document, port, trust := clientHost(t, "http://127.0.0.1/callback")
	s := newMCPScene(t, startMCPServer(t, "-stateless=false"), fmt.Sprintf(`registration {
			dynamic
			metadata_documents
			allow_address 127.0.0.1/32
			allow_port %s
		}`, port), trust)
	browser := newChromium(t)
	connect := func(t *testing.T, d *driver, clientID string, registered bool) {
		t.Helper()
		want := []string{
			"POST /mcp 401", "GET /.well-known/oauth-protected-resource/mcp 200", "GET /.well-known/oauth-authorization-server 200",
		}
		if registered {
			want = append(want, "POST /oauth/register 201")
		}
		d.await("discovery").want(t, map[string]any{"traffic": want})
		asked := d.await("browse")
		asked.want(t, map[string]any{"scope": "tools:use", "resource": s.Base + "/mcp", "code_challenge_method": "S256"})
		if id := asked.text("client_id"); registered != strings.HasPrefix(id, "dcr_") || !registered && id != clientID {
			t.Errorf("client_id %s", id)
		}
		if pages := strings.Join(allow(t, browser, asked.text("url")), "\n"); !strings.Contains(pages, "Use the tools") {
			t.Errorf("the pages:\n%s", pages)
		}
		d.await("token").want(t, map[string]any{"scope": "tools:use", "token_type": "Bearer", "refreshable": !registered})
		if session := d.await("connected"); session.text("server") != "mcp-conformance-test-server" || session.text("session") == "" {
			t.Errorf("%v", session)
		}
		if names := mustJSON(t, d.await("tools")["names"]); !strings.Contains(names, `"test_simple_text"`) {
			t.Errorf("tools: %s", names)
		}
		tool(t, d)
	}
	start := func(t *testing.T, flow string, args ...string) *driver {
		return s.in(t).startDriver("mcp.mjs", append([]string{flow, "--resource", s.Base + "/mcp", "--tool", "test_simple_text"}, args...)...)
	}
	const little, more = "* /mcp tools:use\n", "* /mcp tools:use tools:more\n"
	askForMore := func(config string) string { return strings.Replace(config, little, more, 1) }
	stepUp := func(t *testing.T, d *driver) {
		t.Helper()
		asked := d.await("browse")
		asked.want(t, map[string]any{"scope": "tools:more tools:use"})
		if pages := strings.Join(allow(t, browser, asked.text("url")), "\n"); !strings.Contains(pages, "Use the tools that change something") {
			t.Errorf("the pages:\n%s", pages)
		}
		d.await("token").want(t, map[string]any{"scope": "tools:more tools:use"})
		tool(t, d)
		d.await("ended")
		d.wait()
	}

	t.Run("registers itself", func(t *testing.T) {
		d := start(t, "step-up")
		connect(t, d, "", true)
		s.in(t).reload(askForMore)
		d.goOn()
		stepUp(t, d)
	})
	s.reload(func(config string) string {
		return strings.Replace(strings.Replace(config, more, little, 1), "login password", "login password\n\t\taccess_token_ttl 1s", 1) // and the leeway of the gate
	})
	t.Run("publishes its metadata", func(t *testing.T) {
		d := start(t, "life", "--document", document)
		connect(t, d, document, false)
		d.await("refreshed")
		s.in(t).sql(`UPDATE gpt_sessions SET revoked_at = now()`)
		d.goOn()
		d.await("invalidated").want(t, map[string]any{"what": "tokens"})
		allow(t, browser, d.await("browse").text("url"))
		d.await("token").want(t, map[string]any{"scope": "tools:use"})
		tool(t, d)
		s.in(t).reload(func(config string) string { return strings.Replace(askForMore(config), "access_token_ttl 1s", "", 1) })
		d.goOn()
		if refused := d.await("refused").text("message"); !strings.Contains(refused, "403") {
			t.Errorf("refused: %s", refused)
		}
		stepUp(t, d)
	})
	if status, header := s.api(http.MethodPost, "/mcp", ""); status != http.StatusUnauthorized ||
		header.Get("WWW-Authenticate") != `Bearer scope="tools:more tools:use", resource_metadata="`+s.Base+`/.well-known/oauth-protected-resource/mcp"` {
		t.Errorf("%d %s", status, header.Get("WWW-Authenticate"))
	}
}

// tool awaits the answer of test_simple_text.
func tool(t *testing.T, d *driver) {
	t.Helper()
	if text := d.await("tool").text("text"); !strings.Contains(text, "simple text") {
		t.Errorf("the tool says %q", text)
	}
}
