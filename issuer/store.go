package issuer

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-scope/caddy-scope/dpop"
)

// What storage found. Any other error from a store means that the database
// could not say, and the client is told to come again (503).
var (
	// ErrNotFound: no such row, or one that expired, was consumed, revoked or
	// disabled. Callers never learn which.
	ErrNotFound = errors.New("not found")
	// ErrReplayed: a code or refresh token was presented again after its time;
	// the session it led to is now revoked. RFC 9700 section 4.14.2.
	ErrReplayed = errors.New("replayed")
	// ErrSessionLimit: the user holds as many sessions as session_limit allows.
	ErrSessionLimit = errors.New("session limit reached")
	// How a device authorization stands that yields no session. RFC 8628 section
	// 3.5.
	ErrDevicePending     = errors.New("the user has not decided yet")
	ErrDevicePolledEarly = errors.New("polled too early; the interval is longer now")
	ErrDeviceDenied      = errors.New("denied, or the approval does not hold any more")
	ErrDeviceExpired     = errors.New("the device code has expired")
	// ErrExists: the email address, name or code is taken.
	ErrExists = errors.New("already exists")
	// ErrTooManyClients: as many clients as there may be have registered
	// themselves; unused ones go by and by.
	ErrTooManyClients = errors.New("too many clients have registered themselves")
	// ErrTooManyPasskeys: the user has as many as one may have.
	ErrTooManyPasskeys = errors.New("too many passkeys")
)

// Store is what the authorization server keeps. Its methods are protocol
// steps, each one transaction, and each writes its own audit event. Every
// expiry is decided by the clock of the database.
type Store interface {
	AssertionStore
	ReplayStore
	CodeStore
	dpop.Store
	DeviceStore
	PushStore
	RegistrationStore
	SessionStore
	AppStore
	LoginStore
	PasskeyStore
	AccountStore
	FactorStore
	ResetStore
	UserStore
}

// AssertionStore remembers the client assertions that were used.
type AssertionStore interface {
	// UseAssertion notes that the client used an assertion, by the digest of its
	// `jti`, which holds for ttl more. ErrReplayed: it was used before, on
	// whichever node. RFC 7523 section 3.
	UseAssertion(ctx context.Context, clientID string, jti Digest, ttl time.Duration) error
}

// ReplayStore remembers what must not come twice.
type ReplayStore interface {
	// UseOnce notes the digest for ttl. ErrReplayed: it is noted already, under
	// the same purpose, on whichever node.
	UseOnce(ctx context.Context, purpose string, digest Digest, ttl time.Duration) error
}

// Digest is the SHA-256 of a secret: what storage keeps in its place.
type Digest [32]byte
