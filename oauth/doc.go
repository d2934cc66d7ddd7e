// Package oauth is the vocabulary that the authorization server (package
// issuer) and the resource server (package validator) share: error codes,
// scopes and resource identifiers. It uses the standard library only and
// knows nothing of HTTP handlers, storage or Caddy.
//
// RFC 6749 section 3.3 (scope), RFC 6749 section 5.2 and RFC 6750 section 3.1
// (error codes), RFC 8707 (resource), RFC 9728 section 3 (metadata URL).
package oauth
