package login_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
)

const (
	appSecret = "what the app signs its sessions with, long enough for each algorithm"
	appCookie = "__session"
)

// ownersApp is the app whose users are signed in there: by a cookie with a token,
// or with a value that only it understands.
type ownersApp struct {
	*httptest.Server
	keys *provider // publishes and signs
	now  func() time.Time

	mu     sync.Mutex
	answer func(http.ResponseWriter, *http.Request) // of /whoami
	asked  []http.Header
}

func newOwnersApp(t *testing.T) *ownersApp {
	a := &ownersApp{keys: newProvider(t)}
	a.answer = func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("sid")
		if err != nil || !strings.HasPrefix(c.Value, "session-of-") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		name := strings.TrimPrefix(c.Value, "session-of-")
		w.Header().Set("X-User", name)
		w.Header().Set("X-Email", name+"@app.example")
		w.Header().Set("X-Roles", "recruiter, admin")
	}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked = append(a.asked, r.Header.Clone())
		a.answer(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

// set changes the app between requests.
func (a *ownersApp) set(answer func(http.ResponseWriter, *http.Request)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func (a *ownersApp) lastAsked() http.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.asked) == 0 {
		return nil
	}
	return a.asked[len(a.asked)-1]
}

func (a *ownersApp) timesAsked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

// claims are those of a session of ada, after change.
func (a *ownersApp) claims(change ...func(map[string]any)) map[string]any {
	claims := map[string]any{
		"iss": a.URL, "sub": "ada-1", "azp": "https://app.example", "iat": a.now().Unix(), "nbf": a.now().Unix(), "exp": a.now().Add(time.Minute).Unix(),
		"email": "ada@app.example", "roles": []string{"recruiter"},
	}
	for _, f := range change {
		f(claims)
	}
	return claims
}

// newJWTScene is an authorization server whose only login is the app's token.
func newJWTScene(t *testing.T, a *ownersApp, change ...func(*login.JWTConfig)) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		if a.now == nil { // the earliest: each clock stands still
			a.now = cfg.Now
		}
		config := login.JWTConfig{
			Cookie: appCookie, Issuer: a.URL, JWKS: a.keys.URL + "/keys", Claims: login.Claims{Keep: []string{"roles"}},
			Return: login.Return{SignIn: a.URL + "/sign-in"}, Now: cfg.Now,
		}
		for _, f := range change {
			f(&config)
		}
		app, err := login.NewJWT(config)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Password = false
		cfg.Methods = []issuer.LoginMethod{{Name: "app", Label: "Job Board", App: app}}
	}))
}

// newForwardScene is an authorization server whose only login asks the app.
func newForwardScene(t *testing.T, a *ownersApp, change ...func(*login.ForwardConfig)) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		config := login.ForwardConfig{
			URL: a.URL + "/whoami", User: "X-User", Name: "X-Email", ClaimHeaders: map[string]login.ClaimHeader{"roles": {Header: "X-Roles", List: true}},
			Return: login.Return{SignIn: a.URL + "/sign-in?from=oauth", Parameter: "next"},
		}
		for _, f := range change {
			f(&config)
		}
		app, err := login.NewForward(config)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Password = false
		cfg.Methods = []issuer.LoginMethod{{Name: "app", Label: "Job Board", App: app}}
	}))
}

// comeBack is what the app's sign-in page was given as the address to come back
// to.
func comeBack(t *testing.T, page *issuertest.Page, parameter string) string {
	t.Helper()
	back := page.Query().Get(parameter)
	if page.Status != http.StatusSeeOther || back == "" {
		t.Fatalf("not sent to the app's sign-in page: %d %s %s", page.Status, page.Location(), page.Text())
	}
	return back
}

func signedInAt(t *testing.T, scene *issuertest.Scene, b *issuertest.Browser) bool {
	t.Helper()
	return b.Cookie("oauth_login") != "" || scene.Count(t, `SELECT count(*) FROM gpt_logins`) != 0
}
