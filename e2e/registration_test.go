package e2e

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// twoNodes are two gateways of one issuer and one Postgres, as behind a load
// balancer that sends each request to the one that the test names.
type twoNodes struct {
	*scene
	first, second *scene
	http          *http.Client
	at            *scene // where the next request goes
}

func newTwoNodes(t *testing.T, options string) *twoNodes {
	t.Helper()
	first := newScene(t, options)
	n := &twoNodes{scene: first, first: first, at: first}
	port, admin := freePort(t), "localhost:"+freePort(t)
	text, err := os.ReadFile(first.Caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	// The same issuer at another port, with an admin API to reload by.
	config := strings.Replace(string(text), "admin off", "admin "+admin, 1)
	config = strings.Replace(config, "\n"+first.Base+" {", "\nhttp://:"+port+" {", 1)
	n.second = &scene{t: t, Base: "http://localhost:" + port, Admin: admin, DSN: first.DSN, Upstream: first.Upstream, Log: &lockedBuffer{}, Caddyfile: filepath.Join(t.TempDir(), "Caddyfile")}
	writeFile(t, n.second.Caddyfile, config)
	n.second.start()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	n.http = &http.Client{
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+n.at.Base[strings.LastIndex(n.at.Base, ":")+1:])
		}},
	}
	return n
}

// send sends a request for the issuer to one of the nodes.
func (n *twoNodes) send(node *scene, method, address string, body string, header ...string) (*http.Response, string) {
	n.t.Helper()
	n.at = node
	if strings.HasPrefix(address, "/") {
		address = n.Base + address
	}
	r, err := http.NewRequestWithContext(n.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := n.http.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return res, string(text)
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="(request|csrf)" value="([^"]*)">`)

// form is the last form of a page.
func form(page string) url.Values {
	values := url.Values{}
	for _, field := range hiddenField.FindAllStringSubmatch(page, -1) {
		values.Set(field[1], field[2])
	}
	return values
}

// connect has the user allow the client, each step on the other node, and
// returns tokens. consent is called with the consent page.
func (n *twoNodes) connect(clientID, redirect string, consent func(page string)) (access, refresh string) {
	n.t.Helper()
	verifier := oauth2.GenerateVerifier()
	query := url.Values{"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {redirect}, "scope": {"jobs:read resume:read"}, "state": {"s"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"}, "prompt": {"consent"}}
	_, page := n.send(n.first, http.MethodGet, "/oauth/authorize?"+query.Encode(), "")
	if strings.Contains(page, `name="password"`) {
		signIn := form(page)
		signIn.Set("email", email)
		signIn.Set("password", password)
		res, text := n.send(n.second, http.MethodPost, "/oauth/login", signIn.Encode())
		if res.StatusCode != http.StatusSeeOther {
			n.t.Fatalf("sign in: %d %s", res.StatusCode, text)
		}
		_, page = n.send(n.first, http.MethodGet, res.Header.Get("Location"), "")
	}
	consent(page)
	allow := form(page)
	allow.Set("decision", "allow")
	res, text := n.send(n.second, http.MethodPost, "/oauth/consent", allow.Encode())
	back, err := url.Parse(res.Header.Get("Location"))
	if err != nil || back.Query().Get("code") == "" || !strings.HasPrefix(back.String(), redirect) {
		n.t.Fatalf("allow: %d %s %s", res.StatusCode, back, text)
	}
	return n.token(n.first, url.Values{"grant_type": {"authorization_code"}, "client_id": {clientID}, "code": {back.Query().Get("code")}, "code_verifier": {verifier}, "redirect_uri": {redirect}})
}

func (n *twoNodes) token(node *scene, form url.Values) (access, refresh string) {
	n.t.Helper()
	_, text := n.send(node, http.MethodPost, "/oauth/token", form.Encode())
	var raw map[string]any
	if err := json.Unmarshal([]byte(text), &raw); err != nil || raw["access_token"] == nil {
		n.t.Fatalf("token: %s", text)
	}
	access, _ = raw["access_token"].(string)
	refresh, _ = raw["refresh_token"].(string)
	if raw["scope"] != "jobs:read" { // resume:read is above the policy
		n.t.Errorf("scope %v", raw["scope"])
	}
	return access, refresh
}

func (n *twoNodes) wantJobs(node *scene, token string, want int) {
	n.t.Helper()
	// A revocation is everywhere within max_staleness.
	for until := time.Now().Add(1500 * time.Millisecond); ; time.Sleep(20 * time.Millisecond) {
		res, text := n.send(node, http.MethodGet, "/jobs", "", "Authorization", "Bearer "+token)
		if res.StatusCode == want {
			return
		}
		if time.Now().After(until) {
			n.t.Errorf("GET /jobs: %d %s, want %d", res.StatusCode, text, want)
			return
		}
	}
}

func (n *twoNodes) reload(change func(config string) string) { n.second.reload(change) }

// clientHost publishes a metadata document. trust is a file with its certificate,
// for the SSL_CERT_FILE of a gateway.
func clientHost(t *testing.T, redirect string) (clientID, port, trust string) {
	t.Helper()
	mux := http.NewServeMux()
	host := httptest.NewTLSServer(mux)
	t.Cleanup(host.Close)
	clientID = host.URL + "/oauth/client.json"
	mux.HandleFunc("/oauth/client.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"client_id": clientID, "client_name": "Published", "redirect_uris": []string{redirect},
			"grant_types": []string{"authorization_code", "refresh_token"}, "token_endpoint_auth_methods_supported": []string{"private_key_jwt", "none"}})
	})
	trust = filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, trust, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw})))
	return clientID, host.URL[strings.LastIndex(host.URL, ":")+1:], trust
}

// REG-21: a client that nobody wrote down connects by its document and by registering
// itself, with every step on the other of two nodes and a reload between them;
// what ends it on one node ends it on both.
func TestClientsRegisterThemselvesAcrossNodes(t *testing.T) {
	const redirect = "https://chat.example/callback"
	document, port, trust := clientHost(t, redirect)
	t.Setenv("SSL_CERT_FILE", trust)
	policy := `client_policy https://chat.example/* {
			scopes jobs:read
		}
		client_policy https://127.0.0.1:` + port + `/* {
			scopes jobs:read
		}`
	registration := fmt.Sprintf(`registration {
			dynamic
			metadata_documents
			allow_address 127.0.0.1/32
			allow_port %s
		}`, port)
	n := newTwoNodes(t, registration+"\n\t\t"+policy)
	same := func(config string) string { return config }

	// By its document.
	access, refresh := n.connect(document, redirect, func(page string) {
		if !strings.Contains(page, "published by <b><bdi>127.0.0.1:"+port) || strings.Contains(page, "Read your resume") {
			t.Errorf("the consent page: %s", page)
		}
		n.reload(same)
	})
	n.wantJobs(n.second, access, http.StatusOK)
	n.wantJobs(n.first, access, http.StatusOK)
	refreshed, _ := n.token(n.second, url.Values{"grant_type": {"refresh_token"}, "client_id": {document}, "refresh_token": {refresh}})

	// By registering itself, on one node; read on the other.
	res, text := n.send(n.first, http.MethodPost, "/oauth/register", `{"client_name":"Inspector","redirect_uris":["`+redirect+`"],"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"]}`,
		"Content-Type", "application/json")
	var client struct {
		ID    string `json:"client_id"`
		URI   string `json:"registration_client_uri"`
		Token string `json:"registration_access_token"`
	}
	if err := json.Unmarshal([]byte(text), &client); err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("register: %d %s", res.StatusCode, text)
	}
	registered, refresh := n.connect(client.ID, redirect, func(page string) {
		if !strings.Contains(page, "Nobody has checked its name") {
			t.Errorf("the consent page: %s", page)
		}
		n.reload(same)
	})
	n.wantJobs(n.first, registered, http.StatusOK)
	n.wantJobs(n.second, registered, http.StatusOK)
	if res, text := n.send(n.second, http.MethodGet, client.URI, "", "Authorization", "Bearer "+client.Token); res.StatusCode != http.StatusOK || !strings.Contains(text, "Inspector") {
		t.Errorf("read: %d %s", res.StatusCode, text)
	}
	// Deleted on one node: over on both.
	if res, text := n.send(n.second, http.MethodDelete, client.URI, "", "Authorization", "Bearer "+client.Token); res.StatusCode != http.StatusNoContent {
		t.Fatalf("delete: %d %s", res.StatusCode, text)
	}
	n.wantJobs(n.first, registered, http.StatusUnauthorized)
	n.wantJobs(n.second, registered, http.StatusUnauthorized)
	if res, text := n.send(n.first, http.MethodPost, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {client.ID}, "refresh_token": {refresh}}.Encode()); !strings.Contains(text, "invalid_client") {
		t.Errorf("refresh of a deleted client: %d %s", res.StatusCode, text)
	}

	// The owner thinks better of it: denied by policy, then not on at all.
	n.wantJobs(n.second, refreshed, http.StatusOK)
	n.reload(func(config string) string {
		return strings.Replace(config, "client_policy https://127.0.0.1:"+port+"/* {\n\t\t\tscopes jobs:read", "client_policy https://127.0.0.1:"+port+"/* {\n\t\t\tdeny", 1)
	})
	n.wantJobs(n.second, refreshed, http.StatusUnauthorized)
	n.wantJobs(n.first, refreshed, http.StatusOK)
	n.reload(func(config string) string {
		return strings.Replace(strings.Replace(config, registration, "", 1), policy, "", 1)
	})
	n.wantJobs(n.second, refreshed, http.StatusUnauthorized)
	if _, text := n.send(n.second, http.MethodGet, "/.well-known/oauth-authorization-server", ""); strings.Contains(text, "regist") || strings.Contains(text, "client_id_metadata") {
		t.Errorf("metadata: %s", text)
	}
	n.wantJobs(n.first, refreshed, http.StatusOK)
}
