package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

// tryOut is what `make run` starts: Caddyfile.example with a Postgres of its
// own.
type tryOut struct {
	base    string
	secret  string
	out     *lockedBuffer
	process *exec.Cmd
	exited  chan error
}

const demoPassword = "a password of the test"

func startTryOut(t *testing.T) *tryOut {
	t.Helper()
	dir, err := os.MkdirTemp("", "caddy-scope-tryout") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // Postgres runs as another user
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "bin", "tryout"), "../examples/tryout").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	example, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "Caddyfile.example"), string(example))
	if err := os.Symlink(cluster.Binary(t), filepath.Join(dir, "bin", "caddy")); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 5)
	try := &tryOut{
		base: fmt.Sprintf("http://localhost:%d", ports[0]), secret: "a-secret-of-the-demo-that-is-long-enough",
		out: new(lockedBuffer), exited: make(chan error, 1), process: exec.Command(filepath.Join("bin", "tryout")),
	}
	try.process.Dir, try.process.Stdout, try.process.Stderr = dir, try.out, try.out
	try.process.Env = append(os.Environ(), "GATEWAY_ADDRESS="+try.base, fmt.Sprintf("GATEWAY_ADMIN=localhost:%d", ports[1]),
		fmt.Sprintf("JOBS_API=127.0.0.1:%d", ports[2]), fmt.Sprintf("PEOPLE_API=127.0.0.1:%d", ports[3]), fmt.Sprintf("TOOLS_API=127.0.0.1:%d", ports[4]),
		"DEMO_PASSWORD="+demoPassword, "DEMO_CLIENT_SECRET="+try.secret, "DATABASE_URL=", "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	if err := try.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { try.exited <- try.process.Wait() }()
	t.Cleanup(func() { _ = try.process.Process.Signal(syscall.SIGTERM) })
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(try.out.String(), "\nready\n"); time.Sleep(100 * time.Millisecond) {
		select {
		case err := <-try.exited:
			t.Fatalf("ended: %v\n%s", err, try.out)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready:\n%s", try.out)
		}
	}
	return try
}

func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

var (
	formAction = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)
	hidden     = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
)

// TestTryOutKeepsItsContract: Caddyfile.example, run as `make run` runs it, takes
// the demo user to a token that opens what was allowed and nothing else; what
// it prints works, and Ctrl-C leaves nothing behind.
func TestTryOutKeepsItsContract(t *testing.T) {
	try := startTryOut(t)
	for path, scope := range map[string]string{"/jobs": "jobs:read", "/applications": "applications:read", "/resume": "resume:read"} {
		resp, err := http.Get(try.base + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if challenge := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != http.StatusUnauthorized || !strings.Contains(challenge, `scope="`+scope+`"`) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, challenge)
		}
	}
	for _, client := range []struct{ id, secret string }{{"demo-public", ""}, {"demo-confidential", try.secret}} {
		token := try.token(t, client.id, client.secret, "jobs:read")
		if status, body := try.api(t, http.MethodGet, "/jobs", token); status != http.StatusOK || !strings.Contains(body, `"jobs"`) {
			t.Errorf("%s: GET /jobs: %d %s", client.id, status, body)
		}
		if status, body := try.api(t, http.MethodPost, "/applications", token); status != http.StatusForbidden || !strings.Contains(body, "insufficient_scope") {
			t.Errorf("%s: POST /applications: %d %s", client.id, status, body)
		}
	}
	var gateway struct{ Issuer string }
	if _, body := try.api(t, http.MethodGet, "/.well-known/oauth-authorization-server", ""); json.Unmarshal([]byte(body), &gateway) != nil || gateway.Issuer != try.base {
		t.Errorf("metadata: %s", body)
	}

	try.callTool(t)
	token := try.token(t, "demo-public", "", "jobs:read")
	printed := regexp.MustCompile(`(?m)^  psql '([^']*)' -c "([^"]*)"$`).FindStringSubmatch(try.out.String())
	if printed == nil {
		t.Fatalf("no psql command in:\n%s", try.out)
	}
	if out, err := exec.Command("psql", printed[1], "-c", printed[2]).CombinedOutput(); err != nil {
		t.Fatalf("the printed command: %v\n%s", err, out)
	}
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if status, _ := try.api(t, http.MethodGet, "/jobs", token); status == http.StatusUnauthorized {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the token still works after the session was switched off")
		}
	}

	if err := try.process.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-try.exited:
		try.exited <- err
		if err != nil {
			t.Errorf("Ctrl-C: %v\n%s", err, try.out)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("Ctrl-C does not end it:\n%s", try.out)
	}
	if _, err := http.Get(try.base + "/jobs"); err == nil {
		t.Error("the gateway is still there")
	}
}

// callTool calls a tool of the sample MCP server, as a client that acts for
// itself; what it may not call it does not see.
func (try *tryOut) callTool(t *testing.T) {
	t.Helper()
	robot := clientcredentials.Config{ClientID: "demo-confidential", ClientSecret: try.secret, TokenURL: try.base + "/oauth/token", Scopes: []string{"jobs:read"},
		EndpointParams: url.Values{"resource": {try.base + "/mcp"}}}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(),
		&mcp.StreamableClientTransport{Endpoint: try.base + "/mcp", HTTPClient: robot.Client(t.Context())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	list, err := session.ListTools(t.Context(), nil)
	if err != nil || len(list.Tools) != 2 { // get_job and search_jobs
		t.Errorf("tools/list: %v, %v", list, err)
	}
	result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "search_jobs"})
	if err != nil || !strings.Contains(result.Content[0].(*mcp.TextContent).Text, `"jobs"`) {
		t.Errorf("search_jobs: %v, %v", result, err)
	}
}

// token signs the demo user in by the plain forms and redeems the code.
func (try *tryOut) token(t *testing.T, clientID, secret, scope string) string {
	t.Helper()
	jar, _ := cookiejar.New(nil)
	var answer string
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == "127.0.0.1:1" {
			answer = r.URL.Query().Get("code")
			return http.ErrUseLastResponse
		}
		return nil
	}}
	config := oauth2.Config{ClientID: clientID, ClientSecret: secret, RedirectURL: "http://127.0.0.1:1/callback", Scopes: []string{scope},
		Endpoint: oauth2.Endpoint{AuthURL: try.base + "/oauth/authorize", TokenURL: try.base + "/oauth/token"}}
	verifier := oauth2.GenerateVerifier()
	page := read(t, browser, config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)), nil)
	page = submit(t, browser, page, "email", url.Values{"email": {"demo@example.com"}, "password": {demoPassword}})
	if answer == "" {
		page = submit(t, browser, page, "decision", url.Values{"decision": {"allow"}})
	}
	if answer == "" {
		t.Fatalf("no code; the last page:\n%s", page)
	}
	token, err := config.Exchange(t.Context(), answer, oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return token.AccessToken
}

func read(t *testing.T, browser *http.Client, address string, form url.Values) string {
	t.Helper()
	var resp *http.Response
	var err error
	if form == nil {
		resp, err = browser.Get(address)
	} else {
		resp, err = browser.PostForm(address, form)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// submit fills in the form of the page that has the field.
func submit(t *testing.T, browser *http.Client, page, field string, form url.Values) string {
	t.Helper()
	for part := range strings.SplitSeq(page, "</form>") {
		action := formAction.FindStringSubmatch(part)
		if action == nil || !strings.Contains(part, `name="`+field+`"`) {
			continue
		}
		for _, field := range hidden.FindAllStringSubmatch(part, -1) {
			form.Set(field[1], field[2])
		}
		return read(t, browser, action[1], form)
	}
	t.Fatalf("no form with %s in:\n%s", field, page)
	return ""
}

func (try *tryOut) api(t *testing.T, method, path, token string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequest(method, try.base+path, bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}
