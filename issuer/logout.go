package issuer

import (
	"net/http"
	"slices"
)

// logoutPurpose is what the form token of a sign-out is for.
const logoutPurpose = "logout"

// handleLogout answers POST /oauth/logout {csrf, request}: it ends the login
// and goes back to signing in for the authorization request, if there is one.
func (s *Server) handleLogout(w http.ResponseWriter, r *http.Request) {
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	there := ""
	if cookie, ok := s.readCookie(r, loginCookie); ok {
		if !validFormToken(form.Get("csrf"), cookie, logoutPurpose, "") {
			s.errorWords(w, r, http.StatusForbidden, "foreign")
			return
		}
		var err error
		if there, err = s.signOut(r, cookie, form.Get("request")); err != nil {
			s.unavailablePage(w, r, "sign out", err)
			return
		}
		s.audit(r, "signed out")
	}
	s.clearCookie(w, loginCookie)
	if there != "" {
		s.leave(w, there)
		return
	}
	s.afterSignOut(w, r, form.Get("request"))
}

// afterSignOut goes back to signing in for the authorization request, if there is
// one.
func (s *Server) afterSignOut(w http.ResponseWriter, r *http.Request, request string) {
	if request == "" {
		s.showMessage(w, r, "signedout")
		return
	}
	if req, _, ok := s.resumeSignIn(w, r, request); ok {
		// A provider that still has the user signed in would bring the very same
		// one back, without a word.
		if !slices.Contains(req.Prompt, promptLogin) && !slices.Contains(req.Prompt, promptNone) {
			req.Prompt = append(req.Prompt, promptLogin)
		}
		s.goOn(w, r, req)
	}
}
