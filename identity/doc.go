// Package identity is the proof for an upstream that a request came through the
// gate: a short-lived signed statement of who is calling, for one request only.
// The gate makes it (Minter) and sends it in a header; the upstream checks it
// (Verifier) and serves nobody else, also when it can be reached around the gate.
//
//	server, err := authserver.New(authserver.Config{Issuer: "https://api.example.com"})
//	verifier, err := identity.NewVerifier(identity.VerifierConfig{
//		Issuer: "https://api.example.com", Audience: "https://api.example.com#upstream", Keys: server,
//	})
//	http.ListenAndServe(":9001", verifier.Handler(api))
//
// The token is a JWT with a `typ` of its own, signed with ES256 by the key that
// signs access tokens. It is bound to method, host, path and query as they are
// forwarded, and lives for half a minute. It says nothing about the body, and
// whoever holds it may send the very same request again while it lives: there is
// no `jti`, since an upstream that remembered them all would still have to trust
// its own network.
//
// RFC 7519 (JWT), RFC 8725 (its pitfalls), RFC 9449 section 4.2 (`htm`).
package identity
