package issuer

import (
	"context"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// CodeStore holds authorization codes, as SHA-256 digests.
type CodeStore interface {
	// CreateAuthorizationCode stores a code that lives for ttl. A second call
	// with the same RequestID stores nothing and succeeds: a consent form sent
	// twice yields one code.
	CreateAuthorizationCode(ctx context.Context, code AuthorizationCode, ttl time.Duration, origin Origin) error

	// FindAuthorizationCode returns the code with this digest, also when it was
	// redeemed before (RedeemedAt is set then). It changes nothing. ErrNotFound:
	// unknown, expired, or burnt by failed attempts.
	FindAuthorizationCode(ctx context.Context, digest Digest) (AuthorizationCode, error)

	// RedeemAuthorizationCode consumes the code and creates its session in one
	// statement. GrantedScopes of the new session is the union of the code's
	// scopes and all that the client was granted before in live sessions of
	// this user for the same resource and redirect URI: what was allowed for one
	// is no approval for another. ErrNotFound: consumed meanwhile, expired, or its user, client
	// or login has ended since. RFC 6749 section 4.1.2.
	RedeemAuthorizationCode(ctx context.Context, digest Digest, lifetime SessionLifetime, origin Origin) (Session, error)

	// CountFailedRedemption notes an attempt with a wrong verifier, redirect URI
	// or resource by the right client; the fifth burns the code.
	CountFailedRedemption(ctx context.Context, digest Digest) error

	// ReplayAuthorizationCode is told of an otherwise valid second redemption.
	// Within tolerance of the first nothing happens (an honest double submit);
	// later the session made from the code is revoked and ErrReplayed returned.
	ReplayAuthorizationCode(ctx context.Context, digest Digest, tolerance time.Duration, origin Origin) error
}

// DeviceStore holds device authorizations. Its user codes are digests under a
// key that is not in the database.
type DeviceStore interface {
	// CreateDeviceCode stores a request that waits for ttl and may be polled once
	// an interval. ErrExists: the user code is another's. ErrNotFound: the
	// client is gone.
	CreateDeviceCode(ctx context.Context, code DeviceCode, interval, ttl time.Duration) error

	// EnterUserCode returns the request that waits under the user code, and
	// counts that it was entered. ErrNotFound: unknown, decided, expired, or
	// entered ten times before.
	EnterUserCode(ctx context.Context, userCode Digest) (DeviceCode, error)

	// DecideDeviceCode notes the decision of a user. The same decision of the
	// same user again changes nothing and succeeds. ErrNotFound: expired, decided
	// otherwise, or the login has ended.
	DecideDeviceCode(ctx context.Context, userCode Digest, decision DeviceDecision, origin Origin) error

	// RedeemDeviceCode notes a poll, and if the user has allowed the request
	// consumes it and creates its session in one statement. ErrNotFound: unknown,
	// another client's, or redeemed; ErrDevicePending, ErrDevicePolledEarly,
	// ErrDeviceDenied (by the user, or their login has ended since, or there is
	// no room for a session), ErrDeviceExpired.
	RedeemDeviceCode(ctx context.Context, digest Digest, clientID string, lifetime SessionLifetime, origin Origin) (Session, error)
}

// PushStore holds pushed authorization requests.
type PushStore interface {
	// PushRequest stores the parameters, form-encoded, of a request of the client
	// for ttl, under the digest of its request_uri. ErrNotFound: the client is
	// gone.
	PushRequest(ctx context.Context, digest Digest, clientID, parameters string, ttl time.Duration) error
	// UsePushedRequest returns the parameters and forgets them. ErrNotFound:
	// unknown, expired, used, or another client's, which then stays. RFC 9126
	// section 4.
	UsePushedRequest(ctx context.Context, digest Digest, clientID string) (parameters string, err error)
}

// AuthorizationCode is what a code is bound to. RFC 6749 section 4.1.2.
type AuthorizationCode struct {
	Digest      Digest
	RequestID   string // uuid of the authorization request; unique
	ClientID    string
	UserID      string
	LoginID     string // uuid of the login it was made under
	RedirectURI string // as the client sent it, or its only registered one
	// RedirectURISent: the authorization request named redirect_uri, so the
	// token request must too. RFC 6749 section 4.1.3.
	RedirectURISent bool
	Resource        string // the configured identifier that becomes `aud`
	Scopes          oauth.ScopeSet
	CodeChallenge   string // S256; empty: none was sent
	DPoPKey         string // thumbprint of the key that it is for; empty: any
	Nonce           string // of the ID token; empty: none was sent
	LoginMethod     string // how the user signed in
	AuthTime        time.Time

	// RedeemedAt is zero until the code is redeemed; set by FindAuthorizationCode.
	RedeemedAt time.Time
}

// DeviceCode is what a device asks for. RFC 8628 section 3.1.
type DeviceCode struct {
	Digest   Digest // SHA-256 of the device code
	UserCode Digest // of the user code
	ClientID string
	Resource string
	Scopes   oauth.ScopeSet
}

// DeviceDecision is what a user said to it.
type DeviceDecision struct {
	Allow   bool
	Scopes  oauth.ScopeSet // that are allowed, of those that were asked for
	UserID  string
	LoginID string // uuid of the login it was said under
	// LoginMethod and AuthTime are those of the login.
	LoginMethod string
	AuthTime    time.Time
}
