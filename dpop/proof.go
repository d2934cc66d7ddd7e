package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// Algorithms are those that a proof may be signed with. RFC 9449 section 5.1.
var Algorithms = []string{jwa.ES256.String(), jwa.EdDSA.String(), jwa.RS256.String()}

const (
	proofType = "dpop+jwt"

	maxProof = 8 << 10 // bytes
	maxID    = 512     // bytes of a jti

	minRSABits = 2048
	maxRSABits = 4096 // a longer one makes us work harder than its owner
)

// signedProof is a proof in form only; nothing of it is proven.
type signedProof struct {
	raw    string
	header struct {
		Type      string          `json:"typ"`
		Algorithm string          `json:"alg"`
		Key       json.RawMessage `json:"jwk"`
		Critical  json.RawMessage `json:"crit"`
	}
	claims struct {
		ID              string   `json:"jti"`
		Method          string   `json:"htm"`
		URI             string   `json:"htu"`
		IssuedAt        *float64 `json:"iat"` // RFC 7519 section 2 allows fractions
		AccessTokenHash string   `json:"ath"`
		Nonce           string   `json:"nonce"`
	}
}

// readProof reads the only DPoP field of a request. RFC 9449 section 4.3, checks
// 1 to 5.
func readProof(fields []string) (*signedProof, error) {
	if len(fields) != 1 {
		return nil, invalid("more than one DPoP header")
	}
	p := &signedProof{raw: fields[0]}
	if len(p.raw) > maxProof {
		return nil, invalid("longer than the bound")
	}
	segments := strings.Split(p.raw, ".")
	if len(segments) != 3 || !readSegment(segments[0], &p.header) || !readSegment(segments[1], &p.claims) {
		return nil, invalid("not a JWT")
	}
	switch {
	case p.header.Type != proofType:
		return nil, invalid("typ is not " + proofType)
	case p.header.Critical != nil:
		return nil, invalid("crit names what is not understood")
	case len(p.header.Key) == 0:
		return nil, invalid("jwk is missing")
	case p.claims.ID == "" || len(p.claims.ID) > maxID:
		return nil, invalid("jti is missing or too long")
	case p.claims.Method == "":
		return nil, invalid("htm is missing")
	case p.claims.URI == "":
		return nil, invalid("htu is missing")
	case p.claims.IssuedAt == nil:
		return nil, invalid("iat is missing")
	}
	return p, nil
}

func readSegment(segment string, into any) bool {
	if strings.ContainsAny(segment, "\r\n") { // which the decoder skips
		return false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	return err == nil && json.Unmarshal(raw, into) == nil
}

// verify checks the signature by the key that the proof brings and returns the
// thumbprint of that key (RFC 7638). Checks 5 to 7.
func (p *signedProof) verify() (thumbprint string, err error) {
	key, public, algorithm, err := publicKey(p.header.Key)
	if err != nil {
		return "", err
	}
	// Each kind of key has one algorithm: RFC 8725 section 3.1.
	if p.header.Algorithm != algorithm.String() {
		return "", invalid("alg is not one that the key is for")
	}
	if _, err := jws.Verify([]byte(p.raw), jws.WithCompact(), jws.WithKey(algorithm, public)); err != nil {
		return "", invalid("signature does not verify")
	}
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", invalid("jwk has no thumbprint")
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// publicKey reads the jwk of a proof.
func publicKey(document []byte) (key jwk.Key, public any, algorithm jwa.SignatureAlgorithm, err error) {
	// By the document itself: a library may leave out what it does not know.
	var members map[string]json.RawMessage
	if json.Unmarshal(document, &members) != nil {
		return nil, nil, "", invalid("jwk is not an object")
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, has := members[private]; has {
			return nil, nil, "", invalid("jwk holds private or symmetric key material")
		}
	}
	if key, err = jwk.ParseKey(document); err != nil || key.Raw(&public) != nil {
		return nil, nil, "", invalid("jwk cannot be read")
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return key, public, jwa.ES256, nil
		}
	case ed25519.PublicKey:
		return key, public, jwa.EdDSA, nil
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits >= minRSABits && bits <= maxRSABits {
			return key, public, jwa.RS256, nil
		}
	}
	return nil, nil, "", invalid("jwk is neither P-256, Ed25519 nor RSA of 2048 to 4096 bits")
}

// tokenHash is the `ath` of an access token. RFC 9449 section 4.2.
func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// IsThumbprint reports whether s has the form of a JWK SHA-256 thumbprint: 32
// bytes in base64url. RFC 7638 section 3.
func IsThumbprint(s string) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(s) == 43 && len(raw) == sha256.Size
}
