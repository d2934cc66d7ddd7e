package dpop

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// What is wrong with a proof.
var (
	// ErrInvalid: the proof does not hold; the error's text says why, for the
	// log. The client hears invalid_dpop_proof.
	ErrInvalid = errors.New("DPoP proof")
	// ErrUseNonce: the proof has no nonce of ours, or a stale one. The client
	// hears use_dpop_nonce and Nonces.Current. RFC 9449 section 8.
	ErrUseNonce = errors.New("DPoP proof: without a current nonce")
	// ErrReplayed is what a Store says of a proof that was used before.
	ErrReplayed = errors.New("DPoP proof: used before")
)

func invalid(why string) error { return fmt.Errorf("%w: %s", ErrInvalid, why) }

const (
	// window is how far `iat` may be from our clock, either way.
	window = time.Minute
	// keepFor is how long a used proof is remembered: as long as any clock of
	// ours may still find it within the window.
	keepFor = 3 * window
)

// Store remembers the proofs that were used, for all nodes.
type Store interface {
	// UseProof notes a proof by its digest for ttl. ErrReplayed: it is noted
	// already. Any other error means that nobody can say, and the proof counts
	// as refused.
	UseProof(ctx context.Context, digest [32]byte, ttl time.Duration) error
}

// Verifier checks proofs. Safe for concurrent use.
type Verifier struct {
	Nonces *Nonces          // Required.
	Store  Store            // Required.
	Now    func() time.Time // Required.
}

// Request is what a proof must be for.
type Request struct {
	Method string
	// URI as the client is told it, from configuration: never by the Host of
	// the request. A query plays no part.
	URI string
	// AccessToken that comes with the proof; empty at an endpoint that takes
	// none.
	AccessToken string
}

// Proof is a proof that holds.
type Proof struct {
	// Thumbprint of the key that signed it: SHA-256 of the JWK in base64url, 43
	// characters, the `jkt` of `cnf`. RFC 7638.
	Thumbprint string
	// NextNonce is what the client shall use from now on; empty: what it uses.
	NextNonce string

	digest [32]byte
}

// Check checks the only DPoP field among fields, in all but whether it was used
// before: see Use. That the access token is bound to the proof's key is the
// caller's to compare. The error is ErrInvalid or ErrUseNonce. RFC 9449 section
// 4.3.
func (v *Verifier) Check(fields []string, request Request) (*Proof, error) {
	signed, err := readProof(fields)
	if err != nil {
		return nil, err
	}
	claims := &signed.claims
	age := v.Now().Sub(time.UnixMilli(int64(*claims.IssuedAt * 1000)))
	switch {
	case claims.Method != request.Method:
		return nil, invalid("htm is another method")
	case !sameURI(claims.URI, request.URI):
		return nil, invalid("htu is not " + request.URI)
	case request.AccessToken != "" && claims.AccessTokenHash != tokenHash(request.AccessToken):
		return nil, invalid("ath is not that of the access token")
	}
	ok, fresh := v.Nonces.accepts(claims.Nonce)
	switch {
	case !ok:
		return nil, ErrUseNonce
	case age > window || age < -window:
		return nil, invalid("iat is too far from now")
	}
	thumbprint, err := signed.verify()
	if err != nil {
		return nil, err
	}
	proof := &Proof{Thumbprint: thumbprint, digest: sha256.Sum256([]byte(thumbprint + " " + claims.ID))}
	if !fresh {
		proof.NextNonce = v.Nonces.Current()
	}
	return proof, nil
}

// Use takes the proof, once. ErrReplayed: it was used before; any other error
// means that the store cannot say. RFC 9449 section 11.1.
func (v *Verifier) Use(ctx context.Context, proof *Proof) error {
	if err := v.Store.UseProof(ctx, proof.digest, keepFor); err != nil {
		return fmt.Errorf("use DPoP proof: %w", err)
	}
	return nil
}
