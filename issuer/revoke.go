package issuer

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// handleRevoke ends the session that a token belongs to. RFC 7009: 200 for
// success, for garbage, and for another client's token, which stays alive.
func (s *Server) handleRevoke(w http.ResponseWriter, r *http.Request) {
	params, _, err := readForm(w, r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	client, err := s.authenticateClient(r, params)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	token := params["token"]
	if token == "" {
		s.writeError(w, r, oauth.InvalidRequest("The token is missing."))
		return
	}
	if err := s.revoke(r, client, token); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrReplayed) {
		// Never 200 for what may still be alive (V-03).
		s.writeError(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// revoke finds the session by whatever kind of token it is; the hint decides
// nothing, since our tokens tell their kind themselves. RFC 7009 section 2.1.
func (s *Server) revoke(r *http.Request, client *Client, token string) error {
	ctx, origin := r.Context(), s.origin(r)
	sessionID := ""
	if digest, ok := adoptedDigest(token); ok {
		session, err := s.cfg.Store.FindAdoptedRefreshToken(ctx, digest, client.ID, s.refreshGrace(client), origin)
		if err != nil {
			return fmt.Errorf("find adopted refresh token: %w", err)
		}
		sessionID = session.ID
	} else if refresh, ok := s.cfg.Secrets.readRefreshToken(token); ok {
		sessionID = refresh.SessionID
	} else if claims, ok := s.readAccessToken(token); ok {
		sessionID = claims.SessionID
	}
	if sessionID == "" {
		return nil
	}
	if err := s.cfg.Store.RevokeSession(ctx, sessionID, client.ID, "revoked_by_client", origin); err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	return nil
}
