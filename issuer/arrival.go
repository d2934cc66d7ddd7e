package issuer

import (
	"errors"
	"net/http"
	"os"
	"time"
)

// defaultBodyTimeout is how long the body of a request may take to arrive: some
// kilobytes of a form, also over a bad line.
const defaultBodyTimeout = 10 * time.Second

// boundArrival gives the body of the request a time to be here. Caddy sets none
// unless it is told to, and anybody may ask these endpoints: a caller who sends a
// byte now and then would hold a connection and a request for ever. It holds for
// bodies that nobody reads too, which the server waits for before it answers; the
// answer itself may take longer. SECURITY-CASES T-26.
func boundArrival(w http.ResponseWriter, r *http.Request, timeout time.Duration) {
	if r.ContentLength != 0 {
		// The error: there is no connection behind w.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout))
	}
}

// unreadStatus is the status for a form that could not be read.
func unreadStatus(err error) int {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return http.StatusRequestTimeout
	}
	return http.StatusBadRequest
}
