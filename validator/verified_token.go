package validator

import (
	"crypto/ecdsa"
	"sync/atomic"
	"time"
)

// verifiedToken is a token whose signature was verified. It is a value of four
// words, so that it is put together for each request from what is kept of it, which
// has no pointers: see slabcache.
type verifiedToken struct {
	*keptToken
	*sharedClaims
	own string // user, session and key, one behind the other
}

// keptToken is what is a token's own, but for the text of it.
type keptToken struct {
	times
	userLength, sessionLength uint32

	noted   atomic.Int64  // when its use was last noted, in ns; see Decision.NoteUse
	session atomic.Uint64 // handle of the session as it was read last; see SessionReader.Held
}

// copyTo brings a token from one slab to another.
func (t *keptToken) copyTo(to *keptToken) {
	to.times, to.userLength, to.sessionLength = t.times, t.userLength, t.sessionLength
	to.noted.Store(t.noted.Load())
	to.session.Store(t.session.Load())
}

// isNone reports whether there is no token.
func (t verifiedToken) isNone() bool { return t.keptToken == nil }

// verifiedBy reports whether it was this key that verified the token.
func (t verifiedToken) verifiedBy(key *ecdsa.PublicKey) bool {
	return key == t.key || key.Equal(t.key)
}

func (t verifiedToken) userID() string { return t.own[:t.userLength] }

func (t verifiedToken) sessionID() string {
	return t.own[t.userLength : t.userLength+t.sessionLength]
}

// boundKey is the thumbprint of the key that the token is bound to; empty: a bearer
// token.
func (t verifiedToken) boundKey() string { return t.own[t.userLength+t.sessionLength:] }

func (t verifiedToken) expires() time.Time { return time.Unix(t.expiresAt, 0) }
