package issuer

import (
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// errAssertionGrant tells nothing of why: that is for the log.
var errAssertionGrant = oauth.InvalidGrant("The assertion is invalid, expired, used before, or not for this client.")

// grantIdentityAssertion gives a client a token for the user whom an identity
// provider names, by the provider's word and without asking the user. There is
// no refresh token: the client asks its provider again, which can say no.
// RFC 7523 section 2.1, draft-ietf-oauth-identity-assertion-authz-grant section 4.4.
func (s *Server) grantIdentityAssertion(r *http.Request, req tokenRequest) (*tokenResponse, error) {
	// A public client has nothing to prove who it is with, and no user looks.
	if !req.client.Confidential() {
		return nil, errGrantNotAllowed
	}
	if req.params["assertion"] == "" {
		return nil, oauth.InvalidRequest("The assertion is missing.")
	}
	refuse := func(provider string, cause error) error {
		s.audit(r, "assertion refused", zap.String("client_id", req.client.ID), zap.String("provider", provider), zap.Error(cause))
		return errAssertionGrant
	}
	// 1. The assertion: by a provider that we trust, about this client, for us.
	a, err := readIdentityAssertion(req.params["assertion"])
	if err != nil {
		return nil, refuse("", err)
	}
	provider := s.providers[a.Issuer]
	if provider == nil {
		return nil, refuse("", errors.New("iss is no configured identity provider"))
	}
	signed, err := a.signedBy(r.Context(), provider)
	if err != nil {
		return nil, err
	}
	if !signed {
		return nil, refuse(a.Issuer, errors.New("no key of the provider verifies the signature"))
	}
	if err := a.hold(s.cfg.Issuer, req.client.ID, provider, s.cfg.Now()); err != nil {
		return nil, refuse(a.Issuer, err)
	}
	if key, err := a.boundTo(); err != nil || key != "" && key != req.thumbprint() {
		return nil, refuse(a.Issuer, errors.Join(errors.New("the key that it is bound to is not proven"), err))
	}
	// 2. The user.
	user, err := provider.User(a.claims)
	if err != nil {
		return nil, refuse(a.Issuer, err)
	}
	user.Authority, user.Subject = a.Issuer, a.Subject
	if err := checkExternalUser(user); err != nil {
		return nil, refuse(a.Issuer, err)
	}
	if !s.cfg.OpenID {
		user.Profile = nil
	}
	// 3. What for: never more than the assertion says, and the client may.
	scopes, resource, err := s.assertedScopeAndResource(req, &a)
	if err != nil {
		return nil, err
	}
	// 4. The session, and the assertion used up, in one transaction.
	ttl := s.accessTokenTTL(req.client)
	session, err := s.cfg.Store.AssertSession(r.Context(), AssertedSession{
		Assertion: a.digest(), AssertionTTL: identityAssertionTTL + 2*clockSkew, User: user, KnownUsersOnly: provider.KnownUsersOnly,
		ClientID: req.client.ID, Resource: resource, Scopes: scopes, TTL: clientSessionTTL + ttl, AccessTokenTTL: ttl,
	}, req.origin)
	switch {
	case errors.Is(err, ErrReplayed), errors.Is(err, ErrNotFound), errors.Is(err, ErrExists):
		return nil, refuse(a.Issuer, err)
	case err != nil:
		return nil, fmt.Errorf("assert session: %w", err)
	}
	session.AuthTime = user.AuthTime // as the provider says, or nobody knows
	access, expiresIn, err := s.mintAccessToken(session, resource, scopes, req.thumbprint(), ttl)
	if err != nil {
		return nil, err
	}
	response := &tokenResponse{AccessToken: access, TokenType: req.tokenType(), ExpiresIn: expiresIn, Scope: scopes.String(), session: session}
	if len(a.Resources) > 0 {
		response.Resource = resource
	}
	return response, nil
}

// assertedScopeAndResource is what the token is for: what the client asks for, or
// else what the assertion names, as far as the assertion and the configuration
// let it. An assertion without scope allows none by itself, since no user is
// asked: the client must name what it wants.
func (s *Server) assertedScopeAndResource(req tokenRequest, a *identityAssertion) (oauth.ScopeSet, string, error) {
	asked, err := oauth.ParseScope(req.params["scope"])
	if err != nil {
		return nil, "", err
	}
	asked = asked.Without(oauth.NewScopeSet("offline_access"))
	may := s.cfg.Catalog.Expand(s.clientScopes(req.client)).Without(oauth.IdentityScopes())
	if a.Scope != nil {
		named, err := oauth.ParseScope(*a.Scope)
		if err != nil {
			return nil, "", errAssertionGrant
		}
		may = may.Intersect(s.cfg.Catalog.Expand(named))
		if len(asked) == 0 {
			asked = named.Intersect(may)
		}
	}
	if len(asked) == 0 || !may.ContainsAll(asked) {
		return nil, "", oauth.InvalidScope("The assertion does not hold the scope, or the client may not have it.")
	}
	resource, err := s.assertedResource(req, a, asked)
	return asked, resource, err
}

// assertedResource is the one that the request names, else the one that the
// assertion does, else the one that is chosen without a name.
func (s *Server) assertedResource(req tokenRequest, a *identityAssertion, scopes oauth.ScopeSet) (string, error) {
	named := req.resources
	if len(named) == 0 {
		// Of several, those that are here: the others are for other servers.
		for _, r := range s.cfg.Resources() {
			if len(a.Resources) > 0 && a.namesResource(func(name string) bool { return oauth.SameResource(r.Identifier, name) }) {
				named = append(named, r.Identifier)
			}
		}
	}
	resource, err := s.selectResource(req.client, named, scopes)
	if err == nil && !a.namesResource(func(name string) bool { return oauth.SameResource(resource, name) }) {
		err = oauth.InvalidTarget("The assertion is not for this resource.")
	}
	return resource, err
}
