package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// OperatorToken is what an operator asks for: an access token in the name of a
// user, without asking them, to try something out or to mend it.
type OperatorToken struct {
	ClientID string
	UserID   string
	Scope    string        // space-separated; empty: what the client asks for by default
	Resource string        // empty: as for a request that names none
	For      time.Duration // at most what the client's access tokens live
}

// Why an operator gets no token.
var (
	ErrOperatorClient = errors.New("the client is not known here, or is disabled")
	ErrOperatorUser   = errors.New("the user is not known here, or is disabled")
	ErrOperatorDPoP   = errors.New("the client demands that tokens are bound to its key, and this one would not be")
	ErrOperatorTTL    = errors.New("the token would live longer than access tokens of the client do")
)

// IssueOperatorToken makes a session and its only token, by the path that every
// grant takes: the client may have the scopes, the resource is one of ours, the
// session is a row that can be revoked, and an event tells that an operator made
// it. It is no consent of the user: no other session grows by it. An *oauth.Error
// is about scope or resource.
func (s *Server) IssueOperatorToken(ctx context.Context, o OperatorToken) (token string, session Session, err error) {
	// 1. The client, as the token endpoint knows it.
	client, err := s.cfg.Clients.Client(ctx, o.ClientID)
	switch {
	case errors.Is(err, ErrNotFound):
		return "", session, ErrOperatorClient
	case err != nil:
		return "", session, err
	case client.RequireDPoP:
		return "", session, ErrOperatorDPoP
	case o.For < time.Second || o.For > s.accessTokenTTL(client):
		// Nor would its key be published for so long.
		return "", session, ErrOperatorTTL
	}
	// 2. What it may have.
	var resources []string
	if o.Resource != "" {
		resources = []string{o.Resource}
	}
	scopes, resource, err := s.readScopeAndResource(client, parameters{"scope": o.Scope}, resources)
	if err != nil {
		return "", session, err
	}
	// 3. The session, and its token.
	session, err = s.cfg.Store.OpenOperatorSession(ctx, OperatorSession{ClientID: client.ID, UserID: o.UserID, Resource: resource, Scopes: scopes, TTL: o.For})
	switch {
	case errors.Is(err, ErrNotFound):
		return "", session, ErrOperatorUser
	case err != nil:
		return "", session, fmt.Errorf("open operator session: %w", err)
	}
	scopes = scopes.Intersect(s.cfg.Catalog.Expand(s.clientScopes(client)))
	token, _, err = s.mintAccessToken(session, resource, scopes, "", o.For)
	return token, session, err
}
