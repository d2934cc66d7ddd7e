package issuer_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

const brokenLink = "This link does not work"

// wantNoTrace asserts the page of a request whose target is not proven: nothing
// leads on, nothing of the request stands in it, no row and no cookie is left.
func wantNoTrace(t *testing.T, scene *issuertest.Scene, p *issuertest.Page, sent ...string) {
	t.Helper()
	p.WantPage(http.StatusBadRequest, brokenLink)
	for _, s := range sent {
		if strings.Contains(p.Body, s) {
			t.Errorf("the page echoes %q", s)
		}
	}
	if len(p.Header.Values("Set-Cookie")) != 0 {
		t.Errorf("cookies %q", p.Header.Values("Set-Cookie"))
	}
	if rows := rowsLeft(t, scene); rows != 0 {
		t.Errorf("%d rows", rows)
	}
}

// rowsLeft counts what an authorization could leave in the database.
func rowsLeft(t *testing.T, scene *issuertest.Scene) int {
	t.Helper()
	return scene.Count(t, `SELECT (SELECT count(*) FROM gpt_authorization_codes) + (SELECT count(*) FROM gpt_logins)
		+ (SELECT count(*) FROM gpt_sessions) + (SELECT count(*) FROM gpt_oauth_events WHERE event_type <> 'gpt.oauth.user_created')`)
}

// A-01, PROTOCOL 1.6.2, PROTOCOL 8.1: an unproven client or address gets
// a page, whatever else is wrong with the request.
func TestAuthorizeShowsAPageUntilTheTargetIsProven(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	const state = "canary-of-the-state"
	for name, params := range map[string][]issuertest.Param{
		"unknown client":                {issuertest.Set("client_id", "canary-client")},
		"no client":                     {issuertest.Omit("client_id")},
		"empty client":                  {issuertest.Set("client_id", "")},
		"client in other case":          {issuertest.Set("client_id", strings.ToUpper(issuertest.Confidential))},
		"client with NUL":               {issuertest.Set("client_id", issuertest.Confidential+"\x00")},
		"client twice":                  {issuertest.Add("client_id", issuertest.Confidential)},
		"unknown redirect":              {issuertest.Set("redirect_uri", "https://canary-host.example/")},
		"redirect twice":                {issuertest.Add("redirect_uri", issuertest.ConfidentialRedirect)},
		"redirect twice, one empty":     {issuertest.Add("redirect_uri", "")},
		"redirect of another client":    {issuertest.Set("redirect_uri", issuertest.GPTRedirect)},
		"unknown redirect, prompt none": {issuertest.Set("redirect_uri", "https://canary-host.example/"), issuertest.Set("prompt", "none")},
		"unknown redirect, form_post":   {issuertest.Set("redirect_uri", "https://canary-host.example/"), issuertest.Set("response_mode", "form_post")},
		"unknown redirect, bad type":    {issuertest.Set("redirect_uri", "https://canary-host.example/"), issuertest.Set("response_type", "token")},
		"unknown redirect, two states":  {issuertest.Set("redirect_uri", "https://canary-host.example/"), issuertest.Add("state", state)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := scene.Browser(t).Authorize(issuertest.Confidential, append(params, issuertest.Set("state", state))...)
			wantNoTrace(t, scene, p, state, "canary-client", "canary-host")
		})
	}
}

// a client that was switched off in SQL is unknown, at once.
func TestAuthorizeDoesNotKnowADisabledClient(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	browser := scene.Browser(t)
	signIn := browser.Authorize(issuertest.Confidential)
	scene.SQL(t, "UPDATE gpt_clients SET disabled_at = now() WHERE client_id = $1", issuertest.Confidential)
	browser.Authorize(issuertest.Confidential).WantPage(http.StatusBadRequest, brokenLink)
	signIn.Press("Sign in", "email", issuertest.Email, "password", issuertest.Password).WantPage(http.StatusBadRequest, "This app is no longer registered")
}

// A-04, PROTOCOL 8.16, trap 6: only the port of a loopback http redirect is free.
func TestAuthorizeFreesOnlyThePortOfLoopback(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	hosts := []string{"127.0.0.1", "[::1]", "localhost"}
	for _, host := range hosts {
		scene.Clients.Register(t, issuer.Client{ID: "http " + host, Grants: []string{"authorization_code"}, AuthMethods: []string{"none"}, RedirectURIs: []string{"http://" + host + "/cb"}})
		scene.Clients.Register(t, issuer.Client{ID: "https " + host, Grants: []string{"authorization_code"}, AuthMethods: []string{"none"}, RedirectURIs: []string{"https://" + host + "/cb"}})
	}
	for _, host := range hosts {
		good := map[string]bool{"http://" + host + "/cb": true, "http://" + host + ":1/cb": true, "http://" + host + ":49152/cb": true, "http://" + host + ":65535/cb": true}
		for _, uri := range []string{
			"http://H/cb", "http://H:1/cb", "http://H:49152/cb", "http://H:65535/cb",
			"https://H/cb", "https://H:49152/cb", "HTTP://H/cb", "http:H/cb", "http:/H/cb", "http:///H/cb",
			"http://H:65536/cb", "http://H:000000001/cb", "http://H:/cb", "http://H:+1/cb", "http://H:-1/cb", "http://H:1:2/cb", "http://H:1 /cb", "http://H:0x50/cb", "http://H:８０/cb",
			"http://H:1", "http://H:1/", "http://H:1/cb/", "http://H:1/other", "http://H:1/CB", "http://H:1//cb", "http://H:1/./cb", "http://H:1/x/../cb", "http://H:1/cb%2f", "http://H:1/%63b", "http://H:1/cb;x", "http://H:1\\cb",
			"http://H:1/cb?", "http://H:1/cb?x=1", "http://H:1/cb#", "http://H:1/cb#x",
			"http://u@H/cb", "http://u@H:1/cb", "http://u:p@H:1/cb", "http://@H:1/cb", "http://H:1@evil.example/cb", "http://H:1@evil.example:1/cb", "http://H@evil.example/cb",
			"http://H.evil.example:1/cb", "http://Hevil.example/cb", "http://evil.example/H/cb", "http://H.:1/cb", "http://H%00:1/cb",
			"http://127.0.0.2:1/cb", "http://0.0.0.0:1/cb", "http://127.1:1/cb", "http://2130706433:1/cb", "http://0177.0.0.1:1/cb", "http://[::]:1/cb", "http://[::ffff:127.0.0.1]:1/cb", "http://[0:0:0:0:0:0:0:1]:1/cb", "http://[::1%25lo]:1/cb", "http://::1:1/cb", "http://LOCALHOST:1/cb",
			"http://127.0.0.1:1/cb", "http://[::1]:1/cb", "http://localhost:1/cb",
		} {
			uri = strings.ReplaceAll(uri, "H", host)
			if strings.HasPrefix(uri, host) {
				continue // "HTTP:" after the replacement
			}
			t.Run("http "+host+" "+uri, func(t *testing.T) {
				t.Parallel()
				wantAccepted(t, scene, "http "+host, uri, good[uri])
			})
			t.Run("https "+host+" "+uri, func(t *testing.T) {
				t.Parallel()
				wantAccepted(t, scene, "https "+host, uri, uri == "https://"+host+"/cb")
			})
		}
	}
}

func wantAccepted(t *testing.T, scene *issuertest.Scene, client, uri string, accepted bool) {
	t.Helper()
	// With prompt=none the address itself is answered, so that we see where.
	p := scene.Browser(t).Authorize(client, issuertest.Set("redirect_uri", uri), issuertest.Set("prompt", "none"))
	if !accepted {
		wantNoTrace(t, scene, p)
		return
	}
	p.WantError("login_required")
	if !strings.HasPrefix(p.Location(), uri+"?") {
		t.Errorf("answered at %q", p.Location())
	}
}

// what a parser forgives, a browser may read as another host.
func TestAuthorizeRefusesHostileRedirects(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Clients.Register(t, issuer.Client{ID: "e", Grants: []string{"authorization_code"}, AuthMethods: []string{"none"},
		RedirectURIs: []string{"https://e.example", "https://e.example/cb", "https://e.example/q?a=1", "com.example.app:/cb"}})
	for _, uri := range []string{
		"https://e.example@evil.example/", "https://e.example@evil.example/cb", "https://a@b@evil.example", "https://e.example:x@evil.example/cb",
		`https://e.example\@evil.example`, `https://e.example\.evil.example`, `https:\\e.example\cb`, `https://evil.example\@e.example/cb`,
		"https://e.example%00.evil.example", "https://e.example\x00.evil.example", "https://e.example%2eevil.example", "https://e.example%40evil.example",
		"//evil.example", "//e.example/cb", "/cb", "cb", "https:evil.example", "https:/e.example/cb", "https:e.example/cb", "https:///e.example/cb", "///evil.example",
		"https://е.example/cb", "https://e。example/cb", "https://e.example．evil.example", "https://xn--e-.example/cb",
		"https://e.example/cb\t", "https://e.example/cb\n", "\thttps://e.example/cb", " https://e.example/cb", "https://e.exa\tmple/cb", "https://e.example\n.evil.example", "https://e.example/cb\r\nSet-Cookie: a=b",
		"https://e.example/cb/", "https://e.example/cb/x", "https://e.example/CB", "https://E.example/cb", "HTTPS://e.example/cb", "https://e.example:443/cb", "https://e.example./cb", "http://e.example/cb",
		"https://e.example/cb?x", "https://e.example/cb?", "https://e.example/cb#", "https://e.example/cb#x", "https://e.example/cb/..", "https://e.example/cb/../evil", "https://e.example/x/../cb", "https://e.example/cb%2f..", "https://e.example//cb", "https://e.example/cb;x",
		"https://e.example.evil.example/cb", "https://evil.example/?u=https://e.example/cb", "https://evil.example/#https://e.example/cb", "https://sub.e.example/cb", "https://*.example/cb",
		"https://e.example/q", "https://e.example/q?a=2", "https://e.example/q?a=1&b=2", "https://e.example/q?b=2&a=1",
		"com.example.app:/cb/x", "com.example.app://cb", "com.example.app:cb", "com.example.apps:/cb", "COM.example.app:/cb",
		"javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:https://e.example/x", "about:blank", "java\nscript:alert(1)",
		"urn:ietf:wg:oauth:2.0:oob", "https://", "https", ":", "?", "#", "%", "\xff",
	} {
		t.Run(uri, func(t *testing.T) {
			t.Parallel()
			wantAccepted(t, scene, "e", uri, false)
		})
	}
	for _, uri := range []string{"https://e.example", "https://e.example/cb", "com.example.app:/cb"} {
		wantAccepted(t, scene, "e", uri, true)
	}
	// A registered query stays, and the answer is added to it.
	p := scene.Browser(t).Authorize("e", issuertest.Set("redirect_uri", "https://e.example/q?a=1"), issuertest.Set("prompt", "none"))
	p.WantError("login_required")
	if !strings.HasPrefix(p.Location(), "https://e.example/q?a=1&") {
		t.Errorf("answered at %q", p.Location())
	}
}

// a missing redirect_uri means the only registered one, else a page.
func TestAuthorizeTakesTheOnlyRedirectWhenNoneIsNamed(t *testing.T) {
	t.Parallel()
	for name, param := range map[string]issuertest.Param{"missing": issuertest.Omit("redirect_uri"), "empty": issuertest.Set("redirect_uri", "")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := issuertest.New(t)
			two := scene.Browser(t).Authorize(issuertest.GPT, param)
			two.WantPage(http.StatusBadRequest, brokenLink)
			one := scene.Browser(t).Authorize(issuertest.Confidential, param).SignIn().Allow()
			one.Code()
			if !strings.HasPrefix(one.Location(), issuertest.ConfidentialRedirect+"?") {
				t.Errorf("answered at %q", one.Location())
			}
		})
	}
}

// PROTOCOL 8.23: a Custom GPT is answered at whichever of ChatGPT's two hosts
// asked, without PKCE, and its state comes back.
func TestAuthorizeServesTheGPTProfile(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	for _, redirect := range []string{issuertest.GPTRedirect, issuertest.GPTOtherRedirect} {
		t.Run(redirect, func(t *testing.T) {
			t.Parallel()
			params := []issuertest.Param{issuertest.Set("redirect_uri", redirect), issuertest.Omit("code_challenge"), issuertest.Omit("code_challenge_method"), issuertest.Set("scope", "jobs:read applications:write")}
			p := scene.Browser(t).Authorize(issuertest.GPT, params...).SignIn().Allow()
			if !strings.HasPrefix(p.Location(), redirect+"?") || p.Query().Get("state") != "a state of the client" {
				t.Errorf("answered at %q", p.Location())
			}
			form := url.Values{"redirect_uri": {redirect}}
			if tokens := scene.Redeem(t, issuertest.GPT, p.Code(), form); tokens.Refresh == "" || tokens.Access == "" {
				t.Errorf("got %+v", tokens)
			}
		})
	}
}
