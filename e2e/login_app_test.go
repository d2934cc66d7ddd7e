package e2e

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"golang.org/x/oauth2"
)

const appSecret = "what the owner's app signs its sessions with"

// startOwnersApp runs the app of an owner as a process of its own. stop ends it.
func startOwnersApp(t *testing.T, port string) (stop func()) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "ownersapp")
	if out, err := exec.Command("go", "build", "-o", binary, "./ownersapp").CombinedOutput(); err != nil {
		t.Fatalf("build the app: %v\n%s", err, out)
	}
	run := exec.Command(binary, port, appSecret)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = run.Process.Kill()
		_ = run.Wait()
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get("http://localhost:" + port + "/sign-in"); err == nil {
			_ = res.Body.Close()
			return stop
		}
		if time.Now().After(deadline) {
			t.Fatal("the app is not ready after 30 s")
		}
	}
}

// APP-20: a person who cancels at the app, tries again, signs in there and allows,
// by both ways; claims reach the gate and the API; then the app is down.
func TestPersonSignsInByTheOwnersApp(t *testing.T) {
	port := freePort(t)
	app := "http://localhost:" + port
	recorder := `oauth_protect {
		GET /jobs    jobs:read roles=recruiter
		GET /jobs/*  jobs:read roles=admin
		identity_headers {
			claim roles X-User-Roles
		}
	}
	reverse_proxy API`
	s := newSceneWith(t, sceneConfig{Site: recorder, Options: `login jwt {
			label   "Job Board"
			cookie  app_session
			issuer  ` + app + `
			secret  "` + appSecret + `"
			claims  roles
			sign_in ` + app + `/sign-in
			return_parameter next
		}
		login forward ` + app + `/whoami {
			label       "Job Board Pro"
			user_header X-User
			name_header X-Email
			claim       roles X-Roles list
			sign_in     ` + app + `/sign-in
			return_parameter next
		}`})
	stop := startOwnersApp(t, port)
	for _, way := range []struct{ label, user, roles string }{{"Job Board", "app-ada", "recruiter"}, {"Job Board Pro", "who-ada", "recruiter,editor"}} {
		browser, back := newChromium(t), newCallback(t)
		config := s.oauthConfig("demo-public", "", back.URI, "jobs:read")
		verifier := oauth2.GenerateVerifier()
		link := config.AuthCodeURL("state-1", oauth2.S256ChallengeOption(verifier))
		through := button("Continue with " + way.label)
		do(t, browser, chromedp.Navigate(link), chromedp.WaitVisible(through), chromedp.Click(through),
			chromedp.WaitVisible(button("Cancel")), chromedp.Click(button("Cancel")), chromedp.WaitVisible(through))
		if text := pageText(t, browser); !strings.Contains(text, "you came back without being signed in there") {
			t.Errorf("%s, after cancelling: %s", way.label, text)
		}
		screenshot(t, browser, "sign-in-back-from-app")
		do(t, browser, phone())
		screenshot(t, browser, "sign-in-back-from-app-phone")
		do(t, browser, chromedp.Click(through), chromedp.WaitVisible(field("Username")), chromedp.SendKeys(field("Username"), "ada"),
			chromedp.Click(button("Log in")), chromedp.WaitVisible(button("Allow")))
		if text := pageText(t, browser); !strings.Contains(text, "ada@app.example") {
			t.Errorf("%s: the consent page does not say who is signed in: %s", way.label, text)
		}
		do(t, browser, chromedp.Click(button("Allow")))
		token := s.redeem(config, back.await(t).Get("code"), verifier)
		status, _ := s.api(http.MethodGet, "/jobs", token.AccessToken)
		if got := s.Upstream.Last(t).Header; status != http.StatusOK || got.Get("X-User-Id") != way.user || got.Get("X-User-Roles") != way.roles {
			t.Errorf("%s: %d as %q with roles %q", way.label, status, got.Get("X-User-Id"), got.Get("X-User-Roles"))
		}
		if strings.Contains(s.Upstream.Last(t).Header.Get("Cookie"), "oauth_") {
			t.Errorf("%s: our cookies went upstream", way.label)
		}
		if status, header := s.api(http.MethodGet, "/jobs/1", token.AccessToken); status != http.StatusForbidden || header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: a route for admins: %d %q", way.label, status, header.Get("WWW-Authenticate"))
		}
		if way.user != "who-ada" {
			continue
		}
		stop()
		do(t, browser, chromedp.Navigate(link), chromedp.WaitVisible(`//h1[normalize-space()="Job Board Pro does not answer"]`))
		screenshot(t, browser, "owners-app-down")
	}
}
