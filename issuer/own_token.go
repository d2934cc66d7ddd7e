package issuer

import (
	"errors"
	"net/http"
	"strings"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/oauth"
)

var (
	errNoToken    = &oauth.Error{Status: http.StatusUnauthorized, Code: oauth.CodeInvalidToken, Description: "An access token is needed."}
	errBadToken   = &oauth.Error{Status: http.StatusUnauthorized, Code: oauth.CodeInvalidToken, Description: "The access token is invalid, expired or revoked."}
	errTokenScope = &oauth.Error{Status: http.StatusForbidden, Code: oauth.CodeInsufficientScope, Description: "The access token does not hold the scope that is needed."}
)

// tokenSession returns the session of the access token that a request to the
// server itself brings, and what is left of the token's scopes, of which scope is
// one. The token is for this resource; empty: for any.
func (s *Server) tokenSession(w http.ResponseWriter, r *http.Request, scope, resource string) (Session, oauth.ScopeSet, error) {
	// 1. The token: ours, in force, and sent by who holds its key.
	scheme, token, err := readAuthorization(r)
	if err != nil {
		return Session{}, nil, err
	}
	access, ok := s.readAccessToken(token)
	if !ok || access.ExpiresAt <= s.cfg.Tokens.Judging().Unix() || resource != "" && access.Audience != resource {
		return Session{}, nil, errBadToken
	}
	proof, err := s.checkTokenProof(w, r, scheme, token, access.key())
	if err != nil {
		return Session{}, nil, err
	}
	// 2. The session, and what is left of the scope.
	session, err := s.liveSession(r.Context(), access.SessionID, access.ClientID)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && session.UserID != access.Subject:
		return Session{}, nil, errBadToken
	case err != nil:
		return Session{}, nil, err
	}
	held, err := oauth.ParseScope(access.Scope)
	if err != nil {
		return Session{}, nil, errBadToken // not ours
	}
	scopes := s.cfg.Catalog.Expand(held).Intersect(s.cfg.Catalog.Expand(session.Scopes))
	if !scopes.Contains(scope) {
		return Session{}, nil, errTokenScope
	}
	// 3. The proof last: it costs a write.
	if proof != nil {
		if err := s.proofs.Use(r.Context(), proof); errors.Is(err, dpop.ErrReplayed) {
			return Session{}, nil, errProof
		} else if err != nil {
			return Session{}, nil, err
		}
	}
	return session, scopes, nil
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
		return "", "", errNoToken
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
		return nil, errBadToken
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
		return nil, errBadToken
	}
	if proof.NextNonce != "" {
		w.Header().Set("DPoP-Nonce", proof.NextNonce)
	}
	return proof, nil
}

// writeTokenError is writeError with the challenge that belongs to it. RFC 6750
// section 3, RFC 9449 section 7.1, RFC 9728 section 5.1.
func (s *Server) writeTokenError(w http.ResponseWriter, r *http.Request, scope, resource string, err error) {
	var e *oauth.Error
	if errors.As(err, &e) {
		challenge := "Bearer "
		if scheme, _, _ := readAuthorization(r); scheme == "dpop" {
			challenge = `DPoP algs="` + strings.Join(dpop.Algorithms, " ") + `", `
		}
		switch e {
		case errNoToken: // no error code where there were no credentials
			challenge += `scope="` + scope + `"`
		case errTokenScope:
			challenge += `error="` + e.Code + `", scope="` + scope + `"`
		default:
			challenge += `error="` + e.Code + `"`
		}
		if resource != "" {
			challenge += `, resource_metadata="` + oauth.ResourceMetadataURL(resource) + `"`
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
