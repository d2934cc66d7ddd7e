package e2e

import (
	"bufio"
	"context"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

// The page of `caddy oauth status` in Chromium, on desktop and phone, light and
// dark, held to WCAG 2.2 AA. STA-05.
func TestStatusPageIsFitToBeSeen(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, sceneConfig{Admin: true})
	ctx, stop := context.WithCancel(t.Context())
	browse := exec.CommandContext(ctx, cluster.Binary(t), "oauth", "status", "--address", s.Admin, "--browse", "127.0.0.1:0")
	out, err := browse.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := browse.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); _ = browse.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)

	// A page elsewhere whose name leads here learns nothing.
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	r.Host = "evil.example"
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("another Host: %s", resp.Status)
	}

	script, browser := axeScript(t), newChromium(t)
	for _, set := range []struct{ screen, scheme string }{{"desktop", "light"}, {"desktop", "dark"}, {"phone", "light"}, {"phone", "dark"}} {
		name := "status-" + set.screen + "-" + set.scheme
		do(t, browser, viewport(set.screen), colors(set.scheme), chromedp.Navigate(address))
		if text := pageText(t, browser); !strings.Contains(text, "healthy") || !strings.Contains(text, s.Base) || strings.Contains(text, "not healthy") {
			t.Fatalf("%s: %s", name, text)
		}
		if wide, err := chromedp.Run(browser, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`)); err != nil || wide {
			t.Errorf("%s scrolls sideways (%v)", name, err)
		}
		screenshot(t, browser, name)
		axe(t, browser, script, name)
	}

	// Under the admin API it is for whatever is no browser, and for browsers where
	// Caddy lets them.
	resp, err = http.Get("http://" + s.Admin + "/oauth/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Errorf("under the admin API: %s %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	do(t, browser, chromedp.Navigate("http://"+s.Admin+"/oauth/"))
	if text := pageText(t, browser); strings.Contains(text, "healthy") {
		t.Errorf("Caddy answers browsers now: say so in docs/commands.md. %s", text)
	}
}
