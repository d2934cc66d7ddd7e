package issuer

import (
	"errors"
	"net/http"
	"slices"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// Tally is told what the endpoints did, for metrics. No word of a request is
// among its arguments: each has few values, all of them the server's own.
type Tally interface {
	// Granted tells how a request for tokens ended whose client is authenticated.
	// grantType is one of GrantTypes, or "other". outcome is "issued", "replayed" (a
	// code or refresh token that was used before) or the code of the error.
	Granted(grantType, outcome string)
	// Refused tells of a request that an endpoint did not do. endpoint is its path;
	// reason the code of the error, "throttled", or the key of the page that told a
	// person.
	Refused(endpoint, reason string)
	// SignedIn tells how an attempt to sign in ended. method is what gpt_logins
	// calls it; outcome "succeeded", "failed", "throttled" or "unavailable".
	SignedIn(method, outcome string)
}

// The outcomes of Tally that are no error codes.
const (
	outcomeIssued      = "issued"
	outcomeReplayed    = "replayed"
	outcomeThrottled   = "throttled"
	outcomeSucceeded   = "succeeded"
	outcomeFailed      = "failed"
	outcomeUnavailable = "unavailable"
)

type noTally struct{}

func (noTally) Granted(string, string)  {}
func (noTally) Refused(string, string)  {}
func (noTally) SignedIn(string, string) {}

// tallyGrant counts the answer to a request for tokens.
func (s *Server) tallyGrant(grantType string, err error) {
	if !slices.Contains(GrantTypes(), grantType) {
		grantType = "other"
	}
	outcome := outcomeIssued
	switch {
	case errors.Is(err, errRefreshReplayed), errors.Is(err, errCodeReplayed):
		outcome = outcomeReplayed
	case err != nil:
		outcome = reasonOf(err)
	}
	s.cfg.Tally.Granted(grantType, outcome)
}

// tallyRefusal counts a request that was not done.
func (s *Server) tallyRefusal(r *http.Request, reason string) { s.cfg.Tally.Refused(r.Pattern, reason) }

// tallyFailedLogin counts an attempt that signed nobody in, because of err. nil: it
// goes on.
func (s *Server) tallyFailedLogin(method string, err error) {
	outcome := outcomeUnavailable
	var throttled *throttledError
	switch {
	case err == nil:
		return
	case errors.As(err, &throttled):
		outcome = outcomeThrottled
	case errors.Is(err, ErrNotFound), errors.Is(err, errCode):
		outcome = outcomeFailed
	}
	s.cfg.Tally.SignedIn(method, outcome)
}

// reasonOf is what an error counts as.
func reasonOf(err error) string {
	var e *oauth.Error
	var throttled *throttledError
	switch {
	case errors.As(err, &throttled):
		return outcomeThrottled
	case errors.As(err, &e):
		return e.Code
	}
	return oauth.CodeTemporarilyUnavailable
}
