package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

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
