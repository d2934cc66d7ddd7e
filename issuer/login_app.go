package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// App is an app of the owner whose users are signed in there already: their
// browser shows us the same cookie or header as it shows the app. A browser that
// shows none is sent to the app's own sign-in page, with the address to come
// back to.
type App interface {
	// Identify returns whom the app has signed in at the browser that sent this
	// header, from which our own cookies were taken. ErrSignedOut: nobody;
	// *ProviderRefusal: somebody who may not sign in here; any other error: the app
	// could not say.
	Identify(ctx context.Context, header http.Header) (ExternalUser, error)
	// SignInURL returns the app's sign-in page, which brings the browser back to
	// returnTo.
	SignInURL(returnTo string) string
}

// ErrSignedOut: the app has nobody signed in at this browser. What wraps it says
// why, for the log.
var ErrSignedOut = errors.New("nobody is signed in at the app")

// errSameAsBefore: somebody is signed in at the app, but the client wants them to
// sign in again, or the user wants another account, and nothing shows that they
// did.
var errSameAsBefore = errors.New("the app does not show that the user has signed in anew")

// unknownAuthTime stands for a sign-in at an app that does not say when it was:
// any max_age asks for a newer one.
var unknownAuthTime = time.Unix(0, 0)

// beginAppLogin signs the user in whom the app has signed in at this browser, or
// sends the browser to the app.
func (s *Server) beginAppLogin(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, method *LoginMethod) {
	user, err := s.identify(r, method)
	var refusal *ProviderRefusal
	switch {
	case errors.Is(err, ErrSignedOut) && r.Method != http.MethodPost && (signInAgain(req) || req.MaxAge != nil):
		// Whether that is so, only a form that our own page has sent tells: with a link
		// from elsewhere the browser keeps the app's cookies that are SameSite=Strict.
		s.signInPage(w, r, req, "")
		return
	case errors.Is(err, ErrSignedOut):
		s.leaveForApp(w, r, req, method, err)
		return
	case errors.As(err, &refusal):
		s.signInProblem(w, r, req, method, "signin.refused", refusal)
		return
	case err != nil:
		s.providerUnavailable(w, r, method, err)
		return
	}
	if signInAgain(req) || req.MaxAge != nil && user.AuthTime.Before(s.cfg.Now().Add(-*req.MaxAge)) {
		s.signInProblem(w, r, req, method, "signin.app.again", errSameAsBefore)
		return
	}
	// Who came with the account of the app has not chosen it yet.
	choose := slices.Contains(req.Prompt, promptSelectAccount)
	if !s.startExternalLogin(w, r, req, method, user) {
		return
	}
	if choose {
		req.Prompt = append(req.Prompt, promptSelectAccount)
	}
	s.goOn(w, r, req)
}

// signInAgain reports whether who is signed in at the app already is not what is
// wanted.
func signInAgain(req *AuthorizationRequest) bool {
	return slices.Contains(req.Prompt, promptLogin) || req.OtherAccount
}

// leaveForApp sends the browser to the app's sign-in page. The address to come
// back to is ours, and all that matters in it is sealed.
func (s *Server) leaveForApp(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, method *LoginMethod, why error) {
	s.audit(r, "sent to the app to sign in", zap.String("method", method.Name), zap.NamedError("because", why))
	state := providerState{Method: method.Name, Request: req, StartedAt: s.cfg.Now()}
	sealed, err := s.sealProviderState(&state)
	switch {
	case errors.Is(err, errStateTooLarge):
		s.errorWords(w, r, http.StatusBadRequest, "provider.large")
	case err != nil:
		s.unavailablePage(w, r, "seal provider state", err)
	default:
		s.leave(w, method.App.SignInURL(s.endpoint(methodPath(method.Name))+"?"+url.Values{"state": {sealed}}.Encode()))
	}
}

// redeemAtApp returns whom the app has signed in at the browser that it sent
// back.
func (s *Server) redeemAtApp(r *http.Request, method *LoginMethod, state *providerState) (ExternalUser, error) {
	user, err := s.identify(r, method)
	if err != nil {
		return user, err
	}
	// Who is asked to sign in anew has left by our form, where nobody was signed in:
	// now somebody is.
	if signInAgain(state.Request) || state.Request.MaxAge != nil {
		user.AuthTime = s.cfg.Now()
	}
	return user, nil
}

// identify asks the app about the browser.
func (s *Server) identify(r *http.Request, method *LoginMethod) (ExternalUser, error) {
	user, err := method.App.Identify(r.Context(), withoutOurCookies(r.Header))
	if err == nil && user.AuthTime.IsZero() {
		user.AuthTime = unknownAuthTime
	}
	return user, err
}

// appStandsBy reports whether the app still has the user of the login signed in,
// if it was an app that said so: whoever signs out there and hands the browser
// on must not be the one that the next client gets. False, too, after an answer
// was written: the app could not say.
func (s *Server) appStandsBy(w http.ResponseWriter, r *http.Request, login Login) (stands, answered bool) {
	method := s.method(login.Method)
	if method == nil || method.App == nil {
		return true, false
	}
	user, err := s.identify(r, method)
	var refusal *ProviderRefusal
	switch {
	case errors.Is(err, ErrSignedOut) || errors.As(err, &refusal):
		return false, false
	case err != nil:
		s.providerUnavailable(w, r, method, err)
		return false, true
	}
	return user.Authority == login.Authority && user.Subject == login.Subject, false
}

// signInProblem shows the sign-in page with what has happened at the method. It
// leads on by a button alone: a redirect here could go on for ever.
func (s *Server) signInProblem(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, method *LoginMethod, problem string, cause error) {
	s.audit(r, "sign-in refused by "+method.Name, zap.Error(cause))
	s.cfg.Tally.SignedIn(method.Name, outcomeFailed)
	s.signInPage(w, r, req, s.words(r).text(problem, label(method)))
}

func (s *Server) signInPage(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, problem string) {
	if client, ok := s.clientOf(w, r, req); ok {
		s.showSignIn(w, r, http.StatusOK, req, client, signIn{Problem: problem, Email: req.LoginHint})
	}
}

// clientOf returns the client of the request; nil where a page of ours is what the
// user wants.
func (s *Server) clientOf(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest) (*Client, bool) {
	if req.OwnPage != "" {
		return nil, true
	}
	client, err := s.cfg.Clients.Client(r.Context(), req.ClientID)
	switch {
	case errors.Is(err, ErrNotFound):
		s.errorWords(w, r, http.StatusBadRequest, "gone")
		return nil, false
	case err != nil:
		s.unavailablePage(w, r, "find client", fmt.Errorf("client %s: %w", req.ClientID, err))
		return nil, false
	}
	return client, true
}

// withoutOurCookies returns the header less the cookies by which browsers are
// known to us, which are no business of the app's.
func withoutOurCookies(header http.Header) http.Header {
	cleaned := header.Clone()
	delete(cleaned, "Cookie")
	for _, field := range header["Cookie"] {
		var kept []string
		for cookie := range strings.SplitSeq(field, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(cookie), "=")
			name = strings.TrimPrefix(strings.TrimSpace(name), "__Host-")
			if name != loginCookie && name != browserCookie {
				kept = append(kept, strings.TrimLeft(cookie, " "))
			}
		}
		if len(kept) > 0 {
			cleaned.Add("Cookie", strings.Join(kept, "; "))
		}
	}
	return cleaned
}
