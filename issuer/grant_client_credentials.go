package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// clientSessionTTL is how long a client's own session is used again before the
// next one is made, beside the life of its last access token.
const clientSessionTTL = 30 * 24 * time.Hour

// grantClientCredentials gives a client a token of its own. RFC 6749 section
// 4.4. There is no user in it: `sub` is the client_id (RFC 9068 section 2.2),
// and the gate names no user to the upstream. There is no refresh token either
// (RFC 6749 section 4.4.3): the client can ask again.
func (s *Server) grantClientCredentials(ctx context.Context, req tokenRequest) (*tokenResponse, error) {
	// A public client has nothing to prove who it is with.
	if !req.client.Confidential() {
		return nil, errGrantNotAllowed
	}
	scopes, resource, err := s.readScopeAndResource(req.client, req.params, req.resources)
	if err != nil {
		return nil, err
	}
	if len(scopes.Intersect(oauth.IdentityScopes())) > 0 {
		return nil, oauth.InvalidScope("A client that acts for itself has no user to ask about.")
	}
	ttl := s.accessTokenTTL(req.client)
	session, err := s.cfg.Store.OpenClientSession(ctx, req.client.ID, resource, scopes,
		SessionLifetime{TTL: clientSessionTTL + ttl, AccessTokenTTL: ttl}, req.origin)
	switch {
	case errors.Is(err, ErrNotFound): // disabled meanwhile
		return nil, errClientAuthentication
	case err != nil:
		return nil, fmt.Errorf("open client session: %w", err)
	}
	return s.respond(req, session, resource, scopes)
}
