package login_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/login"
)

// APP-08: the app is told what is configured, and never how browsers are known
// to us.
func TestQuestionToTheAppHoldsWhatIsConfigured(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	scene := newForwardScene(t, a, func(c *login.ForwardConfig) { c.Copy = []string{"Cookie", "X-Device"} })
	b := scene.Browser(t)
	b.SetCookie("sid", "session-of-ada")
	for name, value := range map[string]string{"X-Device": "1", "X-User": "root", "X-Email": "root@app.example", "Authorization": "Bearer x", "Connection": "X-Device", "Te": "trailers"} {
		b.Header.Set(name, value)
	}
	b.Authorize("cli").Follow()
	b.Authorize("cli") // with our cookies
	asked := a.lastAsked()
	if asked.Get("X-Device") != "1" || asked.Get("Cookie") != "sid=session-of-ada" {
		t.Errorf("asked with %v", asked)
	}
	for _, name := range []string{"X-User", "X-Email", "Authorization", "Te", "Connection", "User-Agent"} {
		if asked.Get(name) != "" {
			t.Errorf("%s was sent on: %q", name, asked.Get(name))
		}
	}
	if scene.Count(t, `SELECT count(*) FROM gpt_users WHERE id <> 'ada'`) != 1 { // the scene's own
		t.Error("the browser named the user")
	}
}

// APP-09: only an answer of success that names one user is about a user.
func TestAnswersOfTheAppThatSignNobodyIn(t *testing.T) {
	t.Parallel()
	answer := func(status int, headers ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(headers); i += 2 {
				w.Header().Add(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
		}
	}
	gone, down := "", "Job Board does not answer"
	for name, c := range map[string]struct {
		answer  func(http.ResponseWriter, *http.Request)
		heading string // empty: to the app's sign-in page
		status  int
	}{
		"401 with a user":     {answer(401, "X-User", "ada"), gone, 303},
		"redirect":            {answer(302, "X-User", "ada", "Location", "https://evil.example/"), gone, 303},
		"200 without a user":  {answer(200), gone, 303},
		"200, user is empty":  {answer(200, "X-User", ""), gone, 303},
		"403":                 {answer(403, "X-User", "ada"), "Sign in", 200},
		"404":                 {answer(404, "X-User", "ada"), down, 503},
		"500":                 {answer(500, "X-User", "ada"), down, 503},
		"two users":           {answer(200, "X-User", "ada", "X-User", "eve"), down, 503},
		"user too long":       {answer(200, "X-User", strings.Repeat("a", 300)), "This account cannot sign in here", 403},
		"user of wrong bytes": {answer(200, "X-User", "ada\xff"), "This account cannot sign in here", 403},
		"not the role":        {answer(200, "X-User", "ada", "X-Roles", "guest"), "Sign in", 200},
		"header too large":    {answer(200, "X-User", "ada", "X-Roles", strings.Repeat("recruiter,", 10000)), down, 503},
		"body without end": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User", "ada")
			_, _ = w.Write(make([]byte, 1<<20))
		}, down, 503},
		"no answer in time": {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, down, 503},
		"connection broken": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, down, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newOwnersApp(t)
			a.set(c.answer)
			scene := newForwardScene(t, a, func(f *login.ForwardConfig) {
				f.Require, f.Timeout = map[string][]string{"roles": {"recruiter"}}, 2*time.Second
			})
			if strings.HasPrefix(name, "user ") {
				scene = newForwardScene(t, a)
			}
			b := scene.Browser(t)
			b.SetCookie("sid", "session-of-ada")
			page := b.Authorize("cli")
			if page.Status != c.status || page.Heading() != c.heading || strings.Contains(page.Location(), "evil") {
				t.Errorf("%d %q %s, want %d %q", page.Status, page.Heading(), page.Location(), c.status, c.heading)
			}
			if c.heading == gone && !strings.HasPrefix(page.Location(), a.URL+"/sign-in?") {
				t.Errorf("sent to %s", page.Location())
			}
			if signedInAt(t, scene, b) {
				t.Error("signed in")
			}
			if strings.Contains(page.Body, a.URL) {
				t.Error("the page tells where the app is asked")
			}
		})
	}
}
