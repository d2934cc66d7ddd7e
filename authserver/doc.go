// Package authserver is what a resource server knows of an authorization server
// that runs elsewhere: its metadata, its public keys and, by introspection, what has
// become of a token's session. Gates and services that share no process and no
// database with the issuer are built on it.
//
// Keys are read once and kept. A token that names a key which is not there has
// them read again, but not more often than every ten seconds, whoever asks and
// however often; a key that is there never waits for that. Keys that could not be
// read again for five minutes are not trusted any more: then nobody can say, which
// is an error of its own and not a bad token.
//
// An answer about a token counts for a bounded time from before the question was
// sent, and so long the server may be away. One that is about another issuer's
// token, or for another resource, is none.
//
// What it refuses to do: follow a redirect, take metadata that name another
// issuer, read more than 64 KiB or longer than five seconds, take a key that is
// not a public one for ES256, go on with what it once knew for ever.
//
// RFC 8414 (metadata), RFC 7517 (JWK sets), RFC 7662 (introspection).
package authserver
