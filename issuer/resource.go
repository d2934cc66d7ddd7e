package issuer

import (
	"github.com/caddy-scope/caddy-scope/oauth"
)

// selectResource decides what the tokens of a request are for. requested are
// the `resource` parameters. There is never more than one audience: a token
// that two resources accept can be replayed by one against the other.
//
// Without the parameter (GPT Actions send none): the client's own resource;
// else the only one whose rules use all requested scopes; else the issuer's own
// block. RFC 8707 section 2.
//
// Who the user is, is asked of the server itself: a request for identity scopes
// alone is for UserInfo and opens no gate, also where a rule needs no scope.
func (s *Server) selectResource(client *Client, requested []string, scopes oauth.ScopeSet) (string, error) {
	resources := s.cfg.Resources()
	if len(requested) > 0 {
		return namedResource(resources, requested)
	}
	api := scopes.Without(oauth.IdentityScopes())
	if len(scopes) > 0 && len(api) == 0 {
		return s.userInfoResource(), nil
	}
	scopes = api
	if client.Resource != "" {
		return client.Resource, nil
	}
	var fitting []string
	for _, r := range resources {
		if len(scopes) > 0 && r.Scopes.ContainsAll(scopes) {
			fitting = append(fitting, r.Identifier)
		}
	}
	if len(fitting) == 1 {
		return fitting[0], nil
	}
	for _, r := range resources {
		if r.Identifier == s.cfg.Issuer {
			return r.Identifier, nil
		}
	}
	if len(scopes) == 0 && len(resources) == 1 {
		return resources[0].Identifier, nil
	}
	return "", oauth.InvalidTarget("Name the resource that the token is for.")
}

func namedResource(resources []ProtectedResource, requested []string) (string, error) {
	found := ""
	for _, want := range requested {
		if _, err := oauth.ParseRequestedResource(want); err != nil {
			return "", err
		}
		match := ""
		for _, r := range resources {
			if oauth.SameResource(r.Identifier, want) {
				match = r.Identifier
			}
		}
		if match == "" || (found != "" && found != match) {
			return "", oauth.InvalidTarget("The resource is not known here, or more than one is named.")
		}
		found = match
	}
	return found, nil
}

// defaultScopes is what a request without `scope` asks for: all that the
// client may have and the resource uses, or of that what the client named when
// it registered; never who the user is. Trap 13.
func (s *Server) defaultScopes(client *Client, resource string) oauth.ScopeSet {
	allowed := s.clientScopes(client).Without(oauth.IdentityScopes())
	for _, r := range s.cfg.Resources() {
		if r.Identifier == resource {
			allowed = allowed.Intersect(r.Scopes)
		}
	}
	if named := allowed.Intersect(client.DefaultScopes); len(named) > 0 {
		return named
	}
	return allowed
}

// clientScopes is what the client may get: what it registered for, as far as
// the policies let it.
func (s *Server) clientScopes(client *Client) oauth.ScopeSet {
	scopes := s.registeredScopes(client)
	if client.Ceiling != nil {
		scopes = scopes.Intersect(s.cfg.Catalog.Expand(client.Ceiling))
	}
	return scopes
}

// registeredScopes is what the client may ask for.
func (s *Server) registeredScopes(client *Client) oauth.ScopeSet {
	if client.Scopes == nil || client.SelfRegistered() {
		all := s.cfg.Catalog.Names().Without(s.appsScopes()) // never by asking for all there is
		if client.Scopes == nil {
			return all
		}
		return client.Scopes.Intersect(all)
	}
	return client.Scopes.Intersect(s.cfg.Catalog.Names())
}

// readScopeAndResource reads what a request asks for: scopes of the client, for
// one resource. RFC 6749 section 3.3, RFC 8707 section 2.
func (s *Server) readScopeAndResource(client *Client, p parameters, resources []string) (oauth.ScopeSet, string, error) {
	scopes, err := oauth.ParseScope(p["scope"])
	if err != nil {
		return nil, "", err
	}
	// Accepted and without effect: whether a refresh token is issued is decided
	// by the client's grants (trap 14).
	scopes = scopes.Without(oauth.NewScopeSet("offline_access"))
	if !s.registeredScopes(client).ContainsAll(scopes) {
		return nil, "", oauth.InvalidScope("A requested scope is unknown or not for this client.")
	}
	// Clients ask for all that a resource names, whoever they are; under a policy
	// they get what it leaves, and are told so (RFC 6749 section 3.3).
	if narrowed := scopes.Intersect(s.clientScopes(client)); len(scopes) > 0 {
		if scopes = narrowed; len(scopes) == 0 {
			return nil, "", oauth.InvalidScope("No requested scope is for this client.")
		}
	}
	if forApps, err := s.forApps(client, scopes, resources); forApps || err != nil {
		return s.appsScopes(), s.appsResource(), err
	}
	resource, err := s.selectResource(client, resources, scopes)
	if err != nil {
		return nil, "", err
	}
	if len(scopes) == 0 {
		scopes = s.defaultScopes(client, resource)
	}
	if len(scopes) == 0 {
		return nil, "", oauth.InvalidScope("There is no scope that this client may have for the resource.")
	}
	return scopes, resource, nil
}
