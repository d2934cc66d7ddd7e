package issuer

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddy-scope/caddy-scope/oauth"
)

var (
	errRefreshGrant    = oauth.InvalidGrant("The refresh token is invalid, expired or revoked.")
	errRefreshReplayed = oauth.InvalidGrant(errRefreshGrant.Description) // only who counts knows it from the other
)

// grantRefresh continues a session. RFC 6749 section 6. What is asked for is
// checked before the counter moves: a refused request costs the client nothing.
func (s *Server) grantRefresh(ctx context.Context, req tokenRequest) (*tokenResponse, error) {
	presented := req.params["refresh_token"]
	if presented == "" {
		return nil, oauth.InvalidRequest("The refresh_token is missing.")
	}
	// 1. What the token says.
	token, session, err := s.readRefresh(ctx, presented, req)
	if err != nil {
		return nil, err
	}
	// 2. What is asked for. Most ask for nothing in particular, and then there is
	// nothing to look up.
	asked, err := askedScopes(req)
	if err != nil {
		return nil, err
	}
	rotation := s.rotationOf(token, req)
	if session == nil && (len(asked) > 0 || len(req.resources) > 0 || s.countsUsers(grantRefreshToken)) {
		if session, err = s.findSession(ctx, token.SessionID, req); err != nil {
			return nil, err
		}
	}
	if session != nil {
		if rotation.Resource, err = s.checkRefresh(session, asked, req); err != nil {
			return nil, err
		}
		if err := s.count(ctx, PerUser, session.UserID, "", grantRefreshToken); err != nil {
			return nil, err
		}
	}
	// 3. Move the counter.
	rotated, err := s.cfg.Store.RotateRefreshToken(ctx, rotation, req.origin)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, errRefreshGrant
	case errors.Is(err, ErrReplayed):
		return nil, errRefreshReplayed
	case err != nil:
		return nil, fmt.Errorf("rotate refresh token: %w", err)
	}
	// 4. What it has now.
	if len(asked) == 0 {
		asked = rotated.Session.Scopes
	}
	resource, err := s.resourceOf(&rotated.Session, req)
	if err != nil {
		return nil, err
	}
	return s.respond(req, rotated.Session, resource, asked.Intersect(s.cfg.Catalog.Expand(rotated.Session.Scopes)))
}

// readRefresh returns what the token says. Of an adopted one that is found in
// its session, which is returned too.
func (s *Server) readRefresh(ctx context.Context, presented string, req tokenRequest) (refreshToken, *Session, error) {
	if token, ok := s.cfg.Secrets.readRefreshToken(presented); ok {
		return token, nil, nil
	}
	digest, ok := adoptedDigest(presented)
	if !ok {
		return refreshToken{}, nil, errRefreshGrant
	}
	session, err := s.cfg.Store.FindAdoptedRefreshToken(ctx, digest, req.client.ID, s.refreshGrace(req.client), req.origin)
	switch {
	case errors.Is(err, ErrNotFound):
		return refreshToken{}, nil, errRefreshGrant
	case errors.Is(err, ErrReplayed):
		return refreshToken{}, nil, errRefreshReplayed
	case err != nil:
		return refreshToken{}, nil, fmt.Errorf("find adopted refresh token: %w", err)
	}
	return refreshToken{SessionID: session.ID}, &session, nil
}

// findSession returns the client's session, if the request may continue it.
func (s *Server) findSession(ctx context.Context, sessionID string, req tokenRequest) (*Session, error) {
	session, err := s.cfg.Store.FindSession(ctx, sessionID, req.client.ID)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && session.DPoPKey != "" && session.DPoPKey != req.thumbprint():
		return nil, errRefreshGrant
	case err != nil:
		return nil, fmt.Errorf("find session: %w", err)
	}
	return &session, nil
}

// askedScopes are the scopes that the request names; none: all of the session's.
func askedScopes(req tokenRequest) (oauth.ScopeSet, error) {
	asked, err := oauth.ParseScope(req.params["scope"])
	return asked.Without(oauth.NewScopeSet("offline_access")), err
}

// checkRefresh refuses what the session does not have, and returns the resource
// of its tokens.
func (s *Server) checkRefresh(session *Session, asked oauth.ScopeSet, req tokenRequest) (resource string, err error) {
	if resource, err = s.resourceOf(session, req); err != nil {
		return "", err
	}
	if err := checkResource(resource, req.resources); err != nil {
		return "", err
	}
	if !s.cfg.Catalog.Expand(session.Scopes).ContainsAll(asked) {
		return "", oauth.InvalidScope("A requested scope was not granted.")
	}
	return resource, nil
}

// resourceOf is what the tokens of the session are for. An adopted session does
// not say until it was refreshed once.
func (s *Server) resourceOf(session *Session, req tokenRequest) (string, error) {
	if session.Resource != "" {
		return session.Resource, nil
	}
	return s.selectResource(req.client, nil, session.Scopes)
}

func (s *Server) rotationOf(token refreshToken, req tokenRequest) Rotation {
	return Rotation{
		SessionID: token.SessionID, ClientID: req.client.ID, Counter: token.Counter, DPoPKey: req.thumbprint(),
		Grace: s.refreshGrace(req.client), IdleTTL: orDuration(req.client.RefreshIdleTTL, s.cfg.RefreshIdleTTL),
		AccessTokenTTL: s.accessTokenTTL(req.client),
	}
}
