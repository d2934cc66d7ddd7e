package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// keysMaxAge is how long a key that was withdrawn may still verify.
	keysMaxAge = 5 * time.Minute
	// keysMinAge keeps tokens that name unknown keys from causing a request
	// each.
	keysMinAge = 10 * time.Second
)

var errUnknownKey = errors.New("no key of the set verifies the signature")

// remoteKeys is a JWK set at an address: kept for a while, read again when it is
// old or lacks the key that a token names, so that both rotation and withdrawal
// are noticed. It implements oidc.KeySet.
type remoteKeys struct {
	url    string
	client *http.Client
	now    func() time.Time

	mu      sync.Mutex // held while reading: one request at a time
	keys    []jose.JSONWebKey
	read    time.Time // of the last success
	tried   time.Time
	failure error // of the last try
}

// VerifySignature returns the payload of a compact JWS that a key of the set has
// signed. The caller has checked the algorithm.
func (k *remoteKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	signed, err := jose.ParseSigned(token, asymmetric)
	if err != nil {
		return nil, err
	}
	keys, readNow, err := k.current(ctx, false)
	if err != nil {
		return nil, err
	}
	payload, err := verifyWith(signed, keys)
	if errors.Is(err, errUnknownKey) && !readNow {
		if keys, _, err = k.current(ctx, true); err != nil {
			return nil, err
		}
		if payload, err = verifyWith(signed, keys); err != nil {
			return nil, err
		}
	}
	return payload, err
}

// current returns the keys; again asks for newer ones, if the last try was not
// just now. readNow reports whether they were read for this call.
func (k *remoteKeys) current(ctx context.Context, again bool) (keys []jose.JSONWebKey, readNow bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	old := k.read.IsZero() || now.Sub(k.read) >= keysMaxAge
	if (old || again) && now.Sub(k.tried) >= keysMinAge {
		k.tried = now
		if keys, k.failure = k.fetch(ctx); k.failure == nil {
			k.keys, k.read, readNow, old = keys, now, true, false
		}
	}
	if old {
		return nil, false, fmt.Errorf("read the keys at %s: %w", k.url, k.failure)
	}
	return k.keys, readNow, nil
}

func (k *remoteKeys) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	// Not the caller's to end: others wait for the same answer.
	r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, k.url, nil)
	if err != nil {
		return nil, err
	}
	response, err := k.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", response.Status)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("the answer is no JWK set")
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		// A set may hold keys of kinds that are not known here.
		if json.Unmarshal(raw, &key) == nil && key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig") {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the set holds no public key for signatures")
	}
	return keys, nil
}

// verifyWith tries the keys that the token names, or all if it names none.
func verifyWith(signed *jose.JSONWebSignature, keys []jose.JSONWebKey) ([]byte, error) {
	header := signed.Signatures[0].Header
	for i := range keys {
		if header.KeyID != "" && keys[i].KeyID != header.KeyID || keys[i].Algorithm != "" && keys[i].Algorithm != header.Algorithm {
			continue
		}
		if payload, err := signed.Verify(&keys[i]); err == nil {
			return payload, nil
		}
	}
	return nil, errUnknownKey
}

// asymmetric are the algorithms of keys that may be published. Never HMAC: with
// it a public key would be the secret (RFC 8725 section 2.1).
var asymmetric = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}
