package issuer

import (
	"net/url"
	"slices"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// Route is what a scope rule opens, as users see it.
type Route struct {
	// Name is a method and a path pattern, such as "GET /jobs/*", or the name of a
	// tool.
	Name string
	Tool bool
	// Scopes are needed, all of them; with Any one of them suffices.
	Scopes oauth.ScopeSet
	Any    bool
	User   []oauth.UserRequirement // asked of the user besides
}

// maxRoutes bounds what is shown for one scope.
const maxRoutes = 40

// scopeLine is one thing that a client asks for.
type scopeLine struct {
	Words    string
	Includes []string // what else it brings, in words
	Link     string   // where to learn more; empty: nowhere
	Routes   []Route  // what can be called with it
	More     int      // routes that are not shown
	// Field is that of the checkbox; empty: it cannot be left out.
	Field string
}

// scopeField begins the names of checkboxes: what is left out of the form is not
// granted.
const scopeField = "scope."

// askedLines are the lines of what the page asks for: the scopes that the client
// named, each with what it implies.
func (s *Server) askedLines(words *words, req *AuthorizationRequest, c consideration) []scopeLine {
	optional := s.optionalScopes(req, c)
	routes := s.callable(req, c)
	var lines []scopeLine
	for _, scope := range s.cfg.Catalog.Scopes() {
		if !c.asked.Contains(scope.Name) || !req.Scopes.Contains(scope.Name) {
			continue
		}
		brings := s.cfg.Catalog.Expand(oauth.NewScopeSet(scope.Name)).Intersect(c.asked)
		line := scopeLine{Words: words.scope(scope), Link: scope.Link}
		line.Includes = s.inWords(words, brings.Without(req.Scopes))
		for _, route := range routes {
			if !slices.ContainsFunc(route.Scopes, brings.Contains) {
				continue
			}
			if len(line.Routes) == maxRoutes {
				line.More++
				continue
			}
			line.Routes = append(line.Routes, route)
		}
		if optional.Contains(scope.Name) {
			line.Field = scopeField + scope.Name
		}
		lines = append(lines, line)
	}
	return lines
}

// callable are the routes that the whole request would open.
func (s *Server) callable(req *AuthorizationRequest, c consideration) []Route {
	if req.Resource == s.appsResource() {
		return []Route{{Name: "GET " + appsAPIPath, Scopes: s.appsScopes()}, {Name: "DELETE " + appsAPIPath, Scopes: s.appsScopes()},
			{Name: "DELETE " + appsAPIPath + "/*", Scopes: s.appsScopes()}, {Name: "POST " + appsAPIPath + "/*", Scopes: s.appsScopes()}}
	}
	if s.cfg.Routes == nil {
		return nil
	}
	return slices.DeleteFunc(s.cfg.Routes(req.Resource), func(route Route) bool {
		if !oauth.UserMeets(route.User, c.claims) {
			return true
		}
		if route.Any {
			return !slices.ContainsFunc(route.Scopes, c.requested.Contains)
		}
		return !c.requested.ContainsAll(route.Scopes)
	})
}

// optionalScopes are those of the request that the user may leave out: declared
// so, new, and brought by nothing that must stay.
func (s *Server) optionalScopes(req *AuthorizationRequest, c consideration) oauth.ScopeSet {
	var optional, required oauth.ScopeSet
	for _, name := range req.Scopes.Intersect(c.asked) {
		if scope, _ := s.cfg.Catalog.Lookup(name); scope.Optional {
			optional = append(optional, name)
		} else {
			required = append(required, name)
		}
	}
	return optional.Without(s.cfg.Catalog.Expand(required))
}

// grantedScopes are the scopes of the request that the form leaves in. What the
// user has left out is not granted, neither by another scope that would bring it.
func (s *Server) grantedScopes(req *AuthorizationRequest, c consideration, form url.Values) oauth.ScopeSet {
	var left oauth.ScopeSet
	for _, name := range s.optionalScopes(req, c) {
		if !form.Has(scopeField + name) {
			left = append(left, name)
		}
	}
	var granted oauth.ScopeSet
	for _, name := range req.Scopes {
		if brings := s.cfg.Catalog.Expand(oauth.NewScopeSet(name)); len(brings.Intersect(left)) == 0 {
			granted = append(granted, name)
		}
	}
	return granted
}
