package jobboard

import (
	"net/http"

	"github.com/caddy-scope/caddy-scope/identity"
)

// Guarded is the API for those who come through the gate, if there is one.
func (b *Board) Guarded(api http.Handler) http.Handler {
	if b.Gate == nil {
		return api
	}
	return b.Gate.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := identity.FromContext(r.Context())
		r.Header.Del("X-User-Id") // whoever set it
		if caller.UserID != "" {
			r.Header.Set("X-User-Id", caller.UserID)
		}
		api.ServeHTTP(w, r)
	}))
}
