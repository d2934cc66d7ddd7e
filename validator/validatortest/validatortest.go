// Package validatortest makes access tokens and sessions for tests of a gate:
// tokens with any header and any claims, signed as the issuer signs, and a
// session reader that a test can change.
package validatortest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// What the tokens of a Minter say unless a test changes it.
const (
	Issuer    = "https://auth.example.com"
	Resource  = "https://api.example.com"
	KID       = "key-1"
	UserID    = "user-1"
	ClientID  = "client-1"
	SessionID = "6f1c1f0e-3f0c-4d8a-9b53-6f6f6b1f0a01"
)

// Minter signs tokens with one key. It is a validator.KeySource for it.
type Minter struct {
	Key *ecdsa.PrivateKey
}

// NewMinter makes a Minter with a fresh P-256 key.
func NewMinter(t testing.TB) *Minter {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Minter{key}
}

// VerificationKey returns the key under KID.
func (m *Minter) VerificationKey(kid string) (*ecdsa.PublicKey, bool) {
	if kid != KID {
		return nil, false
	}
	return &m.Key.PublicKey, true
}

// Claims returns the claims of a good token with the given scope.
func Claims(scope string) map[string]any {
	now := time.Now().Unix()
	return map[string]any{
		"iss": Issuer, "aud": Resource, "sub": UserID, "client_id": ClientID, "sid": SessionID,
		"jti": "jti-1", "scope": scope, "iat": now, "exp": now + 900,
	}
}

// With returns claims with one member replaced; nil removes it.
func With(claims map[string]any, name string, value any) map[string]any {
	changed := maps.Clone(claims)
	changed[name] = value
	if value == nil {
		delete(changed, name)
	}
	return changed
}

// Token signs claims as the issuer does.
func (m *Minter) Token(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return m.Sign(`{"alg":"ES256","kid":"`+KID+`","typ":"at+jwt"}`, string(payload))
}

// Sign signs any header and payload bytes, with the lower s.
func (m *Minter) Sign(header, payload string) string {
	signed := Encode(header) + "." + Encode(payload)
	r, s := m.signature(signed)
	return signed + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// HighS returns the other signature of the same token, (r, n-s).
func HighS(token string) string {
	head, signature := token[:len(token)-86], token[len(token)-86:]
	raw, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		panic(err)
	}
	s := new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(raw[32:]))
	return head + base64.RawURLEncoding.EncodeToString(append(raw[:32:32], s.FillBytes(make([]byte, 32))...))
}

func (m *Minter) signature(signed string) (r, s *big.Int) {
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, m.Key, digest[:])
	if err != nil {
		panic(err)
	}
	n := elliptic.P256().Params().N
	if half := new(big.Int).Rsh(n, 1); s.Cmp(half) > 0 {
		s.Sub(n, s)
	}
	return r, s
}

// Encode is base64url without padding.
func Encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// Sessions is a validator.SessionReader over a map.
type Sessions struct {
	mu       sync.Mutex
	sessions map[string]*validator.Session
	failure  error
	reads    int
}

// NewSessions holds the session SessionID with these scopes.
func NewSessions(scopes ...string) *Sessions {
	return &Sessions{sessions: map[string]*validator.Session{
		SessionID: {UserID: UserID, ClientID: ClientID, Scopes: oauth.NewScopeSet(scopes...)},
	}}
}

// Put replaces a session.
func (s *Sessions) Put(id string, session *validator.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[id] = session
}

// End removes a session.
func (s *Sessions) End(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, id)
}

// Fail makes every read fail; nil makes them work again.
func (s *Sessions) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}

// Reads returns how many reads there were.
func (s *Sessions) Reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// ReadSession implements validator.SessionReader.
func (s *Sessions) ReadSession(_ context.Context, id string) (validator.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.failure != nil {
		return validator.Session{}, s.failure
	}
	session, ok := s.sessions[id]
	if !ok {
		return validator.Session{}, validator.ErrSessionEnded
	}
	return *session, nil
}

// Held implements validator.SessionReader: every session is read every time.
func (s *Sessions) Held(uint64) (validator.Session, bool) { return validator.Session{}, false }
