// Package login signs users in with what they have already: at an OpenID
// provider (OIDC), by the signed token that the owner's own app has given their
// browser (JWT), or by asking that app whose the browser's cookie is (Forward).
//
// It implements issuer.Provider and issuer.App. It trusts no address, key or
// algorithm that a token or a request names; it follows no redirect; and what it
// reads from elsewhere is bounded in size and time.
//
//	OpenID Connect Core 1.0, Discovery 1.0, Back-Channel Logout 1.0, RP-Initiated Logout 1.0
//	RFC 7519, RFC 7636, RFC 8725, RFC 9207, RFC 9700 section 4.4
package login
