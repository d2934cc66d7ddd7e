// Package dpop checks proofs of possession (RFC 9449): that who sends a request
// holds the private key that its access token or its grant is bound to. Token
// endpoint and gate ask the same Verifier.
//
// It refuses proofs without a nonce of this server, symmetric and unsigned ones,
// and every proof that was used before, on whichever node.
package dpop
