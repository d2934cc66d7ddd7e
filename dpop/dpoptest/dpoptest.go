// Package dpoptest makes proofs of possession for tests: good ones, and ones
// with anything changed.
package dpoptest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// Key signs proofs.
type Key struct {
	Private   crypto.Signer
	Algorithm string
	t         testing.TB
}

// NewKey makes a key for ES256, EdDSA or RS256.
func NewKey(t testing.TB, algorithm string) *Key {
	t.Helper()
	var private crypto.Signer
	var err error
	switch algorithm {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case "RS256":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		t.Fatalf("no key for %s", algorithm)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Key{private, algorithm, t}
}

// WithKey signs with a key of the test's own.
func WithKey(t testing.TB, private crypto.Signer, algorithm string) *Key {
	return &Key{private, algorithm, t}
}

// JWK is the public key as the header of a proof holds it.
func (k *Key) JWK() map[string]any {
	k.t.Helper()
	key, err := jwk.FromRaw(k.Private.Public())
	if err != nil {
		k.t.Fatal(err)
	}
	text, _ := json.Marshal(key)
	var members map[string]any
	_ = json.Unmarshal(text, &members)
	return members
}

// Thumbprint is the `jkt` of the key. RFC 7638.
func (k *Key) Thumbprint() string {
	k.t.Helper()
	key, err := jwk.FromRaw(k.Private.Public())
	if err != nil {
		k.t.Fatal(err)
	}
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		k.t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// Change alters header and claims of a proof before it is signed.
type Change func(header, claims map[string]any)

// Nonce puts a server's nonce in.
func Nonce(nonce string) Change {
	return func(_, claims map[string]any) { claims["nonce"] = nonce }
}

// For puts the hash of the access token in.
func For(accessToken string) Change {
	sum := sha256.Sum256([]byte(accessToken))
	return Claim("ath", base64.RawURLEncoding.EncodeToString(sum[:]))
}

// Claim replaces a claim; nil removes it.
func Claim(name string, value any) Change {
	return func(_, claims map[string]any) { set(claims, name, value) }
}

// Header replaces a member of the header; nil removes it.
func Header(name string, value any) Change {
	return func(header, _ map[string]any) { set(header, name, value) }
}

func set(members map[string]any, name string, value any) {
	members[name] = value
	if value == nil {
		delete(members, name)
	}
}

// Proof signs a proof for the request, of this moment and with a new jti.
func (k *Key) Proof(method, uri string, changes ...Change) string {
	k.t.Helper()
	header := map[string]any{"typ": "dpop+jwt", "alg": k.Algorithm, "jwk": k.JWK()}
	claims := map[string]any{"jti": uuid.NewString(), "htm": method, "htu": uri, "iat": time.Now().Unix()}
	for _, change := range changes {
		change(header, claims)
	}
	return k.Sign(header, claims)
}

// Sign signs any header and claims, whatever the header says of the algorithm.
func (k *Key) Sign(header, claims map[string]any) string {
	k.t.Helper()
	encode := func(v map[string]any) string {
		text, err := json.Marshal(v)
		if err != nil {
			k.t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := encode(header) + "." + encode(claims)
	signer, err := jws.NewSigner(jwa.SignatureAlgorithm(k.Algorithm))
	if err != nil {
		k.t.Fatal(err)
	}
	signature, err := signer.Sign([]byte(signed), k.Private)
	if err != nil {
		k.t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}
