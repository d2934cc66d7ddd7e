package issuer

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// PAG-07: who asks, for what, and where the answer goes.
func TestConsentNamesClientScopesAndWhereItLeads(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ client, redirect, target string }{
		"site":     {"copilot", siteRedirect, "You will be sent back to client.example."},
		"loopback": {"cli", loopbackRedirect, "You will be sent back to an app on this computer (127.0.0.1)."},
		"private":  {"cli", privateRedirect, "You will be sent back to an app on this device (com.example.app:)."},
	} {
		scene := newPageScene(t)
		scene.ask.ClientID, scene.ask.RedirectURI = c.client, c.redirect
		scene.ask.Scopes = oauth.NewScopeSet("jobs:read", "applications:write")
		p := scene.consent(scene.browser())
		for _, want := range []string{
			scene.clients[c.client].Name + " wants access to your account", c.target, "Signed in as ada@example.com",
			"Search jobs and view job details", "Submit applications for you",
			"See your applications", // implied by writing them
		} {
			if !strings.Contains(p.text(), want) {
				t.Errorf("%s: %q is not on the page: %s", name, want, p.text())
			}
		}
		if strings.Contains(p.text(), "Read your resume") || strings.Contains(p.text(), "jobs:read") {
			t.Errorf("%s: the page shows what was not asked: %s", name, p.text())
		}
		if p.button("Allow") == nil || p.button("Deny") == nil {
			t.Errorf("%s: buttons are missing", name)
		}
	}
}

// Step-up: only what was not granted before is asked for, the hierarchy counts,
// and another client's or user's grants do not.
func TestConsentAsksOnlyForWhatIsNew(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	scene.connect("s1", "copilot", siteRedirect, "applications:write")
	scene.connect("s2", "cli", siteRedirect, "resume:read")
	foreign := scene.connect("s3", "copilot", siteRedirect, "jobs:read")
	scene.store.sessions[2].UserID = foreign.UserID + "-other"
	scene.ask.Scopes = oauth.NewScopeSet("jobs:read", "applications:read", "resume:read")
	p := scene.consent(scene.browser())
	asked, held, _ := strings.Cut(p.text(), "What it can do already")
	for _, want := range []string{"wants more access", "Search jobs and view job details", "Read your resume"} {
		if !strings.Contains(asked, want) {
			t.Errorf("%q is not asked for: %s", want, asked)
		}
	}
	if strings.Contains(asked, "See your applications") || !strings.Contains(held, "See your applications") {
		t.Errorf("what is held is asked for again: %s", p.text())
	}
}

// DESIGN and issue 2 line 4, RFC 8252 section 8.6, A-17, A-24: when the page is
// skipped, in a table of client, redirect, what was granted, and prompt.
func TestConsentIsSkippedOnlyWhereNothingIsLeftToSee(t *testing.T) {
	t.Parallel()
	all := []string{"jobs:read", "applications:read"}
	cases := []struct {
		name, client, redirect string
		grantedTo, grantedAt   string // client and redirect of the live session
		granted                []string
		resource, prompt       string
		want                   string // "code", "page", or the error
	}{
		{name: "confidential client, site, all granted", client: "copilot", redirect: siteRedirect, grantedTo: "copilot", grantedAt: siteRedirect, granted: all, want: "code"},
		{name: "public client, site, all granted", client: "cli", redirect: siteRedirect, grantedTo: "cli", grantedAt: siteRedirect, granted: all, want: "code"},
		{name: "granted by hierarchy", client: "copilot", redirect: siteRedirect, grantedTo: "copilot", grantedAt: siteRedirect, granted: []string{"jobs:read", "applications:write"}, want: "code"},
		{name: "prompt=none, all granted", client: "copilot", redirect: siteRedirect, grantedTo: "copilot", grantedAt: siteRedirect, granted: all, prompt: "none", want: "code"},
		{name: "other path of the same host", client: "copilot", redirect: siteRedirect, grantedTo: "copilot", grantedAt: "https://client.example/other", granted: all, want: "code"},

		{name: "nothing granted", client: "copilot", redirect: siteRedirect, want: "page"},
		{name: "one scope more", client: "copilot", redirect: siteRedirect, grantedTo: "copilot", grantedAt: siteRedirect, granted: all[:1], want: "page"},
		{name: "granted to another client", client: "copilot", redirect: siteRedirect, grantedTo: "cli", grantedAt: siteRedirect, granted: all, want: "page"},
		{name: "another redirect host", client: "copilot", redirect: siteRedirect, grantedTo: "copilot", grantedAt: "https://elsewhere.example/cb", granted: all, want: "page"},
		{name: "another port", client: "copilot", redirect: siteRedirect, grantedTo: "copilot", grantedAt: "https://client.example:8443/cb", granted: all, want: "page"},
		{name: "adopted session without redirect", client: "copilot", redirect: siteRedirect, grantedTo: "copilot", grantedAt: "", granted: all, want: "page"},
		{name: "another resource", client: "copilot", redirect: siteRedirect, grantedTo: "copilot", grantedAt: siteRedirect, granted: all, resource: "https://other.example", want: "page"},
		{name: "prompt=consent", client: "copilot", redirect: siteRedirect, grantedTo: "copilot", grantedAt: siteRedirect, granted: all, prompt: "consent", want: "page"},
		{name: "confidential client, loopback", client: "copilot", redirect: loopbackRedirect, grantedTo: "copilot", grantedAt: loopbackRedirect, granted: all, want: "page"},
		{name: "public client, loopback", client: "cli", redirect: loopbackRedirect, grantedTo: "cli", grantedAt: loopbackRedirect, granted: all, want: "page"},
		{name: "public client, private scheme", client: "cli", redirect: privateRedirect, grantedTo: "cli", grantedAt: privateRedirect, granted: all, want: "page"},
		{name: "prompt=none, nothing granted", client: "copilot", redirect: siteRedirect, prompt: "none", want: "consent_required"},
		{name: "prompt=none, loopback", client: "cli", redirect: loopbackRedirect, grantedTo: "cli", grantedAt: loopbackRedirect, granted: all, prompt: "none", want: "consent_required"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			scene := newPageScene(t)
			b := scene.browser()
			scene.consent(b) // signs in
			if c.grantedTo != "" {
				scene.connect("s1", c.grantedTo, c.grantedAt, c.granted...)
			}
			scene.ask.ClientID, scene.ask.RedirectURI, scene.ask.Scopes = c.client, c.redirect, oauth.NewScopeSet(all...)
			if c.resource != "" {
				scene.ask.Resource = c.resource
			}
			if c.prompt != "" {
				scene.ask.Prompt = pagePrompt(c.prompt)
			}
			p := b.get("/oauth/authorize")
			switch c.want {
			case "code":
				p.wantCode()
			case "page":
				if p.status != http.StatusOK || p.button("Allow") == nil {
					t.Errorf("%d %s %s", p.status, p.location(), p.text())
				}
				if len(scene.store.codes) != 0 {
					t.Error("a code was made without an answer")
				}
			default:
				p.wantError(c.want)
			}
		})
	}
}

// A request for no scope at all is not approved by having asked for none.
func TestConsentForNoScopeIsStillAsked(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	scene.ask.Scopes = nil
	if p := scene.consent(scene.browser()); p.button("Allow") == nil {
		t.Errorf("%d %s", p.status, p.location())
	}
}

func TestLoopbackIsConfirmedEachTime(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	scene.connect("s1", "cli", "http://127.0.0.1:1/cb", "jobs:read") // another port of the same app
	scene.ask.ClientID, scene.ask.RedirectURI = "cli", loopbackRedirect
	p := scene.consent(scene.browser())
	if p.heading() != "Continue to Job CLI?" || !strings.Contains(p.text(), "It asks for nothing new: Search jobs") {
		t.Errorf("%s", p.text())
	}
	p.submit("Allow").wantCode()
}

func TestDenyAnswersAccessDenied(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	got := scene.consent(scene.browser()).submit("Deny")
	got.wantError("access_denied")
	if u, _ := url.Parse(got.location()); u.Host != "client.example" || u.Query().Get("state") != "xyz" || u.Query().Get("iss") != scene.base {
		t.Errorf("goes to %s", got.location())
	}
	if got.status != http.StatusSeeOther {
		t.Errorf("status %d", got.status)
	}
}

// PROTOCOL 6, trap 19.
func TestConsentSentTwiceYieldsTheSameCode(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t, func(cfg *Config) { cfg.SessionLimit = 1 })
	p := scene.consent(scene.browser())
	first := p.submit("Allow")
	first.wantCode()
	// The client was quick: its session takes the last place.
	scene.now.advance(1e9)
	session := scene.connect("s1", "copilot", siteRedirect, "jobs:read")
	scene.store.sessions[0].CreatedAt = session.CreatedAt.Add(26 * 3600e9)
	second := p.submit("Allow")
	if first.location() != second.location() || len(scene.store.codes) != 1 {
		t.Errorf("%s\n%s\n%d codes", first.location(), second.location(), len(scene.store.codes))
	}
}

// what else but the form of this login, browser and request.
func TestConsentNeedsTheFormOfThisLogin(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	scene.store.users = append(scene.store.users, User{ID: "user-mallory", Email: "mallory@example.com", PasswordHash: sceneHash()})
	b := scene.browser()
	action, form := scene.consent(b).form("Allow")
	_, otherRequest := b.get("/oauth/authorize").form("Allow")
	refused := func(name string, p *page) {
		t.Helper()
		if p.status != http.StatusForbidden || p.location() != "" {
			t.Errorf("%s: %d %s %s", name, p.status, p.location(), p.text())
		}
	}
	with := func(name, value string) url.Values {
		changed, _ := url.ParseQuery(form.Encode())
		changed.Set(name, value)
		return changed
	}
	refused("no token", b.post(action, with("csrf", "")))
	refused("another token", b.post(action, with("csrf", newCookieValue())))
	refused("the token of another request", b.post(action, with("csrf", otherRequest.Get("csrf"))))
	_, signOut := scene.consent(b).form("Not you? Sign out")
	refused("the token of another form", b.post(action, with("csrf", signOut.Get("csrf"))))

	other := scene.browser()
	other.get("/oauth/authorize").submit("Sign in", "email", "mallory@example.com", "password", scenePassword)
	refused("another browser", other.post(action, form))

	// The same browser, signed in as somebody else meanwhile.
	b.follow(scene.consent(b).submit("Not you? Sign out")).submit("Sign in", "email", "mallory@example.com", "password", scenePassword)
	refused("another login", b.post(action, form))

	for _, decision := range []string{"", "ALLOW", "yes"} {
		_, form := scene.consent(b).form("Allow")
		form.Set("decision", decision)
		if p := b.post(action, form); p.status != http.StatusBadRequest {
			t.Errorf("decision %q: %d", decision, p.status)
		}
	}
	if len(scene.store.codes) != 0 {
		t.Errorf("%d codes were made", len(scene.store.codes))
	}
}

// GET never approves.
func TestConsentIsNotGivenByGet(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	b := scene.browser()
	action, form := scene.consent(b).form("Allow")
	if p := b.get(action + "?" + form.Encode()); p.button("Allow") == nil || len(scene.store.codes) != 0 {
		t.Errorf("%d %s, %d codes", p.status, p.location(), len(scene.store.codes))
	}
	// Nor by fields beside the body.
	request := url.Values{"request": {form.Get("request")}, "csrf": {form.Get("csrf")}}
	if p := b.post(action+"?decision=allow", request); p.status != http.StatusBadRequest || len(scene.store.codes) != 0 {
		t.Errorf("decision in the query: %d, %d codes", p.status, len(scene.store.codes))
	}
}

// the sealed request is the only source.
func TestConsentIgnoresForeignFields(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	b := scene.browser()
	action, form := scene.consent(b).form("Allow")
	for name, value := range map[string]string{
		"scope": "resume:read", "scopes": "resume:read", "client_id": "cli", "redirect_uri": "https://evil.example/", "state": "evil",
		"user": "user-mallory", "user_id": "user-mallory", "resource": "https://evil.example", "bypass_approval_prompt": "true",
	} {
		form.Set(name, value)
	}
	got := b.post(action, form)
	got.wantCode()
	code := scene.store.codes[0]
	if !strings.HasPrefix(got.location(), siteRedirect+"?") || strings.Contains(got.location(), "evil") ||
		code.ClientID != "copilot" || code.UserID != "user-ada" || code.Scopes.String() != "jobs:read" || code.RedirectURI != siteRedirect || code.Resource != scene.base {
		t.Errorf("%s, %+v", got.location(), code)
	}
}

// PAG-08: one is ended, and the request goes on.
func TestSessionLimitListsSessionsAndMakesRoom(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t, func(cfg *Config) { cfg.SessionLimit = 2 })
	scene.connect("s1", "copilot", siteRedirect, "jobs:read")
	scene.connect("s2", "gone-client", siteRedirect, "jobs:read")
	b := scene.browser()
	p := scene.consent(b) // all is granted, yet there is no room
	if p.heading() != "You have connected as many apps as you can" || p.button("Allow") != nil {
		t.Fatalf("%d %s %s", p.status, p.location(), p.text())
	}
	for _, want := range []string{"room for 2 apps", "Career Copilot", "gone-client", "Connected 1 day ago", "Last used 5 minutes ago"} {
		if !strings.Contains(p.text(), want) {
			t.Errorf("%q is not on the page: %s", want, p.text())
		}
	}
	// An old form does not get past the limit.
	action, form := p.form("Deny")
	form.Set("decision", "allow")
	if got := b.post(action, form); got.button("Allow") != nil || len(scene.store.codes) != 0 {
		t.Errorf("allowed beyond the limit: %d %s", got.status, got.location())
	}
	// prompt=none shows no list.
	scene.ask.Prompt = pagePrompt("none")
	b.get("/oauth/authorize").wantError("consent_required")
	scene.ask.Prompt = pagePrompt()

	// Somebody else's session, or nonsense, ends nothing.
	theirs := scene.connect("s3", "copilot", siteRedirect)
	scene.store.sessions[2].UserID = theirs.UserID + "-other"
	for _, id := range []string{"s3", "", "' OR 1=1"} {
		_, form := p.form("Deny")
		form.Del("decision")
		form.Set("end", id)
		if got := b.follow(b.post(action, form)); got.status != http.StatusOK || len(scene.store.sessions) != 3 {
			t.Errorf("end=%q: %d, %d sessions left", id, got.status, len(scene.store.sessions))
		}
	}
	p = b.follow(p.submit("End access of gone-client"))
	p.wantCode() // room, and all was granted before: straight on
	if len(scene.store.sessions) != 2 {
		t.Errorf("%d sessions left", len(scene.store.sessions))
	}
}

func TestConsentOfAClientThatIsGone(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	p := scene.consent(scene.browser())
	scene.clients["copilot"].RedirectURIs = []string{"https://client.example/new"}
	p.submit("Allow").wantPage(http.StatusBadRequest, "This app is no longer registered")
	delete(scene.clients, "copilot")
	p.submit("Allow").wantPage(http.StatusBadRequest, "This app is no longer registered")
}

// D-03: a client's name is shown, but cannot pass for our own words.
func TestClientNamesAreCleaned(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"plain":              {"Career Copilot", "Career Copilot"},
		"right to left":      {"\u202eevil\u202c app\u2066", "evil app"},
		"right to left text": {"مرحبا", "مرحبا"},
		"controls":           {"A\x1b[31m\r\nB\x00", "A[31m B"},
		"invisible":          {"\u200b\u3164\u2800\ufeff\u00ad", "the-id"},
		"piled marks":        {"a" + strings.Repeat("\u0300\u0301\u0302\u0303", 50), "à\u0301\u0302"},
		"long":               {strings.Repeat("x", 10<<10), strings.Repeat("x", maxNameRunes) + "…"},
		"invalid":            {"a\xff\xfeb", "ab"},
		"spaces":             {"  a \u2003\u2028 b  ", "a b"},
		"empty":              {"", "the-id"},
	} {
		if got := displayName(&Client{ID: "the-id", Name: c.in}); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	scene := newPageScene(t)
	scene.clients["copilot"].Name = `<script>alert(1)</script>" {1} ' onload=x`
	b := scene.browser()
	for _, p := range []*page{b.get("/oauth/authorize"), scene.consent(b)} {
		if strings.Contains(p.body, "<script") || !strings.Contains(p.text(), scene.clients["copilot"].Name) {
			t.Errorf("page: %s", p.body)
		}
	}
}

func TestSessionsOfOneUserBeyondAnyPage(t *testing.T) {
	t.Parallel()
	scene := newPageScene(t)
	for i := range 100 {
		scene.connect("s"+strconv.Itoa(i), "cli", siteRedirect, "jobs:read")
	}
	if p := scene.consent(scene.browser()); p.button("Allow") == nil {
		t.Errorf("without a limit: %d %s", p.status, p.text())
	}
}
