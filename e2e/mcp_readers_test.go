package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// mutants returns bodies that are made of two others, of pieces that make
// readers differ, and of chance.
func mutants(random *rand.Rand, n int) [][]byte {
	var seeds []string
	for _, body := range slices.Concat(validatortest.HostileBodies("search_jobs", "post_job"), validatortest.HonestBodies("search_jobs")) {
		if len(body.Text) < 2000 && len(body.Text) > 20 {
			seeds = append(seeds, body.Text)
		}
	}
	pieces := []string{
		`"name":"post_job",`, `,"name":"post_job"`, `"Name":"post_job",`, `"method":"tools/call",`, `,"method":"ping"`, `"params":{"name":"post_job"},`, `,"arguments":{"name":"post_job"}`,
		`,{"method":"tools/call","params":{"name":"post_job"}}`, "\\u0000", "\\ud800", "\ufeff", "\x00", "\xff", "\n", " ", `\`, `"`, "{", "}", "[", "]", ",", ":", "/**/", "null", "1e999", "é", "\u017f",
	}
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	var bodies [][]byte
	for range n {
		body := pick(seeds)
		for range 1 + random.IntN(2) {
			at := random.IntN(len(body) + 1)
			switch random.IntN(5) {
			case 0: // the end of another
				other := pick(seeds)
				body = body[:at] + other[min(at, len(other)):]
			case 1: // a part twice
				to := at + random.IntN(len(body)-at+1)
				body = body[:to] + body[at:]
			case 2: // another byte
				if at < len(body) {
					body = body[:at] + string([]byte{byte(random.IntN(256))}) + body[at+1:]
				}
			default:
				body = body[:at] + pick(pieces) + body[at:]
			}
		}
		bodies = append(bodies, []byte(body))
	}
	return bodies
}

// readByProgram lets a program say which tools the bodies call.
func readByProgram(t *testing.T, bodies [][]byte, program string, args ...string) [][]string {
	t.Helper()
	var input bytes.Buffer
	for _, body := range bodies {
		input.WriteString(base64.StdEncoding.EncodeToString(body) + "\n")
	}
	run := exec.CommandContext(t.Context(), program, args...)
	run.Stdin = &input
	var errors bytes.Buffer
	run.Stderr = &errors
	out, err := run.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, &errors)
	}
	var all [][]string
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var tools []string
		if err := json.Unmarshal(lines.Bytes(), &tools); err != nil {
			t.Fatalf("%s: %s", program, lines.Text())
		}
		all = append(all, tools)
	}
	if len(all) != len(bodies) {
		t.Fatalf("%s read %d bodies of %d", program, len(all), len(bodies))
	}
	return all
}

// MCP-03: the tool that an upstream executes is one whose rule allowed it: of what
// passes the gate, no reader in JavaScript (the MCP SDK among them) or Python finds
// a call of another tool. The readers of Go: validator.FuzzNoReaderFindsAnotherTool.
func TestNoReaderFindsAnotherTool(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var arrived [][]byte
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		arrived = append(arrived, body)
	}))
	t.Cleanup(upstream.Close)
	s := newSceneWith(t, sceneConfig{Options: `client robot {
			secret {env.DEMO_CLIENT_SECRET}
			grants client_credentials
		}`, Site: fmt.Sprintf(`oauth_protect {
		resource /mcp
		* /mcp authenticated
		tool search_jobs jobs:read
		tool post_job    applications:write
	}
	reverse_proxy %s`, strings.TrimPrefix(upstream.URL, "http://"))})
	robot := clientcredentials.Config{ClientID: "robot", ClientSecret: clientSecret, TokenURL: s.Base + "/oauth/token", Scopes: []string{"jobs:read"},
		EndpointParams: url.Values{"resource": {s.Base + "/mcp"}}}
	client := oauth2.NewClient(context.Background(), robot.TokenSource(t.Context()))

	seed := rand.Uint64()
	bodies := mutants(rand.New(rand.NewPCG(seed, 0)), 2500)
	for _, body := range slices.Concat(validatortest.HostileBodies("search_jobs", "post_job"), validatortest.HonestBodies("search_jobs")) {
		bodies = append(bodies, []byte(body.Text))
	}
	for _, body := range bodies {
		resp, err := client.Post(s.Base+"/mcp", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode >= 500 {
			t.Errorf("%q: %d", body, resp.StatusCode)
		}
	}
	if len(arrived) < 100 {
		t.Fatalf("%d of %d bodies arrived: they show too little", len(arrived), len(bodies))
	}
	for program, args := range map[string][]string{nodeBinary(t): {"clients/readers.mjs"}, "python3": {"testdata/readers.py"}} {
		calls := 0
		for i, tools := range readByProgram(t, arrived, program, args...) {
			calls += len(tools)
			for _, tool := range tools {
				if tool != "search_jobs" {
					t.Errorf("%s reads a call of %q in %q (seed %d)", program, tool, arrived[i], seed)
				}
			}
		}
		if calls < 20 { // ten of them are honest, the rest are mutants, by chance
			t.Errorf("%s reads %d calls: the readers do not read", program, calls)
		}
		// The readers do differ, and see what was kept from the upstream.
		if found := slices.ContainsFunc(readByProgram(t, bodies, program, args...), func(tools []string) bool { return slices.Contains(tools, "post_job") }); !found {
			t.Errorf("%s finds no call of post_job even in what was refused", program)
		}
	}
}
