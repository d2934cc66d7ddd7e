package issuer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"

	"go.uber.org/zap"
)

const (
	endSessionPath = "/oauth/end_session"

	// endSessionPurpose is what the form token of the confirmation is for, and
	// what seals a request of this kind.
	endSessionPurpose = "end session"
)

// logoutRequest is a client's wish to have its user signed out, checked. Between
// pages it travels sealed.
type logoutRequest struct {
	ClientID string // empty: nobody says who asks
	// RedirectURI is one that the client registered for this; empty: none.
	RedirectURI string
	State       opaque
	StateSent   bool
	// Subject and SessionID are those of an ID token that the client was given;
	// empty: it showed none.
	Subject, SessionID string
}

// handleEndSession answers GET and POST /oauth/end_session. OpenID Connect
// RP-Initiated Logout section 2. Who is signed in here is signed out without a
// question only where the client shows that it is about them; otherwise any
// link could do it.
func (s *Server) handleEndSession(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		values, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			s.errorWords(w, r, http.StatusBadRequest, "broken")
			return
		}
		s.beginEndSession(w, r, values)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxPageForm)
	if err := r.ParseForm(); err != nil {
		s.errorWords(w, r, unreadStatus(err), "broken")
		return
	}
	if r.PostForm.Has("csrf") {
		s.confirmEndSession(w, r)
		return
	}
	// The form of a client's page: a browser sends our cookies, which are
	// SameSite=Lax, not with that but with the GET that follows.
	req, ok := s.readLogout(w, r, r.PostForm)
	if !ok {
		return
	}
	if sealed, ok := s.sealLogout(w, r, req); ok {
		query := url.Values{"request": {sealed}}
		if locales := readUILocales(r.PostForm.Get("ui_locales")); locales != "" {
			query.Set("ui_locales", locales)
		}
		s.seeOther(w, endSessionPath, query)
	}
}

func (s *Server) beginEndSession(w http.ResponseWriter, r *http.Request, values url.Values) {
	req, ok := s.openLogout(values.Get("request"))
	if !ok {
		if req, ok = s.readLogout(w, r, values); !ok {
			return
		}
	}
	login, err := s.currentLogin(r)
	switch {
	case errors.Is(err, ErrNotFound):
		s.finishEndSession(w, r, req, false)
	case err != nil:
		s.unavailablePage(w, r, "find login", err)
	case req.Subject == login.UserID:
		s.endLogin(w, r, req, login)
	default:
		s.showEndSession(w, r, req, login)
	}
}

// readLogout checks the request, or answers with a page. Without a client that is
// known there is no way back, and the user is asked.
func (s *Server) readLogout(w http.ResponseWriter, r *http.Request, values url.Values) (*logoutRequest, bool) {
	p, _, err := readParameters(values)
	if err != nil {
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return nil, false
	}
	req := &logoutRequest{ClientID: p["client_id"]}
	if hint, ok := s.readIDToken(p["id_token_hint"]); ok {
		if req.ClientID != "" && req.ClientID != hint.Audience {
			s.brokenLink(w, r, "logout.client")
			return nil, false
		}
		req.ClientID, req.Subject, req.SessionID = hint.Audience, hint.Subject, hint.SessionID
	}
	if req.ClientID == "" {
		return req, true
	}
	client, err := s.cfg.Clients.Client(r.Context(), req.ClientID)
	switch {
	case errors.Is(err, ErrNotFound):
		s.brokenLink(w, r, "client.unknown")
		return nil, false
	case err != nil:
		s.unavailablePage(w, r, "find client", err)
		return nil, false
	}
	if uri := p["post_logout_redirect_uri"]; uri != "" {
		if !client.mayReturnTo(uri) {
			s.brokenLink(w, r, "logout.redirect")
			return nil, false
		}
		req.RedirectURI = uri
	}
	if state, sent := p["state"]; sent && len(state) <= maxState {
		req.State, req.StateSent = opaque(state), true
	}
	return req, true
}

// mayReturnTo reports whether the client registered the address for users who
// have signed out. SECURITY-CASES A-30.
func (c *Client) mayReturnTo(uri string) bool {
	return slices.ContainsFunc(c.PostLogoutRedirectURIs, func(registered string) bool {
		return matchRedirectURI(registered, uri) && CheckRedirectURI(uri) == nil
	})
}

// endLogin signs the user out and ends the session of the client that asked:
// with the page closed behind it, nobody uses that any more. SECURITY-CASES A-31.
func (s *Server) endLogin(w http.ResponseWriter, r *http.Request, req *logoutRequest, login signedIn) {
	if req.Subject == login.UserID { // first: without a login nobody comes here again
		err := s.cfg.Store.RevokeSession(r.Context(), req.SessionID, req.ClientID, "signed_out", s.origin(r))
		if err != nil && !errors.Is(err, ErrNotFound) {
			s.unavailablePage(w, r, "revoke session", err)
			return
		}
	}
	sealed, ok := s.sealLogout(w, r, req)
	if !ok {
		return
	}
	there, err := s.signOut(r, login.cookie, sealed)
	if err != nil {
		s.unavailablePage(w, r, "sign out", err)
		return
	}
	s.clearCookie(w, loginCookie)
	s.audit(r, "signed out", zap.String("user_id", login.UserID), zap.String("client_id", req.ClientID), zap.String("session_id", req.SessionID))
	if there != "" {
		s.leave(w, there)
		return
	}
	s.finishEndSession(w, r, req, true)
}

// finishEndSession leads back to the client, or says that it is done. A client
// that nobody vouches for gets a link in place of a redirect where nobody was
// signed out: else anyone could register, and have our address lead to theirs.
// RFC 9700 section 4.11.2.
func (s *Server) finishEndSession(w http.ResponseWriter, r *http.Request, req *logoutRequest, ended bool) {
	if req.RedirectURI == "" {
		s.showMessage(w, r, "signedout")
		return
	}
	query := url.Values{}
	if req.StateSent {
		query.Set("state", string(req.State))
	}
	back := req.RedirectURI
	if len(query) > 0 {
		back = withQuery(back, query)
	}
	client, err := s.cfg.Clients.Client(withoutFetch(r.Context()), req.ClientID)
	if err == nil && (ended || !client.SelfRegistered()) {
		s.leave(w, back)
		return
	}
	words := s.words(r)
	s.writePage(w, r, http.StatusOK, messagePage, message{
		Title: words.text("signedout.title"), Explanation: words.text("signedout.explanation"),
		Back: template.URL(back), BackTo: targetOf(req.RedirectURI).Name,
	})
}

// endSessionForm is what the page of the question shows.
type endSessionForm struct {
	Client, User           string // Client: empty where nobody says who asks
	Action, Request, Token string
}

func (s *Server) showEndSession(w http.ResponseWriter, r *http.Request, req *logoutRequest, login signedIn) {
	sealed, ok := s.sealLogout(w, r, req)
	if !ok {
		return
	}
	form := endSessionForm{User: login.Name, Action: s.endpoint(endSessionPath), Request: sealed, Token: formToken(login.cookie, endSessionPurpose, "")}
	if req.ClientID != "" {
		form.Client = displayName(s.clientAsItWas(r.Context(), req.ClientID))
	}
	s.writePage(w, r, http.StatusOK, endSessionPage, form)
}

// confirmEndSession answers the page of the question: POST {request, csrf,
// decision}.
func (s *Server) confirmEndSession(w http.ResponseWriter, r *http.Request) {
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	req, ok := s.openLogout(form.Get("request"))
	if !ok {
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return
	}
	login, err := s.currentLogin(r)
	switch {
	case errors.Is(err, ErrNotFound): // signed out meanwhile
		s.finishEndSession(w, r, req, false)
	case err != nil:
		s.unavailablePage(w, r, "find login", err)
	case !validFormToken(form.Get("csrf"), login.cookie, endSessionPurpose, ""):
		s.errorWords(w, r, http.StatusForbidden, "foreign")
	case form.Get("decision") == "end":
		s.endLogin(w, r, req, login)
	default:
		s.showMessage(w, r, "endsession.stayed")
	}
}

func (s *Server) sealLogout(w http.ResponseWriter, r *http.Request, req *logoutRequest) (string, bool) {
	plain, err := json.Marshal(req)
	if err != nil { // strings only: cannot happen
		s.unavailablePage(w, r, "seal logout request", fmt.Errorf("seal logout request: %w", err))
		return "", false
	}
	return base64.RawURLEncoding.EncodeToString(s.cfg.Secrets.seal(requestAEAD, plain, []byte(endSessionPurpose))), true
}

// openLogout opens what sealLogout made.
func (s *Server) openLogout(sealed string) (*logoutRequest, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return nil, false
	}
	plain, _, err := s.cfg.Secrets.open(requestAEAD, raw, []byte(endSessionPurpose))
	if err != nil {
		return nil, false
	}
	req := new(logoutRequest)
	return req, json.Unmarshal(plain, req) == nil
}
