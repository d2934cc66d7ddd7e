package issuer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// logoutHintPurpose is what seals a LogoutHint.
const logoutHintPurpose = "logout hint"

// handleProviderLogout answers POST /oauth/login/{method}/logout {logout_token},
// with which a provider says that a user has signed out there. No browser is
// involved, so the token is all that counts. OpenID Connect Back-Channel Logout
// sections 2.5 to 2.8.
func (s *Server) handleProviderLogout(w http.ResponseWriter, r *http.Request) {
	method := s.method(r.PathValue("method"))
	if method == nil || method.logout() == nil {
		http.NotFound(w, r)
		return
	}
	params, _, err := readForm(w, r)
	if err == nil && params["logout_token"] == "" {
		err = oauth.InvalidRequest("The logout_token is missing.")
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	logout, err := method.logout().ReadLogoutToken(r.Context(), params["logout_token"])
	if err == nil && !(isText(logout.Subject) && isText(logout.SessionID)) {
		err = &ProviderRefusal{Err: errors.New("sub or sid of the logout token holds bytes that are no text")}
	}
	logins, sessions := 0, 0
	if err == nil {
		logout.EndSessions = method.SignOutEndsSessions
		logins, sessions, err = s.cfg.Store.EndProviderLogins(r.Context(), logout, s.origin(r))
	}
	var refusal *ProviderRefusal
	switch {
	case err == nil:
	case errors.Is(err, ErrReplayed), errors.As(err, &refusal):
		s.audit(r, "logout token refused", zap.String("method", method.Name), zap.Error(err))
		s.writeError(w, r, oauth.InvalidRequest("The logout token does not hold, or came before."))
		return
	default:
		s.writeError(w, r, fmt.Errorf("logout at %s: %w", method.Name, err))
		return
	}
	// Also where nobody was signed in: what was to be has come to be.
	s.audit(r, "signed out at the provider", zap.String("method", method.Name), zap.Int("logins", logins), zap.Int("sessions", sessions))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// signOut ends the login of the cookie and, where its method has it so, the
// sessions of its user. It returns where the browser goes to sign out at the
// provider too, with the state to come back with; empty: nowhere.
func (s *Server) signOut(r *http.Request, cookie, state string) (there string, err error) {
	digest := sha256.Sum256([]byte(cookie))
	login, err := s.cfg.Store.FindLogin(r.Context(), digest)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", err
	}
	if method := s.method(login.Method); err == nil && method != nil {
		if method.SignOutEndsSessions { // first: without the login nobody comes here again
			if _, err := s.cfg.Store.EndUserSessions(r.Context(), login.UserID, s.origin(r)); err != nil {
				return "", err
			}
		}
		if method.SignOutThere {
			there = s.endSessionThere(r, method, digest, state)
		}
	}
	return there, s.cfg.Store.EndLogin(r.Context(), digest, s.origin(r))
}

// endSessionThere is where the browser goes to sign out at the provider. One that
// cannot say keeps nobody signed in here.
func (s *Server) endSessionThere(r *http.Request, method *LoginMethod, digest Digest, state string) string {
	sealed, err := s.cfg.Store.LogoutHint(r.Context(), digest)
	var hint []byte
	if err == nil && sealed != nil {
		hint, _, err = s.cfg.Secrets.open(requestAEAD, sealed, []byte(logoutHintPurpose))
	}
	if err != nil { // the provider then asks who it is about
		s.logPageError(r, fmt.Errorf("login %s: hint for signing out: %w", method.Name, err))
	}
	if len(state) > maxProviderState {
		state = ""
	}
	there, err := method.logout().EndSessionURL(r.Context(), string(hint), s.endpoint(methodPath(method.Name)+"/signed_out"), state)
	if err != nil {
		s.logPageError(r, fmt.Errorf("login %s: sign out there: %w", method.Name, err))
		return ""
	}
	return there
}

// sealLogoutHint seals what a provider wants to see again: an ID token tells who
// the user is.
func (s *Server) sealLogoutHint(hint string) []byte {
	if hint == "" {
		return nil
	}
	return s.cfg.Secrets.seal(requestAEAD, []byte(hint), []byte(logoutHintPurpose))
}

// handleSignedOutThere answers GET /oauth/login/{method}/signed_out {state}, where
// a provider sends a browser that has signed out: on to what the user was at.
func (s *Server) handleSignedOutThere(w http.ResponseWriter, r *http.Request) {
	method := s.method(r.PathValue("method"))
	if method == nil || !method.SignOutThere {
		http.NotFound(w, r)
		return
	}
	state := r.URL.Query().Get("state")
	if req, ok := s.openLogout(state); ok {
		// Whoever has the link may have come here without signing out.
		s.finishEndSession(w, r, req, false)
		return
	}
	s.afterSignOut(w, r, state)
}
