package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// pageScene is the pages of one server over an in-memory store, reached through
// HTTP. Requests begin where /oauth/authorize hands over.
type pageScene struct {
	*Server
	t       *testing.T
	store   *pageStore
	clients pageClients
	now     *pageClock
	base    string
	ask     AuthorizationRequest // what /oauth/authorize hands over, without identity
}

const (
	scenePassword = "correct horse battery"
	sceneEmail    = "ada@example.com"
)

// sceneHash is computed once: argon2 is slow on purpose.
var sceneHash = sync.OnceValue(func() string {
	hash, err := HashPassword(context.Background(), scenePassword)
	if err != nil {
		panic(err)
	}
	return hash
})

// newPageScene starts a server with the user ada, the client "copilot"
// (confidential) and "cli" (public). change may adapt the configuration.
func newPageScene(t *testing.T, change ...func(*Config)) *pageScene {
	t.Helper()
	return startPageScene(t, false, change...)
}

func startPageScene(t *testing.T, tls bool, change ...func(*Config)) *pageScene {
	t.Helper()
	catalog, err := oauth.NewCatalog([]oauth.Scope{
		{Name: "jobs:read", Description: "Search jobs and view job details"},
		{Name: "applications:read", Description: "See your applications"},
		{Name: "applications:write", Description: "Submit applications for you", Implies: []string{"applications:read"}},
		{Name: "resume:read", Description: "Read your resume"},
	})
	if err != nil {
		t.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	keys, err := NewStaticKeyRing([]*ecdsa.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := NewRootSecrets([]byte("a root secret of at least thirty-two bytes"))
	if err != nil {
		t.Fatal(err)
	}
	scene := &pageScene{t: t, now: &pageClock{now: time.Now()}}
	scene.store = &pageStore{now: scene.now.Now, logins: map[Digest]Login{}}
	scene.store.users = []User{{ID: "user-ada", Email: sceneEmail, PasswordHash: sceneHash()}}
	scene.clients = pageClients{
		"copilot": {ID: "copilot", Name: "Career Copilot", SecretDigests: []Digest{{1}}, AuthMethods: []string{"client_secret_basic"}, RedirectURIs: []string{siteRedirect, loopbackRedirect}},
		"cli":     {ID: "cli", Name: "Job CLI", AuthMethods: []string{"none"}, RedirectURIs: []string{siteRedirect, loopbackRedirect, privateRedirect}},
	}
	var handler http.Handler
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	if tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	scene.base = server.URL
	cfg := Config{
		Issuer: scene.base, Catalog: catalog, Clients: scene.clients, Store: scene.store, Keys: keys, Secrets: secrets,
		Resources: func() []ProtectedResource { return nil },
		Password:  true, LoginTTL: 12 * time.Hour, Now: scene.now.Now,
	}
	for _, f := range change {
		f(&cfg)
	}
	if scene.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	scene.ask = AuthorizationRequest{ClientID: "copilot", RedirectURI: siteRedirect, Scopes: oauth.NewScopeSet("jobs:read"), Resource: scene.base, State: "xyz", StateSent: true}
	mux := http.NewServeMux()
	mux.HandleFunc("/oauth/authorize", scene.authorize)
	mux.HandleFunc(loginPath, scene.handleLogin)
	mux.HandleFunc(consentPath, scene.handleConsent)
	mux.HandleFunc(logoutPath, scene.handleLogout)
	mux.HandleFunc(accountPath, scene.handleAccount)
	mux.HandleFunc(endSessionPath, scene.handleEndSession)
	handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { mux.ServeHTTP(w, withVisit(r)) })
	return scene
}

const (
	siteRedirect     = "https://client.example/cb"
	loopbackRedirect = "http://127.0.0.1:4711/cb"
	privateRedirect  = "com.example.app:/cb"
)

// authorize stands where the checks of /oauth/authorize end.
func (scene *pageScene) authorize(w http.ResponseWriter, r *http.Request) {
	req := scene.ask
	id := make([]byte, 16)
	rand.Read(id)
	req.ID = hex.EncodeToString(id)
	req.CreatedAt = scene.now.Now()
	if req.MaxAge != nil {
		req.ReauthAfter = req.CreatedAt.Add(-*req.MaxAge)
	}
	req.BrowserDigest = scene.browserDigest(w, r)
	scene.continueAuthorization(w, r, &req, scene.clients[req.ClientID])
}

// consentFor sets the scene up to the consent page of a signed-in browser.
func (scene *pageScene) consent(b *pageBrowser) *page {
	scene.t.Helper()
	p := b.get("/oauth/authorize")
	if p.status != http.StatusOK || p.button("Sign in") == nil {
		return p
	}
	return b.follow(p.submit("Sign in", "email", sceneEmail, "password", scenePassword))
}

// connect gives ada a live session.
func (scene *pageScene) connect(id, clientID, redirectURI string, granted ...string) Session {
	session := Session{ID: id, UserID: "user-ada", ClientID: clientID, Resource: scene.base, RedirectURI: redirectURI,
		Scopes: oauth.NewScopeSet(granted...), GrantedScopes: oauth.NewScopeSet(granted...),
		CreatedAt: scene.now.Now().Add(-26 * time.Hour), LastActive: scene.now.Now().Add(-5 * time.Minute)}
	scene.store.mu.Lock()
	defer scene.store.mu.Unlock()
	scene.store.sessions = append(scene.store.sessions, session)
	return session
}

// pageClock is the clock of node and store.
type pageClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *pageClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *pageClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
