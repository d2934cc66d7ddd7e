package validator

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// claims of a verified access token. RFC 9068 section 2.2.
type claims struct {
	userID    string
	clientID  string
	sessionID string
	scopes    oauth.ScopeSet
	expiresAt time.Time
}

// verifier checks tokens against one issuer and one audience.
type verifier struct {
	issuer   string
	audience string
	keys     KeySource
	leeway   time.Duration
	now      func() time.Time
}

// verify checks the token by itself: form, key, signature, claims. It touches
// no session. The error is for the log; the client hears invalid_token.
// Cheap checks come first, so that a flood of bad tokens costs less than good
// ones.
func (v *verifier) verify(token string) (claims, error) {
	compact, err := strictCompact(token)
	if err != nil {
		return claims{}, err
	}
	key, ok := v.keys.VerificationKey(compact.kid)
	if !ok {
		return claims{}, errors.New("unknown kid")
	}
	if !compact.verifies(key) {
		return claims{}, errors.New("signature does not verify")
	}
	members, err := readObject(compact.payload)
	if err != nil {
		return claims{}, err
	}
	return v.readClaims(members)
}

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

func (v *verifier) readClaims(members map[string]json.RawMessage) (claims, error) {
	var c claims
	var issuer, audience, scope string
	for _, member := range []struct {
		name string
		into *string
	}{
		{"iss", &issuer}, {"aud", &audience}, {"sub", &c.userID}, {"client_id", &c.clientID}, {"sid", &c.sessionID},
	} {
		s, err := stringMember(members, member.name)
		if err != nil {
			return claims{}, err
		}
		*member.into = s
	}
	if _, err := stringMember(members, "jti"); err != nil {
		return claims{}, err
	}
	switch {
	case issuer != v.issuer:
		return claims{}, errors.New("issued by another issuer")
	case audience != v.audience:
		return claims{}, errors.New("issued for another resource")
	}
	if _, ok := members["scope"]; ok {
		var err error
		if scope, err = stringMember(members, "scope"); err != nil {
			return claims{}, err
		}
	}
	scopes, err := oauth.ParseScope(scope)
	if err != nil {
		return claims{}, fmt.Errorf("scope claim: %w", err)
	}
	c.scopes = scopes
	return c, v.readTimes(members, &c)
}

func (v *verifier) readTimes(members map[string]json.RawMessage, c *claims) error {
	issued, err := timeMember(members, "iat")
	if err != nil {
		return err
	}
	expires, err := timeMember(members, "exp")
	if err != nil {
		return err
	}
	c.expiresAt = time.Unix(expires, 0)
	now := v.now()
	switch {
	case !now.Before(c.expiresAt.Add(v.leeway)):
		return errors.New("expired")
	case time.Unix(issued, 0).After(now.Add(v.leeway)):
		return errors.New("issued in the future")
	case expires <= issued:
		return errors.New("expires before it was issued")
	}
	if _, ok := members["nbf"]; ok {
		notBefore, err := timeMember(members, "nbf")
		if err != nil {
			return err
		}
		if time.Unix(notBefore, 0).After(now.Add(v.leeway)) {
			return errors.New("not valid yet")
		}
	}
	return nil
}
