//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/oauth2"

	"github.com/caddy-scope/caddy-scope/dpop/dpoptest"
	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

// relay sends each request to the other of two nodes, and has that one reload
// its configuration before: a balancer without a memory, at the worst of times.
// It is the client and the person's browser in one.
type relay struct {
	t       *testing.T
	cluster *cluster.Cluster
	http    *http.Client
	turn    int
	stay    bool // the next request goes to the node of the last
}

func newRelay(t *testing.T, c *cluster.Cluster) *relay {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, cluster: c}
	r.http = &http.Client{Transport: r, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return r
}

// RoundTrip implements http.RoundTripper.
func (r *relay) RoundTrip(req *http.Request) (*http.Response, error) {
	if !r.stay {
		r.turn++
	}
	node := r.cluster.Nodes[r.turn%len(r.cluster.Nodes)]
	if err := node.Reload(); err != nil {
		return nil, fmt.Errorf("reload %s: %w", node.Name, err)
	}
	node.Client().CloseIdleConnections() // they lead to what ran before
	for tries := 0; ; tries++ {
		res, err := node.Client().Transport.RoundTrip(req)
		// The kernel resets connections that wait in the queue of the listener that
		// a reload closes; nobody has read them, and any client dials again.
		if tries == 3 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			return res, err
		}
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
}

// response is an answer with its body read.
type response struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

func (r *relay) send(method, address string, form url.Values, header ...string) response {
	r.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = r.cluster.Issuer + address
	}
	contentType, body := "application/x-www-form-urlencoded", form.Encode()
	if len(header) > 0 && header[0] == "json" {
		contentType, body, header = "application/json", header[1], header[2:]
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	got := response{status: res.StatusCode, header: res.Header, body: string(text)}
	_ = json.Unmarshal(text, &got.json)
	return got
}

func (g response) text(member string) string {
	text, _ := g.json[member].(string)
	return text
}

// visit is the person: signs in, enters the code, allows. It returns where the
// client gets its answer, or the last page where there is nowhere to go.
func (r *relay) visit(address, code string) (back *url.URL, pages []string) {
	r.t.Helper()
	form := url.Values(nil)
	for range 8 {
		method := http.MethodGet
		if form != nil {
			method = http.MethodPost
		}
		got := r.send(method, address, form)
		if got.status/100 == 3 {
			to, err := url.Parse(got.header.Get("Location"))
			if err != nil {
				r.t.Fatal(err)
			}
			if to.Host != "" && !strings.HasPrefix(to.String(), r.cluster.Issuer+"/") {
				return to, pages
			}
			address, form = to.String(), nil
			continue
		}
		pages = append(pages, got.body)
		if address, form = fillIn(got.body, code); form == nil {
			return nil, pages
		}
	}
	r.t.Fatalf("the pages do not end:\n%s", strings.Join(pages, "\n"))
	return nil, nil
}

// flatten is a form as names and values.
func flatten(form url.Values) (members []string) {
	for name := range form {
		members = append(members, name, form.Get(name))
	}
	return members
}

// fillIn is what the person enters in the form of a page; nil: it has none to go
// on.
func fillIn(page, code string) (address string, form url.Values) {
	for part := range strings.SplitSeq(page, "</form>") {
		action := formAction.FindStringSubmatch(part)
		switch {
		case action == nil:
			continue
		case strings.Contains(part, `name="password"`):
			form = url.Values{"email": {email}, "password": {cluster.Password}}
		case strings.Contains(part, `name="decision"`):
			form = url.Values{"decision": {"allow"}}
		case strings.Contains(part, `name="user_code"`):
			form = url.Values{"user_code": {code}}
		default:
			continue
		}
		for _, field := range hidden.FindAllStringSubmatch(part, -1) {
			form.Set(field[1], html.UnescapeString(field[2]))
		}
		return html.UnescapeString(action[1]), form
	}
	return "", nil
}

// request is an authorization request, and what its client keeps for it.
func (r *relay) request(clientID, redirect string) (query url.Values, verifier string) {
	verifier = oauth2.GenerateVerifier()
	return url.Values{
		"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {redirect}, "scope": {"jobs:read"}, "state": {"s"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
	}, verifier
}

func (r *relay) code(query url.Values) string {
	r.t.Helper()
	back, pages := r.visit("/oauth/authorize?"+query.Encode(), "")
	if back == nil || back.Query().Get("code") == "" || back.Query().Get("iss") != r.cluster.Issuer {
		r.t.Fatalf("%s\n%s", back, strings.Join(pages, "\n"))
	}
	return back.Query().Get("code")
}

// token asks the token endpoint, which must answer with tokens.
func (r *relay) token(form url.Values, header ...string) response {
	r.t.Helper()
	got := r.send(http.MethodPost, "/oauth/token", form, header...)
	if got.text("access_token") == "" {
		r.t.Fatalf("token: %d %s", got.status, got.body)
	}
	return got
}

// as is a form of the client.
func as(clientID string, members ...string) url.Values {
	form := url.Values{"client_id": {clientID}}
	if clientID == "app" || clientID == "service" {
		form.Set("client_secret", cluster.ClientSecret)
	}
	for i := 0; i+1 < len(members); i += 2 {
		form.Set(members[i], members[i+1])
	}
	return form
}

// life is all that comes after a code: token, calls, refresh, the same code
// again, the end.
func (r *relay) life(clientID, redirect, code, verifier string) {
	r.t.Helper()
	redeem := as(clientID, "grant_type", "authorization_code", "code", code, "code_verifier", verifier, "redirect_uri", redirect)
	first := r.token(redeem)
	r.wantJobs(first.text("access_token"), http.StatusOK)
	refresh := as(clientID, "grant_type", "refresh_token", "refresh_token", first.text("refresh_token"))
	second, again := r.token(refresh), r.token(refresh) // in the grace the same successor, from the other node
	if again.text("refresh_token") != second.text("refresh_token") {
		r.t.Error("the nodes disagree about the successor of a refresh token")
	}
	r.wantJobs(second.text("access_token"), http.StatusOK)
	if got := r.send(http.MethodPost, "/oauth/token", redeem); got.text("error") != "invalid_grant" {
		r.t.Errorf("the same code again: %d %s", got.status, got.body)
	}
	if got := r.send(http.MethodPost, "/oauth/revoke", as(clientID, "token", second.text("refresh_token"))); got.status != http.StatusOK {
		r.t.Errorf("revoke: %d %s", got.status, got.body)
	}
	r.wantJobs(second.text("access_token"), http.StatusUnauthorized)
	r.wantJobs(second.text("access_token"), http.StatusUnauthorized)
}

// wantJobs asks the API. A revocation is everywhere within max_staleness.
func (r *relay) wantJobs(token string, want int) {
	r.t.Helper()
	defer func() { r.stay = false }()
	for until := time.Now().Add(10 * time.Second); ; {
		got := r.send(http.MethodGet, "/jobs", nil, "Authorization", "Bearer "+token)
		if got.status == want {
			return
		}
		if want == http.StatusOK || time.Now().After(until) {
			r.t.Fatalf("GET /jobs: %d %s, want %d", got.status, got.body, want)
		}
		r.stay = true // until this node knows
	}
}

// nodeClients are the clients of the flows. All of them have a redirect address
// of their own, which the person is sent to and nobody serves.
func nodeClients(t *testing.T, key *dpoptest.Key, port string) string {
	t.Helper()
	return `client app {
			secret {env.CLIENT_SECRET}
			redirect_uri https://app.example/callback
		}
		client tv {
			grants device_code refresh_token
		}
		client signer {
			jwks ` + "`" + mustJSON(t, map[string]any{"keys": []any{key.JWK()}}) + "`" + `
			grants client_credentials
		}
		client service {
			secret         {env.CLIENT_SECRET}
			introspect     http://localhost:8080
			token_exchange http://localhost:8080
		}
		client holder {
			redirect_uri https://app.example/callback
			dpop_bound_access_tokens
		}
		registration {
			dynamic
			metadata_documents
			allow_address 127.0.0.1/32
			allow_port ` + port + `
		}`
}

// CLI-07: whatever is begun on one node goes on on another, which has just reloaded: each
// request of each flow goes to the other of two nodes of one Postgres.
func TestFlowsGoOnOnAnotherNodeAfterAReload(t *testing.T) {
	const redirect = "https://app.example/callback"
	document, port, trust := clientHost(t, redirect)
	t.Setenv("SSL_CERT_FILE", trust)
	key := dpoptest.NewKey(t, "ES256")
	c := cluster.New(t, cluster.Config{Nodes: 2, Options: nodeClients(t, key, port)})
	c.AddUser(t, email)
	run := func(name string, flow func(t *testing.T, r *relay)) {
		t.Run(name, func(t *testing.T) { flow(t, newRelay(t, c)) })
	}

	run("authorization code, sign-in and consent", func(t *testing.T, r *relay) {
		query, verifier := r.request("app", redirect)
		back, pages := r.visit("/oauth/authorize?"+query.Encode(), "")
		if len(pages) != 2 || !strings.Contains(pages[0], `name="password"`) || !strings.Contains(pages[1], "Search jobs") {
			t.Errorf("%d pages: %s", len(pages), strings.Join(pages, "\n"))
		}
		r.token(as("app", "grant_type", "authorization_code", "code", back.Query().Get("code"), "code_verifier", verifier, "redirect_uri", redirect))
		// Signed in there and allowed there is signed in and allowed here.
		query, verifier = r.request("app", redirect)
		if back, pages = r.visit("/oauth/authorize?"+query.Encode(), ""); len(pages) != 0 {
			t.Fatalf("asked again: %s", strings.Join(pages, "\n"))
		}
		r.life("app", redirect, back.Query().Get("code"), verifier)
	})
	run("consent sent twice", func(t *testing.T, r *relay) {
		query, _ := r.request("app", redirect)
		query.Set("prompt", "consent")
		signIn, form := fillIn(r.send(http.MethodGet, "/oauth/authorize?"+query.Encode(), nil).body, "")
		signedIn := r.send(http.MethodPost, signIn, form)
		consent, form := fillIn(r.send(http.MethodGet, signedIn.header.Get("Location"), nil).body, "")
		first, second := r.send(http.MethodPost, consent, form), r.send(http.MethodPost, consent, form)
		if to := first.header.Get("Location"); to == "" || to != second.header.Get("Location") {
			t.Errorf("one form, two answers: %d %s, %d %s", first.status, to, second.status, second.header.Get("Location"))
		}
	})
	run("pushed request", func(t *testing.T, r *relay) {
		query, verifier := r.request("app", redirect)
		pushed := r.send(http.MethodPost, "/oauth/par", as("app", flatten(query)...))
		if pushed.status != http.StatusCreated {
			t.Fatalf("%d %s", pushed.status, pushed.body)
		}
		query = url.Values{"client_id": {"app"}, "request_uri": {pushed.text("request_uri")}}
		r.life("app", redirect, r.code(query), verifier)
		if got := r.send(http.MethodGet, "/oauth/authorize?"+query.Encode(), nil); got.status != http.StatusBadRequest {
			t.Errorf("used twice: %d %s", got.status, got.body)
		}
	})
	run("device code", func(t *testing.T, r *relay) {
		start := func() (started response, poll url.Values) {
			started = r.send(http.MethodPost, "/oauth/device_authorization", as("tv", "scope", "jobs:read"))
			return started, as("tv", "grant_type", "urn:ietf:params:oauth:grant-type:device_code", "device_code", started.text("device_code"))
		}
		_, poll := start()
		for _, want := range []string{"authorization_pending", "slow_down"} { // the time since the last poll is every node's
			if got := r.send(http.MethodPost, "/oauth/token", poll); got.text("error") != want {
				t.Errorf("poll: %d %s, want %s", got.status, got.body, want)
			}
		}
		started, poll := start()
		if _, pages := r.visit(started.text("verification_uri"), started.text("user_code")); !strings.Contains(pages[len(pages)-1], "Your device is connected") {
			t.Fatalf("the last page: %s", pages[len(pages)-1])
		}
		got := r.token(poll)
		r.wantJobs(got.text("access_token"), http.StatusOK)
		if got := r.send(http.MethodPost, "/oauth/token", poll); got.text("error") != "invalid_grant" {
			t.Errorf("the same code again: %d %s", got.status, got.body)
		}
	})
	run("dynamic registration", func(t *testing.T, r *relay) {
		client := r.send(http.MethodPost, "/oauth/register", nil, "json",
			`{"client_name":"Inspector","redirect_uris":["`+redirect+`"],"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"]}`)
		if client.status != http.StatusCreated {
			t.Fatalf("%d %s", client.status, client.body)
		}
		query, verifier := r.request(client.text("client_id"), redirect)
		r.life(client.text("client_id"), redirect, r.code(query), verifier)
		if got := r.send(http.MethodDelete, client.text("registration_client_uri"), nil, "Authorization", "Bearer "+client.text("registration_access_token")); got.status != http.StatusNoContent {
			t.Errorf("delete: %d %s", got.status, got.body)
		}
		if got := r.send(http.MethodGet, "/oauth/authorize?"+query.Encode(), nil); got.status != http.StatusBadRequest {
			t.Errorf("after its deletion: %d %s", got.status, got.body)
		}
	})
	run("metadata document", func(t *testing.T, r *relay) {
		query, verifier := r.request(document, redirect)
		r.life(document, redirect, r.code(query), verifier)
	})
	run("proof of possession with nonces", func(t *testing.T, r *relay) {
		query, verifier := r.request("holder", redirect)
		redeem := as("holder", "grant_type", "authorization_code", "code", r.code(query), "code_verifier", verifier, "redirect_uri", redirect)
		proof := func(method, path string, changes ...dpoptest.Change) string {
			return key.Proof(method, c.Issuer+path, changes...)
		}
		asked := r.send(http.MethodPost, "/oauth/token", redeem, "DPoP", proof("POST", "/oauth/token"))
		nonce := asked.header.Get("DPoP-Nonce")
		if asked.text("error") != "use_dpop_nonce" || nonce == "" {
			t.Fatalf("no nonce is asked for: %d %s", asked.status, asked.body)
		}
		used := proof("POST", "/oauth/token", dpoptest.Nonce(nonce))
		tokens := r.token(redeem, "DPoP", used)
		access := tokens.text("access_token")
		renew := as("holder", "grant_type", "refresh_token", "refresh_token", tokens.text("refresh_token"))
		if got := r.send(http.MethodPost, "/oauth/token", renew, "DPoP", used); got.text("error") != "invalid_dpop_proof" {
			t.Errorf("the same proof on the other node: %d %s", got.status, got.body)
		}
		r.token(renew, "DPoP", proof("POST", "/oauth/token", dpoptest.Nonce(nonce)))
		shown := proof("GET", "/jobs", dpoptest.For(access), dpoptest.Nonce(nonce))
		if got := r.send(http.MethodGet, "/jobs", nil, "Authorization", "DPoP "+access, "DPoP", shown); got.status != http.StatusOK {
			t.Errorf("with the nonce of another node: %d %s", got.status, got.body)
		}
		if got := r.send(http.MethodGet, "/jobs", nil, "Authorization", "DPoP "+access, "DPoP", shown); got.status != http.StatusUnauthorized {
			t.Errorf("replayed on the other node: %d %s", got.status, got.body)
		}
	})
	run("step-up", func(t *testing.T, r *relay) {
		query, verifier := r.request("app", redirect)
		redeem := func() response {
			return r.token(as("app", "grant_type", "authorization_code", "code", r.code(query), "code_verifier", verifier, "redirect_uri", redirect))
		}
		apply := func(access string) response {
			return r.send(http.MethodPost, "/applications", url.Values{}, "Authorization", "Bearer "+access)
		}
		first := redeem()
		refused := apply(first.text("access_token"))
		if refused.status != http.StatusForbidden || !strings.Contains(refused.header.Get("WWW-Authenticate"), `scope="applications:write"`) {
			t.Fatalf("%d %v", refused.status, refused.header)
		}
		query.Set("scope", "jobs:read applications:write")
		second := redeem()
		if got := apply(second.text("access_token")); got.status == http.StatusForbidden || got.status == http.StatusUnauthorized {
			t.Errorf("with the new scope: %d %s", got.status, got.body)
		}
		r.wantJobs(first.text("access_token"), http.StatusOK) // the session before goes on
		if got := apply(first.text("access_token")); got.status != http.StatusForbidden {
			t.Errorf("the session before got more: %d", got.status)
		}
	})
	run("token exchange and introspection", func(t *testing.T, r *relay) {
		query, verifier := r.request("app", redirect)
		user := r.token(as("app", "grant_type", "authorization_code", "code", r.code(query), "code_verifier", verifier, "redirect_uri", redirect))
		service := r.token(as("service", "grant_type", "urn:ietf:params:oauth:grant-type:token-exchange", "scope", "jobs:read",
			"subject_token", user.text("access_token"), "subject_token_type", "urn:ietf:params:oauth:token-type:access_token")).text("access_token")
		r.wantJobs(service, http.StatusOK)
		active := func() any {
			return r.send(http.MethodPost, "/oauth/introspect", as("service", "token", service)).json["active"]
		}
		if got := active(); got != true {
			t.Errorf("introspected: %v", got)
		}
		if got := r.send(http.MethodPost, "/oauth/revoke", as("app", "token", user.text("refresh_token"))); got.status != http.StatusOK {
			t.Errorf("revoke: %d %s", got.status, got.body)
		}
		if got := active(); got != false {
			t.Errorf("introspected after the user's session ended: %v", got)
		}
		r.wantJobs(service, http.StatusUnauthorized)
	})
	run("signed assertion", func(t *testing.T, r *relay) {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {"jobs:read"},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion": {key.Sign(map[string]any{"alg": key.Algorithm}, map[string]any{
				"iss": "signer", "sub": "signer", "aud": c.Issuer, "jti": uuid.NewString(), "exp": time.Now().Add(time.Minute).Unix(),
			})}}
		r.wantJobs(r.token(form).text("access_token"), http.StatusOK)
		r.turn++ // to the node that has not seen it
		if got := r.send(http.MethodPost, "/oauth/token", form); got.text("error") != "invalid_client" {
			t.Errorf("the same assertion on the other node: %d %s", got.status, got.body)
		}
	})
	for _, node := range c.Nodes {
		if reloads := strings.Count(node.Log(), "serving initial configuration") + strings.Count(node.Log(), `"msg":"load complete"`); reloads < 20 {
			t.Errorf("%s reloaded %d times", node.Name, reloads)
		}
	}
}
