package issuer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// Paths of the forms and of what they lead to, at the root of the issuer's origin.
const (
	authorizePath = "/oauth/authorize"
	loginPath     = "/oauth/login"
	consentPath   = "/oauth/consent"
	logoutPath    = "/oauth/logout"
)

// endpoint returns the address of one of our paths: built from the
// configuration, never from the request (SECURITY-CASES A-19).
func (s *Server) endpoint(path string) string { return oauth.Origin(s.cfg.Issuer) + path }

// signedIn is a live login together with the cookie that proves it.
type signedIn struct {
	Login
	cookie string
}

// continueAuthorization takes a checked authorization request on: to the
// sign-in page, the consent page, or straight back to the client. It is where
// /oauth/authorize ends and where /oauth/consent comes back to.
func (s *Server) continueAuthorization(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client) {
	login, err := s.currentLogin(r)
	found := err == nil
	fresh := found && recentEnough(login.Login, req)
	switch {
	case !found && !errors.Is(err, ErrNotFound):
		s.unavailablePage(w, r, "find login", err)
	case fresh && req.OwnPage != "":
		s.leave(w, s.pageAddress(r, req.OwnPage, nil))
	case fresh && expected(login.Login, req) && slices.Contains(req.Prompt, promptSelectAccount):
		s.showAccount(w, r, req, client, login)
	case fresh && expected(login.Login, req):
		s.continueConsent(w, r, req, client, login)
	case slices.Contains(req.Prompt, promptNone):
		s.refuse(w, r, req, client, errLoginRequired)
	case fresh && req.SubjectAsked: // and it was somebody else who signed in
		s.redirectError(w, r, req, errLoginRequired)
	case !s.cfg.Password && len(s.cfg.Methods) == 0:
		s.errorWords(w, r, http.StatusForbidden, "nologin")
	case s.onlyMethod() != nil:
		s.beginLogin(w, r, req, s.onlyMethod())
	default:
		same := found && expected(login.Login, req) && !req.OtherAccount
		page := signIn{Again: same, Email: req.LoginHint}
		if same && ownMethod(login.Method) {
			page.Email = login.Name
		}
		s.showSignIn(w, r, http.StatusOK, req, client, page)
	}
}

// Values of the prompt parameter. OpenID Connect Core section 3.1.2.1.
const (
	promptNone          = "none"
	promptLogin         = "login"
	promptConsent       = "consent"
	promptSelectAccount = "select_account"
)

var errLoginRequired = &oauth.Error{Code: oauth.CodeLoginRequired, Description: "The user is not signed in."}

// recentEnough reports whether the login meets prompt and max_age of the
// request, and is not the one that the user turned down. prompt=login is met by signing in for this very request, which takes
// the word out of it (startLogin): told by times, a login made a moment before
// could pass where the clocks of node and database differ. SECURITY-CASES A-17.
func recentEnough(login Login, req *AuthorizationRequest) bool {
	return !slices.Contains(req.Prompt, promptLogin) && !req.OtherAccount && !login.AuthTime.Before(req.ReauthAfter) &&
		(req.Outdated == "" || req.Outdated != login.ID)
}

// expected reports whether it is the user that the client expects, by
// id_token_hint. Where nobody can tell whom it expects, a person at the browser
// may answer, but nobody is answered for unseen.
func expected(login Login, req *AuthorizationRequest) bool {
	if req.SubjectUnknown {
		return !slices.Contains(req.Prompt, promptNone)
	}
	return req.Subject == "" || req.Subject == login.UserID
}

// decidable reports whether all that comes before the consent page was done.
func decidable(login Login, req *AuthorizationRequest) bool {
	return recentEnough(login, req) && expected(login, req) && !slices.Contains(req.Prompt, promptSelectAccount)
}

// currentLogin returns the live login of the browser. ErrNotFound: none, also
// when the cookie is broken. SECURITY-CASES A-28.
func (s *Server) currentLogin(r *http.Request) (signedIn, error) {
	cookie, ok := s.readCookie(r, loginCookie)
	if !ok {
		return signedIn{}, ErrNotFound
	}
	login, err := s.cfg.Store.FindLogin(r.Context(), sha256.Sum256([]byte(cookie)))
	switch {
	case err != nil:
	case !s.offersMethod(login.Method): // taken out of the configuration since
		err = ErrNotFound
	case login.HalfDone && s.cfg.SecondFactor != SecondFactorOff: // made while it was off, or while the factor was being set up
		err = ErrNotFound
	}
	return signedIn{login, cookie}, err
}

// signIn is what the sign-in page shows.
type signIn struct {
	Client, Action, Request string // Client: empty where the user comes for a page of ours
	Account                 bool   // that page is the one of their credentials
	Email                   string // in the field already
	Problem                 string // why the last attempt did not succeed
	Invalid                 bool   // the fields are what is wrong
	Again                   bool   // there is a login, but the client wants a fresh one
	Password                bool   // the form for email and password
	Forgot                  string // address of the page for who has forgotten it; empty: there is none
	Methods                 []signInMethod
	Passkey                 *passkeyForm // nil: passkeys are off
}

// signInMethod is a button that leads elsewhere.
type signInMethod struct{ Action, Label string }

func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request, status int, req *AuthorizationRequest, client *Client, page signIn) {
	if page.Request == "" {
		sealed, err := s.sealRequest(req)
		if err != nil {
			s.unavailablePage(w, r, "seal authorization request", err)
			return
		}
		page.Request = sealed
	}
	if client != nil {
		page.Client = displayName(client)
	}
	page.Account = req.OwnPage == credentialsPath
	if s.passkeys != nil {
		form, err := s.askForPasskey(req.BrowserDigest)
		if err != nil {
			s.unavailablePage(w, r, "sign-in page", err)
			return
		}
		page.Passkey = form
	}
	page.Action, page.Password = s.endpoint(loginPath), s.cfg.Password
	if s.cfg.SendMail != nil {
		page.Forgot = s.pageAddress(r, forgotPath, nil)
	}
	for i := range s.cfg.Methods {
		method := &s.cfg.Methods[i]
		page.Methods = append(page.Methods, signInMethod{s.endpoint(methodPath(method.Name)), label(method)})
	}
	s.writePage(w, r, status, signInPage, page)
}

// handleLogin answers POST /oauth/login {request, email, password}. Whatever
// else the form holds is not read: where to go next stands in the sealed
// request alone (SECURITY-CASES ).
func (s *Server) handleLogin(w http.ResponseWriter, r *http.Request) {
	// 1. The form is ours, and so is the browser.
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	req, client, ok := s.resumeSignIn(w, r, form.Get("request"))
	if !ok {
		return
	}
	if !s.cfg.Password {
		s.errorWords(w, r, http.StatusForbidden, "nologin")
		return
	}
	// The request goes back as it came: a failure looks the same for every account.
	page := signIn{Request: form.Get("request"), Email: cutEmail(form.Get("email"))}
	if form.Get("email") == "" || form.Get("password") == "" {
		page.Problem, page.Invalid = s.words(r).text("signin.empty"), true
		s.showSignIn(w, r, http.StatusOK, req, client, page)
		return
	}

	// 2. The password.
	user, err := s.authenticate(r, form.Get("email"), form.Get("password"))
	if err == nil {
		// 3. The second factor, or a new login, whatever the browser brought.
		err = s.afterPassword(w, r, req, client, user)
	}
	s.tallyFailedLogin(passwordMethod, err)
	var throttled *throttledError
	switch {
	case err == nil:
	case errors.Is(err, ErrNotFound): // no such account, wrong password, disabled
		page.Problem, page.Invalid = s.words(r).text("signin.wrong"), true
		// 200 and not 401, which would owe a WWW-Authenticate challenge
		// (RFC 9110 section 15.5.2) that no form can meet.
		s.showSignIn(w, r, http.StatusOK, req, client, page)
	case errors.As(err, &throttled):
		s.showThrottled(w, r, req, client, page, throttled)
	case errors.Is(err, errPasswordBusy):
		page.Problem = s.words(r).text("signin.busy")
		w.Header().Set("Retry-After", "5")
		s.showSignIn(w, r, http.StatusTooManyRequests, req, client, page)
	default:
		s.unavailablePage(w, r, "sign in", err)
	}
}

// showThrottled tells a person when to come again.
func (s *Server) showThrottled(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, page signIn, throttled *throttledError) {
	page.Problem = s.words(r).text("signin.throttled", s.words(r).wait(throttled.retryAfter))
	w.Header().Set("Retry-After", strconv.Itoa(ceilSeconds(throttled.retryAfter)))
	s.showSignIn(w, r, http.StatusTooManyRequests, req, client, page)
}

// cutEmail bounds what is put back into the email field.
func cutEmail(email string) string {
	if len(email) > maxEmailBytes {
		email = email[:maxEmailBytes]
	}
	return strings.ToValidUTF8(email, "")
}

// startLogin signs the user in and goes on to the consent page.
func (s *Server) startLogin(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, user User, method string) error {
	next, err := s.createLogin(w, r, req, user, method)
	if err == nil {
		s.leave(w, next)
	}
	return err
}

// createLogin signs the user in and returns where to go on.
func (s *Server) createLogin(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, user User, method string) (next string, err error) {
	cookie := newCookieValue()
	login, err := s.cfg.Store.CreateLogin(r.Context(), sha256.Sum256([]byte(cookie)), user.ID, method, s.cfg.LoginTTL, s.origin(r))
	if err != nil {
		return "", fmt.Errorf("create login: %w", err)
	}
	s.adoptLogin(w, r, req, login, cookie)
	sealed, err := s.sealRequest(req)
	if err != nil {
		return "", fmt.Errorf("seal authorization request: %w", err)
	}
	return s.endpoint(consentPath) + "?" + url.Values{"request": {sealed}}.Encode(), nil
}

// signInFor has the person at the browser sign in, unless they did after since,
// and come to a page of ours. outdated is the id of a login that does not do;
// empty: none is there.
func (s *Server) signInFor(w http.ResponseWriter, r *http.Request, path string, since time.Time, outdated string) {
	s.continueAuthorization(w, r, &AuthorizationRequest{
		ID: uuid.NewString(), OwnPage: path, ReauthAfter: since, Outdated: outdated, UILocales: uiLocalesOf(r), CreatedAt: s.cfg.Now(), BrowserDigest: s.browserDigest(w, r),
	}, nil)
}
