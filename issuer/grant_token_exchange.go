package issuer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// tokenTypeAccess is the only kind of token that is exchanged. RFC 8693 section 3.
const tokenTypeAccess = "urn:ietf:params:oauth:token-type:access_token"

// errSubjectToken tells nothing of why. RFC 8693 section 2.2.2: invalid_request,
// whatever is wrong with the token.
var errSubjectToken = oauth.InvalidRequest("The subject_token is invalid, expired, revoked or not for this client.")

// actor is the claim `act`: who acts for the subject, and for whom that one
// acted before. RFC 8693 section 4.1.
type actor struct {
	Subject string `json:"sub"`
	Actor   *actor `json:"act,omitempty"`
}

// maxActors bounds how far a call may be passed on.
const maxActors = 5

// grantTokenExchange gives a service that was called with a user's token one of
// its own to call on with, for a resource that it may call and for no more than
// the token allows. The new token ends when the user's session does, and no
// later than the token it came from. RFC 8693.
func (s *Server) grantTokenExchange(ctx context.Context, req tokenRequest) (*tokenResponse, error) {
	// A public client has nothing to prove who it is with.
	if !req.client.Confidential() {
		return nil, errGrantNotAllowed
	}
	if err := checkExchange(req.params); err != nil {
		return nil, err
	}
	// 1. The token: ours, alive, a user's, and one that came to this service.
	subject, parent, err := s.subjectToken(ctx, req)
	if err != nil {
		return nil, err
	}
	// 2. What for.
	resource, err := s.exchangeTarget(req)
	if err != nil {
		return nil, err
	}
	scopes, err := s.exchangedScopes(req, subject, parent, resource)
	if err != nil {
		return nil, err
	}
	// 3. The session, which hangs on the user's.
	ttl := min(s.accessTokenTTL(req.client), time.Unix(subject.ExpiresAt, 0).Sub(s.cfg.Tokens.Judging()))
	session, err := s.cfg.Store.DelegateSession(ctx, Delegation{
		ParentID: parent.ID, ParentClientID: parent.ClientID, ClientID: req.client.ID, Resource: resource, Scopes: scopes, AccessTokenTTL: ttl,
	}, req.origin)
	switch {
	case errors.Is(err, ErrNotFound): // ended or disabled meanwhile
		return nil, errSubjectToken
	case err != nil:
		return nil, fmt.Errorf("delegate session: %w", err)
	}
	session.actor = &actor{req.client.ID, subject.Actor}
	access, expiresIn, err := s.mintAccessToken(session, resource, scopes, req.thumbprint(), ttl)
	if err != nil {
		return nil, err
	}
	return &tokenResponse{AccessToken: access, IssuedTokenType: tokenTypeAccess, TokenType: req.tokenType(), ExpiresIn: expiresIn,
		Scope: scopes.String(), session: session}, nil
}

// checkExchange refuses what we do not do. RFC 8693 section 2.1.
func checkExchange(p parameters) error {
	switch {
	case p["subject_token"] == "":
		return oauth.InvalidRequest("The subject_token is missing.")
	case p["subject_token_type"] != tokenTypeAccess:
		return oauth.InvalidRequest("The subject_token_type must be " + tokenTypeAccess + ".")
	case p["requested_token_type"] != "" && p["requested_token_type"] != tokenTypeAccess:
		return oauth.InvalidRequest("The requested_token_type must be " + tokenTypeAccess + ".")
	case p["actor_token"] != "" || p["actor_token_type"] != "":
		return oauth.InvalidRequest("The actor is the client itself; actor_token is not supported.")
	}
	return nil
}

// subjectToken returns what the token says and its session. The token must be
// for a resource that the service serves: one that it merely got hold of is
// another's.
func (s *Server) subjectToken(ctx context.Context, req tokenRequest) (accessClaims, Session, error) {
	claims, ok := s.readAccessToken(req.params["subject_token"])
	switch {
	case !ok || claims.ExpiresAt <= s.cfg.Tokens.Judging().Unix():
		return accessClaims{}, Session{}, errSubjectToken
	case !slices.Contains(req.client.Introspects, claims.Audience):
		return accessClaims{}, Session{}, errSubjectToken
	case claims.Subject == claims.ClientID: // a client that acts for itself: there is no user
		return accessClaims{}, Session{}, errSubjectToken
	}
	actors := 1
	for a := claims.Actor; a != nil; a = a.Actor {
		actors++
	}
	if actors > maxActors {
		return accessClaims{}, Session{}, oauth.InvalidRequest("The token was passed on too often.")
	}
	session, err := s.liveSession(ctx, claims.SessionID, claims.ClientID)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && session.UserID != claims.Subject:
		return accessClaims{}, Session{}, errSubjectToken
	case err != nil:
		return accessClaims{}, Session{}, err
	}
	return claims, session, nil
}

// exchangeTarget is the resource that the service wants to call, by `resource`
// or `audience`: one that the configuration allows it, the only one if it names
// none. RFC 8693 section 2.1.
func (s *Server) exchangeTarget(req tokenRequest) (string, error) {
	named := req.resources
	if audience := req.params["audience"]; audience != "" {
		named = append(slices.Clone(named), audience)
	}
	if len(named) == 0 && len(req.client.Exchanges) == 1 {
		named = req.client.Exchanges
	}
	if len(named) == 0 {
		return "", oauth.InvalidTarget("Name the resource that the token is for.")
	}
	resource, err := namedResource(s.cfg.Resources(), named)
	if err == nil && !slices.Contains(req.client.Exchanges, resource) {
		err = oauth.InvalidTarget("The client may not call this resource for a user.")
	}
	return resource, err
}

// exchangedScopes are those asked for, or all that fit; never more than the
// token, its session and the service may.
func (s *Server) exchangedScopes(req tokenRequest, subject accessClaims, parent Session, resource string) (oauth.ScopeSet, error) {
	held, err := oauth.ParseScope(subject.Scope)
	if err != nil {
		return nil, errSubjectToken // not ours
	}
	held = s.cfg.Catalog.Expand(held).Intersect(s.cfg.Catalog.Expand(parent.Scopes))
	asked, err := oauth.ParseScope(req.params["scope"])
	if err != nil {
		return nil, err
	}
	if len(asked) == 0 {
		asked = held.Intersect(s.defaultScopes(req.client, resource))
	}
	// Who the user is, the user told the client, not the service.
	if len(asked) == 0 || len(asked.Intersect(oauth.IdentityScopes())) > 0 || !held.ContainsAll(asked) || !s.clientScopes(req.client).ContainsAll(asked) {
		return nil, oauth.InvalidScope("The subject_token does not hold the scope, or the client may not have it.")
	}
	return asked, nil
}
