package issuer

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// everyPage returns one of each page there is.
func everyPage(t *testing.T) map[string]*page {
	scene := newPageScene(t, func(cfg *Config) { cfg.SessionLimit = 1 })
	b := scene.browser()
	signIn := b.get("/oauth/authorize")
	pages := map[string]*page{
		"sign-in":        signIn,
		"wrong password": signIn.submit("Sign in", "email", sceneEmail, "password", "x"),
		"consent":        scene.consent(b),
		"error":          b.get(consentPath + "?request=x"),
		"redirect":       scene.consent(b).submit("Not you? Sign out"),
	}
	pages["sign out"] = b.get(endSessionPath)
	scene.ask.Prompt = pagePrompt("select_account")
	pages["account"] = b.get("/oauth/authorize")
	scene.ask.Prompt = nil
	scene.connect("s1", "cli", siteRedirect, "jobs:read")
	pages["limit"] = scene.consent(b)
	pages["signed out"] = b.post(logoutPath, map[string][]string{"csrf": {formToken(b.cookie(loginCookie), logoutPurpose, "")}})
	return pages
}

func TestPagesCarryStrictHeaders(t *testing.T) {
	t.Parallel()
	for name, p := range everyPage(t) {
		for header, want := range map[string]string{
			"Cache-Control": "no-store", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"X-Content-Type-Options": "nosniff", "Content-Security-Policy": defaultLook().policy,
			"Access-Control-Allow-Origin": "", "Cross-Origin-Opener-Policy": "",
		} {
			if got := p.header.Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
	}
	for _, want := range []string{"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "style-src 'sha256-"} {
		if !strings.Contains(defaultLook().policy, want) {
			t.Errorf("%q is not in the policy %q", want, defaultLook().policy)
		}
	}
	// PROTOCOL 6, trap 5: form-action stops the redirect after consent.
	if strings.Contains(defaultLook().policy, "form-action") || strings.Contains(defaultLook().policy, "unsafe") {
		t.Errorf("policy %q", defaultLook().policy)
	}
}

// PAG-13: the policy admits the style sheet by its hash and nothing inline besides; the
// structure serves screen readers, keyboards and phones.
func TestPagesAreWhatTheirPolicyAndReadersNeed(t *testing.T) {
	t.Parallel()
	for name, p := range everyPage(t) {
		if name == "redirect" {
			continue
		}
		if got := p.header.Get("Content-Type"); got != "text/html; charset=utf-8" {
			t.Errorf("%s: Content-Type %q", name, got)
		}
		ids := map[string]bool{}
		for n := range p.root.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			switch n.Data {
			case "script", "iframe", "img", "object":
				t.Errorf("%s: has a %s", name, n.Data)
			case "style":
				sum := sha256.Sum256([]byte(n.FirstChild.Data))
				if !strings.Contains(defaultLook().policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
					t.Errorf("%s: the policy blocks the style sheet", name)
				}
			case "form":
				if !strings.EqualFold(attribute(n, "method"), "post") || !strings.HasPrefix(attribute(n, "action"), p.browser.scene.base+"/oauth/") {
					t.Errorf("%s: form %v", name, n.Attr)
				}
			}
			for _, a := range n.Attr {
				if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
					t.Errorf("%s: inline %s", name, a.Key)
				}
			}
			if id := attribute(n, "id"); id != "" && ids[id] {
				t.Errorf("%s: id %q twice", name, id)
			} else {
				ids[id] = true
			}
		}
		title := textOf(p.find(func(n *html.Node) bool { return n.Data == "title" }))
		lang := attribute(p.find(func(n *html.Node) bool { return n.Data == "html" }), "lang")
		if title == "" || lang != "en" || p.heading() == "" || !strings.Contains(p.body, `name="viewport"`) {
			t.Errorf("%s: title %q, lang %q, heading %q", name, title, lang, p.heading())
		}
		if strings.Contains(p.body, "%!") || strings.Contains(p.body, "ZgotmplZ") {
			t.Errorf("%s: a template went wrong: %s", name, p.body)
		}
	}
	if p := everyPage(t)["error"]; !strings.Contains(p.text(), "Reference:") {
		t.Errorf("the error page has no reference: %s", p.text())
	}
}

func TestErrorPageShowsOnlyTheFixedTexts(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	for _, path := range []string{consentPath + "?request=<script>canary</script>", consentPath + "?error=canary", consentPath} {
		p := scene.browser().get(path)
		if p.status != http.StatusBadRequest || strings.Contains(p.body, "canary") {
			t.Errorf("%s: %d %s", path, p.status, p.body)
		}
	}
}
