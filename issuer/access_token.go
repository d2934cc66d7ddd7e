package issuer

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// accessTokenType is the `typ` of access tokens. RFC 9068 section 2.1.
const accessTokenType = "at+jwt"

// accessClaims are the claims of an access token. RFC 9068 section 2.2.
type accessClaims struct {
	Issuer    string `json:"iss"`
	Audience  string `json:"aud"`
	Subject   string `json:"sub"`
	ClientID  string `json:"client_id"`
	SessionID string `json:"sid"`
	Scope     string `json:"scope,omitempty"`
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	ExpiresAt int64  `json:"exp"`
	AuthTime  int64  `json:"auth_time,omitempty"`
	// Actor is set on the token of a service that calls on for the user.
	Actor *actor `json:"act,omitempty"`
	// Confirmation names the key that the token is bound to; nil: a bearer token.
	Confirmation *confirmation `json:"cnf,omitempty"`
}

// confirmation is the claim of RFC 7800 section 3.1, by RFC 9449 section 6.1.
type confirmation struct {
	Thumbprint string `json:"jkt"`
}

// key is the thumbprint of the key that the token is bound to; empty: none.
func (c *accessClaims) key() string {
	if c.Confirmation == nil {
		return ""
	}
	return c.Confirmation.Thumbprint
}

// mintAccessToken signs an access token of the session, bound to the key with
// this thumbprint if there is one, that lives for ttl, but no longer than the
// session.
func (s *Server) mintAccessToken(session Session, resource string, scopes oauth.ScopeSet, key string, ttl time.Duration) (token string, expiresIn int64, err error) {
	now := s.cfg.Tokens.Issuing()
	ttl = min(ttl, session.Remaining).Truncate(time.Second)
	if ttl <= 0 {
		return "", 0, errors.New("the session ends within a second")
	}
	claims := accessClaims{
		Issuer: s.cfg.Issuer, Audience: resource, Subject: session.UserID, ClientID: session.ClientID, SessionID: session.ID,
		Scope: scopes.String(), ID: uuid.NewString(), IssuedAt: now.Unix(), ExpiresAt: now.Add(ttl).Unix(),
	}
	if session.AuthTime.After(unknownAuthTime) {
		claims.AuthTime = session.AuthTime.Unix()
	}
	claims.Actor = session.actor
	if key != "" {
		claims.Confirmation = &confirmation{key}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", 0, fmt.Errorf("access token: %w", err)
	}
	token, err = s.cfg.Keys.sign(accessTokenType, payload)
	return token, int64(ttl / time.Second), err
}

// sign makes a compact JWS of this type with the active key: ES256 over exactly
// the bytes that are sent. RFC 7515 section 3.1, RFC 7518 section 3.4.
// Not by a JWT library, as the gate checks without one: ADR 10.
//
// Of the two signatures (r, s) and (r, n-s), which both verify, it is the one
// with the lower s; a gate that knew only one of them as revoked would let the
// other spelling pass, so ours accepts only this one.
func (k *KeyRing) sign(tokenType string, payload []byte) (string, error) {
	state := k.keys.Load()
	header, ok := state.headers[tokenType]
	if !ok {
		return "", fmt.Errorf("sign token: no key signs the type %q", tokenType)
	}
	const signatureLength = 86 // of 64 bytes
	token := make([]byte, 0, len(header)+2+base64.RawURLEncoding.EncodedLen(len(payload))+signatureLength)
	token = append(append(token, header...), '.')
	token = base64.RawURLEncoding.AppendEncode(token, payload)
	digest := sha256.Sum256(token)
	r, s, err := ecdsa.Sign(rand.Reader, state.signer, digest[:])
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	if n := state.signer.Params().N; s.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
		s.Sub(n, s)
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return string(base64.RawURLEncoding.AppendEncode(append(token, '.'), signature[:])), nil
}

// SignIdentity makes an identity token, by which a gate of this process tells its
// upstream who is calling. It implements identity.Signer.
func (k *KeyRing) SignIdentity(payload []byte) (string, error) {
	return k.sign(oauth.IdentityTokenType, payload)
}

// SignerID is the kid of the key that signs.
func (k *KeyRing) SignerID() string { return k.keys.Load().kid }

// tokenHeaders are the encoded headers of what the key with this kid signs, by
// type.
func tokenHeaders(kid string) (map[string]string, error) {
	headers := make(map[string]string)
	for _, tokenType := range []string{accessTokenType, idTokenType, oauth.IdentityTokenType} {
		header, err := json.Marshal(struct {
			Algorithm string `json:"alg"`
			KeyID     string `json:"kid"`
			Type      string `json:"typ"`
		}{"ES256", kid, tokenType})
		if err != nil {
			return nil, err
		}
		headers[tokenType] = base64.RawURLEncoding.EncodeToString(header)
	}
	return headers, nil
}

// readAccessToken returns the claims of a token that this server signed,
// whether or not it has expired: who revokes may come late. RFC 7009
// section 2.1.
func (s *Server) readAccessToken(token string) (accessClaims, bool) {
	var claims accessClaims
	ok := s.cfg.Keys.read(accessTokenType, token, &claims)
	return claims, ok && claims.Issuer == s.cfg.Issuer
}

// read takes the claims out of a token of this type that a key of the ring has
// signed, and reports whether it is one.
func (k *KeyRing) read(tokenType, token string, claims any) bool {
	if len(token) > 8<<10 || strings.Count(token, ".") != 2 {
		return false
	}
	message, err := jws.Parse([]byte(token), jws.WithCompact())
	if err != nil || len(message.Signatures()) != 1 {
		return false
	}
	header := message.Signatures()[0].ProtectedHeaders()
	key, ok := k.VerificationKey(header.KeyID())
	if !ok || header.Type() != tokenType {
		return false
	}
	payload, err := jws.Verify([]byte(token), jws.WithKey(jwa.ES256, key))
	return err == nil && json.Unmarshal(payload, claims) == nil
}
