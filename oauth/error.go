package oauth

import "net/http"

// Error codes a client may hear.
const (
	CodeInvalidRequest           = "invalid_request"               // RFC 6749 section 5.2
	CodeInvalidClient            = "invalid_client"                // RFC 6749 section 5.2
	CodeInvalidGrant             = "invalid_grant"                 // RFC 6749 section 5.2
	CodeUnauthorizedClient       = "unauthorized_client"           // RFC 6749 section 5.2
	CodeUnsupportedGrantType     = "unsupported_grant_type"        // RFC 6749 section 5.2
	CodeInvalidScope             = "invalid_scope"                 // RFC 6749 section 5.2
	CodeAccessDenied             = "access_denied"                 // RFC 6749 section 4.1.2.1
	CodeUnsupportedResponseType  = "unsupported_response_type"     // RFC 6749 section 4.1.2.1
	CodeServerError              = "server_error"                  // RFC 6749 section 4.1.2.1
	CodeTemporarilyUnavailable   = "temporarily_unavailable"       // RFC 6749 section 4.1.2.1
	CodeAuthorizationPending     = "authorization_pending"         // RFC 8628 section 3.5
	CodeSlowDown                 = "slow_down"                     // RFC 8628 section 3.5
	CodeExpiredToken             = "expired_token"                 // RFC 8628 section 3.5
	CodeInvalidTarget            = "invalid_target"                // RFC 8707 section 2
	CodeInvalidToken             = "invalid_token"                 // RFC 6750 section 3.1
	CodeInvalidDPoPProof         = "invalid_dpop_proof"            // RFC 9449 section 5
	CodeUseDPoPNonce             = "use_dpop_nonce"                // RFC 9449 section 8
	CodeInsufficientScope        = "insufficient_scope"            // RFC 6750 section 3.1
	CodeUnsupportedTokenType     = "unsupported_token_type"        // RFC 7009 section 2.2.1
	CodeRequestNotSupported      = "request_not_supported"         // OpenID Connect Core section 3.1.2.6
	CodeRequestURINotSupported   = "request_uri_not_supported"     // OpenID Connect Core section 3.1.2.6
	CodeRegistrationNotSupported = "registration_not_supported"    // OpenID Connect Core section 3.1.2.6
	CodeInvalidRedirectURI       = "invalid_redirect_uri"          // RFC 7591 section 3.2.2
	CodeInvalidClientMetadata    = "invalid_client_metadata"       // RFC 7591 section 3.2.2
	CodeUnapprovedStatement      = "unapproved_software_statement" // RFC 7591 section 3.2.2
	CodeLoginRequired            = "login_required"                // OpenID Connect Core section 3.1.2.6
	CodeConsentRequired          = "consent_required"              // OpenID Connect Core section 3.1.2.6
	CodeRateLimited              = "rate_limited"                  // ours, with status 429
)

// Error is what a client may hear: a registered code and a fixed sentence.
// The cause never stands in it; it goes to the log beside it.
type Error struct {
	// Status is the HTTP status of a direct answer. It plays no part when the
	// error travels in an authorization response. Zero means 400.
	Status int
	// Code is one of the Code constants.
	Code string
	// Description is fixed text of printable ASCII without `"` and `\`
	// (RFC 6749 section 5.2). It holds nothing the request brought.
	Description string
}

func (e *Error) Error() string { return e.Code + ": " + e.Description }

// HTTPStatus returns the status of a direct answer.
func (e *Error) HTTPStatus() int {
	if e.Status == 0 {
		return http.StatusBadRequest
	}
	return e.Status
}

// InvalidRequest is a malformed request. RFC 6749 section 5.2.
func InvalidRequest(description string) *Error {
	return &Error{Code: CodeInvalidRequest, Description: description}
}

// InvalidClient is failed client authentication: 401. RFC 6749 section 5.2.
func InvalidClient(description string) *Error {
	return &Error{Status: http.StatusUnauthorized, Code: CodeInvalidClient, Description: description}
}

// InvalidGrant is a code or refresh token that does not hold for this client.
func InvalidGrant(description string) *Error {
	return &Error{Code: CodeInvalidGrant, Description: description}
}

// InvalidScope is a scope that is unknown, malformed or not for this client.
func InvalidScope(description string) *Error {
	return &Error{Code: CodeInvalidScope, Description: description}
}

// InvalidTarget is a resource that is unknown or malformed. RFC 8707 section 2.
func InvalidTarget(description string) *Error {
	return &Error{Code: CodeInvalidTarget, Description: description}
}

// TemporarilyUnavailable is a dependency that did not answer: 503. Clients
// keep their tokens and come again.
func TemporarilyUnavailable() *Error {
	return &Error{
		Status:      http.StatusServiceUnavailable,
		Code:        CodeTemporarilyUnavailable,
		Description: "The service cannot answer right now. Try again shortly.",
	}
}
