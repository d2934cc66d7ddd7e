package issuer

import (
	"errors"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/oauth"
)

const userInfoPath = "/oauth/userinfo"

var (
	errNoUserInfoToken = &oauth.Error{Status: http.StatusUnauthorized, Code: oauth.CodeInvalidToken, Description: "An access token is needed."}
	errUserInfoToken   = &oauth.Error{Status: http.StatusUnauthorized, Code: oauth.CodeInvalidToken, Description: "The access token is invalid, expired or revoked."}
	errUserInfoScope   = &oauth.Error{Status: http.StatusForbidden, Code: oauth.CodeInsufficientScope, Description: "The access token does not hold the scope openid."}
)

// handleUserInfo tells a client who its user is. OpenID Connect Core section
// 5.3. It takes every access token of ours with the scope openid, whatever the
// token is for: a client has one token, and its audience is an API.
func (s *Server) handleUserInfo(w http.ResponseWriter, r *http.Request) {
	claims, err := s.userInfo(w, r)
	if err != nil {
		s.writeUserInfoError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, claims)
}

func (s *Server) userInfo(w http.ResponseWriter, r *http.Request) (map[string]any, error) {
	// 1. The token: ours, in force, and sent by who holds its key.
	scheme, token, err := readAuthorization(r)
	if err != nil {
		return nil, err
	}
	access, ok := s.readAccessToken(token)
	if !ok || access.ExpiresAt <= s.cfg.Tokens.Judging().Unix() {
		return nil, errUserInfoToken
	}
	proof, err := s.checkTokenProof(w, r, scheme, token, access.key())
	if err != nil {
		return nil, err
	}
	// 2. The session, and what is left of the scope.
	session, err := s.liveSession(r.Context(), access.SessionID, access.ClientID)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && session.UserID != access.Subject:
		return nil, errUserInfoToken
	case err != nil:
		return nil, err
	}
	held, err := oauth.ParseScope(access.Scope)
	if err != nil {
		return nil, errUserInfoToken // not ours
	}
	scopes := s.cfg.Catalog.Expand(held).Intersect(s.cfg.Catalog.Expand(session.Scopes))
	if !scopes.Contains(oauth.ScopeOpenID) {
		return nil, errUserInfoScope
	}
	// 3. The proof last: it costs a write.
	if proof != nil {
		if err := s.proofs.Use(r.Context(), proof); errors.Is(err, dpop.ErrReplayed) {
			return nil, errProof
		} else if err != nil {
			return nil, err
		}
	}
	s.audit(r, "user info told", zap.String("client_id", session.ClientID), zap.String("user_id", session.UserID), zap.String("session_id", session.ID))
	return claimsOf(session, scopes)
}

// readAuthorization returns scheme, in lower case, and token of the one
// Authorization field. RFC 6750 section 2.1, RFC 9449 section 7.1.
func readAuthorization(r *http.Request) (scheme, token string, err error) {
	fields := r.Header.Values("Authorization")
	if len(fields) > 1 {
		return "", "", oauth.InvalidRequest("The request has more than one Authorization header.")
	}
	if len(fields) == 1 {
		scheme, token, _ = strings.Cut(fields[0], " ")
		scheme = strings.ToLower(scheme)
	}
	if scheme != "bearer" && scheme != "dpop" || token == "" {
		return "", "", errNoUserInfoToken
	}
	return scheme, token, nil
}

// checkTokenProof checks that whoever sends the token holds the key that it is
// bound to, in all but whether the proof was used before. nil: a bearer token.
// RFC 9449 section 7.
func (s *Server) checkTokenProof(w http.ResponseWriter, r *http.Request, scheme, token, key string) (*dpop.Proof, error) {
	switch {
	case scheme == "bearer" && key == "":
		return nil, nil
	case scheme == "bearer" || key == "": // a bound token as Bearer, or a bearer token as DPoP
		return nil, errUserInfoToken
	}
	fields := r.Header.Values("DPoP")
	if len(fields) == 0 {
		return nil, errProof
	}
	proof, err := s.proofs.Check(fields, dpop.Request{Method: r.Method, URI: s.endpoint(r.URL.Path), AccessToken: token})
	switch {
	case errors.Is(err, dpop.ErrUseNonce):
		w.Header().Set("DPoP-Nonce", s.proofs.Nonces.Current())
		return nil, errUseNonce
	case err != nil:
		return nil, errProof
	case proof.Thumbprint != key:
		return nil, errUserInfoToken
	}
	if proof.NextNonce != "" {
		w.Header().Set("DPoP-Nonce", proof.NextNonce)
	}
	return proof, nil
}

// writeUserInfoError is writeError with the challenge that belongs to it. RFC
// 6750 section 3, RFC 9449 section 7.1.
func (s *Server) writeUserInfoError(w http.ResponseWriter, r *http.Request, err error) {
	var e *oauth.Error
	if errors.As(err, &e) {
		challenge := "Bearer "
		if scheme, _, _ := readAuthorization(r); scheme == "dpop" {
			challenge = `DPoP algs="` + strings.Join(dpop.Algorithms, " ") + `", `
		}
		switch e {
		case errNoUserInfoToken: // no error code where there were no credentials
			challenge += `scope="` + oauth.ScopeOpenID + `"`
		case errUserInfoScope:
			challenge += `error="` + e.Code + `", scope="` + oauth.ScopeOpenID + `"`
		default:
			challenge += `error="` + e.Code + `"`
		}
		if e == errProof || e == errUseNonce { // 400 at the token endpoint, 401 here
			unauthorized := *e
			unauthorized.Status = http.StatusUnauthorized
			err = &unauthorized
		}
		w.Header().Set("WWW-Authenticate", challenge)
	}
	s.writeError(w, r, err)
}
