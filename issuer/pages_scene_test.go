package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"

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

// pageBrowser keeps cookies and follows nothing by itself.
type pageBrowser struct {
	scene  *pageScene
	client *http.Client
	header http.Header // added to each request
}

func (scene *pageScene) browser() *pageBrowser {
	jar, _ := cookiejar.New(nil)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if strings.HasPrefix(scene.base, "https:") {
		transport.TLSClientConfig.InsecureSkipVerify = true
	}
	scene.t.Cleanup(transport.CloseIdleConnections)
	return &pageBrowser{scene: scene, header: http.Header{}, client: &http.Client{Jar: jar, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *pageBrowser) get(path string) *page {
	b.scene.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = b.scene.base + path
	}
	r, err := http.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		b.scene.t.Fatal(err)
	}
	return b.do(r)
}

func (b *pageBrowser) post(path string, form url.Values) *page {
	b.scene.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = b.scene.base + path
	}
	r, err := http.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	if err != nil {
		b.scene.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}

func (b *pageBrowser) do(r *http.Request) *page {
	b.scene.t.Helper()
	for name, values := range b.header {
		r.Header[name] = values
	}
	response, err := b.client.Do(r)
	if err != nil {
		b.scene.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		b.scene.t.Fatal(err)
	}
	root, err := html.Parse(strings.NewReader(string(body)))
	if err != nil {
		b.scene.t.Fatal(err)
	}
	return &page{t: b.scene.t, browser: b, status: response.StatusCode, header: response.Header, body: string(body), root: root}
}

// follow goes where a redirect of ours leads; a page stays.
func (b *pageBrowser) follow(p *page) *page {
	b.scene.t.Helper()
	if p.status == http.StatusSeeOther && strings.HasPrefix(p.location(), b.scene.base) {
		return b.get(p.location())
	}
	return p
}

func (b *pageBrowser) cookie(name string) string {
	u, _ := url.Parse(b.scene.base)
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == b.scene.cookieName(name) {
			return c.Value
		}
	}
	return ""
}

func (b *pageBrowser) setCookie(name, value string) {
	u, _ := url.Parse(b.scene.base)
	b.client.Jar.SetCookies(u, []*http.Cookie{{Name: b.scene.cookieName(name), Value: value, Path: "/", Secure: u.Scheme == "https"}})
}

// page is an answer as a person (or a screen reader) meets it.
type page struct {
	t       *testing.T
	browser *pageBrowser
	status  int
	header  http.Header
	body    string
	root    *html.Node
}

func (p *page) location() string { return p.header.Get("Location") }

// text is what can be read, with single spaces.
func (p *page) text() string {
	return textOf(p.find(func(n *html.Node) bool { return n.Data == "body" }))
}

func (p *page) heading() string {
	return textOf(p.find(func(n *html.Node) bool { return n.Data == "h1" }))
}

func (p *page) find(match func(*html.Node) bool) *html.Node {
	for n := range p.root.Descendants() {
		if n.Type == html.ElementNode && match(n) {
			return n
		}
	}
	return nil
}

func (p *page) button(name string) *html.Node {
	return p.find(func(n *html.Node) bool { return n.Data == "button" && textOf(n) == name })
}

// field returns the input that the label with this text belongs to.
func (p *page) field(label string) *html.Node {
	l := p.find(func(n *html.Node) bool { return n.Data == "label" && textOf(n) == label })
	if l == nil {
		return nil
	}
	return p.find(func(n *html.Node) bool { return n.Data == "input" && attribute(n, "id") == attribute(l, "for") })
}

// form returns what pressing the button would send, and where.
func (p *page) form(button string) (action string, values url.Values) {
	p.t.Helper()
	b := p.button(button)
	if b == nil {
		p.t.Fatalf("no button %q on the page (%d): %s", button, p.status, p.text())
	}
	form := b
	for form.Data != "form" {
		form = form.Parent
	}
	values = url.Values{}
	for n := range form.Descendants() {
		if n.Type == html.ElementNode && n.Data == "input" && (attribute(n, "type") != "checkbox" || has(n, "checked")) {
			values.Set(attribute(n, "name"), attribute(n, "value"))
		}
	}
	if name := attribute(b, "name"); name != "" {
		values.Set(name, attribute(b, "value"))
	}
	return attribute(form, "action"), values
}

// submit fills fields in and presses the button.
func (p *page) submit(button string, fields ...string) *page {
	p.t.Helper()
	action, values := p.form(button)
	for i := 0; i < len(fields); i += 2 {
		values.Set(fields[i], fields[i+1])
	}
	return p.browser.post(action, values)
}

// wantCode asserts a redirect to the client with a code and returns it.
func (p *page) wantCode() string {
	p.t.Helper()
	u, err := url.Parse(p.location())
	if err != nil || (p.status != http.StatusSeeOther && p.status != http.StatusFound) || u.Query().Get("code") == "" {
		p.t.Fatalf("want a redirect with a code, got %d %s: %s", p.status, p.location(), p.text())
	}
	return u.Query().Get("code")
}

// wantError asserts a redirect to the client with this error.
func (p *page) wantError(code string) {
	p.t.Helper()
	u, err := url.Parse(p.location())
	if err != nil || u.Query().Get("error") != code || u.Query().Has("code") {
		p.t.Fatalf("want a redirect with error %s, got %d %s: %s", code, p.status, p.location(), p.text())
	}
}

// wantPage asserts a page of this status with this heading, and no way on.
func (p *page) wantPage(status int, heading string) {
	p.t.Helper()
	if p.status != status || p.heading() != heading || p.location() != "" {
		p.t.Fatalf("want page %d %q, got %d %q %s", status, heading, p.status, p.heading(), p.location())
	}
}

func textOf(n *html.Node) string {
	if n == nil {
		return ""
	}
	var text strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			text.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(text.String()), " ")
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
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

type pageClients map[string]*Client

func (c pageClients) Client(_ context.Context, id string) (*Client, error) {
	if client, ok := c[id]; ok {
		return client, nil
	}
	return nil, ErrNotFound
}

// pageStore is the part of a store that the pages use. The rest is nil.
type pageStore struct {
	Store
	now func() time.Time

	mu       sync.Mutex
	down     error // what every method answers, when set
	skew     time.Duration
	users    []User
	logins   map[Digest]Login
	sessions []Session
	codes    []AuthorizationCode
}

func (s *pageStore) locked(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return s.down
	}
	return do()
}

func (s *pageStore) FindUserByEmail(_ context.Context, email string) (user User, err error) {
	err = s.locked(func() error {
		i := slices.IndexFunc(s.users, func(u User) bool { return strings.EqualFold(u.Email, email) })
		if i < 0 {
			return ErrNotFound
		}
		user = s.users[i]
		return nil
	})
	return user, err
}

func (s *pageStore) CreateLogin(_ context.Context, digest Digest, userID, method string, ttl time.Duration, _ Origin) (login Login, err error) {
	err = s.locked(func() error {
		i := slices.IndexFunc(s.users, func(u User) bool { return u.ID == userID })
		sum := sha256.Sum256(digest[:])
		at := s.now().Add(s.skew)
		login = Login{ID: hex.EncodeToString(sum[:16]), UserID: userID, Name: s.users[i].Email, Method: method, AuthTime: at, ExpiresAt: at.Add(ttl)}
		s.logins[digest] = login
		return nil
	})
	return login, err
}

func (s *pageStore) FindLogin(_ context.Context, digest Digest) (login Login, err error) {
	err = s.locked(func() error {
		var ok bool
		if login, ok = s.logins[digest]; !ok {
			return ErrNotFound
		}
		return nil
	})
	return login, err
}

func (s *pageStore) EndLogin(_ context.Context, digest Digest, _ Origin) error {
	return s.locked(func() error { delete(s.logins, digest); return nil })
}

func (s *pageStore) UserSessions(_ context.Context, userID string) (sessions []Session, err error) {
	err = s.locked(func() error {
		for _, session := range s.sessions {
			if session.UserID == userID {
				sessions = append(sessions, session)
			}
		}
		return nil
	})
	return sessions, err
}

func (s *pageStore) EndUserSession(_ context.Context, sessionID, userID string, _ Origin) error {
	return s.locked(func() error {
		if !strings.HasPrefix(sessionID, "s") { // as a database takes what is no uuid
			return errors.New("invalid input syntax for type uuid")
		}
		n := len(s.sessions)
		s.sessions = slices.DeleteFunc(s.sessions, func(session Session) bool { return session.ID == sessionID && session.UserID == userID })
		if len(s.sessions) == n {
			return ErrNotFound
		}
		return nil
	})
}

func (s *pageStore) CreateAuthorizationCode(_ context.Context, code AuthorizationCode, _ time.Duration, _ Origin) error {
	return s.locked(func() error {
		if !slices.ContainsFunc(s.codes, func(c AuthorizationCode) bool { return c.RequestID == code.RequestID }) {
			s.codes = append(s.codes, code)
		}
		return nil
	})
}

// pagePrompt is a prompt parameter.
func pagePrompt(values ...string) []string { return values }

// has reports whether the element has an attribute without a value.
func has(n *html.Node, name string) bool {
	for _, a := range n.Attr {
		if a.Key == name {
			return true
		}
	}
	return false
}
