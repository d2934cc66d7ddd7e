package caddymodule

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// Server answers the endpoints of the authorization server: /oauth/* and the
// well-known documents of RFC 8414, RFC 9728 and OpenID Connect Discovery. Every other request goes on.
type Server struct {
	// Metadata limits it to the metadata of protected resources (RFC 9728), for a
	// site whose gate has a resource of another origin than the issuer. Default:
	// false.
	Metadata bool `json:"metadata,omitempty"`

	// Source is where the directive was written, such as "Caddyfile:30"; errors
	// name it.
	Source string `json:"source,omitempty"`

	app *App
}

// CaddyModule returns the Caddy module information.
func (Server) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.oauth_server", New: func() caddy.Module { return new(Server) }}
}

// parseServer reads
//
//	oauth_server [metadata]
func parseServer(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next() // the name of the directive
	s := &Server{Source: source(h.Dispenser)}
	if h.NextArg() {
		if h.Val() != "metadata" {
			return nil, h.Errf("oauth_server: %q is not metadata", h.Val())
		}
		s.Metadata = true
	}
	if h.NextArg() || h.NextBlock(0) {
		return nil, h.Errf("oauth_server: unexpected %q", h.Val())
	}
	return s, nil
}

// Provision finds the app and checks the routes.
func (s *Server) Provision(ctx caddy.Context) error {
	app, err := loadApp(ctx, s.Source, "oauth_server")
	if err != nil {
		return err
	}
	s.app = app
	if app.Remote != nil && !s.Metadata {
		return atSource(s.Source, "oauth_server", errors.New("the authorization server is elsewhere (remote), and this Caddy only gates: write oauth_server metadata, or remove the line"))
	}
	_, err = app.surveyRoutes(ctx)
	return err
}

// isResourceMetadata reports whether path is that of a document of RFC 9728.
func isResourceMetadata(path string) bool {
	rest, ok := strings.CutPrefix(path, oauth.WellKnownProtectedResource)
	return ok && (rest == "" || rest[0] == '/')
}

// ServeHTTP answers what belongs to the authorization server.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !issuer.Handles(s.app.issuer, r.URL.Path) || (s.Metadata && !isResourceMetadata(r.URL.Path)) {
		return next.ServeHTTP(w, r)
	}
	s.app.requests.Add(1)
	defer s.app.requests.Add(-1)
	if s.app.rehearsal != nil {
		s.app.rehearsal.answeredBy(r, s.Source)
		if s.app.runtime.server == nil {
			return nil
		}
	}
	if s.app.Remote != nil {
		s.app.serveRemoteMetadata(w, r)
		return nil
	}
	if err := s.app.awaitStart(r.Context()); err != nil {
		// Retry-After, and no 4xx: clients would drop their tokens.
		w.Header().Set("Retry-After", "2")
		w.Header().Set("Cache-Control", "no-store")
		return caddyhttp.Error(http.StatusServiceUnavailable, fmt.Errorf("oauth_server: %w", err))
	}
	server := s.app.runtime.server
	if origin, ok := s.app.otherOrigin(r); ok && isResourceMetadata(r.URL.Path) {
		server.ResourceMetadata(origin).ServeHTTP(w, r)
		return nil
	}
	r, end := traceToken(r)
	defer end()
	server.ServeHTTP(w, r)
	return nil
}

// traceToken begins a span for a request of the token endpoint, below the one
// that Caddy's directive `tracing` has begun; without it, nothing.
func traceToken(r *http.Request) (*http.Request, func()) {
	if r.URL.Path != "/oauth/token" {
		return r, func() {}
	}
	parent := trace.SpanFromContext(r.Context())
	if !parent.IsRecording() {
		return r, func() {}
	}
	ctx, span := parent.TracerProvider().Tracer("github.com/caddy-scope/caddy-scope/caddymodule").Start(r.Context(), "oauth: token")
	return r.WithContext(ctx), func() { span.End() }
}

// otherOrigin returns the origin of resources that the request's host names,
// when it is not the issuer's. The host only chooses among configured
// documents; nothing of it stands in one.
func (a *App) otherOrigin(r *http.Request) (string, bool) {
	asked := hostname(r.Host)
	if strings.EqualFold(asked, a.issuerURL.Hostname()) {
		return "", false
	}
	for _, resource := range a.protectedResources() {
		origin := oauth.Origin(resource.Identifier)
		if u, err := url.Parse(origin); err == nil && strings.EqualFold(u.Hostname(), asked) {
			return origin, true
		}
	}
	return "", false
}

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Server)(nil)
	_ caddyhttp.MiddlewareHandler = (*Server)(nil)
)
