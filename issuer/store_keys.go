package issuer

import (
	"context"
	"time"
)

// KeyStore holds signing keys, sealed. See KeyRing.
type KeyStore interface {
	// MaintainSigningKeys moves every key to the phase that policy and the
	// database's clock give it, under a lock that all nodes share, and returns
	// the keys that are not gone, oldest first. newKey is called, inside the
	// transaction, when a key must be made; two nodes on an empty database make
	// one.
	MaintainSigningKeys(ctx context.Context, policy KeyPolicy, newKey func() (SealedKey, error)) ([]SealedKey, error)
	// SigningKeys returns the keys that are not gone, oldest first, and moves none.
	SigningKeys(ctx context.Context) ([]SealedKey, error)
	// PublishSigningKey adds a published key ahead of schedule, unless another is
	// published; with another, also then. It returns all keys that are not gone.
	PublishSigningKey(ctx context.Context, policy KeyPolicy, another bool, newKey func() (SealedKey, error)) ([]SealedKey, error)
	// ReplaceSigningKey makes a published key sign at once; the one that signed
	// until now is gone (a compromise). ErrNotFound: the key is not published.
	ReplaceSigningKey(ctx context.Context, kid string) ([]SealedKey, error)
	// ResealSigningKey replaces the sealed bytes of a key, after the root secret
	// changed.
	ResealSigningKey(ctx context.Context, kid string, sealed []byte) error
}

// KeyPhase is where a signing key stands in its life.
type KeyPhase string

// A key goes through these in order. A gone key's row is kept, without its
// private part, so that its kid is never used again.
const (
	KeyPublished KeyPhase = "published" // in the JWKS, does not sign yet
	KeyActive    KeyPhase = "active"    // signs; exactly one
	KeyRetiring  KeyPhase = "retiring"  // verifies until its last token has expired
	KeyGone      KeyPhase = "gone"
)

// SealedKey is a signing key as it is stored.
type SealedKey struct {
	KID    string
	Phase  KeyPhase
	Public []byte // JWK, JSON
	Sealed []byte // private JWK, sealed under the root secret
	// Since is when the key entered its phase, CreatedAt when it was made.
	Since, CreatedAt time.Time
}

// KeyPolicy times the phases.
type KeyPolicy struct {
	RotateEvery time.Duration // age of the active key at which the next takes over
	PublishFor  time.Duration // at least one JWKS lifetime in phase published
	RetireFor   time.Duration // longest access token lifetime plus skew
}
