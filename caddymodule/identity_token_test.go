package caddymodule

import (
	"crypto/ecdsa"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/authserver"
	"github.com/caddy-scope/caddy-scope/identity"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// verifyingUpstream has the recorder serve only what came through the gate, as a
// service does that knows where the issuer's keys are. It answers who is calling.
func (s *gateScene) verifyingUpstream(audience string) {
	s.t.Helper()
	kid, err := issuer.KeyID(&s.key.PublicKey)
	if err != nil {
		s.t.Fatal(err)
	}
	jwks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(validatortest.JWKS(map[string]*ecdsa.PublicKey{kid: &s.key.PublicKey}))
	}))
	s.t.Cleanup(jwks.Close)
	server, err := authserver.New(authserver.Config{Issuer: testIssuer, KeysURL: jwks.URL})
	if err != nil {
		s.t.Fatal(err)
	}
	verifier, err := identity.NewVerifier(identity.VerifierConfig{Issuer: testIssuer, Audience: audience, Keys: server})
	if err != nil {
		s.t.Fatal(err)
	}
	s.upstream.answerWith(verifier.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := identity.FromContext(r.Context())
		_ = json.NewEncoder(w).Encode(caller)
	})).ServeHTTP)
}

// direct sends a request to the upstream, around the gate.
func (s *gateScene) direct(t *testing.T, method, uri string, header http.Header) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.upstream.address+uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header, r.Host = header, "api.example.com"
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	s.upstream.take()
	return response.StatusCode
}

// UPS-01: an upstream that checks identity tokens serves what comes through the
// gate, however its path and query are spelled, and nothing else. What was bound is
// what is forwarded: a rewrite before the gate comes first.
func TestUpstreamServesOnlyTheGate(t *testing.T) {
	s := newGateScene(t, `
	rewrite /old/* /jobs{path}
	handle_path /v1/* {
		oauth_protect {
			GET /jobs/* jobs:read
			identity_token X-Identity-Token v1
		}
		reverse_proxy UPSTREAM
	}
	handle {
		oauth_protect {
			GET,POST /jobs jobs:read
			GET /jobs/* jobs:read
			* /open public
			identity_token X-Identity-Token
		}
		reverse_proxy UPSTREAM
	}
`)
	s.verifyingUpstream(testIssuer + "#upstream")
	for _, target := range []string{
		"/jobs", "/jobs?q=go", "/jobs?", "/jobs?a=1;b=2&c=%zz&d=%41", "/jobs/%C3%A4", "/jobs/a%20b?x=%20", "/jobs/a+b", "/jobs/%41", "/old/7", "/jobs/7/",
	} {
		got := s.get(target, "X-Identity-Token: forged", "x_identity_token: forged")
		if got.status != http.StatusOK || !strings.Contains(got.body, `"UserID":"user-1"`) || !strings.Contains(got.body, `"Scopes":"jobs:read jobs:write"`) {
			t.Errorf("%s: %d %s", target, got.status, got.body)
		}
		for name, values := range s.upstream.one(t).header {
			if strings.Contains(strings.Join(values, ","), "forged") {
				t.Errorf("%s: the upstream received %s: %v", target, name, values)
			}
		}
	}
	if got := s.raw("GET /open HTTP/1.1\nHost: api.example.com\nConnection: close\n\n"); got.status != http.StatusOK || !strings.Contains(got.body, `"UserID":"","ClientID":""`) {
		t.Errorf("public: %d %s", got.status, got.body)
	}
	s.upstream.take()
	if status := s.direct(t, "GET", "/jobs", http.Header{"X-User-Id": {"user-1"}}); status != http.StatusForbidden {
		t.Errorf("around the gate: %d", status)
	}
	if got := s.get("/v1/jobs/7"); got.status != http.StatusForbidden {
		t.Errorf("with the audience of another upstream: %d %s", got.status, got.body)
	}
	s.upstream.take()
	s.verifyingUpstream("v1")
	if got := s.get("/v1/jobs/7"); got.status != http.StatusOK { // and for /jobs/7, without the prefix
		t.Errorf("behind handle_path: %d %s", got.status, got.body)
	}
}

// UPS-02, UPS-03: whoever gets hold of an identity token can send the very same
// request with it while it lives, and nothing else; to the gate it is no access
// token, and an access token is no proof for the upstream.
func TestIdentityTokenOpensNothingElse(t *testing.T) {
	s := newGateScene(t, `
	oauth_protect {
		GET /jobs/* jobs:read
		DELETE /jobs/* jobs:write
		identity_token X-Identity-Token
	}
	reverse_proxy UPSTREAM
`)
	s.verifyingUpstream(testIssuer + "#upstream")
	if got := s.get("/jobs/7"); got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	token := s.upstream.one(t).header.Get("X-Identity-Token")
	proof := http.Header{"X-Identity-Token": {token}}
	if status := s.direct(t, "GET", "/jobs/7", proof); status != http.StatusOK {
		t.Errorf("the same request: %d", status)
	}
	for _, other := range [][2]string{{"DELETE", "/jobs/7"}, {"GET", "/jobs/8"}, {"GET", "/jobs/7?x=1"}} {
		if status := s.direct(t, other[0], other[1], proof); status != http.StatusForbidden {
			t.Errorf("%v: %d", other, status)
		}
	}
	if status := s.direct(t, "GET", "/jobs/7", http.Header{"X-Identity-Token": {s.token()}}); status != http.StatusForbidden {
		t.Errorf("an access token as proof: %d", status)
	}
	bearer := s.exact("GET /jobs/7 HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	if bearer.status != http.StatusUnauthorized || len(s.upstream.take()) != 0 {
		t.Errorf("a proof as access token: %+v", bearer)
	}
}

// UPS-05: where the gate vouches for nobody there is no token: the owner's own
// traffic, preflights, what a rehearsal lets through. The header is removed all the
// same.
func TestGateVouchesOnlyForWhatItDecided(t *testing.T) {
	s := newGateScene(t, `
	@own header X-Own yes
	oauth_protect {
		GET /jobs jobs:read
		observe GET /strict jobs:write
		bypass @own
		identity_token X-Identity-Token
	}
	reverse_proxy UPSTREAM
`)
	for name, request := range map[string]string{
		"bypass":    "GET /jobs HTTP/1.1\nX-Own: yes\n",
		"preflight": "OPTIONS /jobs HTTP/1.1\nOrigin: https://app.example.com\nAccess-Control-Request-Method: GET\n",
		"observed":  "GET /strict HTTP/1.1\n",
	} {
		got := s.raw(request + "Host: api.example.com\nConnection: close\nX-Identity-Token: forged\n\n")
		if got.status != http.StatusOK {
			t.Fatalf("%s: %+v", name, got)
		}
		if r := s.upstream.one(t); len(r.header.Values("X-Identity-Token")) != 0 {
			t.Errorf("%s: %v", name, r.header)
		}
	}
}
