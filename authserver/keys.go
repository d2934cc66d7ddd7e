package authserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	// keysFresh is the age at which keys that are in use are read again, beside the
	// requests: so soon is a withdrawn one noticed.
	keysFresh = time.Minute
	// keysMaxAge is the age beyond which keys that could not be read again count no
	// more.
	keysMaxAge = 5 * time.Minute
	// keysMinAge keeps tokens that name unknown keys from causing a request each.
	keysMinAge = 10 * time.Second
	// maxKeys of a set are looked at.
	maxKeys = 100
)

// keySet is one immutable state of the keys.
type keySet struct {
	byID map[string]*ecdsa.PublicKey
	read time.Time // before it was asked for
}

// VerificationKey returns the key with this kid if it is known. It does not wait.
// It implements validator.KeySource.
func (s *Server) VerificationKey(kid string) (*ecdsa.PublicKey, bool) {
	set := s.keys.Load()
	if set == nil {
		return nil, false
	}
	if age := s.cfg.Now().Sub(set.read); age >= keysFresh {
		if s.readKeys(); age >= keysMaxAge {
			return nil, false
		}
	}
	key, ok := set.byID[kid]
	return key, ok
}

// FindKey returns the key with this kid and has the keys read again for it, if
// that was not tried just now. oauth.ErrUnknownKey: there is none, or was none a
// moment ago. ErrUnavailable: nobody can say.
func (s *Server) FindKey(ctx context.Context, kid string) (*ecdsa.PublicKey, error) {
	if key, ok := s.VerificationKey(kid); ok {
		return key, nil
	}
	if reading := s.readKeys(); reading != nil {
		select {
		case <-reading:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
	if key, ok := s.VerificationKey(kid); ok {
		return key, nil
	}
	if set := s.keys.Load(); set == nil || s.cfg.Now().Sub(set.read) >= keysMaxAge {
		return nil, s.unavailable()
	}
	return nil, oauth.ErrUnknownKey
}

// unavailable says why there are no keys that count.
func (s *Server) unavailable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		return fmt.Errorf("%w: its keys took too long to come, and count no more", ErrUnavailable)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, s.failure)
}

// Check asks the authorization server for what is needed of it. ErrOtherIssuer: it
// is not who it should be; ErrUnavailable: it cannot be asked now.
func (s *Server) Check(ctx context.Context) error {
	if _, err := s.FindKey(ctx, ""); err != nil && !errors.Is(err, oauth.ErrUnknownKey) {
		return err
	}
	return nil
}

// readKeys has the keys read, unless that was tried a moment ago. What it returns
// is closed when they have been; nil: nobody reads them now. However many ask,
// there is one request at a time.
func (s *Server) readKeys() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if s.reading != nil || now.Sub(s.tried) < keysMinAge {
		return s.reading
	}
	reading := make(chan struct{})
	s.reading, s.tried = reading, now
	go func() { // ends by the timeout of its requests
		set, err := s.fetchKeys(context.Background(), now)
		if err == nil {
			s.keys.Store(set)
		}
		s.mu.Lock()
		s.reading, s.failure = nil, err
		s.mu.Unlock()
		close(reading)
	}()
	return reading
}

func (s *Server) fetchKeys(ctx context.Context, now time.Time) (*keySet, error) {
	address := s.cfg.KeysURL
	if address == "" {
		m, err := s.readMetadata(ctx)
		if err != nil {
			return nil, err
		}
		address = m.JWKSURI
	}
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := s.get(ctx, address, &document); err != nil {
		return nil, fmt.Errorf("read the keys of %s: %w", s.cfg.Issuer, err)
	}
	set := &keySet{make(map[string]*ecdsa.PublicKey), now}
	for _, raw := range document.Keys[:min(len(document.Keys), maxKeys)] {
		if kid, key := readKey(raw); key != nil && set.byID[kid] == nil {
			set.byID[kid] = key
		}
	}
	if len(set.byID) == 0 {
		return nil, fmt.Errorf("%s holds no public key for ES256", address)
	}
	return set, nil
}

// readKey returns nil for a key that is for something else: a set may hold keys of
// kinds that are not known here.
func readKey(raw []byte) (kid string, _ *ecdsa.PublicKey) {
	parsed, err := jwk.ParseKey(raw)
	if err != nil || parsed.KeyID() == "" {
		return "", nil
	}
	if alg, use := parsed.Algorithm().String(), parsed.KeyUsage(); alg != "" && alg != "ES256" || use != "" && use != "sig" {
		return "", nil
	}
	var key ecdsa.PublicKey // a private one does not fit
	if err := parsed.Raw(&key); err != nil || key.Curve != elliptic.P256() {
		return "", nil
	}
	return parsed.KeyID(), &key
}
