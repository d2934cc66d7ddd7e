package doctor

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// The PKCE verifier of every request, and what browsers send back: any value
// signs in where a server is rehearsed.
const verifier = "doctor-doctor-doctor-doctor-doctor-doctor-doctor"

var anyCookie = base64.RawURLEncoding.EncodeToString(make([]byte, sha256.Size))

const state = "state of the product +/="

// authorization is an authorization request and how it ended.
type authorization struct {
	query url.Values
	answered
}

// answered is what the browser was shown, or where it was sent.
type answered struct {
	page  *html.Node // nil: none was shown
	words string     // of the page
	back  url.Values // what the client is told; nil: nothing
	err   error
}

// refused is the error that the client is told, or would be if the user went
// on from a page that says so.
func (a answered) refused() string { return a.back.Get("error") }

// known reports whether client and redirect URI are: where they are not, nothing
// is ever said to the client.
func (a answered) known() bool { return a.err == nil && (a.back != nil || a.form("allow") != nil) }

// browse opens an address as the browser of a user who has signed in, and goes
// on where the server sends it to another page of its own.
func (e *examination) browse(method, address, body, redirect string) (a answered) {
	for range 4 {
		headers := []string{"Cookie", "__Host-oauth_login=" + anyCookie + "; oauth_login=" + anyCookie + "; __Host-oauth_browser=" + anyCookie + "; oauth_browser=" + anyCookie}
		if body != "" {
			headers = append(headers, "Content-Type", "application/x-www-form-urlencoded")
		}
		got, err := send(e.flow, method, address, body, headers...)
		if err != nil {
			a.err = err
			return a
		}
		if to := got.Header.Get("Location"); to != "" {
			if back, ok := answerTo(redirect, to); ok {
				a.back = back
				return a
			}
			if !strings.HasPrefix(to, oauth.Origin(e.stage.Issuer)+"/oauth/") {
				a.words = "sent to " + to
				return a
			}
			method, address, body = http.MethodGet, to, ""
			continue
		}
		page, err := html.Parse(strings.NewReader(got.body))
		if err != nil {
			a.err = err
			return a
		}
		a.page, a.words = page, got.Status+": "+wordsOf(page)
		for n := range page.Descendants() { // a page that leads back with an error
			if back, ok := answerTo(redirect, attribute(n, "href")); ok && n.Data == "a" {
				a.back = back
			}
		}
		return a
	}
	a.words = "sent round in a circle"
	return a
}

// answerTo reads an answer to the client out of an address.
func answerTo(redirect, address string) (url.Values, bool) {
	base, query, _ := strings.Cut(address, "?")
	values, err := url.ParseQuery(query)
	return values, err == nil && redirect != "" && base == redirect && (values.Has("code") || values.Has("error"))
}

func wordsOf(page *html.Node) string {
	var text []string
	for n := range page.Descendants() {
		if n.Type == html.TextNode && n.Parent.Data != "title" && n.Parent.Data != "style" && n.Parent.Data != "script" {
			text = append(text, n.Data)
		}
	}
	return trimmed(strings.Join(text, " "))
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// form returns what pressing the button with this value sends, nil where there
// is no such button.
func (a answered) form(value string) url.Values {
	if a.page == nil {
		return nil
	}
	for button := range a.page.Descendants() {
		if button.Data != "button" || attribute(button, "value") != value {
			continue
		}
		parent := button.Parent
		for parent != nil && parent.Data != "form" {
			parent = parent.Parent
		}
		if parent == nil {
			return nil
		}
		sent := url.Values{attribute(button, "name"): {value}}
		for n := range parent.Descendants() {
			if n.Data == "input" {
				sent.Set(attribute(n, "name"), attribute(n, "value"))
			}
		}
		return sent
	}
	return nil
}

// authorize sends the authorization request of the product, changed.
func (e *examination) authorize(redirect string, change func(url.Values)) authorization {
	query := url.Values{"response_type": {"code"}, "client_id": {e.clientID}, "redirect_uri": {redirect}, "state": {state}}
	if scope := e.scopeToAsk(); scope != "" {
		query.Set("scope", scope)
	}
	if e.profile.PKCE.Method != "none" {
		e.addChallenge(query)
	}
	if resource := e.resourceToSend(); resource != "" {
		query.Set("resource", resource)
	}
	if change != nil {
		change(query)
	}
	address := oauth.Origin(e.stage.Issuer) + "/oauth/authorize"
	if e.serverDoc != nil {
		address = e.serverDoc.text("authorization_endpoint")
	}
	return authorization{query, e.browse(http.MethodGet, address+"?"+query.Encode(), "", redirect)}
}

func (e *examination) addChallenge(query url.Values) {
	sum := sha256.Sum256([]byte(verifier))
	query.Set("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
	query.Set("code_challenge_method", "S256")
}

// scopeToAsk is the scope parameter; empty: it is left out.
func (e *examination) scopeToAsk() string {
	var scope string
	for _, from := range e.profile.Scope.From {
		switch from {
		case "challenge":
			scope = e.challenge.parameters["scope"]
		case "metadata":
			if list, _ := e.resourceDoc["scopes_supported"].([]any); len(list) > 0 {
				for _, name := range list {
					scope += " " + name.(string)
				}
			}
		case "configured":
			if e.client != nil {
				scope = strings.Join(e.client.Scopes, " ")
			}
		}
		if scope = strings.TrimSpace(scope); scope != "" {
			break
		}
	}
	for _, name := range e.profile.Scope.Adds {
		if scope != "" && e.serverDoc.has("scopes_supported", name) {
			scope += " " + name
		}
	}
	return scope
}

// resourceToSend is the resource parameter; empty: it is left out.
func (e *examination) resourceToSend() string {
	switch e.profile.Resource.Form {
	case "none":
		return ""
	case "metadata":
		if named := e.resourceDoc.text("resource"); named != "" {
			return named
		}
	case "href":
		if u, err := url.Parse(e.resource.Identifier); err == nil && u.Path == "" {
			return e.resource.Identifier + "/"
		}
	}
	return e.resource.Identifier
}

// checkRedirect: every redirect URI that the product uses is one of the client.
func (e *examination) checkRedirect() Result {
	if e.profile.Kind == KindMachine {
		return unused("nobody is sent anywhere")
	}
	var fine, mends []string
	var refused authorization
	for _, uri := range e.redirects {
		a := e.authorize(uri, nil)
		if a.err != nil {
			return e.unreachable(a.err).about(e.way.Fact)
		}
		if !a.known() && e.stage.SignIn {
			refused, mends = a, append(mends, e.redirectToWrite(uri))
			continue
		}
		fine = append(fine, uri)
		if len(fine) == 1 {
			e.asked = a
		}
	}
	e.redirects = fine
	if len(mends) == 0 {
		return pass("%s", strings.Join(fine, " ")).about(e.way.Fact)
	}
	failed := fail(strings.Join(slices.Compact(mends), "\n"), "the user would be shown: %s (client %s, redirect URI %s)", refused.words, e.clientID, refused.query.Get("redirect_uri")).about(e.way.Fact)
	if len(fine) > 0 {
		failed = failed.andGoOn()
	}
	return failed
}

func (e *examination) redirectToWrite(uri string) string {
	if e.client != nil {
		return e.inClient("redirect_uri " + uri)
	}
	for _, place := range append(e.way.places(), uri) {
		if policy := e.stage.Policy(place); policy.Deny {
			return e.policyToWrite(place, policy)
		}
	}
	return "let oauth_server answer GET /oauth/authorize"
}

// checkPKCE: the server takes what the product sends, or does without.
func (e *examination) checkPKCE() Result {
	fact := e.profile.PKCE
	if fact == nil {
		return unused("no code is asked for")
	}
	if fact.Method == "none" && e.asked.refused() == "invalid_request" {
		if with := e.authorize(e.redirects[0], e.addChallenge); with.refused() != "invalid_request" {
			return fail(e.inClient("pkce optional"), "the product sends no code_challenge, and the client must: %s", e.asked.back.Get("error_description")).about(fact.Fact)
		}
	}
	return pass("%s", fact.Method).about(fact.Fact)
}

// checkResource: the server knows what the token is for.
func (e *examination) checkResource() Result {
	if e.profile.Resource == nil {
		return unused("no code is asked for")
	}
	if e.asked.refused() == "invalid_target" {
		mend := "in the gate " + e.resource.Source + ": resource " + e.resource.Identifier
		if e.profile.Resource.Form == "none" {
			mend = e.inClient("resource " + e.resource.Identifier)
		}
		return fail(mend, "%s: %s", describe(e.asked.query.Get("resource"), "no resource is named"), e.asked.back.Get("error_description")).about(e.profile.Resource.Fact)
	}
	return pass("%s", describe(e.asked.query.Get("resource"), "none is named, and the server knows which")).about(e.profile.Resource.Fact)
}

func describe(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// checkScope: what is asked for can be had.
func (e *examination) checkScope() Result {
	if e.profile.Scope == nil {
		return unused("no user is asked")
	}
	fact := e.profile.Scope.Fact
	if e.asked.refused() == "invalid_scope" {
		return fail(e.scopeToWrite(), "%s: %s", describe(e.asked.query.Get("scope"), "no scope is named"), e.asked.back.Get("error_description")).about(fact)
	}
	return pass("%s", describe(e.asked.query.Get("scope"), "none is named, and the server knows which")).about(fact)
}

// checkRequest: nothing else is wrong with the authorization request.
func (e *examination) checkRequest() Result {
	switch refused := e.asked.refused(); {
	case e.profile.Kind == KindMachine:
		return unused("no user is asked")
	case refused == "":
		return pass("the authorization request is taken")
	case refused == "unauthorized_client":
		return fail(e.inClient("grants authorization_code refresh_token"), "the client may not send users: %s", e.asked.back.Get("error_description"))
	case e.takesPushed():
		return fail(e.inClient("remove require_pushed_authorization_requests"), "the product pushes no authorization requests: %s", e.asked.back.Get("error_description"))
	default:
		return fail("let the query of /oauth/authorize arrive as it is sent", "%s: %s", refused, e.asked.back.Get("error_description"))
	}
}

// takesPushed reports whether the same request is good when it is pushed. RFC
// 9126.
func (e *examination) takesPushed() bool {
	form := maps.Clone(e.asked.query)
	headers := []string{"Content-Type", "application/x-www-form-urlencoded"}
	if e.secret != "" {
		headers = append(headers, "Authorization", e.basic())
	}
	got, err := send(e.flow, http.MethodPost, oauth.Origin(e.stage.Issuer)+"/oauth/par", form.Encode(), headers...)
	if err != nil || got.StatusCode != http.StatusCreated {
		return false
	}
	pushed := make(document)
	if json.Unmarshal([]byte(got.body), &pushed) != nil {
		return false
	}
	a := e.authorize(e.redirects[0], func(query url.Values) {
		clear(query)
		query.Set("client_id", e.clientID)
		query.Set("request_uri", pushed.text("request_uri"))
	})
	return a.refused() == "" && a.known()
}

func (e *examination) scopeToWrite() string {
	for _, place := range e.way.places() {
		if policy := e.stage.Policy(place); policy.Scopes != nil {
			return "at " + policy.Source + ", in client_policy " + policy.Pattern + ": scopes " + e.asked.query.Get("scope")
		}
	}
	if e.client != nil {
		return e.inClient("scope with those that the gate " + e.resource.Source + " needs")
	}
	return "in the gate " + e.resource.Source + ": rules or tools with scopes that are declared"
}

// checkSignIn: a user can get to the page that asks for consent.
func (e *examination) checkSignIn() Result {
	switch {
	case e.profile.Kind == KindMachine:
		return unused("no user is asked")
	case !e.stage.SignIn:
		return fail(e.stage.inOption("login", "login password"), "nobody can sign in")
	case e.asked.form("allow") == nil:
		return fail("let oauth_server answer /oauth/*", "the user would be shown: %s", e.asked.words)
	}
	return pass("the user is asked for consent")
}

// checkConsent: the user allows, and the product gets a code, its state, and the
// issuer if it was announced. RFC 9207 section 2.
func (e *examination) checkConsent() Result {
	if e.profile.Kind == KindMachine {
		return unused("no user is asked")
	}
	e.allow()
	switch {
	case e.asked.back.Get("code") == "":
		return fail("let oauth_server answer POST /oauth/consent", "after Allow the user would be shown: %s", e.asked.words)
	case e.asked.back.Get("state") != state:
		return fail("", "the state came back as %q", e.asked.back.Get("state"))
	}
	if e.code = e.asked.back.Get("code"); e.profile.ResponseIssuer == nil {
		return pass("a code, and the state as it was sent")
	}
	if e.serverDoc.has("authorization_response_iss_parameter_supported", "true") && e.asked.back.Get("iss") != e.stage.Issuer {
		return fail("", "iss is %q", e.asked.back.Get("iss")).about(*e.profile.ResponseIssuer)
	}
	return pass("a code, the state as it was sent, and iss").about(*e.profile.ResponseIssuer)
}

// allow presses the button.
func (e *examination) allow() {
	form := e.asked.form("allow")
	if form == nil {
		return
	}
	e.asked.answered = e.browse(http.MethodPost, oauth.Origin(e.stage.Issuer)+"/oauth/consent", form.Encode(), e.asked.query.Get("redirect_uri"))
}
