package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/caddy-scope/caddy-scope/dpop/dpoptest"
)

// provingRobot is a client that proves everything: who it is by assertions, and
// that it holds the key of its tokens.
type provingRobot struct {
	*gateScene
	key    *dpoptest.Key
	holder *dpoptest.Key // of the tokens
	nonce  string
}

func newProvingRobot(t *testing.T, algorithm string) *provingRobot {
	t.Helper()
	r := &provingRobot{key: dpoptest.NewKey(t, algorithm), holder: dpoptest.NewKey(t, algorithm)}
	set, err := json.Marshal(map[string]any{"keys": []any{r.key.JWK()}})
	if err != nil {
		t.Fatal(err)
	}
	r.gateScene, _ = newRealScene(t, "client robot {\n\tjwks `"+string(set)+"`\n\tgrants authorization_code client_credentials\n\tredirect_uri https://robot.example/cb\n\tdpop_bound_access_tokens\n}")
	return r
}

// post sends a form with an assertion and a proof, and takes the nonce that it
// is given, as a client does. RFC 9449 section 8.
func (r *provingRobot) post(path string, form url.Values) (answer, map[string]any) {
	r.t.Helper()
	for try := 0; ; try++ {
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", r.key.Sign(map[string]any{"alg": r.key.Algorithm}, map[string]any{
			"iss": "robot", "sub": "robot", "aud": testIssuer, "jti": uuid.NewString(), "exp": time.Now().Add(time.Minute).Unix(),
		}))
		got, said := r.postWith(path, form, "DPoP: "+r.holder.Proof("POST", testIssuer+path, dpoptest.Nonce(r.nonce)))
		if said["error"] != "use_dpop_nonce" || try > 0 {
			return got, said
		}
		r.nonce = got.header.Get("DPoP-Nonce")
	}
}

func (r *provingRobot) call(scheme, token string, headers ...string) answer {
	r.t.Helper()
	return r.raw("GET /jobs?page=2 HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: " + scheme + " " + token + "\n" +
		strings.Join(append(headers, "", ""), "\n"))
}

// P-23: a client pushes, gets a token and calls, through Caddy, proving itself at each
// step and by each algorithm; who stole the token or saw the request cannot, on
// this node or another. RFC 7523, RFC 9126, RFC 9449.
func TestEverythingProvenThroughCaddy(t *testing.T) {
	for _, algorithm := range []string{"ES256", "RS256", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			r := newProvingRobot(t, algorithm)
			got, said := r.post("/oauth/par", url.Values{
				"response_type": {"code"}, "scope": {"jobs:read"}, "redirect_uri": {"https://robot.example/cb"},
				"code_challenge": {strings.Repeat("x", 43)}, "code_challenge_method": {"S256"},
			})
			if uri, _ := said["request_uri"].(string); got.status != http.StatusCreated || !strings.HasPrefix(uri, "urn:ietf:params:oauth:request_uri:") {
				t.Fatalf("%+v", got)
			}
			got, said = r.post("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"jobs:read"}})
			if got.status != http.StatusOK || said["token_type"] != "DPoP" {
				t.Fatalf("%+v", got)
			}
			token := fmt.Sprint(said["access_token"])
			proof := "DPoP: " + r.holder.Proof("GET", testIssuer+"/jobs", dpoptest.For(token), dpoptest.Nonce(r.nonce))
			if got := r.call("DPoP", token, proof); got.status != http.StatusOK {
				t.Fatalf("%+v", got)
			}
			if header := r.upstream.one(t).header; header.Get("X-Client-Id") != "robot" || header.Get("DPoP") != "" || header.Get("Authorization") != "" {
				t.Errorf("%v", header)
			}
			for name, got := range map[string]answer{
				"replay":      r.call("DPoP", token, proof),
				"as a bearer": r.call("Bearer", token),
				"another key": r.call("DPoP", token, "DPoP: "+dpoptest.NewKey(t, algorithm).Proof("GET", testIssuer+"/jobs", dpoptest.For(token), dpoptest.Nonce(r.nonce))),
			} {
				if got.status != http.StatusUnauthorized || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), `DPoP algs="ES256 EdDSA RS256", error=`) {
					t.Errorf("%s: %+v", name, got)
				}
			}
			// Another pool is what another node has: it shares Postgres and nothing else.
			r.dsn += "&application_name=node-2"
			if !strings.Contains(r.dsn, "?") {
				r.dsn = strings.Replace(r.dsn, "&", "?", 1)
			}
			r.load("", realSite)
			if got := r.call("DPoP", token, proof); got.status != http.StatusUnauthorized || !strings.Contains(got.header.Get("WWW-Authenticate"), "invalid_dpop_proof") {
				t.Errorf("replay at another node: %+v", got)
			}
			fresh := "DPoP: " + r.holder.Proof("GET", testIssuer+"/jobs", dpoptest.For(token), dpoptest.Nonce(r.nonce))
			if got := r.call("DPoP", token, fresh); got.status != http.StatusOK {
				t.Errorf("a nonce of another node: %+v", got)
			}
			if got := r.upstream.take(); len(got) != 1 {
				t.Errorf("the upstream received %d requests", len(got))
			}
		})
	}
}

// P-24: the proof names the URL that the client called, also where the site rewrites
// it before the gate.
func TestProofOfARewrittenRequest(t *testing.T) {
	r := newProvingRobot(t, "ES256")
	r.load("", `
		oauth_server
		handle_path /v1/* {
			oauth_protect {
				GET /jobs jobs:read
			}
			reverse_proxy UPSTREAM
		}`)
	_, said := r.post("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"jobs:read"}})
	token := fmt.Sprint(said["access_token"])
	for path, status := range map[string]int{"/v1/jobs": 200, "/jobs": 401} {
		proof := r.holder.Proof("GET", testIssuer+path, dpoptest.For(token), dpoptest.Nonce(r.nonce))
		got := r.raw("GET /v1/jobs HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: DPoP " + token + "\nDPoP: " + proof + "\n\n")
		if got.status != status {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

// holder adds a bound token and a proof to each request, and takes the nonces that
// it is given. RFC 9449 sections 4 and 9.
type holder struct {
	key   *dpoptest.Key
	token string
	nonce string
	used  []string // proofs
}

func (h *holder) RoundTrip(r *http.Request) (*http.Response, error) {
	for try := 0; ; try++ {
		again := r.Clone(r.Context())
		if r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			again.Body = body
		}
		proof := h.key.Proof(r.Method, testIssuer+r.URL.Path, dpoptest.For(h.token), dpoptest.Nonce(h.nonce))
		again.Header.Set("Authorization", "DPoP "+h.token)
		again.Header.Set("DPoP", proof)
		h.used = append(h.used, proof)
		res, err := http.DefaultTransport.RoundTrip(again)
		if err != nil || try > 0 || !strings.Contains(res.Header.Get("WWW-Authenticate"), "use_dpop_nonce") {
			return res, err
		}
		h.nonce = res.Header.Get("DPoP-Nonce")
		_ = res.Body.Close()
	}
}

// P-26: at an MCP server with rules for its tools a bound token needs its proof for
// each message, and a proof lets through one message only. It says nothing of the
// body: who saw one for a tool could call another with it.
func TestProofIsForOneCallOfATool(t *testing.T) {
	s, _ := newRealScene(t)
	s.mcpUpstream(mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
	s.load("", "oauth_server\n"+toolSite)
	key := dpoptest.NewKey(t, "ES256")
	h := &holder{key: key, token: s.token(func(claims map[string]any) {
		claims["scope"], claims["cnf"] = "jobs:read", map[string]any{"jkt": key.Thumbprint()}
	})}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: "http://" + s.address + "/mcp", HTTPClient: &http.Client{Transport: h}, DisableStandaloneSSE: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	list, err := session.ListTools(ctx, nil)
	if err != nil || len(list.Tools) != 2 {
		t.Errorf("tools/list: %v %+v", err, list)
	}
	if result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "whoami"}); err != nil || result.Content[0].(*mcp.TextContent).Text != "user-1" {
		t.Errorf("whoami: %v %+v", err, result)
	}
	sent := h.used[len(h.used)-1]
	if _, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "post_job"}); err == nil {
		t.Error("post_job was called without its scope")
	}

	call := func(scheme, tool string, proofs ...string) answer {
		body := `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"` + tool + `","arguments":{}}}`
		lines := append([]string{"POST /mcp HTTP/1.1", "Host: api.example.com", "Connection: close", "Authorization: " + scheme + " " + h.token,
			"Content-Type: application/json", "Accept: application/json, text/event-stream", "Content-Length: " + fmt.Sprint(len(body))}, proofs...)
		return s.raw(strings.Join(lines, "\n") + "\n\n" + body)
	}
	proof := func(by *dpoptest.Key, method, path string) string {
		return "DPoP: " + by.Proof(method, testIssuer+path, dpoptest.For(h.token), dpoptest.Nonce(h.nonce))
	}
	good := proof(key, "POST", "/mcp")
	if got := call("DPoP", "search_jobs", good); got.status != http.StatusOK || !strings.Contains(got.body, `"search_jobs"`) {
		t.Fatalf("%+v", got)
	}
	two := proof(key, "POST", "/mcp")
	for name, c := range map[string]struct {
		got           answer
		status        int
		scheme, error string
	}{
		"again":                     {call("DPoP", "search_jobs", good), 401, "DPoP", "invalid_dpop_proof"},
		"again, for another tool":   {call("DPoP", "whoami", good), 401, "DPoP", "invalid_dpop_proof"},
		"one that the SDK sent":     {call("DPoP", "search_jobs", "DPoP: "+sent), 401, "DPoP", "invalid_dpop_proof"},
		"two":                       {call("DPoP", "search_jobs", two, proof(key, "POST", "/mcp")), 401, "DPoP", "invalid_dpop_proof"},
		"none":                      {call("DPoP", "search_jobs"), 401, "DPoP", "invalid_dpop_proof"},
		"as a bearer":               {call("Bearer", "search_jobs"), 401, "DPoP", "invalid_token"},
		"as a bearer, with a proof": {call("Bearer", "search_jobs", proof(key, "POST", "/mcp")), 401, "DPoP", "invalid_token"},
		"of another key":            {call("DPoP", "search_jobs", proof(dpoptest.NewKey(t, "ES256"), "POST", "/mcp")), 401, "DPoP", "invalid_token"},
		"for another method":        {call("DPoP", "search_jobs", proof(key, "GET", "/mcp")), 401, "DPoP", "invalid_dpop_proof"},
		"for another URL":           {call("DPoP", "search_jobs", proof(key, "POST", "/jobs")), 401, "DPoP", "invalid_dpop_proof"},
		"without the scope":         {call("DPoP", "post_job", proof(key, "POST", "/mcp")), 403, "DPoP", "insufficient_scope"},
		"of no rule":                {call("DPoP", "internal", proof(key, "POST", "/mcp")), 403, "", ""},
	} {
		challenge := c.got.header.Get("WWW-Authenticate")
		if c.got.status != c.status || !strings.HasPrefix(challenge, c.scheme) || !strings.Contains(challenge, c.error) {
			t.Errorf("%s: %+v", name, c.got)
		}
		if strings.Contains(c.got.body, `"result"`) {
			t.Errorf("%s: the upstream answered %s", name, c.got.body)
		}
	}
}
