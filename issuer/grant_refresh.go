package issuer

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddy-scope/caddy-scope/oauth"
)

var errRefreshGrant = oauth.InvalidGrant("The refresh token is invalid, expired or revoked.")

// grantRefresh continues a session. RFC 6749 section 6. Scope and resource are
// checked before the counter moves: a refused request costs the client nothing.
func (s *Server) grantRefresh(ctx context.Context, req tokenRequest) (*tokenResponse, error) {
	presented := req.params["refresh_token"]
	if presented == "" {
		return nil, oauth.InvalidRequest("The refresh_token is missing.")
	}
	// 1. The session, untouched.
	session, counter, err := s.findByRefreshToken(ctx, presented, req)
	if err != nil {
		return nil, err
	}
	if session.DPoPKey != "" && session.DPoPKey != req.thumbprint() { // RFC 9449 section 5
		return nil, errRefreshGrant
	}
	// 2. What is asked for.
	resource := session.Resource
	if resource == "" { // adopted
		if resource, err = s.selectResource(req.client, nil, session.Scopes); err != nil {
			return nil, err
		}
	}
	if err := checkResource(resource, req.resources); err != nil {
		return nil, err
	}
	scopes, err := s.refreshedScopes(session, req)
	if err != nil {
		return nil, err
	}
	// 3. Move the counter.
	rotated, err := s.cfg.Store.RotateRefreshToken(ctx, Rotation{
		SessionID: session.ID, ClientID: req.client.ID, Counter: counter,
		Grace: s.refreshGrace(req.client), IdleTTL: orDuration(req.client.RefreshIdleTTL, s.cfg.RefreshIdleTTL),
		AccessTokenTTL: s.accessTokenTTL(req.client),
	}, req.origin)
	switch {
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrReplayed):
		return nil, errRefreshGrant
	case err != nil:
		return nil, fmt.Errorf("rotate refresh token: %w", err)
	}
	return s.respond(req, rotated.Session, resource, scopes.Intersect(s.cfg.Catalog.Expand(rotated.Session.Scopes)))
}

// findByRefreshToken returns the session that a token continues, and the
// token's counter.
func (s *Server) findByRefreshToken(ctx context.Context, presented string, req tokenRequest) (Session, int64, error) {
	var session Session
	var counter int64
	var err error
	if digest, ok := adoptedDigest(presented); ok {
		session, err = s.cfg.Store.FindAdoptedRefreshToken(ctx, digest, req.client.ID, s.refreshGrace(req.client), req.origin)
	} else if token, ok := s.cfg.Secrets.readRefreshToken(presented); ok {
		counter = token.Counter
		session, err = s.cfg.Store.FindSession(ctx, token.SessionID, req.client.ID)
	} else {
		return Session{}, 0, errRefreshGrant
	}
	switch {
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrReplayed):
		return Session{}, 0, errRefreshGrant
	case err != nil:
		return Session{}, 0, fmt.Errorf("find session: %w", err)
	}
	return session, counter, nil
}

// refreshedScopes is the scope of the new access token: what is asked for, or
// all of the session's; less what the client may not have any more.
func (s *Server) refreshedScopes(session Session, req tokenRequest) (oauth.ScopeSet, error) {
	asked, err := oauth.ParseScope(req.params["scope"])
	if err != nil {
		return nil, err
	}
	asked = asked.Without(oauth.NewScopeSet("offline_access"))
	if len(asked) == 0 {
		asked = session.Scopes
	} else if !s.cfg.Catalog.Expand(session.Scopes).ContainsAll(asked) {
		return nil, oauth.InvalidScope("A requested scope was not granted.")
	}
	return asked.Intersect(s.cfg.Catalog.Expand(s.clientScopes(req.client))), nil
}
