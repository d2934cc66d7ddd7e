// Package ledger is a client that remembers: it runs the whole flow against a
// cluster, from sign-in to revocation, and writes every answer to an append-only
// file, synced, before it uses it. Afterwards it can be said of each code and
// each token what must have become of it, whatever failed meanwhile:
//
//	I1  a refresh token that was returned is usable, or was rotated or revoked
//	    by a recorded call
//	I2  a code was answered 200 at most once; a refresh token has at most one
//	    live successor
//	I3  no request with a token that was revoked more than the bound before was
//	    let through
//	I4  no request without a rule that allows it was let through
//	I5  after the fault no human action was needed
//
// and, because clients throw tokens away at a 401, no token of a live session
// was refused as invalid: what cannot be told is a 503.
//
// Check looks at what was recorded: I2 as linearizability, with porcupine, of
// two registers ("code: unused, then used", "family: head token"), I3, I4 and
// the refusals answer by answer. Load.Settle shows I1 and I5 by using every
// token that is left.
package ledger
