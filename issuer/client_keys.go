package issuer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// ClientKeys are the public keys of one client. Each verifies one algorithm
// only: a key that two algorithms may use is a key that an attacker chooses the
// algorithm for. RFC 8725 section 3.1.
type ClientKeys []ClientKey

// ClientKey is one of them.
type ClientKey struct {
	ID        string // `kid`; may be empty
	Algorithm jwa.SignatureAlgorithm
	Public    any // *ecdsa.PublicKey on P-256, *rsa.PublicKey, ed25519.PublicKey
}

const (
	maxClientKeys = 10 // an assertion without a kid is tried with each
	minRSABits    = 2048
	maxRSABits    = 8192
)

var errNoKeySet = errors.New(`not a JWK set: {"keys":[...]} is expected`)

// assertionAlgorithms are those that an assertion may be signed with.
var assertionAlgorithms = []string{jwa.ES256.String(), jwa.RS256.String(), jwa.EdDSA.String()}

// StaticKeys is the JWKS of a Client whose keys stand in the configuration.
func StaticKeys(keys ClientKeys) func(context.Context) (ClientKeys, error) {
	return func(context.Context) (ClientKeys, error) { return keys, nil }
}

// ParseClientKeys reads a JWK set (RFC 7517 section 5) of at most ten keys.
// Refused are a private or a symmetric key, which have no business here, and a
// key that is for none of the algorithms ES256, RS256 (2048 bits and more) and
// EdDSA (Ed25519).
func ParseClientKeys(document []byte) (ClientKeys, error) {
	return parseKeySet(document, false)
}

// parseForeignKeys is ParseClientKeys for a set that the client publishes for
// others too: keys that are for nothing here are passed over.
func parseForeignKeys(document []byte) (ClientKeys, error) { return parseKeySet(document, true) }

func parseKeySet(document []byte, passOver bool) (ClientKeys, error) {
	if err := refusePrivateMembers(document); err != nil {
		return nil, err
	}
	set, err := jwk.Parse(document)
	if err != nil {
		return nil, errNoKeySet // the cause may quote the document
	}
	if set.Len() == 0 || set.Len() > maxClientKeys {
		return nil, fmt.Errorf("a JWK set of 1 to %d keys is needed, this has %d", maxClientKeys, set.Len())
	}
	var keys ClientKeys
	for i := range set.Len() {
		key, _ := set.Key(i)
		parsed, err := parseClientKey(key)
		if err != nil && passOver {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		for _, other := range keys {
			if parsed.ID == other.ID && parsed.ID != "" {
				return nil, fmt.Errorf("key %d: its kid is that of another one", i+1)
			}
		}
		keys = append(keys, parsed)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key of the set is for ES256, RS256 or EdDSA")
	}
	return keys, nil
}

// refusePrivateMembers looks at the document itself: what a library makes of a
// key that is half private, nobody knows.
func refusePrivateMembers(document []byte) error {
	var set struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	decoder := json.NewDecoder(bytes.NewReader(document))
	if err := decoder.Decode(&set); err != nil {
		return errNoKeySet
	}
	if len(set.Keys) == 0 { // a single key too, which a library would take for a set
		return errNoKeySet
	}
	for i, key := range set.Keys {
		for _, member := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
			if _, has := key[member]; has {
				return fmt.Errorf("key %d holds private key material; only the public half belongs here", i+1)
			}
		}
	}
	return nil
}

func parseClientKey(key jwk.Key) (ClientKey, error) {
	if use := key.KeyUsage(); use != "" && use != string(jwk.ForSignature) {
		return ClientKey{}, errors.New("its use is not sig")
	}
	parsed := ClientKey{ID: key.KeyID()}
	if err := key.Raw(&parsed.Public); err != nil {
		return ClientKey{}, errors.New("it cannot be read")
	}
	switch public := parsed.Public.(type) {
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() {
			return ClientKey{}, errors.New("its curve is not P-256")
		}
		parsed.Algorithm = jwa.ES256
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return ClientKey{}, fmt.Errorf("it has %d bits; %d to %d are accepted", bits, minRSABits, maxRSABits)
		}
		parsed.Algorithm = jwa.RS256
	case ed25519.PublicKey:
		parsed.Algorithm = jwa.EdDSA
	default:
		return ClientKey{}, errors.New("it is neither P-256, RSA nor Ed25519")
	}
	if algorithm := key.Algorithm().String(); algorithm != "" && algorithm != parsed.Algorithm.String() {
		return ClientKey{}, fmt.Errorf("its alg is %s; a key of this kind is for %s", algorithm, parsed.Algorithm)
	}
	return parsed, nil
}
