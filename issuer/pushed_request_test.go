package issuer_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// push pushes a good request of the client, after params; it returns the
// verifier that belongs to it.
func push(scene *issuertest.Scene, clientID string, params ...issuertest.Param) (issuertest.Response, string) {
	form, verifier := scene.Authorization(clientID, params...)
	if clientID != issuertest.Public && !form.Has("client_secret") {
		form.Set("client_secret", issuertest.Secret)
	}
	return scene.PostForm("/oauth/par", form), verifier
}

func pushedQuery(clientID string, r issuertest.Response) string {
	uri, _ := r.JSON["request_uri"].(string)
	return "/oauth/authorize?" + url.Values{"client_id": {clientID}, "request_uri": {uri}}.Encode()
}

// The way of RFC 9126: what was pushed is what is asked, whatever the link says
// besides.
func TestPushedRequestTakesThePlaceOfTheLink(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	scene.Clients.Change(t, issuertest.Confidential, func(c *issuer.Client) { c.RequirePushed = true })
	state := "a state \xff + & of the client"
	r, verifier := push(scene, issuertest.Confidential, issuertest.Set("state", state))
	if r.Status != http.StatusCreated || r.JSON["expires_in"] != 60.0 || r.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	page := scene.Browser(t).Get(pushedQuery(issuertest.Confidential, r) + "&scope=resume:read&redirect_uri=https://evil.example/cb&state=other&request=x").SignIn()
	if strings.Contains(page.Text(), "resume") {
		t.Errorf("the link added a scope: %s", page.Text())
	}
	page = page.Allow()
	if !strings.HasPrefix(page.Location(), issuertest.ConfidentialRedirect) || page.Query().Get("state") != state {
		t.Fatalf("%s", page.Location())
	}
	tokens := scene.Redeem(t, issuertest.Confidential, page.Code(), url.Values{"code_verifier": {verifier}})
	if tokens.Scope != "jobs:read" {
		t.Errorf("%+v", tokens)
	}
	if row := scene.Count(t, "SELECT count(*) FROM gpt_pushed_requests"); row != 0 {
		t.Errorf("%d rows", row)
	}
	if got := scene.Get("/.well-known/oauth-authorization-server"); got.JSON["pushed_authorization_request_endpoint"] != scene.URL+"/oauth/par" {
		t.Errorf("%s", got.Body)
	}

	// A client that must push cannot do without.
	scene.Browser(t).Authorize(issuertest.Confidential).WantError("invalid_request")
}

// A request_uri is for one client, one time, one minute, and only ours counts.
func TestPushedRequestIsOneClientsAndUsedOnce(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	const heading = "This link does not work"
	r, _ := push(scene, issuertest.Confidential)
	scene.Browser(t).Get(pushedQuery(issuertest.Public, r)).WantPage(400, heading)
	opened := 0
	for _, got := range atOnce(10, func() issuertest.Response { return scene.Get(pushedQuery(issuertest.Confidential, r)) }) {
		if got.Status == 200 {
			opened++
		}
	}
	if opened != 1 {
		t.Errorf("%d of ten uses succeeded", opened)
	}
	r, _ = push(scene, issuertest.Public)
	uri, _ := r.JSON["request_uri"].(string)
	if n := scene.Count(t, "SELECT count(*) FROM gpt_pushed_requests p WHERE p::text LIKE '%' || $1 || '%'", uri); n != 0 {
		t.Error("the request_uri is in the database")
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_pushed_requests p WHERE p.parameters LIKE '%secret%'"); n != 0 {
		t.Error("a secret is in the database")
	}
	scene.SQL(t, "UPDATE gpt_pushed_requests SET expires_at = now()")
	scene.Browser(t).Get(pushedQuery(issuertest.Public, r)).WantPage(400, heading)
	scene.Browser(t).Get("/oauth/authorize?client_id=cli&request_uri=urn:ietf:params:oauth:request_uri:unknown").WantPage(400, heading)

	// Other forms, and signed requests, are said not to be supported.
	scene.Browser(t).Authorize(issuertest.Public, issuertest.Set("request_uri", "https://cli.example/request.jwt")).WantError("request_uri_not_supported")
	scene.Browser(t).Authorize(issuertest.Public, issuertest.Set("request", "a.b.c")).WantError("request_not_supported")
}

// What the authorization endpoint would refuse is refused before, to the client
// itself.
func TestPushedRequestIsCheckedWhenItIsPushed(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	for name, c := range map[string]struct {
		client string
		param  issuertest.Param
		status int
		code   string
	}{
		"wrong secret":         {issuertest.Confidential, issuertest.Set("client_secret", "wrong"), 401, "invalid_client"},
		"unknown client":       {issuertest.Public, issuertest.Set("client_id", "nobody"), 401, "invalid_client"},
		"another redirect":     {issuertest.Confidential, issuertest.Set("redirect_uri", "https://evil.example/cb"), 400, "invalid_request"},
		"two to choose from":   {issuertest.GPT, issuertest.Omit("redirect_uri"), 400, "invalid_request"},
		"a reference inside":   {issuertest.Confidential, issuertest.Set("request_uri", "urn:ietf:params:oauth:request_uri:x"), 400, "invalid_request"},
		"a request object":     {issuertest.Confidential, issuertest.Set("request", "a.b.c"), 400, "request_not_supported"},
		"no challenge":         {issuertest.Public, issuertest.Omit("code_challenge"), 400, "invalid_request"},
		"plain":                {issuertest.Public, issuertest.Set("code_challenge_method", "plain"), 400, "invalid_request"},
		"unknown scope":        {issuertest.Confidential, issuertest.Set("scope", "nothing"), 400, "invalid_scope"},
		"another's resource":   {issuertest.Confidential, issuertest.Set("resource", "https://other.example"), 400, "invalid_target"},
		"token":                {issuertest.Confidential, issuertest.Set("response_type", "token"), 400, "unsupported_response_type"},
		"repeated":             {issuertest.Confidential, issuertest.Add("scope", "jobs:read"), 400, "invalid_request"},
		"not the client's way": {issuertest.Machine, issuertest.Set("redirect_uri", "https://a.example/cb"), 400, "invalid_request"},
	} {
		r, _ := push(scene, c.client, c.param)
		if r.Status != c.status || r.Error() != c.code {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	if r := scene.Get("/oauth/par"); r.Status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", r.Status)
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_pushed_requests"); n != 0 {
		t.Errorf("%d rows", n)
	}
	// Taken out meanwhile: checked again when it is used.
	r, _ := push(scene, issuertest.Confidential)
	scene.Clients.Change(t, issuertest.Confidential, func(c *issuer.Client) { c.RedirectURIs = []string{"https://new.example/cb"} })
	scene.Browser(t).Get(pushedQuery(issuertest.Confidential, r)).WantPage(400, "This link does not work")

	// A public client proves nothing: so many rows from one network.
	last := 0
	for range 61 {
		r, _ := push(scene, issuertest.Public)
		last = r.Status
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_pushed_requests"); last != http.StatusTooManyRequests || n != 60 {
		t.Errorf("the last is %d, %d rows", last, n)
	}
}
