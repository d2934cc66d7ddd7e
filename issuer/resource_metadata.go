package issuer

import (
	"net/http"
	"strings"
	"time"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// resourceMetadata is the RFC 9728 document.
type resourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	ScopesSupported      []string `json:"scopes_supported,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported"`
	DPoPAlgorithms       []string `json:"dpop_signing_alg_values_supported,omitempty"`
	Name                 string   `json:"resource_name,omitempty"`
}

// handleResourceMetadata serves RFC 9728 metadata for every resource of the
// issuer's origin.
func (s *Server) handleResourceMetadata(w http.ResponseWriter, r *http.Request) {
	s.serveResourceMetadata(w, r, oauth.Origin(s.cfg.Issuer))
}

// ResourceMetadata answers RFC 9728 metadata for the resources of an origin
// other than the issuer's, at which nothing else of the server stands.
func (s *Server) ResourceMetadata(origin string) http.Handler {
	return documentAlone(s.cfg.BodyTimeout, func(w http.ResponseWriter, r *http.Request) { s.serveResourceMetadata(w, r, origin) })
}

// documentAlone serves a document where no Server answers.
func documentAlone(bodyTimeout time.Duration, serve http.HandlerFunc) http.Handler {
	answer := onlyMethods(withCORS(serve, http.MethodGet), http.MethodGet, http.MethodOptions)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		boundArrival(w, r, bodyTimeout)
		answer.ServeHTTP(w, r)
	})
}

// serveResourceMetadata serves each resource of the origin at the path made
// from its identifier, and at the root if the origin itself is one, or there is
// only one. Clients that keep the slash of what their user typed find it too.
func (s *Server) serveResourceMetadata(w http.ResponseWriter, r *http.Request, origin string) {
	path := strings.TrimSuffix(r.URL.Path, "/")
	if s.cfg.AppsScope != "" && oauth.ResourceMetadataURL(s.appsResource()) == origin+path {
		s.writeResource(w, r, ProtectedResource{Identifier: s.appsResource(), Scopes: s.appsScopes()})
		return
	}
	if resource, ok := resourceAt(s.cfg.Resources(), origin, path); ok {
		s.writeResource(w, r, resource)
		return
	}
	http.NotFound(w, r)
}

// resourceAt returns the resource whose metadata are at the path.
func resourceAt(resources []ProtectedResource, origin, path string) (ProtectedResource, bool) {
	var here []ProtectedResource
	for _, resource := range resources {
		if oauth.Origin(resource.Identifier) != origin {
			continue
		}
		if oauth.ResourceMetadataURL(resource.Identifier) == origin+path {
			return resource, true
		}
		here = append(here, resource)
	}
	if path == oauth.WellKnownProtectedResource && len(here) == 1 {
		return here[0], true
	}
	return ProtectedResource{}, false
}

func (s *Server) writeResource(w http.ResponseWriter, r *http.Request, resource ProtectedResource) {
	m := metadataOf(s.cfg.Issuer, resource)
	m.DPoPAlgorithms = dpop.Algorithms
	writeDocument(w, r, m)
}

func metadataOf(issuer string, resource ProtectedResource) resourceMetadata {
	return resourceMetadata{
		Resource: resource.Identifier, AuthorizationServers: []string{issuer},
		ScopesSupported: resource.Scopes, BearerMethods: []string{"header"}, Name: resource.Name,
	}
}

// ResourceMetadata answers RFC 9728 metadata for the resources of an origin where
// the issuer is elsewhere. Proofs of possession are not checked there.
func ResourceMetadata(issuer string, resources func() []ProtectedResource, origin string) http.Handler {
	return documentAlone(defaultBodyTimeout, func(w http.ResponseWriter, r *http.Request) {
		resource, ok := resourceAt(resources(), origin, strings.TrimSuffix(r.URL.Path, "/"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		writeDocument(w, r, metadataOf(issuer, resource))
	})
}
