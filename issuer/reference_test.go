package issuer_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

var reference = regexp.MustCompile(`Reference: ([0-9a-f]{16})$`)

// wantLogLine asserts that the reference of the page finds one line of the log, on
// a level that is kept.
func wantLogLine(t *testing.T, scene *issuertest.Scene, name string, page *issuertest.Page) {
	t.Helper()
	match := reference.FindStringSubmatch(page.Text())
	if match == nil {
		t.Errorf("%s has no reference: %d %s", name, page.Status, page.Text())
		return
	}
	lines := 0
	for _, entry := range scene.Logs.All() {
		if entry.ContextMap()["request_id"] == match[1] && entry.Level >= zapcore.InfoLevel {
			lines++
		}
	}
	if lines == 0 {
		t.Errorf("%s: no line of the log has %s", name, match[1])
	}
}

// PAG-14: what happened, what to do now, and the id on the page finds the line
// of the log.
func TestReferenceOnThePageFindsTheLogLine(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.SelfRegistration(nil))
	registered := scene.SendJSON(http.MethodPost, "/oauth/register", map[string]any{"client_name": "X", "redirect_uris": []string{"https://x.example/cb"}})
	selfMade, _ := registered.JSON["client_id"].(string)
	browser := scene.Browser(t)
	device, denied := startDevice(t, scene), startDevice(t, scene)
	consent := browser.Authorize(issuertest.Confidential).SignIn()
	action, form := consent.Form("Allow")
	form.Set("csrf", "x")
	pages := map[string]*issuertest.Page{
		"device page":      browser.Get("/oauth/device"),
		"wrong user code":  browser.Get("/oauth/device").Press("Continue", "user_code", "BBBB-BBBB"),
		"device connected": device.enter(device.userCode).Allow(),
		"device denied":    denied.enter(denied.userCode).Deny(),
		"unknown client":   browser.Authorize("nobody"),
		"unknown redirect": browser.Authorize(issuertest.Confidential, issuertest.Set("redirect_uri", "https://evil.example/")),
		"broken request":   browser.Get("/oauth/consent?request=x"),
		"foreign form":     browser.Post(action, form),
		"another browser":  scene.Browser(t).Get("/oauth/consent?request=" + form.Get("request")),
		"refused client":   browser.Authorize(selfMade, issuertest.Set("redirect_uri", "https://x.example/cb"), issuertest.Set("response_type", "token")),
		"method":           browser.Get("/oauth/apps?after=x"),
	}
	scene.SQL(t, "ALTER TABLE gpt_logins RENAME TO away")
	pages["database away"] = browser.Get("/oauth/apps")
	for name, page := range pages {
		wantLogLine(t, scene, name, page)
		if strings.Count(page.Text(), ".") < 2 && !strings.Contains(page.Heading(), "?") {
			t.Errorf("%s says little: %s", name, page.Text())
		}
	}
	scene.SQL(t, "ALTER TABLE away RENAME TO gpt_logins")
	scene.Clock.Advance(11 * time.Minute)
	wantLogLine(t, scene, "expired request", browser.Get("/oauth/consent?request="+form.Get("request")))
}
