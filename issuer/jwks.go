package issuer

import (
	"net/http"
)

// handleJWKS serves the public keys. RFC 7517 section 5.
func (s *Server) handleJWKS(w http.ResponseWriter, r *http.Request) {
	writeCacheable(w, r, s.cfg.Keys.keys.Load().jwks)
}
