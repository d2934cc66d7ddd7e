package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// CLI-08: a page of another origin that has no server connects by itself, in Chromium:
// it reads metadata, registers, gets tokens that are bound to its key, calls the
// API and hears why it is refused, all of it by CORS. Trap 4.
func TestPageOfAnotherOriginConnects(t *testing.T) {
	t.Parallel()
	pages := httptest.NewServer(http.FileServer(http.Dir("clients")))
	t.Cleanup(pages.Close)
	origin := strings.Replace(pages.URL, "127.0.0.1", "localhost", 1)
	s := newSceneWith(t, sceneConfig{HTTPS: true, Options: "registration {\n\tdynamic\n}", Site: `oauth_protect {
		GET  /jobs jobs:read
		cors ` + origin + `
	}
	reverse_proxy API`})
	browser := newChromium(t)
	query := url.Values{"issuer": {s.Base}, "resource": {s.Base}, "api": {s.Base + "/jobs"}, "scope": {"jobs:read"}}
	if err := chromedp.Do(browser, chromedp.Navigate(origin+"/spa.html#"+query.Encode()), chromedp.WaitVisible(field("Email"))); err != nil {
		text, _ := chromedp.Run(browser, chromedp.Text("body"))
		t.Fatalf("%v\n%s", err, text)
	}
	signIn(t, browser)
	if err := chromedp.Do(browser, chromedp.WaitVisible(button("Allow")), chromedp.Click(button("Allow")), chromedp.WaitReady("#reports")); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(browser, chromedp.Poll[bool](`document.title == "done"`)); err != nil {
		t.Fatal(err)
	}
	text, err := chromedp.Run(browser, chromedp.Text("#reports"))
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for line := range strings.Lines(text) {
		var r report
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		steps = append(steps, r.text("step"))
		switch r["step"] {
		case "token":
			r.want(t, map[string]any{"token_type": "dpop", "scope": "jobs:read"})
		case "refused":
			r.want(t, map[string]any{"status": 401, "error": "invalid_token"})
		case "failed":
			t.Error(r["error"])
		}
	}
	if got := strings.Join(steps, ", "); got != "discovery, nonce, token, call, refresh, revocation, refused" {
		t.Errorf("the page did: %s\n%s", got, text)
	}
}
