package e2e

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"testing"

	"golang.org/x/oauth2"
)

// Caddy's access log keeps credentials out of what it writes of headers, but
// a code stands in Location, and what a client says in the wrong place in the
// query. As docs/operations.md has it, none of that is there.
func TestAccessLogOfTheDocumentHoldsNoSecret(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(document), "\n## The access log\n")
	_, section, _ = strings.Cut(section, "```\n")
	directive, _, found := strings.Cut(section, "```")
	if !found {
		t.Fatal("the document has no such configuration")
	}
	s := newSceneWith(t, sceneConfig{Site: directive + jobBoardRules + "reverse_proxy API"})
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answered := func(r *http.Response, err error) (*http.Response, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		return r, string(text)
	}
	verifier := oauth2.GenerateVerifier()
	query := url.Values{"response_type": {"code"}, "client_id": {"demo-public"}, "redirect_uri": {"http://127.0.0.1/callback"}, "scope": {"jobs:read"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"}, "state": {"kept"}}
	_, page := answered(browser.Get(s.Base + "/oauth/authorize?" + query.Encode()))
	fields := form(page)
	fields.Set("email", email)
	fields.Set("password", password)
	r, _ := answered(browser.PostForm(s.Base+"/oauth/login", fields))
	_, page = answered(browser.Get(r.Header.Get("Location")))
	fields = form(page)
	fields.Set("decision", "allow")
	r, _ = answered(browser.PostForm(s.Base+"/oauth/consent", fields))
	back, err := r.Location()
	if err != nil || back.Query().Get("code") == "" {
		t.Fatalf("%v %v", r.Header, err)
	}
	code := back.Query().Get("code")
	misplaced := url.Values{"code": {code}, "code_verifier": {verifier}, "client_secret": {"canary-secret"}, "refresh_token": {"canary-refresh"}, "access_token": {"canary-access"}, "token": {"canary-token"}}
	answered(browser.Post(s.Base+"/oauth/token?"+misplaced.Encode(), "application/x-www-form-urlencoded", nil))
	answered(browser.Get(s.Base + "/jobs?access_token=canary-access&last=1"))

	eventually(t, "the access log has the last request", func() bool { return strings.Contains(s.Log.String(), "last=1") })
	log := s.Log.String()
	for _, secret := range []string{code, verifier, "canary-", password} {
		if at := strings.Index(log, secret); at >= 0 {
			t.Errorf("the log holds %q: …%s", secret, log[max(0, at-200):at])
		}
	}
	if !strings.Contains(log, "state=kept") || !strings.Contains(log, "code=REDACTED") {
		t.Error("the log does not tell of the answer to the client")
	}
}
