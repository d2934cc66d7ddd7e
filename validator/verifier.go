package validator

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// claims of an access token. RFC 9068 section 2.2.
type claims struct {
	commonClaims
	userID    string
	sessionID string
	boundKey  string // thumbprint of the key that it is bound to; empty: a bearer token
	times
}

// times are in Unix seconds.
type times struct {
	issuedAt  int64
	notBefore int64 // 0: no such claim
	expiresAt int64
}

// commonClaims are those that many tokens share, and what verified them.
type commonClaims struct {
	issuer   string
	audience string
	clientID string
	scope    string // as it came: names joined by single spaces

	kid string
	key *ecdsa.PublicKey // nil: not verified yet
}

// token returns the token that says so, once it was verified.
func (c *claims) token(shared *sharedClaims) verifiedToken {
	return verifiedToken{
		&keptToken{
			times: c.times, userLength: uint32(len(c.userID)), sessionLength: uint32(len(c.sessionID)),
		},
		shared, c.userID + c.sessionID + c.boundKey,
	}
}

// verifier checks tokens against one issuer and one audience.
type verifier struct {
	issuer   string
	audience string
	keys     KeySource
	cache    *TokenCache // nil: every token is verified every time
	leeway   time.Duration
	now      func() time.Time
}

// verify checks the token by itself: form, key, claims, signature. It touches
// no session. The error is for the log; the client hears invalid_token.
//
// What is cheap comes first, so that a flood of bad tokens costs less than good
// ones; nothing that the token says is used before its signature is verified.
func (v *verifier) verify(ctx context.Context, token string) (verifiedToken, error) {
	if known, ok := v.cache.get(token); ok {
		// The bytes are known; the key may have been retired since.
		key, err := v.key(ctx, known.kid)
		if err != nil {
			return verifiedToken{}, err
		}
		if !known.verifiedBy(key) {
			return verifiedToken{}, oauth.ErrUnknownKey
		}
		return known, v.check(&known.commonClaims, known.times)
	}
	compact, err := strictCompact(token)
	if err != nil {
		return verifiedToken{}, err
	}
	key, err := v.key(ctx, compact.kid)
	if err != nil {
		return verifiedToken{}, err
	}
	said, err := readClaims(compact.payload)
	if err != nil {
		return verifiedToken{}, err
	}
	if err := v.check(&said.commonClaims, said.times); err != nil {
		return verifiedToken{}, err
	}
	defer traced(ctx, "gate: verify token")()
	return v.cache.verifyOnce(token, key, func() (*claims, error) {
		if !compact.verifies(key) {
			return nil, errBadSignature
		}
		said.kid, said.key = compact.kid, key
		return &said, nil
	})
}

// key returns the key with this kid; oauth.ErrUnknownKey, or errKeysUnknown.
func (v *verifier) key(ctx context.Context, kid string) (*ecdsa.PublicKey, error) {
	if key, ok := v.keys.VerificationKey(kid); ok {
		return key, nil
	}
	finder, ok := v.keys.(KeyFinder)
	if !ok {
		return nil, oauth.ErrUnknownKey
	}
	key, err := finder.FindKey(ctx, kid)
	if err != nil && !errors.Is(err, oauth.ErrUnknownKey) {
		err = fmt.Errorf("%w: %w", errKeysUnknown, err)
	}
	return key, err
}

// errKeysUnknown: the keys cannot be had, so that the token is neither good nor bad.
var errKeysUnknown = errors.New("find the key of the token")

var errBadSignature = errors.New("signature does not verify")

// verifies reports whether the signature is key's over exactly the bytes that
// came. After the gate there is one algorithm and one form left, so that a JWT
// library has nothing to decide here, and costs half as much again as the
// signature itself. RFC 7518 section 3.4.
func (t *compactToken) verifies(key *ecdsa.PublicKey) bool {
	digest := sha256.Sum256([]byte(t.signed))
	r := new(big.Int).SetBytes(t.signature[:32])
	s := new(big.Int).SetBytes(t.signature[32:])
	return ecdsa.Verify(key, digest[:], r, s)
}

// readClaims reads the claims, each of the right type, and judges none of them.
func readClaims(payload []byte) (c claims, err error) {
	members, err := readObject(payload)
	if err != nil {
		return claims{}, err
	}
	for _, member := range []struct {
		name string
		into *string
	}{
		{"iss", &c.issuer}, {"aud", &c.audience}, {"sub", &c.userID}, {"client_id", &c.clientID}, {"sid", &c.sessionID},
		{"jti", new(string)},
	} {
		if *member.into, err = stringMember(members, member.name); err != nil {
			return claims{}, err
		}
	}
	if _, ok := members["scope"]; ok {
		if c.scope, err = stringMember(members, "scope"); err != nil {
			return claims{}, err
		}
		if _, err := oauth.ParseScope(c.scope); err != nil {
			return claims{}, fmt.Errorf("scope claim: %w", err)
		}
	}
	if c.issuedAt, err = timeMember(members, "iat"); err != nil {
		return claims{}, err
	}
	if c.expiresAt, err = timeMember(members, "exp"); err != nil {
		return claims{}, err
	}
	if _, ok := members["nbf"]; ok {
		if c.notBefore, err = timeMember(members, "nbf"); err != nil {
			return claims{}, err
		}
	}
	if raw, ok := members["cnf"]; ok {
		if c.boundKey, err = readConfirmation(raw); err != nil {
			return claims{}, err
		}
	}
	return c, nil
}

// readConfirmation reads the one confirmation that we can check: what a token
// is bound to otherwise must not be overlooked. RFC 7800 section 3.1.
func readConfirmation(raw []byte) (thumbprint string, err error) {
	members, err := readObject(raw)
	if err != nil {
		return "", err
	}
	thumbprint, err = stringMember(members, "jkt")
	if err != nil || len(members) != 1 {
		return "", errMalformed("cnf is not a jkt alone")
	}
	return thumbprint, nil
}

// check judges the claims as they stand now. It runs at every request, for
// known tokens too.
func (v *verifier) check(c *commonClaims, t times) error {
	now := v.now()
	behind, ahead := now.Add(-v.leeway).Unix(), now.Add(v.leeway).Unix()
	switch {
	case c.issuer != v.issuer:
		return errors.New("issued by another issuer")
	case c.audience != v.audience:
		return errors.New("issued for another resource")
	case behind >= t.expiresAt:
		return errors.New("expired")
	case t.issuedAt > ahead:
		return errors.New("issued in the future")
	case t.expiresAt <= t.issuedAt:
		return errors.New("expires before it was issued")
	case t.notBefore > ahead:
		return errors.New("not valid yet")
	}
	return nil
}
