package doctor

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// tokenAnswer is an answer of the token endpoint.
type tokenAnswer struct {
	Access      string `json:"access_token"`
	Type        string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	Refresh     string `json:"refresh_token"`
	Scope       string `json:"scope"`
	Error       string `json:"error"`
	Description string `json:"error_description"`
	status      int
}

// requestToken sends a token request by the method of authentication.
func (e *examination) requestToken(method string, form url.Values) (got tokenAnswer, err error) {
	headers := []string{"Content-Type", "application/x-www-form-urlencoded", "Accept", "application/json"}
	switch method {
	case "client_secret_basic":
		headers = append(headers, "Authorization", e.basic())
	case "client_secret_post":
		form.Set("client_secret", e.secret)
		fallthrough
	default:
		form.Set("client_id", e.clientID)
	}
	if e.profile.Resource != nil && e.resourceToSend() != "" {
		form.Set("resource", e.resourceToSend())
	}
	answered, err := send(e.flow, http.MethodPost, e.tokenEndpoint(), form.Encode(), headers...)
	if err != nil {
		return got, err
	}
	got.status = answered.StatusCode
	if json.Unmarshal([]byte(answered.body), &got) != nil {
		got.Error, got.Description = answered.Status, trimmed(answered.body)
	}
	return got, nil
}

// basic is the header of client_secret_basic. RFC 6749 section 2.3.1.
func (e *examination) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(e.clientID)+":"+url.QueryEscape(e.secret)))
}

func (e *examination) tokenEndpoint() string {
	if e.serverDoc != nil {
		return e.serverDoc.text("token_endpoint")
	}
	return oauth.Origin(e.stage.Issuer) + "/oauth/token"
}

// checkToken: the product gets an access token in each way in which its owner
// may have it authenticate.
func (e *examination) checkToken() Result {
	methods := e.methods
	if !e.profile.Authentication.Choice {
		methods = methods[:1]
	}
	fact := e.profile.Authentication.Fact
	for i, method := range methods {
		if method == "private_key_jwt" {
			return unused("only the product can sign what it authenticates with").about(fact)
		}
		if i > 0 { // a code is good once
			e.asked = e.authorize(e.redirects[0], nil)
			if e.allow(); e.asked.back.Get("code") == "" {
				return fail("", "no second code: %s", e.asked.words)
			}
			e.code = e.asked.back.Get("code")
		}
		got, err := e.requestToken(method, e.grant())
		switch {
		case err != nil:
			return e.unreachable(err).about(fact)
		case got.Access == "":
			return fail(e.tokenToWrite(got), "by %s: %s %s", method, got.Error, got.Description).about(fact)
		case !strings.EqualFold(got.Type, "Bearer"):
			return fail(e.inClient("remove dpop_bound_access_tokens"), "the token is of the type %s", got.Type).about(fact)
		}
		e.token = got
	}
	return pass("by %s: %s", strings.Join(methods, ", "), describe(e.token.Scope, "for no scope")).about(fact)
}

// grant is the form of the token request.
func (e *examination) grant() url.Values {
	if e.profile.Kind == KindMachine {
		return url.Values{"grant_type": {"client_credentials"}}
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {e.code}, "redirect_uri": {e.redirects[0]}}
	if e.profile.PKCE.Method != "none" {
		form.Set("code_verifier", verifier)
	}
	return form
}

func (e *examination) tokenToWrite(got tokenAnswer) string {
	switch got.Error {
	case "invalid_target":
		return e.inClient("resource " + e.resource.Identifier)
	case "invalid_scope":
		return e.scopeToWrite()
	case "invalid_dpop_proof", "use_dpop_nonce":
		return e.inClient("remove dpop_bound_access_tokens")
	case "unauthorized_client":
		return e.inClient("grants authorization_code refresh_token")
	}
	return "let oauth_server answer POST /oauth/token, with the Authorization header as it came"
}

// call sends a request with the access token.
func (e *examination) call(c *Call, token string) (*answer, error) {
	headers := []string{"Authorization", "Bearer " + token, "Accept", "application/json, text/event-stream"}
	if c.Body != nil {
		headers = append(headers, "Content-Type", "application/json")
	}
	return send(e.flow, c.Method, c.URL, string(c.Body), headers...)
}

// checkCall: the token opens something.
func (e *examination) checkCall() Result {
	if e.token.Access == "" {
		return unused("there is no token to call with")
	}
	if len(e.resource.Calls) == 0 {
		return unused("every rule is public")
	}
	var open, closed []string
	var last *answer
	for i := range e.resource.Calls {
		c := &e.resource.Calls[i]
		got, err := e.call(c, e.token.Access)
		if err != nil {
			return e.unreachable(err)
		}
		if got.StatusCode < 400 {
			open = append(open, c.Rule)
			continue
		}
		closed, last = append(closed, c.Rule), got
		if got.StatusCode == http.StatusForbidden && e.refusal == nil {
			e.refusal = got
		}
	}
	switch {
	case len(open) > 0 && len(closed) > 0:
		partly := pass("for %s; not %s", describe(e.token.Scope, "no scope"), strings.Join(closed, "; "))
		partly.Extent = fmt.Sprintf("%d of %d rules", len(open), len(open)+len(closed))
		return partly
	case len(open) > 0:
		return pass("opens %d rules", len(open))
	}
	return fail(e.callToWrite(), "the token, for %s, opens nothing: %s %s", describe(e.token.Scope, "no scope"), last.Status, trimmed(last.Header.Get("WWW-Authenticate")+" "+last.body))
}

// callToWrite lets the client have what some rule needs.
func (e *examination) callToWrite() string {
	if e.client != nil {
		return e.inClient("scope with what a rule needs: " + trimmed(e.resource.Calls[0].Rule))
	}
	return e.scopeToWrite()
}

// checkStepUp: whoever lacks a scope is told which to ask for. RFC 6750 section
// 3.1.
func (e *examination) checkStepUp() Result {
	if e.profile.StepUp == nil {
		return unused("the product does not ask for more")
	}
	if e.refusal == nil {
		return unused("the token opens everything").about(*e.profile.StepUp)
	}
	c := parseChallenge(e.refusal.Header.Get("WWW-Authenticate"))
	for _, name := range []string{"error", "scope", "resource_metadata"} {
		if c.parameters[name] == "" {
			return fail("remove what changes the answers of the gate "+e.resource.Source, "the answer 403 does not say %s, so the product cannot ask the user for more", name).about(*e.profile.StepUp)
		}
	}
	return pass("403 names %s", c.parameters["scope"]).about(*e.profile.StepUp)
}

// checkRefresh: the product goes on without the user, and knows when it cannot.
func (e *examination) checkRefresh() Result {
	fact := e.profile.Refresh
	if fact == nil {
		return unused("the product asks anew")
	}
	if e.token.Access == "" {
		return unused("there is no token to refresh")
	}
	if e.token.Refresh == "" {
		return warn(e.inClient("grants authorization_code refresh_token"), "there is no refresh token: the user must sign in again every %s", time.Duration(e.token.ExpiresIn)*time.Second).about(fact.Fact)
	}
	method := e.methods[0]
	refresh := func(token string) (tokenAnswer, error) {
		return e.requestToken(method, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
	}
	first, err := refresh(e.token.Refresh)
	if err != nil || first.Access == "" {
		return fail("let oauth_server answer POST /oauth/token", "the refresh is refused: %s %s %v", first.Error, first.Description, err).about(fact.Fact)
	}
	again, repeated := refresh(e.token.Refresh)
	dead, err := refresh("gpt_rt_dead")
	if err != nil || dead.Error != fact.Dead || dead.status != http.StatusBadRequest {
		return fail("let oauth_server answer POST /oauth/token", "a dead refresh token is answered %d %s, and the product waits for 400 %s", dead.status, dead.Error, fact.Dead).about(fact.Fact)
	}
	switch lives := time.Duration(e.token.ExpiresIn) * time.Second; {
	case fact.Repeats && (repeated != nil || again.Access == ""):
		return warn(e.stage.inOption("refresh_grace", "refresh_grace 60s"), "when the product loses an answer it refreshes again, and that ends the session: %s", again.Error).about(fact.Fact)
	case fact.Ahead > 0 && lives <= fact.Ahead:
		return warn(e.stage.inOption("access_token_ttl", "access_token_ttl 15m"), "an access token lives %s, and the product refreshes %s ahead: before every call", lives, fact.Ahead).about(fact.Fact)
	}
	return pass("renewed, and a dead token is told by %s", fact.Dead).about(fact.Fact)
}
