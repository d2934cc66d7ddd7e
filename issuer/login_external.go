package issuer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"go.uber.org/zap"
)

// providerState travels sealed in the `state` of a provider: it takes no row,
// nobody can change it, and it holds only in the browser it was given to.
type providerState struct {
	Method    string
	Request   *AuthorizationRequest
	Nonce     string
	Verifier  string
	StartedAt time.Time
}

// maxProviderState bounds the state, so that the address it stands in is one
// that providers take.
const maxProviderState = 12 << 10

// beginLogin sends the browser to where the method signs users in.
func (s *Server) beginLogin(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, method *LoginMethod) {
	if method.App != nil {
		s.beginAppLogin(w, r, req, method)
		return
	}
	state := providerState{Method: method.Name, Request: req, Nonce: newCookieValue(), Verifier: newCookieValue(), StartedAt: s.cfg.Now()}
	sealed, err := s.sealProviderState(&state)
	switch {
	case errors.Is(err, errStateTooLarge):
		s.errorWords(w, r, http.StatusBadRequest, "provider.large")
		return
	case err != nil:
		s.unavailablePage(w, r, "seal provider state", err)
		return
	}
	location, err := method.Provider.AuthorizationURL(r.Context(), s.providerRequest(&state, sealed))
	if err != nil {
		s.providerUnavailable(w, r, method, err)
		return
	}
	s.leave(w, location)
}

var errStateTooLarge = errors.New("the state is too large")

func (s *Server) sealProviderState(state *providerState) (string, error) {
	plain, err := json.Marshal(state)
	if err != nil {
		return "", err
	}
	sealed := base64.RawURLEncoding.EncodeToString(s.cfg.Secrets.seal(requestAEAD, plain, []byte(state.Method)))
	if len(sealed) > maxProviderState {
		return "", errStateTooLarge
	}
	return sealed, nil
}

func (s *Server) providerRequest(state *providerState, sealed string) ProviderRequest {
	return ProviderRequest{
		RedirectURI: s.endpoint(methodPath(state.Method)), State: sealed, Nonce: state.Nonce, Verifier: state.Verifier,
		StartedAt:      state.StartedAt,
		Reauthenticate: slices.Contains(state.Request.Prompt, promptLogin),
		SelectAccount:  slices.Contains(state.Request.Prompt, promptSelectAccount),
		MaxAge:         state.Request.MaxAge, LoginHint: state.Request.LoginHint, UILocales: state.Request.UILocales,
	}
}

// handleLoginMethod answers POST /oauth/login/{method} {request}, the button of
// the sign-in page, and GET, with which a provider sends the browser back.
func (s *Server) handleLoginMethod(w http.ResponseWriter, r *http.Request) {
	method := s.method(r.PathValue("method"))
	if method == nil {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		s.finishProviderLogin(w, r, method)
		return
	}
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	if req, _, ok := s.resumeSignIn(w, r, form.Get("request")); ok {
		s.beginLogin(w, r, req, method)
	}
}

// finishProviderLogin takes the answer of a provider. OpenID Connect Core
// section 3.1.2.5; RFC 9207 section 2.4.
func (s *Server) finishProviderLogin(w http.ResponseWriter, r *http.Request, method *LoginMethod) {
	// 1. The answer is one, to a question that this browser was sent out with.
	answer, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(answer["state"]) != 1 {
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return
	}
	for _, values := range answer {
		if len(values) != 1 {
			s.errorWords(w, r, http.StatusBadRequest, "broken")
			return
		}
	}
	state, err := s.openProviderState(method, answer.Get("state"))
	if err != nil {
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return
	}
	sealed, err := s.sealRequest(state.Request)
	if err != nil {
		s.unavailablePage(w, r, "seal authorization request", err)
		return
	}
	req, client, ok := s.resumeSignIn(w, r, sealed) // browser, age, client
	if !ok {
		return
	}

	// 2. Whom it names.
	user, err := s.redeem(r, method, state, answer)
	if err == nil {
		err = s.useOnce(r, "provider state", answer.Get("state"))
	}
	var refusal *ProviderRefusal
	switch {
	case err == nil:
	case errors.Is(err, ErrReplayed) || errors.As(err, &refusal) && !refusal.Denied && s.stillSignedIn(r, req):
		// The back button, or a second tab: whoever is signed in goes on, and
		// whoever is not is asked.
		s.audit(r, "sign-in answer came again", zap.String("method", method.Name))
		s.seeOther(w, consentPath, url.Values{"request": {sealed}})
		return
	case refusal != nil:
		s.audit(r, "sign-in refused by "+method.Name, zap.Error(refusal), zap.Bool("denied", refusal.Denied))
		s.cfg.Tally.SignedIn(method.Name, outcomeFailed)
		problem := "signin.refused"
		if refusal.Denied {
			problem = "signin.denied"
		}
		s.showSignIn(w, r, http.StatusOK, req, client, signIn{Problem: s.words(r).text(problem, label(method)), Request: sealed})
		return
	case errors.Is(err, ErrSignedOut):
		s.signInProblem(w, r, req, method, "signin.app.absent", err)
		return
	default:
		s.providerUnavailable(w, r, method, err)
		return
	}

	// 3. A new login, whatever the browser brought.
	if !s.startExternalLogin(w, r, req, method, user) {
		return
	}
	s.goOn(w, r, req)
}

// redeem returns whom the answer names, or the app that sent the browser back.
func (s *Server) redeem(r *http.Request, method *LoginMethod, state *providerState, answer url.Values) (ExternalUser, error) {
	if method.App != nil {
		return s.redeemAtApp(r, method, state)
	}
	return method.Provider.Redeem(r.Context(), s.providerRequest(state, answer.Get("state")), answer)
}

// stillSignedIn reports whether the browser holds a login that meets the request.
func (s *Server) stillSignedIn(r *http.Request, req *AuthorizationRequest) bool {
	login, err := s.currentLogin(r)
	return err == nil && recentEnough(login.Login, req)
}

// goOn leads to the consent page of the request.
func (s *Server) goOn(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest) {
	sealed, err := s.sealRequest(req)
	if err != nil {
		s.unavailablePage(w, r, "seal authorization request", err)
		return
	}
	s.seeOther(w, consentPath, url.Values{"request": {sealed}})
}

// openProviderState opens what beginLogin sealed for this method: the state of
// another provider is no state here (mix-up).
func (s *Server) openProviderState(method *LoginMethod, sealed string) (*providerState, error) {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return nil, errors.New("provider state: not base64url")
	}
	plain, _, err := s.cfg.Secrets.open(requestAEAD, raw, []byte(method.Name))
	if err != nil {
		return nil, fmt.Errorf("provider state: %w", err)
	}
	var state providerState
	if err := json.Unmarshal(plain, &state); err != nil || state.Request == nil || state.Method != method.Name {
		return nil, errors.New("provider state: not a state")
	}
	return &state, nil
}

// useOnce notes a value that must not come again while it could be accepted.
func (s *Server) useOnce(r *http.Request, purpose, value string) error {
	return s.cfg.Store.UseOnce(r.Context(), purpose, sha256.Sum256([]byte(value)), requestLifetime)
}

// startExternalLogin gives the browser a login of the user and reports true, or
// shows why not.
func (s *Server) startExternalLogin(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, method *LoginMethod, user ExternalUser) bool {
	if err := checkExternalUser(user); err != nil {
		s.logPageError(r, fmt.Errorf("login %s: %w", method.Name, err))
		s.errorWords(w, r, http.StatusForbidden, "account")
		return false
	}
	if !s.cfg.OpenID { // nobody will be told
		user.Profile = nil
	}
	cookie := newCookieValue()
	login, err := s.cfg.Store.CreateExternalLogin(r.Context(), sha256.Sum256([]byte(cookie)), method.Name, user, s.sealLogoutHint(user.LogoutHint), s.cfg.LoginTTL, s.origin(r))
	switch {
	case errors.Is(err, ErrNotFound): // disabled here, or signed out there meanwhile
		s.cfg.Tally.SignedIn(method.Name, outcomeFailed)
		s.audit(r, "sign-in refused: the user is disabled or has signed out", zap.String("user_id", user.UserID), zap.String("method", method.Name))
		s.errorWords(w, r, http.StatusForbidden, "account")
		return false
	case errors.Is(err, ErrExists): // somebody else's id
		s.logPageError(r, fmt.Errorf("login %s: the user id %q belongs to somebody else: another login method made it, or it is the name of a client", method.Name, user.UserID))
		s.errorWords(w, r, http.StatusForbidden, "account")
		return false
	case err != nil:
		s.unavailablePage(w, r, "create login", err)
		return false
	}
	s.adoptLogin(w, r, req, login, cookie)
	return true
}

// adoptLogin makes the login the browser's. The cookie is always a new one, so
// that a value planted before is worth nothing after, and the login it replaces
// ends. SECURITY-CASES A-26.
func (s *Server) adoptLogin(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, login Login, cookie string) {
	// Signing in is also choosing who.
	req.Prompt = slices.DeleteFunc(req.Prompt, func(value string) bool { return value == promptLogin || value == promptSelectAccount })
	req.OtherAccount, req.SubjectAsked = false, true
	if !req.ReauthAfter.IsZero() {
		// max_age is met by this login and later ones. The time is the
		// database's; held against the node's clock, a database that is behind
		// would ask for the password for ever.
		req.ReauthAfter = login.AuthTime
	}
	if old, ok := s.readCookie(r, loginCookie); ok && !hmac.Equal([]byte(old), []byte(cookie)) {
		if err := s.cfg.Store.EndLogin(r.Context(), sha256.Sum256([]byte(old)), s.origin(r)); err != nil {
			s.logPageError(r, fmt.Errorf("end the login before: %w", err))
		}
	}
	s.cfg.Tally.SignedIn(login.Method, outcomeSucceeded)
	s.audit(r, "signed in", zap.String("user_id", login.UserID), zap.String("client_id", req.ClientID), zap.String("method", login.Method))
	s.setCookie(w, loginCookie, cookie, s.cfg.LoginTTL)
}

// label is what users know the method as.
func label(method *LoginMethod) string {
	if method.Label != "" {
		return cleanText(method.Label)
	}
	return method.Name
}

// providerUnavailable tells a person that the place to sign in does not answer.
func (s *Server) providerUnavailable(w http.ResponseWriter, r *http.Request, method *LoginMethod, err error) {
	s.logPageError(r, fmt.Errorf("login %s: %w", method.Name, err))
	s.cfg.Tally.SignedIn(method.Name, outcomeUnavailable)
	w.Header().Set("Retry-After", "10")
	s.writeErrorPage(w, r, http.StatusServiceUnavailable, "provider.down", "provider.down.explanation", label(method))
}
