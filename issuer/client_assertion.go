package issuer

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jws"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

	maxAssertion = 8 << 10         // bytes
	maxJTI       = 512             // bytes
	assertionTTL = 5 * time.Minute // the longest that one may hold
	clockSkew    = time.Minute     // between the client's clock and ours
)

// clientAssertion is a JWT that authenticates a client, in form only: nothing
// of it is proven before checkAssertion. RFC 7523 section 2.2.
type clientAssertion struct {
	raw    string
	header assertionHeader
	claims assertionClaims
}

type assertionHeader struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Type      string          `json:"typ"`
	Critical  json.RawMessage `json:"crit"`
}

type assertionClaims struct {
	Issuer    string       `json:"iss"`
	Subject   string       `json:"sub"`
	Audience  audience     `json:"aud"`
	ID        string       `json:"jti"`
	ExpiresAt *jsonSeconds `json:"exp"`
	NotBefore *jsonSeconds `json:"nbf"`
	IssuedAt  *jsonSeconds `json:"iat"`
}

// jsonSeconds is a NumericDate. RFC 7519 section 2 allows fractions.
type jsonSeconds float64

func (n jsonSeconds) time() time.Time { return time.UnixMilli(int64(float64(n) * 1000)) }

// audience is one string or a list of them. RFC 7519 section 4.1.3.
type audience []string

// UnmarshalJSON reads both forms.
func (a *audience) UnmarshalJSON(text []byte) error {
	var one string
	if err := json.Unmarshal(text, &one); err == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// readAssertion reads the assertion of a request. A client_id beside it is
// optional and must be the same. RFC 7521 section 4.2.
func readAssertion(p parameters) (a clientAssertion, ok bool) {
	a.raw = p["client_assertion"]
	if p["client_assertion_type"] != assertionType || len(a.raw) > maxAssertion || strings.Count(a.raw, ".") != 2 {
		return a, false
	}
	header, rest, _ := strings.Cut(a.raw, ".")
	payload, _, _ := strings.Cut(rest, ".")
	if !readSegment(header, &a.header) || !readSegment(payload, &a.claims) {
		return a, false
	}
	id, sent := p["client_id"]
	return a, a.claims.Subject != "" && (!sent || id == a.claims.Subject)
}

func readSegment(segment string, into any) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	return err == nil && json.Unmarshal(raw, into) == nil
}

// checkAssertion proves that the assertion is the client's, for us, now, and
// for the first time. RFC 7523 section 3. What cannot be told because keys or
// database do not answer is an error of its own, and lets nobody in.
func (s *Server) checkAssertion(ctx context.Context, client *Client, a clientAssertion) error {
	if client == nil || client.JWKS == nil || !slices.Contains(client.AuthMethods, methodPrivateKeyJWT) {
		return errClientAuthentication
	}
	keys, err := client.JWKS(ctx)
	if err != nil {
		return fmt.Errorf("keys of the client: %w", err)
	}
	// 1. The signature, before anything that it covers counts.
	if !a.signedByOneOf(keys) {
		// The client may have changed its keys since they were fetched.
		if keys, err = client.JWKS(withNewestKeys(ctx)); err != nil {
			return fmt.Errorf("keys of the client: %w", err)
		}
		if !a.signedByOneOf(keys) {
			return errClientAuthentication
		}
	}
	// 2. Who, for whom, and until when.
	now := s.cfg.Now()
	if !a.claims.hold(client.ID, s.assertionAudiences(), now) {
		return errClientAuthentication
	}
	// 3. Once.
	ttl := a.claims.ExpiresAt.time().Add(clockSkew).Sub(now)
	err = s.cfg.Store.UseAssertion(ctx, client.ID, sha256.Sum256([]byte(a.claims.ID)), ttl)
	switch {
	case errors.Is(err, ErrReplayed) || errors.Is(err, ErrNotFound):
		return errClientAuthentication
	case err != nil:
		return fmt.Errorf("use assertion: %w", err)
	}
	return nil
}

// signedByOneOf reports whether a key of the client verifies the assertion: the
// one that it names, or any if it names none, each by its own algorithm.
func (a clientAssertion) signedByOneOf(keys ClientKeys) bool {
	switch strings.ToLower(a.header.Type) {
	case "", "jwt", "client-authentication+jwt":
	default: // a token of another kind, signed with the same key: RFC 8725 section 3.11
		return false
	}
	return signedByOneOf(a.raw, a.header, keys)
}

// signedByOneOf reports whether one of the keys verifies a compact JWS with this
// header.
func signedByOneOf(raw string, header assertionHeader, keys ClientKeys) bool {
	if header.Critical != nil {
		return false
	}
	for _, key := range keys {
		if header.Algorithm != key.Algorithm.String() || (header.KeyID != "" && header.KeyID != key.ID) {
			continue
		}
		if _, err := jws.Verify([]byte(raw), jws.WithCompact(), jws.WithKey(key.Algorithm, key.Public)); err == nil {
			return true
		}
	}
	return false
}

// hold reports whether the claims say that the client speaks to us now. Every
// audience must be ours: with an assertion that is for another server too, that
// one could act as the client here.
func (c assertionClaims) hold(clientID string, ours []string, now time.Time) bool {
	switch {
	case c.Issuer != clientID || c.Subject != clientID:
		return false
	case len(c.Audience) == 0 || slices.ContainsFunc(c.Audience, func(aud string) bool { return !slices.Contains(ours, aud) }):
		return false
	case c.ID == "" || len(c.ID) > maxJTI:
		return false
	case c.ExpiresAt == nil || !now.Before(c.ExpiresAt.time().Add(clockSkew)) || c.ExpiresAt.time().After(now.Add(assertionTTL+clockSkew)):
		return false
	case c.NotBefore != nil && c.NotBefore.time().After(now.Add(clockSkew)):
		return false
	case c.IssuedAt != nil && c.IssuedAt.time().After(now.Add(clockSkew)):
		return false
	}
	return true
}

// assertionAudiences are the names that an assertion may call us by. RFC 7523
// section 3 and RFC 9126 section 2.
func (s *Server) assertionAudiences() []string {
	return []string{s.cfg.Issuer, s.endpoint("/oauth/token"), s.endpoint("/oauth/par")}
}
