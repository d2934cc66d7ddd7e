package issuer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-scope/caddy-scope/dpop"
)

// minRootSecret is the least length of a root secret, in bytes.
const minRootSecret = 32

// keyIDSize is the length of the public name of a derived key inside tokens
// and sealed values, in bytes.
const keyIDSize = 4

// RootSecrets derives every symmetric key of the server from the root secret
// by HKDF-SHA-256 (RFC 5869), each for one purpose. Old secrets open and
// verify, the first one seals and signs.
type RootSecrets struct {
	derived []derivedKeys
}

// derivedKeys are the keys of one root secret.
type derivedKeys struct {
	id          [keyIDSize]byte
	fingerprint string
	refresh     []byte // HMAC of refresh tokens
	code        []byte // HMAC that makes authorization codes
	userCode    []byte // HMAC under which user codes of devices are kept
	dpopNonce   []byte // HMAC of nonces
	rates       [32]byte
	request     cipher.AEAD
	signingKey  cipher.AEAD
	factor      cipher.AEAD // secrets of second factors
}

// NewRootSecrets takes the current secret and any old ones, each at least 32
// bytes of text or random bytes. The error names the position, never the secret.
func NewRootSecrets(current []byte, old ...[]byte) (*RootSecrets, error) {
	s := &RootSecrets{}
	for i, secret := range append([][]byte{current}, old...) {
		if len(secret) < minRootSecret {
			return nil, fmt.Errorf("root secret %d has %d bytes; at least %d are needed", i+1, len(secret), minRootSecret)
		}
		keys, err := deriveKeys(secret)
		if err != nil {
			return nil, fmt.Errorf("root secret %d: %w", i+1, err)
		}
		s.derived = append(s.derived, keys)
	}
	return s, nil
}

func deriveKeys(secret []byte) (keys derivedKeys, err error) {
	derive := func(purpose string) []byte {
		key, derr := hkdf.Key(sha256.New, secret, nil, "caddy-scope "+purpose, 32)
		err = errors.Join(err, derr)
		return key
	}
	aead := func(purpose string) cipher.AEAD {
		block, berr := aes.NewCipher(derive(purpose))
		if berr != nil {
			err = errors.Join(err, berr)
			return nil
		}
		gcm, gerr := cipher.NewGCMWithRandomNonce(block)
		err = errors.Join(err, gerr)
		return gcm
	}
	fingerprint := derive("fingerprint")
	copy(keys.id[:], derive("key id"))
	keys.fingerprint = hex.EncodeToString(fingerprint[:16])
	keys.refresh, keys.code, keys.userCode = derive("refresh token"), derive("authorization code"), derive("user code")
	keys.dpopNonce = derive("dpop nonce")
	copy(keys.rates[:], derive("rates"))
	keys.request, keys.signingKey = aead("authorization request"), aead("signing key")
	keys.factor = aead("second factor")
	return keys, err
}

// Fingerprints returns a public name for each secret, the current one first:
// hex of 16 bytes from which nothing can be derived. The database remembers
// it, so that a node with another secret refuses to start.
func (s *RootSecrets) Fingerprints() []string {
	names := make([]string, len(s.derived))
	for i := range s.derived {
		names[i] = s.derived[i].fingerprint
	}
	return names
}

// NewRootSecret makes a root secret: 32 random bytes.
func NewRootSecret() []byte {
	secret := make([]byte, minRootSecret)
	_, _ = rand.Read(secret) // never fails
	return secret
}

// Nonces makes and knows the nonces of DPoP proofs, the same on every node with
// these secrets. RFC 9449 section 8.
func (s *RootSecrets) Nonces(now func() time.Time) *dpop.Nonces {
	keys := make([][]byte, len(s.derived))
	for i := range s.derived {
		keys[i] = s.derived[i].dpopNonce
	}
	return dpop.NewNonces(now, keys...)
}

// RateKey is what the callers of rates are named under.
func (s *RootSecrets) RateKey() [32]byte { return s.current().rates }

func (s *RootSecrets) current() *derivedKeys { return &s.derived[0] }

// byID returns the keys with this name, or nil.
func (s *RootSecrets) byID(id []byte) *derivedKeys {
	for i := range s.derived {
		if string(s.derived[i].id[:]) == string(id) {
			return &s.derived[i]
		}
	}
	return nil
}

// seal encrypts under the current secret; the result begins with its key id.
func (s *RootSecrets) seal(pick func(*derivedKeys) cipher.AEAD, plaintext, additional []byte) []byte {
	keys := s.current()
	return pick(keys).Seal(keys.id[:], nil, plaintext, additional)
}

// open decrypts what seal made, also under an old secret. current reports
// whether it was sealed under the one in use.
func (s *RootSecrets) open(pick func(*derivedKeys) cipher.AEAD, sealed, additional []byte) (plaintext []byte, current bool, err error) {
	if len(sealed) < keyIDSize {
		return nil, false, errors.New("sealed value is too short")
	}
	keys := s.byID(sealed[:keyIDSize])
	if keys == nil {
		return nil, false, errors.New("sealed under another root secret")
	}
	plaintext, err = pick(keys).Open(nil, nil, sealed[keyIDSize:], additional)
	return plaintext, keys == s.current(), err
}

func requestAEAD(k *derivedKeys) cipher.AEAD    { return k.request }
func signingKeyAEAD(k *derivedKeys) cipher.AEAD { return k.signingKey }

func secondFactorAEAD(k *derivedKeys) cipher.AEAD { return k.factor }

func mac(key []byte, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}
