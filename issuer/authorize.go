package issuer

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/dpop"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

const codePrefix = "gpt_ac_"

// handleAuthorize begins an authorization. RFC 6749 section 4.1.1.
func (s *Server) handleAuthorize(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		s.authorizeByPost(w, r)
		return
	}
	// Not URL.Query, which drops what it cannot read: a state that is lost, or a
	// second redirect_uri that only the next reader sees.
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return
	}
	values, pushed, ok := s.usePushedRequest(w, r, values)
	if !ok {
		return
	}
	speak(r, readUILocales(values.Get("ui_locales")))
	// 1. Who asks, and where the answer may go. Until both are proven there is a
	// page and no redirect: anything else is an open redirector.
	client, req, ok := s.proveTarget(w, r, values)
	if !ok {
		return
	}
	// 2. Everything else the client may hear of.
	if client.RequirePushed && !pushed {
		s.refuse(w, r, req, client, oauth.InvalidRequest("The client must push its authorization requests."))
		return
	}
	if err := s.readAuthorizationRequest(req, client, values); err != nil {
		var e *oauth.Error
		if !errors.As(err, &e) {
			s.unavailablePage(w, r, "authorize", err)
			return
		}
		s.refuse(w, r, req, client, e)
		return
	}
	// 3. The person.
	req.BrowserDigest = s.browserDigest(w, r)
	if login, err := s.currentLogin(r); err == nil {
		stands, answered := s.appStandsBy(w, r, login.Login)
		if answered {
			return
		}
		if !stands {
			req.Outdated = login.ID
		}
	}
	s.continueAuthorization(w, r, req, client)
}

// authorizeByPost turns a posted request into the GET that says the same. The
// form comes from the client's site, and a browser sends our cookies, which are
// SameSite=Lax, not with that but with the GET. RFC 6749 section 3.1.
func (s *Server) authorizeByPost(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxPageForm)
	if err := r.ParseForm(); err != nil || r.URL.RawQuery != "" { // of another media type nothing is read
		s.errorWords(w, r, unreadStatus(err), "broken")
		return
	}
	s.seeOther(w, authorizePath, r.PostForm)
}

// proveTarget finds client and redirect URI, or answers with a page.
func (s *Server) proveTarget(w http.ResponseWriter, r *http.Request, values url.Values) (*Client, *AuthorizationRequest, bool) {
	if len(values["client_id"]) != 1 || values.Get("client_id") == "" {
		s.brokenLink(w, r, "client.missing")
		return nil, nil, false
	}
	client, err := s.cfg.Clients.Client(r.Context(), values.Get("client_id"))
	if errors.Is(err, ErrNotFound) {
		s.brokenLink(w, r, "client.unknown")
		return nil, nil, false
	}
	if err != nil {
		s.unavailablePage(w, r, "find client", err)
		return nil, nil, false
	}
	req, why := s.readTarget(client, values)
	if why != "" {
		s.brokenLink(w, r, why)
		return nil, nil, false
	}
	return client, req, true
}

// brokenLink tells the user why the client cannot be trusted with an answer.
func (s *Server) brokenLink(w http.ResponseWriter, r *http.Request, why string) {
	s.errorPage(w, r, http.StatusBadRequest, "link", "link."+why)
}

// readTarget begins the request with where its answer goes; or says why that
// is not known.
func (s *Server) readTarget(client *Client, values url.Values) (req *AuthorizationRequest, why string) {
	req = &AuthorizationRequest{ID: uuid.NewString(), ClientID: client.ID, CreatedAt: s.cfg.Now()}
	switch sent := values["redirect_uri"]; {
	case len(sent) > 1:
		return nil, "redirect.repeated"
	case len(sent) == 1 && sent[0] != "":
		if !slices.ContainsFunc(client.RedirectURIs, func(registered string) bool { return matchRedirectURI(registered, sent[0]) }) {
			return nil, "redirect.unknown"
		}
		req.RedirectURI, req.RedirectURISent = sent[0], true
	case len(client.RedirectURIs) == 1:
		req.RedirectURI = client.RedirectURIs[0]
	default:
		return nil, "redirect.missing"
	}
	if state := values["state"]; len(state) == 1 && state[0] != "" {
		req.State, req.StateSent = opaque(state[0]), true
	}
	return req, ""
}

// readAuthorizationRequest checks the rest of the request into req. Errors
// that are an *oauth.Error go to the client.
func (s *Server) readAuthorizationRequest(req *AuthorizationRequest, client *Client, values url.Values) error {
	p, resources, err := readParameters(values)
	if err != nil {
		return err
	}
	switch {
	case len(req.State) > maxState:
		return oauth.InvalidRequest("The state is too long.")
	case p["request"] != "":
		return &oauth.Error{Code: oauth.CodeRequestNotSupported, Description: "Request objects are not supported."}
	case p["request_uri"] != "":
		return &oauth.Error{Code: oauth.CodeRequestURINotSupported, Description: "Request URIs are not supported."}
	case p["registration"] != "":
		return &oauth.Error{Code: oauth.CodeRegistrationNotSupported, Description: "The registration parameter is not supported."}
	case p["response_type"] == "":
		return oauth.InvalidRequest("The response_type is missing.")
	case p["response_type"] != "code":
		return &oauth.Error{Code: oauth.CodeUnsupportedResponseType, Description: "Only response_type code is supported."}
	case p["response_mode"] != "" && p["response_mode"] != "query":
		return oauth.InvalidRequest("Only response_mode query is supported.")
	case !slices.Contains(client.Grants, grantAuthorizationCode):
		return &oauth.Error{Code: oauth.CodeUnauthorizedClient, Description: "The client may not use this grant."}
	}
	if err := readChallenge(req, client, p); err != nil {
		return err
	}
	if req.DPoPKey = p["dpop_jkt"]; req.DPoPKey != "" && !dpop.IsThumbprint(req.DPoPKey) { // RFC 9449 section 10
		return oauth.InvalidRequest("The dpop_jkt is not the SHA-256 thumbprint of a key.")
	}
	if req.Scopes, req.Resource, err = s.readScopeAndResource(client, p, resources); err != nil {
		return err
	}
	if s.cfg.OpenID {
		s.readIDTokenHint(req, p["id_token_hint"])
	}
	if req.Scopes.Contains(oauth.ScopeOpenID) {
		if req.Nonce = p["nonce"]; len(req.Nonce) > maxNonce || !isText(req.Nonce) {
			return oauth.InvalidRequest("The nonce is too long or not text.")
		}
	}
	return s.readPrompt(req, p)
}

// readChallenge checks PKCE: S256 or nothing, and nothing only for a
// confidential client that may. An omitted method would mean plain. RFC 7636
// section 4.3, RFC 9700 section 2.1.1.
func readChallenge(req *AuthorizationRequest, client *Client, p parameters) error {
	challenge, method := p["code_challenge"], p["code_challenge_method"]
	switch {
	case challenge == "" && method != "":
		return oauth.InvalidRequest("The code_challenge is missing.")
	case challenge == "" && client.PKCEOptional && client.Confidential():
		return nil
	case challenge == "":
		return oauth.InvalidRequest("PKCE is required: send a code_challenge.")
	case method != "S256":
		return oauth.InvalidRequest("The code_challenge_method must be S256.")
	case len(challenge) != 43 || !isVerifier(challenge):
		return oauth.InvalidRequest("The code_challenge is malformed.")
	}
	req.CodeChallenge = challenge
	return nil
}

// isVerifier reports whether v has the form of a code_verifier: 43 to 128
// unreserved characters. RFC 7636 section 4.1.
func isVerifier(v string) bool {
	if len(v) < 43 || len(v) > 128 {
		return false
	}
	for i := range len(v) {
		c := v[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("-._~", c) < 0 {
			return false
		}
	}
	return true
}

// challengeOf is the S256 challenge of a verifier. RFC 7636 section 4.6.
func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// readPrompt reads prompt and max_age. OpenID Connect Core section 3.1.2.1.
func (s *Server) readPrompt(req *AuthorizationRequest, p parameters) error {
	for _, value := range strings.Fields(p["prompt"]) {
		// Others are for servers that know them; what is kept here is bounded.
		if slices.Contains([]string{promptNone, promptLogin, promptConsent, promptSelectAccount}, value) && !slices.Contains(req.Prompt, value) {
			req.Prompt = append(req.Prompt, value)
		}
	}
	if slices.Contains(req.Prompt, promptNone) && len(strings.Fields(p["prompt"])) > 1 {
		return oauth.InvalidRequest("The prompt none stands alone.")
	}
	if p["max_age"] != "" {
		seconds, err := strconv.ParseUint(p["max_age"], 10, 31)
		if err != nil {
			return oauth.InvalidRequest("The max_age is not a number of seconds.")
		}
		age := time.Duration(seconds) * time.Second
		req.MaxAge, req.ReauthAfter = &age, req.CreatedAt.Add(-age)
	}
	req.LoginHint = loginHint(p["login_hint"])
	req.UILocales = readUILocales(p["ui_locales"])
	return nil
}

// readIDTokenHint notes whom the client expects. The hint must be the client's
// own: another's would tell it whether that other's user is here. OpenID Connect
// Core section 3.1.2.1.
func (s *Server) readIDTokenHint(req *AuthorizationRequest, token string) {
	if token == "" {
		return
	}
	hint, ok := s.readIDToken(token)
	if req.SubjectUnknown = !ok || hint.Audience != req.ClientID; !req.SubjectUnknown {
		req.Subject = hint.Subject
	}
}

// issueCode ends an authorization with a code. The code is made from the
// request's id under a key that is not in the database: the consent form sent
// twice gives one code and the same redirect (trap 19).
func (s *Server) issueCode(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, login Login) {
	code := codePrefix + base64.RawURLEncoding.EncodeToString(mac(s.cfg.Secrets.current().code, []byte(req.ID)))
	err := s.cfg.Store.CreateAuthorizationCode(r.Context(), AuthorizationCode{
		Digest: sha256.Sum256([]byte(code)), RequestID: req.ID, ClientID: client.ID, UserID: login.UserID, LoginID: login.ID,
		RedirectURI: req.RedirectURI, RedirectURISent: req.RedirectURISent, Resource: req.Resource, Scopes: req.Scopes,
		CodeChallenge: req.CodeChallenge, DPoPKey: req.DPoPKey, Nonce: req.Nonce, LoginMethod: login.Method, AuthTime: login.AuthTime,
	}, s.cfg.CodeTTL, s.origin(r))
	if err != nil {
		s.unavailablePage(w, r, "create authorization code", err)
		return
	}
	// A client that never comes to redeem it is to be told from a user who never
	// allowed it.
	s.audit(r, "authorization code issued", zap.String("client_id", client.ID), zap.String("user_id", login.UserID))
	s.redirect(w, req, url.Values{"code": {code}})
}

// refuse tells of an error before the user has signed in. Where nobody vouches
// for the client it is a page that says who waits behind the link: else anyone
// could register, and have our address lead to theirs. RFC 9700 section 4.11.2.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, e *oauth.Error) {
	if !client.SelfRegistered() {
		s.redirectError(w, r, req, e)
		return
	}
	s.noteRefusal(r, e)
	if CheckRedirectURI(req.RedirectURI) != nil { // was checked when it was registered; never a link before it is again
		s.brokenLink(w, r, "redirect.unknown")
		return
	}
	s.writePage(w, r, http.StatusBadRequest, refusedPage, refusal{
		Client: displayName(client), Target: targetOf(req.RedirectURI), Explanation: e.Description,
		Back: template.URL(s.answerURL(req, errorAnswer(e))), Reference: s.requestID(r),
	})
}

// refusal is what the page of refuse shows.
type refusal struct {
	Client, Explanation, Reference string
	Target                         redirectTarget
	Back                           template.URL // a redirect URI that CheckRedirectURI accepts
}

func errorAnswer(e *oauth.Error) url.Values {
	return url.Values{"error": {e.Code}, "error_description": {e.Description}}
}

// redirectError sends an error to the client. RFC 6749 section 4.1.2.1.
func (s *Server) redirectError(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, e *oauth.Error) {
	s.noteRefusal(r, e)
	s.redirect(w, req, errorAnswer(e))
}

func (s *Server) noteRefusal(r *http.Request, e *oauth.Error) {
	s.audit(r, "authorization refused: "+e.Code)
	s.tallyRefusal(r, e.Code)
}

// redirect sends the browser back, always with iss (RFC 9207), and with state
// as it came. 303: the browser must not repeat a POST with a password in it.
func (s *Server) redirect(w http.ResponseWriter, req *AuthorizationRequest, query url.Values) {
	s.leave(w, s.answerURL(req, query))
}

// answerURL is the redirect URI with the answer.
func (s *Server) answerURL(req *AuthorizationRequest, query url.Values) string {
	query.Set("iss", s.cfg.Issuer)
	if req.StateSent {
		query.Set("state", string(req.State))
	}
	return withQuery(req.RedirectURI, query)
}

// withQuery adds to the query of an address and leaves what is there. RFC 6749
// section 3.1.2.
func withQuery(address string, query url.Values) string {
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	return address + separator + query.Encode()
}
