package issuer

import (
	"math"
	"net/http"
	"time"
)

// skewShown is the difference of the clocks of node and database that whoever
// looks at the readiness check should know of.
const skewShown = 2 * time.Second

// handleLive says that the process serves.
func (s *Server) handleLive(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "live"})
}

// handleReady says whether this node can serve now. Why not is for the log.
func (s *Server) handleReady(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(r.Context()); err != nil {
			s.logError(r, err)
			w.Header().Set("Retry-After", "1")
			writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready"})
			return
		}
	}
	ready := map[string]any{"status": "ready"}
	// A node whose clock differs still serves; if it is the database's that is
	// wrong, all of them do.
	if skew := s.cfg.Tokens.Skew(); skew.Abs() > skewShown {
		ready["clock_skew_seconds"] = math.Round(skew.Seconds())
	}
	writeJSON(w, http.StatusOK, ready)
}
