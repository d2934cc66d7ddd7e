package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// introspection is what a caller hears of a live token. RFC 7662 section 2.2.
type introspection struct {
	Active    bool   `json:"active"`
	TokenType string `json:"token_type,omitempty"` // of access tokens only
	Issuer    string `json:"iss,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Subject   string `json:"sub,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
	Scope     string `json:"scope,omitempty"`
	ID        string `json:"jti,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	ExpiresAt int64  `json:"exp,omitempty"`
	// Confirmation: RFC 9449 section 6.2.
	Confirmation *confirmation `json:"cnf,omitempty"`
}

// handleIntrospect says whether a token is alive and what it allows. RFC 7662.
//
// Callers prove who they are (section 2.1); what they may hear of is their own
// tokens, and access tokens for a resource that they serve
// (Client.Introspects). Of every other token, as of garbage, the answer is that
// it is not active, and nothing else (section 2.2, section 4).
func (s *Server) handleIntrospect(w http.ResponseWriter, r *http.Request) {
	params, _, err := readForm(w, r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	client, err := s.authenticateClient(r, params)
	switch {
	case err != nil:
		s.writeError(w, r, err)
		return
	case !client.Confidential(): // a client_id alone proves nothing
		s.writeError(w, r, errClientAuthentication)
		return
	case params["token"] == "":
		s.writeError(w, r, oauth.InvalidRequest("The token is missing."))
		return
	}
	found, err := s.introspect(r.Context(), client, params["token"])
	if err != nil && !errors.Is(err, ErrNotFound) {
		// Neither answer is true when the session cannot be read.
		s.writeError(w, r, err)
		return
	}
	s.audit(r, "token introspected", zap.String("client_id", client.ID), zap.Bool("active", found.Active))
	writeJSON(w, http.StatusOK, found)
}

// introspect finds out by whatever kind of token it is; the hint decides
// nothing, since our tokens tell their kind themselves.
func (s *Server) introspect(ctx context.Context, caller *Client, token string) (introspection, error) {
	if refresh, ok := s.cfg.Secrets.readRefreshToken(token); ok {
		return s.introspectRefreshToken(ctx, caller, refresh)
	}
	if claims, ok := s.readAccessToken(token); ok {
		return s.introspectAccessToken(ctx, caller, claims)
	}
	return introspection{}, nil
}

func (s *Server) introspectAccessToken(ctx context.Context, caller *Client, claims accessClaims) (introspection, error) {
	if claims.ClientID != caller.ID && !slices.Contains(caller.Introspects, claims.Audience) {
		return introspection{}, nil
	}
	if claims.ExpiresAt <= s.cfg.Tokens.Judging().Unix() {
		return introspection{}, nil
	}
	session, err := s.liveSession(ctx, claims.SessionID, claims.ClientID)
	if err != nil || session.UserID != claims.Subject {
		return introspection{}, err
	}
	// As at the gate: what the token says, less what the session lost since.
	scopes, err := oauth.ParseScope(claims.Scope)
	if err != nil {
		return introspection{}, nil // not ours
	}
	scopes = scopes.Intersect(s.cfg.Catalog.Expand(session.Scopes))
	return introspection{
		Active: true, TokenType: tokenTypeOf(claims.key()), Issuer: claims.Issuer, Audience: claims.Audience, Subject: claims.Subject, ClientID: claims.ClientID,
		Scope: scopes.String(), ID: claims.ID, IssuedAt: claims.IssuedAt, ExpiresAt: claims.ExpiresAt,
		Confirmation: claims.Confirmation,
	}, nil
}

// introspectRefreshToken answers the client it was issued to, nobody else: a
// resource server never sees one. One that was rotated counts as dead, also
// while its grace would still yield the successor.
func (s *Server) introspectRefreshToken(ctx context.Context, caller *Client, token refreshToken) (introspection, error) {
	session, err := s.liveSession(ctx, token.SessionID, caller.ID)
	if err != nil || token.Counter < session.Counter || !mayRefresh(caller) {
		return introspection{}, err
	}
	return introspection{
		Active: true, Issuer: s.cfg.Issuer, Audience: session.Resource, Subject: session.UserID, ClientID: session.ClientID,
		Scope: session.Scopes.String(), ExpiresAt: s.cfg.Now().Add(session.Remaining).Unix(),
	}, nil
}

// liveSession returns the session of a client that is still registered.
func (s *Server) liveSession(ctx context.Context, sessionID, clientID string) (Session, error) {
	if _, err := s.cfg.Clients.Client(ctx, clientID); err != nil {
		return Session{}, fmt.Errorf("find client: %w", err)
	}
	session, err := s.cfg.Store.FindSession(ctx, sessionID, clientID)
	if err != nil {
		return Session{}, fmt.Errorf("find session: %w", err)
	}
	return session, nil
}
