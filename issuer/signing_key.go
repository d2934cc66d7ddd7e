package issuer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// ParseSigningKey reads a P-256 private key from base64 of a PEM (PKCS#8 or
// SEC1), a PEM, a JWK, or base64 of a JWK. The error says what was found, and
// holds nothing of the key.
func ParseSigningKey(text []byte) (*ecdsa.PrivateKey, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil, errors.New("signing key is empty")
	}
	if !bytes.HasPrefix(text, []byte("-----BEGIN")) && text[0] != '{' {
		decoded, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(text), nil)))
		if err != nil {
			return nil, errors.New("signing key is neither a PEM, a JWK nor base64 of one")
		}
		text = bytes.TrimSpace(decoded)
	}
	parsed, err := jwk.ParseKey(text, jwk.WithPEM(!bytes.HasPrefix(text, []byte("{"))))
	if err != nil {
		return nil, errors.New("signing key is neither a PEM (PKCS#8 or SEC1) nor a JWK")
	}
	var key ecdsa.PrivateKey
	if err := parsed.Raw(&key); err != nil {
		return nil, fmt.Errorf("signing key is of kind %s; a P-256 private key is needed", parsed.KeyType())
	}
	if key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("signing key is on curve %s; ES256 needs P-256", key.Curve.Params().Name)
	}
	// The public half must belong to the private one: a JWK carries both.
	if derived, err := key.ECDH(); err != nil {
		return nil, errors.New("signing key is not a valid P-256 key")
	} else if public, err := key.PublicKey.ECDH(); err != nil || !derived.PublicKey().Equal(public) {
		return nil, errors.New("signing key has a public half that is not its own")
	}
	return &key, nil
}
