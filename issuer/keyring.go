package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// KeyRing holds the signing keys of one node. Readers take no lock.
type KeyRing struct {
	keys atomic.Pointer[ringKeys]

	// Of a ring kept in the store; nil on a static one.
	store   KeyStore
	secrets *RootSecrets
	policy  KeyPolicy
}

// ringKeys is one immutable state of the ring.
type ringKeys struct {
	signer *ecdsa.PrivateKey
	kid    string
	// headers of the tokens that it signs, encoded, by type.
	headers map[string]string
	verify  map[string]*ecdsa.PublicKey
	jwks    []byte // the JWKS document
	stand   string // of the stored keys; see standOf
}

// NewStaticKeyRing is a ring of configured keys: the first signs, the others
// verify only.
func NewStaticKeyRing(keys []*ecdsa.PrivateKey) (*KeyRing, error) {
	if len(keys) == 0 {
		return nil, errors.New("key ring: no signing key")
	}
	state := &ringKeys{signer: keys[0], verify: make(map[string]*ecdsa.PublicKey)}
	var public []jwk.Key
	for i, key := range keys {
		pub, err := publicJWK(&key.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("key ring: %w", err)
		}
		if i == 0 {
			state.kid = pub.KeyID()
		}
		if _, dup := state.verify[pub.KeyID()]; dup {
			return nil, fmt.Errorf("key ring: signing key %d is given twice", i+1)
		}
		state.verify[pub.KeyID()] = &key.PublicKey
		public = append(public, pub)
	}
	ring := &KeyRing{}
	return ring, ring.become(state, public)
}

// OpenKeyRing is a ring of keys made, sealed and rotated in the store. It
// returns once the keys are loaded. A key sealed under a root secret that is
// not given is an error, never a reason to make another key.
func OpenKeyRing(ctx context.Context, store KeyStore, secrets *RootSecrets, policy KeyPolicy) (*KeyRing, error) {
	ring := &KeyRing{store: store, secrets: secrets, policy: policy}
	return ring, ring.Refresh(ctx)
}

// Refresh runs one maintenance step: keys move to their due phase and the ring
// follows. The owner calls it on a ticker (a few times per KeyPolicy.PublishFor).
func (k *KeyRing) Refresh(ctx context.Context) error {
	if k.store == nil {
		return nil
	}
	sealed, err := k.store.MaintainSigningKeys(ctx, k.policy, k.newKey)
	if err != nil {
		return fmt.Errorf("maintain signing keys: %w", err)
	}
	return k.load(ctx, sealed)
}

// Look follows what other nodes did to the keys and moves none. The owner calls
// it every LookEvery.
func (k *KeyRing) Look(ctx context.Context) error {
	if k.store == nil {
		return nil
	}
	sealed, err := k.store.SigningKeys(ctx)
	if err != nil {
		return fmt.Errorf("look at signing keys: %w", err)
	}
	if k.keys.Load().stand == standOf(sealed) {
		return nil
	}
	return k.load(ctx, sealed)
}

// LookEvery is how soon a node hears of what another did to the keys.
const LookEvery = 300 * time.Millisecond

// spread is until every node has heard of a key that was published: some looks,
// one of which may have failed.
const spread = 5 * LookEvery

// Rotate publishes a new key ahead of schedule; with now it replaces the one
// that signs, whose tokens are refused from then on. It then takes a moment:
// every node is to know the key before the first token comes that it signed.
func (k *KeyRing) Rotate(ctx context.Context, now bool) error {
	if k.store == nil {
		return errors.New("the signing keys stand in the configuration; change them there")
	}
	var made SealedKey
	sealed, err := k.store.PublishSigningKey(ctx, k.policy, now, func() (_ SealedKey, err error) {
		made, err = k.newKey()
		return made, err
	})
	if err == nil && now {
		select {
		case <-time.After(spread):
		case <-ctx.Done():
			return ctx.Err()
		}
		sealed, err = k.store.ReplaceSigningKey(ctx, made.KID)
	}
	if err != nil {
		return fmt.Errorf("rotate signing key: %w", err)
	}
	return k.load(ctx, sealed)
}

// standOf tells two states of the stored keys apart.
func standOf(sealed []SealedKey) string {
	var stand strings.Builder
	for _, key := range sealed {
		fmt.Fprintf(&stand, "%s %s %d\n", key.KID, key.Phase, key.Since.UnixNano())
	}
	return stand.String()
}

func (k *KeyRing) load(ctx context.Context, sealed []SealedKey) error {
	state := &ringKeys{verify: make(map[string]*ecdsa.PublicKey), stand: standOf(sealed)}
	var public []jwk.Key
	for _, s := range sealed {
		if s.Phase == KeyGone {
			continue
		}
		key, err := k.unseal(ctx, s)
		if err != nil {
			return fmt.Errorf("signing key %s: %w", s.KID, err)
		}
		pub, err := publicJWK(&key.PublicKey)
		if err != nil {
			return err
		}
		state.verify[s.KID] = &key.PublicKey
		public = append(public, pub)
		if s.Phase == KeyActive {
			state.signer, state.kid = key, s.KID
		}
	}
	if state.signer == nil {
		return errors.New("key ring: no key is active")
	}
	return k.become(state, public)
}

func (k *KeyRing) become(state *ringKeys, public []jwk.Key) error {
	var err error
	if state.jwks, err = json.Marshal(map[string][]jwk.Key{"keys": public}); err != nil {
		return fmt.Errorf("key ring: %w", err)
	}
	if state.headers, err = tokenHeaders(state.kid); err != nil {
		return fmt.Errorf("key ring: %w", err)
	}
	k.keys.Store(state)
	return nil
}

// newKey makes a key and seals it under its kid.
func (k *KeyRing) newKey() (SealedKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return SealedKey{}, fmt.Errorf("make signing key: %w", err)
	}
	pub, err := publicJWK(&key.PublicKey)
	if err != nil {
		return SealedKey{}, err
	}
	private, err := key.Bytes()
	if err != nil {
		return SealedKey{}, fmt.Errorf("make signing key: %w", err)
	}
	public, err := json.Marshal(pub)
	if err != nil {
		return SealedKey{}, fmt.Errorf("make signing key: %w", err)
	}
	return SealedKey{KID: pub.KeyID(), Public: public, Sealed: k.secrets.seal(signingKeyAEAD, private, []byte(pub.KeyID()))}, nil
}

// unseal opens a stored key, and seals it anew when the root secret changed.
func (k *KeyRing) unseal(ctx context.Context, s SealedKey) (*ecdsa.PrivateKey, error) {
	private, current, err := k.secrets.open(signingKeyAEAD, s.Sealed, []byte(s.KID))
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), private)
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	if !current {
		if err := k.store.ResealSigningKey(ctx, s.KID, k.secrets.seal(signingKeyAEAD, private, []byte(s.KID))); err != nil {
			return nil, fmt.Errorf("reseal: %w", err)
		}
	}
	return key, nil
}

// VerificationKey returns the public key with this kid, unless it is gone.
// It satisfies validator.KeySource.
func (k *KeyRing) VerificationKey(kid string) (*ecdsa.PublicKey, bool) {
	key, ok := k.keys.Load().verify[kid]
	return key, ok
}

// KeyIDs returns the kid that signs and all that verify.
func (k *KeyRing) KeyIDs() (signs string, verify []string) {
	state := k.keys.Load()
	for kid := range state.verify {
		verify = append(verify, kid)
	}
	return state.kid, verify
}

// KeyID returns the kid of a public key, its RFC 7638 thumbprint.
func KeyID(key *ecdsa.PublicKey) (string, error) {
	public, err := publicJWK(key)
	if err != nil {
		return "", err
	}
	return public.KeyID(), nil
}

// publicJWK is the JWK of a public key; its kid is the RFC 7638 thumbprint.
func publicJWK(key *ecdsa.PublicKey) (jwk.Key, error) {
	pub, err := jwk.FromRaw(key)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	thumbprint, err := pub.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return pub, errors.Join(
		pub.Set(jwk.KeyIDKey, base64.RawURLEncoding.EncodeToString(thumbprint)),
		pub.Set(jwk.AlgorithmKey, jwa.ES256),
		pub.Set(jwk.KeyUsageKey, jwk.ForSignature),
	)
}
