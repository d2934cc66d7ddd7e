package validator

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// Refusal is a request that may not pass. It implements error; its text holds
// nothing the request brought.
type Refusal struct {
	// Status is the HTTP status: 400, 401, 403, 405, 429 or 503; for messages to an MCP
	// server also 413 or 415.
	Status int
	// Code is the error code of RFC 6750 section 3.1 or RFC 9449 section 7.1, or
	// access_denied (no rule), rate_limited (429), temporarily_unavailable (503), or
	// empty (no credentials).
	Code string
	// Description is fixed text.
	Description string
	// Scopes are all that the operation needs. RFC 6750 section 3.
	Scopes oauth.ScopeSet
	// MetadataURL is where a client learns how to get a token. RFC 9728
	// section 5.1. Empty: no Bearer challenge is sent.
	MetadataURL string
	// Rule that refused; nil: none matched, or none was looked for.
	Rule *Rule
	// Observe is that of the rule which the request came under.
	Observe bool
	// Tool that has no rule, cut to 128 bytes. Empty: it is not about one.
	Tool string
	// Limits is the rate that is exhausted (429); else nil.
	Limits []ratelimit.State
	// Identity is who was refused with insufficient_scope, because the user may not,
	// or by a rate; else zero.
	Identity Identity
	// Cause is for the log.
	Cause error

	dpop  bool      // the challenge is of scheme DPoP, not Bearer
	nonce string    // for DPoP-Nonce; empty: none
	rpc   *rpcError // the body is a JSON-RPC error; nil: it is not
}

func (r *Refusal) Error() string {
	if r.Cause != nil {
		return r.Code + ": " + r.Description + ": " + r.Cause.Error()
	}
	return r.Code + ": " + r.Description
}

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Cause }

func badRequest(description string, cause error) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Code: oauth.CodeInvalidRequest, Description: description, Cause: cause}
}

func methodNotAllowed() *Refusal {
	return &Refusal{Status: http.StatusMethodNotAllowed, Code: oauth.CodeInvalidRequest, Description: "The method is not known here."}
}

func noRule() *Refusal {
	return &Refusal{Status: http.StatusForbidden, Code: oauth.CodeAccessDenied, Description: "Nothing here is open to API clients."}
}

func noCredentials() *Refusal {
	return &Refusal{Status: http.StatusUnauthorized, Description: "An access token is needed."}
}

func invalidToken(cause error) *Refusal {
	return &Refusal{
		Status: http.StatusUnauthorized, Code: oauth.CodeInvalidToken,
		Description: "The access token is invalid, expired or revoked.", Cause: cause,
	}
}

func insufficientScope() *Refusal {
	return &Refusal{
		Status: http.StatusForbidden, Code: oauth.CodeInsufficientScope,
		Description: "The access token does not hold every scope that this operation needs.",
	}
}

// userNotAllowed has no challenge: a client that asked for another scope would ask
// in vain.
func userNotAllowed() *Refusal {
	return &Refusal{Status: http.StatusForbidden, Code: oauth.CodeAccessDenied, Description: "The user may not do this."}
}

func unconfirmed(cause error) *Refusal {
	return &Refusal{
		Status: http.StatusServiceUnavailable, Code: oauth.CodeTemporarilyUnavailable,
		Description: "The session cannot be confirmed right now. Try again shortly.", Cause: cause,
	}
}

// WriteRefusalHeader sets the header fields of the answer to a refused
// request, without writing it: for a server that renders the body itself.
func WriteRefusalHeader(header http.Header, refusal *Refusal) {
	header.Set("Cache-Control", "no-store")
	// Browser clients must be able to read the challenge. No credentials are
	// allowed with "*", so nothing private is opened.
	header.Set("Access-Control-Allow-Origin", "*")
	header.Set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce, Retry-After, RateLimit, RateLimit-Policy")
	if challenge := refusal.challenge(); challenge != "" {
		header.Set("WWW-Authenticate", challenge)
	}
	if refusal.nonce != "" {
		header.Set("DPoP-Nonce", refusal.nonce)
	}
	switch refusal.Status {
	case http.StatusTooManyRequests:
		ratelimit.SetHeader(header, refusal.Limits)
	case http.StatusServiceUnavailable:
		// Spread, so that clients do not all come back in one moment.
		header.Set("Retry-After", strconv.Itoa(1+rand.IntN(3)))
	case http.StatusMethodNotAllowed:
		header.Set("Allow", strings.Join(methods[:], ", "))
	}
}

// WriteRefusal answers a refused request. DESIGN: answers of the gate.
func WriteRefusal(w http.ResponseWriter, r *http.Request, refusal *Refusal) {
	WriteRefusalHeader(w.Header(), refusal)
	body := refusal.body()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(refusal.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// RefusalBody returns the body that WriteRefusal writes.
func RefusalBody(r *http.Request, refusal *Refusal) string {
	if r.Method == http.MethodHead {
		return ""
	}
	return string(refusal.body())
}

func (r *Refusal) body() []byte {
	if r.rpc != nil {
		return r.messageBody()
	}
	body, _ := json.Marshal(struct { // strings only: cannot fail
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{r.bodyCode(), r.Description})
	return body
}

// bodyCode is the code in the JSON body, which has one even where the
// challenge must not.
func (r *Refusal) bodyCode() string {
	if r.Code == "" {
		return oauth.CodeInvalidToken
	}
	return r.Code
}

// challenge is the challenge of the scheme that the client used, Bearer if it
// used none (the metadata tells of the other), or "" where none belongs: the error says
// nothing about a token, or no rule matched and no token would help.
// RFC 6750 section 3, RFC 9449 section 7.1, RFC 9728 section 5.1.
func (r *Refusal) challenge() string {
	if r.MetadataURL == "" || r.Status == http.StatusServiceUnavailable ||
		r.Status == http.StatusMethodNotAllowed || r.Status == http.StatusTooManyRequests || r.Code == oauth.CodeAccessDenied || r.isAboutMessage() {
		return ""
	}
	var b strings.Builder
	if r.dpop {
		b.WriteString(`DPoP algs="` + dpopAlgorithms + `", `)
	} else {
		b.WriteString("Bearer ")
	}
	if r.Code != "" {
		b.WriteString(`error="` + r.Code + `", error_description="` + r.Description + `", `)
	}
	if len(r.Scopes) > 0 && (r.Code == "" || r.Code == oauth.CodeInsufficientScope) {
		b.WriteString(`scope="` + r.Scopes.String() + `", `)
	}
	b.WriteString(`resource_metadata="` + r.MetadataURL + `"`)
	return b.String()
}
