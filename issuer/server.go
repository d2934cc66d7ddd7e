package issuer

import (
	"net/http"
)

// Server is the authorization server.
type Server struct {
	cfg      Config
	password *passwordLogin
}

// New checks the configuration, fills its defaults and returns the server.
func New(cfg Config) (*Server, error) {
	return &Server{cfg: cfg, password: newPasswordLogin(cfg.Now)}, nil
}

// Handles reports whether path belongs to the server: /oauth/* and the
// well-known documents. Everything else is somebody else's.
func Handles(path string) bool { return false }

// ServeHTTP answers every path that Handles reports; others with 404.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	http.NotFound(w, r)
}
