package issuer

import (
	"slices"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// errNothingOpen: of all that the client asks for, the user can have nothing.
var errNothingOpen = &oauth.Error{Code: oauth.CodeAccessDenied, Description: "The user can have none of the requested scopes."}

// narrowToUser leaves the scopes of the request that the user can have, and
// returns what it took out. What the client wanted is kept: another user may sign
// in for the same request, who can have more.
func (s *Server) narrowToUser(req *AuthorizationRequest, login Login) (closed oauth.ScopeSet) {
	if req.Wanted != nil {
		req.Scopes, req.Wanted = req.Wanted, nil
	}
	closed = s.closedTo(req, login.Claims)
	if len(closed.Intersect(req.Scopes)) == 0 {
		return nil
	}
	req.Wanted = req.Scopes
	req.Scopes = s.withoutClosed(req.Scopes, closed)
	return req.Wanted.Without(req.Scopes)
}

// withoutClosed returns the scopes without those that are closed, of which what
// they include stays, if that is open.
func (s *Server) withoutClosed(scopes, closed oauth.ScopeSet) oauth.ScopeSet {
	left := scopes.Without(closed)
	return left.Union(s.cfg.Catalog.Expand(scopes.Intersect(closed)).Without(closed).Without(s.cfg.Catalog.Expand(left)))
}

// closedTo returns the scopes of the resource that open nothing to a user with
// these claims: each route that names them asks for something else of the user.
func (s *Server) closedTo(req *AuthorizationRequest, claims oauth.UserClaims) oauth.ScopeSet {
	if s.cfg.Routes == nil {
		return nil
	}
	var open, closed oauth.ScopeSet
	for _, route := range s.cfg.Routes(req.Resource) {
		if oauth.UserMeets(route.User, claims) {
			open = append(open, route.Scopes...)
		} else {
			closed = append(closed, route.Scopes...)
		}
	}
	return oauth.NewScopeSet(slices.Compact(closed)...).Without(oauth.NewScopeSet(open...))
}
