package issuer

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

const userInfoPath = "/oauth/userinfo"

// handleUserInfo tells a client who its user is. OpenID Connect Core section
// 5.3. It takes every access token of ours with the scope openid, whatever the
// token is for: a client has one token, and its audience is an API.
func (s *Server) handleUserInfo(w http.ResponseWriter, r *http.Request) {
	session, scopes, err := s.tokenSession(w, r, oauth.ScopeOpenID, "")
	if err != nil {
		s.writeTokenError(w, r, oauth.ScopeOpenID, "", err)
		return
	}
	claims, err := claimsOf(session, scopes)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.audit(r, "user info told", zap.String("client_id", session.ClientID), zap.String("user_id", session.UserID), zap.String("session_id", session.ID))
	writeJSON(w, http.StatusOK, claims)
}
