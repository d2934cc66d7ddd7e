package issuer

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// consentPurpose is what the form token of a consent is for.
const consentPurpose = "consent"

// handleConsent answers GET and POST /oauth/consent. GET shows the page, or
// goes straight on where nothing is left to ask; only POST approves.
func (s *Server) handleConsent(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		if req, client, ok := s.resumeSignIn(w, r, r.URL.Query().Get("request")); ok {
			s.continueAuthorization(w, r, req, client)
		}
		return
	}
	s.decideConsent(w, r)
}

// continueConsent is the step after signing in.
func (s *Server) continueConsent(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, login signedIn) {
	sessions, err := s.cfg.Store.UserSessions(r.Context(), login.UserID)
	if err != nil {
		s.unavailablePage(w, r, "list sessions", err)
		return
	}
	closed := s.narrowToUser(req, login.Login)
	if len(req.Scopes) == 0 && len(closed) > 0 {
		s.refuseClosed(w, r, req, client, login, closed)
		return
	}
	c := s.considerConsent(req, client, sessions)
	c.claims, c.closed = login.Claims, closed
	approved, changed, err := s.approvedRevision(r.Context(), client, login.UserID)
	if err != nil {
		s.unavailablePage(w, r, "find approval", err)
		return
	}
	c.skip, c.changed = c.skip && approved, changed
	switch {
	case c.skip && !c.full:
		s.issueCode(w, r, req, client, login.Login)
	case slices.Contains(req.Prompt, promptNone) && !c.known:
		s.refuse(w, r, req, client, errConsentRequired)
	case slices.Contains(req.Prompt, promptNone):
		s.redirectError(w, r, req, errConsentRequired)
	case c.full:
		s.showLimit(w, r, req, client, login, sessions)
	default:
		s.showConsent(w, r, req, client, login, c, "")
	}
}

// consideration is what is left to ask the user.
type consideration struct {
	requested oauth.ScopeSet // with all that it implies
	held      oauth.ScopeSet // allowed to this client in live sessions, for this resource and host or, if that is all it asks for, for others
	asked     oauth.ScopeSet // requested and not held
	target    redirectTarget
	// known: this user allowed this client all of it for this resource, to be
	// sent to this host.
	known   bool
	changed bool // the client says something else of itself than when it was allowed
	skip    bool // known, and safe without a look
	full    bool // session_limit is reached
	claims  oauth.UserClaims
	closed  oauth.ScopeSet // asked for, and not for this user to have
}

// considerConsent decides from the live sessions of the user what to ask.
// Approval never carries over to another client, to more scopes, to another
// redirect host or resource. SECURITY-CASES A-24.
func (s *Server) considerConsent(req *AuthorizationRequest, client *Client, sessions []Session) consideration {
	c := consideration{requested: s.cfg.Catalog.Expand(req.Scopes), target: targetOf(req.RedirectURI)}
	if req.UserCode != "" {
		// Never skipped: whoever sent the link may hold the device (RFC 8628
		// section 5.4).
		c.target = redirectTarget{targetDevice, req.UserCode}
	}
	var same oauth.ScopeSet
	connected := false
	for _, session := range sessions {
		if session.ClientID != client.ID {
			continue
		}
		c.held = c.held.Union(session.GrantedScopes)
		if session.Resource == req.Resource && sameRedirectHost(session.RedirectURI, req.RedirectURI) {
			connected = true // else a request for no scope would pass as approved
			same = same.Union(session.GrantedScopes)
		}
	}
	same = s.cfg.Catalog.Expand(same)
	if c.held = s.cfg.Catalog.Expand(c.held); !c.held.ContainsAll(c.requested) {
		c.held = same // beside something new, what was allowed elsewhere is asked for as well
	}
	c.asked = c.requested.Without(c.held)
	c.known = connected && same.ContainsAll(c.requested)
	// A loopback port or a private scheme may be held by any program of the
	// device by now, whoever the client is: the user must look each time
	// (RFC 8252 section 8.6). An https host is its owner's.
	c.skip = c.known && c.target.Kind == targetSite && !slices.Contains(req.Prompt, promptConsent)
	c.full = s.cfg.SessionLimit > 0 && len(sessions) >= s.cfg.SessionLimit
	return c
}

// sameRedirectHost reports whether both addresses lead to the same place: for
// https the origin; a private scheme by itself; loopback without its port, which
// changes with every start of the app.
func sameRedirectHost(a, b string) bool {
	ua, errA := url.Parse(a)
	ub, errB := url.Parse(b)
	if errA != nil || errB != nil || a == "" || ua.Scheme != ub.Scheme {
		return false
	}
	if ua.Scheme == "http" {
		return strings.EqualFold(ua.Hostname(), ub.Hostname())
	}
	return strings.EqualFold(ua.Host, ub.Host)
}

// consentForm is what both consent pages share.
type consentForm struct {
	Client, User           string
	Action, Request, Token string
	SignOut, SignOutToken  string
	Limit                  string
	Target                 redirectTarget
	Problem                string
	Apps                   string // address of the page of connected apps
	Asked                  []scopeLine
	Held                   []string // in the declared words
	Closed                 []string // what the user cannot have, in the same
	News, Caution, Changed bool
	SignIn                 bool   // it asks who the user is, and for nothing else
	Unnamed                bool   // it may go where a rule names no scope, and that is all of the API
	Host                   string // whose document describes the client
	Unverified             bool   // it registered itself, from nowhere in particular
	Sessions               []sessionLine
}

// sessionLine is one connected app in the list of the limit page.
type sessionLine struct {
	ID, Client  string
	Since, Used moment
}

func (s *Server) showConsent(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, login signedIn, c consideration, problem string) {
	held := c.held
	if len(c.asked) == 0 {
		held = c.requested // what is confirmed, not all there is
	}
	identity := len(req.Scopes) > 0 && len(req.Scopes.Without(oauth.IdentityScopes())) == 0
	s.writeConsent(w, r, consentPage, req, client, login, consentForm{
		SignIn:  identity && req.Resource == s.userInfoResource(),
		Unnamed: identity && req.Resource != s.userInfoResource(),
		Target:  c.target,
		Problem: problem,
		Asked:   s.askedLines(s.words(r), req, c),
		Held:    s.inWords(s.words(r), held),
		Closed:  s.inWords(s.words(r), c.closed),
		News:    !c.known,
		Caution: c.target.Kind != targetSite,
		Changed: c.changed,
	})
}

func (s *Server) showLimit(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, login signedIn, sessions []Session) {
	now := s.cfg.Now()
	words := s.words(r)
	form := consentForm{Limit: words.text("limit.apps", s.cfg.SessionLimit)}
	for _, session := range sessions {
		form.Sessions = append(form.Sessions, sessionLine{
			ID:     session.ID,
			Client: displayName(s.clientAsItWas(r.Context(), session.ClientID)),
			Since:  words.moment(session.CreatedAt, now),
			Used:   words.moment(session.LastActive, now),
		})
	}
	s.writeConsent(w, r, limitPage, req, client, login, form)
}

func (s *Server) writeConsent(w http.ResponseWriter, r *http.Request, page pageName, req *AuthorizationRequest, client *Client, login signedIn, form consentForm) {
	req.ClientRevision = client.Revision
	sealed, err := s.sealRequest(req)
	if err != nil {
		s.unavailablePage(w, r, "seal authorization request", err)
		return
	}
	form.Host, form.Unverified = whoVouches(client)
	form.Client, form.User, form.Apps = displayName(client), login.Name, s.pageAddress(r, appsPath, nil)
	form.Action, form.Request = s.endpoint(consentPath), sealed
	form.Token = formToken(login.cookie, consentPurpose, req.ID)
	form.SignOut, form.SignOutToken = s.endpoint(logoutPath), formToken(login.cookie, logoutPurpose, "")
	s.writePage(w, r, http.StatusOK, page, form)
}

// inWords returns the declared descriptions, in the order of their declaration.
func (s *Server) inWords(words *words, scopes oauth.ScopeSet) []string {
	var descriptions []string
	for _, scope := range s.cfg.Catalog.Scopes() {
		if scopes.Contains(scope.Name) {
			descriptions = append(descriptions, words.scope(scope))
		}
	}
	return descriptions
}

// decideConsent answers POST /oauth/consent {request, csrf, decision or end, and
// the optional scopes that are left in}. Client, scopes, redirect and user are
// those of the sealed request and the login, scopes less what the user leaves
// out; fields that claim others are not read. SECURITY-CASES A-25.
func (s *Server) decideConsent(w http.ResponseWriter, r *http.Request) {
	// 1. Our form, this browser, the login that the page was shown to.
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	req, client, ok := s.resumeRequest(w, r, form.Get("request"))
	if !ok {
		return
	}
	login, err := s.currentLogin(r)
	switch {
	case errors.Is(err, ErrNotFound): // signed out meanwhile
		s.continueAuthorization(w, r, req, client)
		return
	case err != nil:
		s.unavailablePage(w, r, "find login", err)
		return
	case !validFormToken(form.Get("csrf"), login.cookie, consentPurpose, req.ID):
		s.errorWords(w, r, http.StatusForbidden, "foreign")
		return
	case !decidable(login.Login, req):
		s.continueAuthorization(w, r, req, client)
		return
	}

	// 2. The decision.
	switch {
	case form.Has("end"):
		s.endSession(w, r, login, form.Get("end"), form.Get("request"))
	case form.Get("decision") == "allow":
		s.allow(w, r, req, client, login, form)
	case form.Get("decision") == "deny" && req.UserCode != "":
		s.decideDevice(w, r, req, client, login, false)
	case form.Get("decision") == "deny":
		s.audit(r, "consent denied", zap.String("user_id", login.UserID), zap.String("client_id", client.ID))
		s.redirectError(w, r, req, &oauth.Error{Code: oauth.CodeAccessDenied, Description: "The user denied the request."})
	default:
		s.errorWords(w, r, http.StatusBadRequest, "broken")
	}
}

// allow issues the code. The same form sent twice leads to the same code, as
// long as the request is the same (PROTOCOL 6, trap 19).
func (s *Server) allow(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, login signedIn, form url.Values) {
	if client.Revision != req.ClientRevision { // it changed while the user was looking
		s.continueAuthorization(w, r, req, client)
		return
	}
	sessions, err := s.cfg.Store.UserSessions(r.Context(), login.UserID)
	if err != nil {
		s.unavailablePage(w, r, "list sessions", err)
		return
	}
	// What was shown, less what has been closed to the user meanwhile; never more.
	req.Scopes = s.withoutClosed(req.Scopes, s.closedTo(req, login.Claims))
	if len(req.Scopes) == 0 && len(req.Wanted) > 0 {
		s.refuseClosed(w, r, req, client, login, req.Wanted)
		return
	}
	c := s.considerConsent(req, client, sessions)
	c.claims = login.Claims
	if c.full && !slices.ContainsFunc(sessions, func(session Session) bool {
		// The last place may have gone to this very request, whose form comes
		// a second time. If not, redemption refuses the code.
		return session.ClientID == client.ID && session.RedirectURI == req.RedirectURI && session.CreatedAt.After(req.CreatedAt)
	}) {
		s.showLimit(w, r, req, client, login, sessions)
		return
	}
	granted := s.grantedScopes(req, c, form)
	if len(granted) == 0 && len(req.Scopes) > 0 {
		s.showConsent(w, r, req, client, login, c, s.words(r).text("consent.empty"))
		return
	}
	req.Scopes = granted
	if req.UserCode != "" {
		s.decideDevice(w, r, req, client, login, true)
		return
	}
	if client.SelfRegistered() {
		if err := s.cfg.Store.ApproveClient(r.Context(), client.ID, login.UserID, client.Revision); err != nil {
			s.unavailablePage(w, r, "approve client", err)
			return
		}
	}
	s.issueCode(w, r, req, client, login.Login)
}

// refuseClosed ends a request of which the user can have nothing.
func (s *Server) refuseClosed(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, login signedIn, closed oauth.ScopeSet) {
	s.audit(r, "the user can have none of the scopes", zap.String("user_id", login.UserID), zap.String("client_id", client.ID), zap.String("scope", closed.String()))
	if req.UserCode != "" { // the device hears of it when its code expires
		s.errorWords(w, r, http.StatusForbidden, "closed")
		return
	}
	s.redirectError(w, r, req, errNothingOpen)
}

var errConsentRequired = &oauth.Error{Code: oauth.CodeConsentRequired, Description: "The user must approve the request."}

// approvedRevision reports whether the user said yes to the client as it is,
// and whether they did to what it was before. A client of the configuration is
// what its owner says. SECURITY-CASES C-11.
func (s *Server) approvedRevision(ctx context.Context, client *Client, userID string) (approved, changed bool, err error) {
	if !client.SelfRegistered() {
		return true, false, nil
	}
	revision, err := s.cfg.Store.ClientApproval(ctx, client.ID, userID)
	if errors.Is(err, ErrNotFound) {
		return false, false, nil
	}
	return revision == client.Revision, err == nil && revision != client.Revision, err
}

// hostOf is the host of a client_id that is a URL.
func hostOf(clientID string) string {
	u, err := url.Parse(clientID)
	if err != nil {
		return ""
	}
	return u.Host
}

// endSession ends a session of the user from the limit page and shows what is
// to be decided now. An id that is not among the user's changes nothing.
func (s *Server) endSession(w http.ResponseWriter, r *http.Request, login signedIn, sessionID, sealed string) {
	sessions, err := s.cfg.Store.UserSessions(r.Context(), login.UserID)
	if err != nil {
		s.unavailablePage(w, r, "list sessions", err)
		return
	}
	if slices.ContainsFunc(sessions, func(session Session) bool { return session.ID == sessionID }) {
		err := s.cfg.Store.EndUserSession(r.Context(), sessionID, login.UserID, s.origin(r))
		if err != nil && !errors.Is(err, ErrNotFound) {
			s.unavailablePage(w, r, "end session", err)
			return
		}
		s.audit(r, "session ended by its user", zap.String("user_id", login.UserID), zap.String("session_id", sessionID))
	}
	s.seeOther(w, consentPath, url.Values{"request": {sealed}})
}
