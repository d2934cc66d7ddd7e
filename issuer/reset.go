package issuer

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

const resetPath = "/oauth/reset"

// NewResetLink returns the address at which the users of this issuer set a new
// password, and the digest to store of it. Who has the link can take the account.
func NewResetLink(issuer string) (link string, digest Digest) {
	token := newCookieValue()
	return oauth.Origin(issuer) + resetPath + "?" + url.Values{"token": {token}}.Encode(), sha256.Sum256([]byte(token))
}

// resetForm is what the page shows.
type resetForm struct {
	User, Action, Token   string
	Problem               string
	Least                 int // bytes of a password
	EndsSessions, Factors bool
}

// handleReset answers GET /oauth/reset?token=…, the link, which changes nothing
// (mail scanners follow it too), and POST {token, password, again}.
func (s *Server) handleReset(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	var form url.Values
	if r.Method == http.MethodPost {
		var ok bool
		if form, ok = s.readPageForm(w, r); !ok {
			return
		}
		token = form.Get("token")
	}
	digest, reset, ok := s.openReset(w, r, token)
	if !ok {
		return
	}
	page := resetForm{User: reset.Email, Action: s.pageAddress(r, resetPath, nil), Token: token, Least: MinPasswordBytes, EndsSessions: reset.EndSessions, Factors: reset.RemoveFactors}
	if form == nil {
		s.writePage(w, r, http.StatusOK, resetPage, page)
		return
	}
	if form.Get("password") != form.Get("again") {
		page.Problem = s.words(r).text("reset.different")
		s.writePage(w, r, http.StatusOK, resetPage, page)
		return
	}
	hash, err := s.hashNewPassword(r, form.Get("password"))
	switch {
	case errors.Is(err, errPasswordBusy):
		page.Problem = s.words(r).text("signin.busy")
		w.Header().Set("Retry-After", "5")
		s.writePage(w, r, http.StatusTooManyRequests, resetPage, page)
		return
	case r.Context().Err() != nil:
		s.unavailablePage(w, r, "reset password", err)
		return
	case err != nil:
		page.Problem = s.words(r).text("reset.unfit", MinPasswordBytes)
		s.writePage(w, r, http.StatusOK, resetPage, page)
		return
	}
	switch err := s.cfg.Store.UseReset(r.Context(), digest, hash, s.origin(r)); {
	case errors.Is(err, ErrNotFound): // used in another tab
		s.errorWords(w, r, http.StatusBadRequest, "reset.gone")
	case err != nil:
		s.unavailablePage(w, r, "reset password", err)
	default:
		s.audit(r, "password reset", zap.Bool("sessions_ended", reset.EndSessions), zap.Bool("factors_removed", reset.RemoveFactors))
		s.clearCookie(w, loginCookie) // if it was the user's, its login is over
		s.showMessage(w, r, "reset.done")
	}
}

// openReset finds the link, or shows that it holds no more. Whoever tries links
// waits.
func (s *Server) openReset(w http.ResponseWriter, r *http.Request, token string) (digest Digest, reset Reset, ok bool) {
	address := networkOf(s.cfg.ClientAddress(r))
	if address.IsValid() {
		if ok, wait := s.password.perAddress.Reserve(address.String()); !ok {
			w.Header().Set("Retry-After", strconv.Itoa(ceilSeconds(wait)))
			s.errorWords(w, r, http.StatusTooManyRequests, "patience")
			return digest, reset, false
		}
	}
	err := ErrNotFound
	if raw, decodeErr := base64.RawURLEncoding.Strict().DecodeString(token); decodeErr == nil && len(raw) == sha256.Size {
		digest = sha256.Sum256([]byte(token))
		reset, err = s.cfg.Store.FindReset(r.Context(), digest)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		s.errorWords(w, r, http.StatusBadRequest, "reset.gone")
		return digest, reset, false
	case err != nil:
		s.releaseAddress(address)
		s.unavailablePage(w, r, "find password reset", err)
		return digest, reset, false
	}
	s.releaseAddress(address)
	return digest, reset, true
}

// hashNewPassword is HashPassword within the bounds of the node.
func (s *Server) hashNewPassword(r *http.Request, password string) (string, error) {
	release, err := s.password.verifier.acquire(r.Context())
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	defer release()
	return HashPassword(r.Context(), password)
}
