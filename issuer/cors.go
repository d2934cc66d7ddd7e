package issuer

import (
	"net/http"
	"strings"
)

// withCORS opens an endpoint to browser clients of any origin, without
// credentials, and answers preflights before anything else. It is never put
// around authorize, consent or login. RFC 9700 section 2.6, trap 4.
func withCORS(next http.HandlerFunc, methods ...string) http.HandlerFunc {
	allowed := strings.Join(append(methods, http.MethodOptions), ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce, Retry-After, RateLimit, RateLimit-Policy")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", allowed)
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, MCP-Protocol-Version, Mcp-Method, Mcp-Name, DPoP")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next(w, r)
	}
}
