package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
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

// CLI-03, CLI-09: both generations of the TypeScript SDK's client go from a bare 401 to a tool
// call, known by their metadata document or registering themselves; their session
// outlives expired tokens, a revocation and a rule that asks for more.
func TestMCPSDKConnects(t *testing.T) {
	t.Parallel()
	for _, sdk := range []string{"1", "2"} {
		t.Run("generation "+sdk, func(t *testing.T) {
			t.Parallel()
			r := newSDKRun(t, sdk)
			t.Run("registers itself", r.registersItself)
			if sdk == "2" {
				t.Run("binds its tokens to a key", r.bindsItsTokens)
			}
			// From here on tokens live for a second, and the leeway of the gate.
			r.s.in(t).reload(func(config string) string {
				return strings.Replace(config, "login password", "login password\n\t\taccess_token_ttl 1s", 1)
			})
			t.Run("publishes its metadata", r.publishesItsMetadata)
			if status, header := r.s.in(t).api(http.MethodPost, "/mcp", ""); status != http.StatusUnauthorized ||
				header.Get("WWW-Authenticate") != `Bearer scope="tools:more tools:use", resource_metadata="`+r.s.Base+`/.well-known/oauth-protected-resource/mcp"` {
				t.Errorf("%d %s", status, header.Get("WWW-Authenticate"))
			}
		})
	}
}

// sdkRun is the driver of one generation, before an MCP server behind a gate.
type sdkRun struct {
	s        *scene
	browser  context.Context
	sdk      string
	document string
}

func newSDKRun(t *testing.T, sdk string) *sdkRun {
	t.Helper()
	document, port, trust := clientHost(t, "http://127.0.0.1/callback")
	s := newMCPScene(t, startMCPServer(t, "-stateless=false"), fmt.Sprintf(`registration {
			dynamic
			metadata_documents
			allow_address 127.0.0.1/32
			allow_port %s
		}`, port), trust)
	return &sdkRun{s: s, browser: newChromium(t), sdk: sdk, document: document}
}

const (
	needsLittle = "* /mcp tools:use\n"
	needsMore   = "* /mcp tools:use tools:more\n"
)

// needMore changes the rule of the MCP server, by a reload.
func (r *sdkRun) needMore(t *testing.T, more bool) {
	t.Helper()
	from, to := needsMore, needsLittle
	if more {
		from, to = to, from
	}
	r.s.in(t).reload(func(config string) string { return strings.Replace(config, from, to, 1) })
}

func (r *sdkRun) start(t *testing.T, flow string, args ...string) *driver {
	t.Helper()
	return r.s.in(t).startDriver("mcp.mjs", append([]string{flow, "--sdk", r.sdk, "--resource", r.s.Base + "/mcp", "--tool", "test_simple_text"}, args...)...)
}

// connect is the way from the first 401 to a tool call.
func (r *sdkRun) connect(t *testing.T, d *driver, clientID, tokenType string, refreshable bool) {
	t.Helper()
	want := []string{
		"POST /mcp 401", "GET /.well-known/oauth-protected-resource/mcp 200", "GET /.well-known/oauth-authorization-server 200",
	}
	if clientID == "" {
		want = append(want, "POST /oauth/register 201")
	}
	d.await("discovery").want(t, map[string]any{"traffic": want})
	asked, scope := d.await("browse"), "tools:use"
	if r.sdk == "2" && refreshable { // as the server lists it
		scope += " offline_access"
	}
	asked.want(t, map[string]any{"scope": scope, "resource": r.s.Base + "/mcp", "code_challenge_method": "S256"})
	if id := asked.text("client_id"); clientID == "" && !strings.HasPrefix(id, "dcr_") || clientID != "" && id != clientID {
		t.Errorf("client_id %s", id)
	}
	if pages := strings.Join(allow(t, r.browser, asked.text("url")), "\n"); !strings.Contains(pages, "Use the tools") {
		t.Errorf("the pages:\n%s", pages)
	}
	d.await("token").want(t, map[string]any{"scope": "tools:use", "token_type": tokenType, "refreshable": refreshable})
	if session := d.await("connected"); session.text("server") != "mcp-conformance-test-server" || session.text("session") == "" {
		t.Errorf("%v", session)
	}
	if names := mustJSON(t, d.await("tools")["names"]); !strings.Contains(names, `"test_simple_text"`) {
		t.Errorf("tools: %s", names)
	}
	tool(t, d)
}

// stepUp asks the person for the scope that a changed rule wants.
func (r *sdkRun) stepUp(t *testing.T, d *driver) {
	t.Helper()
	asked := d.await("browse")
	if scope := strings.Fields(asked.text("scope")); !slices.Contains(scope, "tools:more") || !slices.Contains(scope, "tools:use") {
		t.Errorf("asked for %q", scope)
	}
	if pages := strings.Join(allow(t, r.browser, asked.text("url")), "\n"); !strings.Contains(pages, "Use the tools that change something") {
		t.Errorf("the pages:\n%s", pages)
	}
	d.await("token").want(t, map[string]any{"scope": "tools:more tools:use"})
	tool(t, d)
	d.await("ended")
	d.wait()
}

func (r *sdkRun) registersItself(t *testing.T) {
	d := r.start(t, "step-up")
	r.connect(t, d, "", "Bearer", false)
	r.needMore(t, true)
	d.goOn()
	r.stepUp(t, d)
	r.needMore(t, false)
}

// bindsItsTokens: what is stolen is worth nothing.
func (r *sdkRun) bindsItsTokens(t *testing.T) {
	d := r.start(t, "dpop")
	r.connect(t, d, "", "DPoP", true)
	d.await("stolen").want(t, map[string]any{"status": 401})
	d.await("ended")
	d.wait()
}

func (r *sdkRun) publishesItsMetadata(t *testing.T) {
	d := r.start(t, "life", "--document", r.document)
	r.connect(t, d, r.document, "Bearer", true)
	d.await("refreshed")
	r.s.in(t).sql(`UPDATE gpt_sessions SET revoked_at = now()`)
	d.goOn()
	d.await("invalidated").want(t, map[string]any{"what": "tokens"})
	allow(t, r.browser, d.await("browse").text("url"))
	d.await("token").want(t, map[string]any{"scope": "tools:use"})
	tool(t, d)
	r.s.in(t).reload(func(config string) string {
		return strings.Replace(strings.Replace(config, needsLittle, needsMore, 1), "access_token_ttl 1s", "", 1)
	})
	d.goOn()
	if r.sdk == "1" {
		if refused := d.await("refused").text("message"); !strings.Contains(refused, "403") {
			t.Errorf("refused: %s", refused)
		}
	}
	r.stepUp(t, d)
}

// tool awaits the answer of test_simple_text.
func tool(t *testing.T, d *driver) {
	t.Helper()
	if text := d.await("tool").text("text"); !strings.Contains(text, "simple text") {
		t.Errorf("the tool says %q", text)
	}
}
