package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/modelcontextprotocol/go-sdk/auth/extauth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"
)

// organization is an identity provider that exchanges the ID token of its user
// for an assertion that an agent may act for them.
type organization struct {
	*httptest.Server
	t     *testing.T
	trust string // its certificate, as a file
	key   *ecdsa.PrivateKey
	last  string // the assertion that it gave last
}

func newOrganization(t *testing.T) *organization {
	t.Helper()
	o := &organization{t: t}
	var err error
	if o.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, document any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(document)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": o.URL, "authorization_endpoint": o.URL + "/authorize", "token_endpoint": o.URL + "/token", "jwks_uri": o.URL + "/keys",
			"response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &o.key.PublicKey, KeyID: "one", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("subject_token") != "an ID token" || r.FormValue("requested_token_type") != oauthex.TokenTypeIDJAG {
			w.WriteHeader(http.StatusBadRequest)
			answer(w, map[string]any{"error": "invalid_request"})
			return
		}
		o.last = o.assertion(r.Form)
		answer(w, map[string]any{"issued_token_type": oauthex.TokenTypeIDJAG, "access_token": o.last, "token_type": "N_A", "expires_in": 300})
	})
	o.Server = httptest.NewTLSServer(mux)
	t.Cleanup(o.Close)
	o.trust = filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, o.trust, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw})))
	return o
}

// assertion is what the organization says of its user.
func (o *organization) assertion(asked url.Values) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: o.key, KeyID: "one"}}, (&jose.SignerOptions{}).WithType("oauth-id-jag+jwt"))
	if err != nil {
		o.t.Fatal(err)
	}
	now := time.Now()
	claims := map[string]any{"iss": o.URL, "sub": "grace-1", "aud": asked.Get("audience"), "client_id": "agent", "jti": randomHex(16),
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "scope": asked.Get("scope"), "email": "grace@corp.example"}
	if resource := asked.Get("resource"); resource != "" {
		claims["resource"] = resource
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		o.t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		o.t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		o.t.Fatal(err)
	}
	return compact
}

// words trust the organization and give its agent the grant.
func (o *organization) words() string {
	return fmt.Sprintf(`identity_provider %s {
			allow_address 127.0.0.1/32
			allow_port %s
		}
		client agent {
			name   "Agent"
			secret {env.DEMO_CLIENT_SECRET}
			grants jwt_bearer
		}`, o.URL, o.URL[strings.LastIndex(o.URL, ":")+1:])
}

// trusting is a client that trusts the organization and the gateway.
func (o *organization) trusting(s *scene) *http.Client {
	roots := x509.NewCertPool()
	for _, file := range []string{o.trust, s.CA} {
		if text, err := os.ReadFile(file); err != nil || !roots.AppendCertsFromPEM(text) {
			o.t.Fatalf("%s: %v", file, err)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	o.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// JAG-20: the Go MCP SDK's handler for enterprises goes from a bare 401 to a call
// of a tool without anybody at a browser, by the word of the organization; the
// session is its user's, and over at once when an operator says so.
func TestEnterpriseConnectsAnAgent(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	s := newToolScene(t, sceneConfig{HTTPS: true, Trust: o.trust, Options: o.words()})
	client := o.trusting(s)
	credentials := &oauthex.ClientCredentials{ClientID: "agent", ClientSecretAuth: &oauthex.ClientSecretAuth{ClientSecret: clientSecret}}
	handler, err := extauth.NewEnterpriseHandler(&extauth.EnterpriseHandlerConfig{
		IdPIssuerURL: o.URL, IdPCredentials: credentials, MCPAuthServerURL: s.Base, MCPResourceURI: s.Base + "/mcp", MCPCredentials: credentials,
		MCPScopes: []string{"jobs:read"}, HTTPClient: client,
		IDTokenFetcher: func(context.Context) (*oauth2.Token, error) {
			return new(oauth2.Token).WithExtra(map[string]any{"id_token": "an ID token"}), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(),
		&mcp.StreamableClientTransport{Endpoint: s.Base + "/mcp", HTTPClient: client, OAuthHandler: handler}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "search_jobs", Arguments: map[string]any{}})
	if err != nil || result.IsError {
		t.Fatalf("%v %+v", err, result)
	}
	source, err := handler.TokenSource(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	claims := payload(t, token.AccessToken)
	if claims["sub"] != "grace-1" || claims["client_id"] != "agent" || claims["aud"] != s.Base+"/mcp" || claims["scope"] != "jobs:read" || token.RefreshToken != "" {
		t.Errorf("%v", claims)
	}
	s.sql(`UPDATE gpt_sessions SET revoked_at = now() WHERE user_id = 'grace-1'`)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Base+"/mcp", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token.AccessToken)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusUnauthorized {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the token still works: %d", res.StatusCode)
		}
	}
}

// JAG-21: an assertion that one node took is used on the other as well, and each
// takes the provider's keys by itself.
func TestAssertionIsGoodOnceAmongNodes(t *testing.T) {
	o := newOrganization(t)
	t.Setenv("SSL_CERT_FILE", o.trust)
	n := newTwoNodes(t, o.words())
	bring := func(node *scene, assertion string) (int, string) {
		res, text := n.send(node, http.MethodPost, "/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion},
			"client_id": {"agent"}, "client_secret": {clientSecret}}.Encode())
		return res.StatusCode, text
	}
	asked := url.Values{"audience": {n.Base}, "scope": {"jobs:read"}}
	assertion := o.assertion(asked)
	status, text := bring(n.first, assertion)
	var token struct {
		Access string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(text), &token); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	for _, node := range []*scene{n.second, n.first} {
		if status, text := bring(node, assertion); status != http.StatusBadRequest || !strings.Contains(text, "invalid_grant") {
			t.Errorf("again: %d %s", status, text)
		}
		n.wantJobs(node, token.Access, http.StatusOK)
	}
	if user := n.Upstream.Last(t).Header.Get("X-User-Id"); user != "grace-1" {
		t.Errorf("the upstream saw %q", user)
	}
	n.reload(func(config string) string { return config })
	if status, text := bring(n.second, o.assertion(asked)); status != http.StatusOK {
		t.Errorf("after a reload: %d %s", status, text)
	}
	// The owner trusts the organization no more.
	n.reload(func(config string) string { return strings.Replace(config, o.words(), "", 1) })
	if status, text := bring(n.second, o.assertion(asked)); status != http.StatusUnauthorized {
		t.Errorf("without the provider: %d %s", status, text)
	}
}
