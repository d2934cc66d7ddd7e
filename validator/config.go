package validator

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// KeySource finds the public keys that access tokens are signed with.
// It must not block: an unknown kid is simply unknown.
type KeySource interface {
	VerificationKey(kid string) (*ecdsa.PublicKey, bool)
}

// KeyFinder is a KeySource whose keys are kept elsewhere: a kid that is not known
// here may be known there.
type KeyFinder interface {
	// FindKey may wait for an answer. oauth.ErrUnknownKey: there is no such key; any
	// other error: nobody can say, and the request is answered with 503.
	FindKey(ctx context.Context, kid string) (*ecdsa.PublicKey, error)
}

// ErrSessionEnded: the session was revoked, has expired or never was.
var ErrSessionEnded = errors.New("session ended")

// SessionReader reads session state.
type SessionReader interface {
	// ReadSession returns the session as it stands. ErrSessionEnded: it is not
	// alive. Any other error means that the state cannot be confirmed, and the
	// request is answered with 503.
	ReadSession(ctx context.Context, sessionID string) (Session, error)
	// Held returns what ReadSession returned with this handle, if it would return
	// the same again, as far as that can be told without a look-up; else it reports
	// false, and the session is read. It is asked at every request, with handles of
	// any reader, also of one that a reload replaced, and with zero.
	Held(handle uint64) (Session, bool)
}

// TokenSessionReader is a SessionReader that is asked by the token, as where it is
// introspected; ReadSession is then not called. The token's signature and claims
// were verified before. Its errors are those of ReadSession.
type TokenSessionReader interface {
	ReadTokenSession(ctx context.Context, token, resource string) (Session, error)
}

// Session is what a live session allows. Once returned it is not changed.
type Session struct {
	UserID   string
	ClientID string
	Scopes   oauth.ScopeSet // as they stand now; a token never exceeds them
	// Claims of the user, as they stand now; nil: none, or there is no user.
	Claims oauth.UserClaims
	Until  time.Time // when it ends by itself; zero: not known

	// Handle is the reader's own, for Held. Zero: it has none.
	Handle uint64
}

// Config makes a Resource.
type Config struct {
	Issuer   string         // `iss` of accepted tokens. Required.
	Resource string         // `aud` of accepted tokens. Required.
	Catalog  *oauth.Catalog // declared scopes. Required.
	Rules    []Rule         // the scope rules. Required.
	Keys     KeySource      // Required.
	Sessions SessionReader  // Required.
	// Tokens keeps verified tokens; resources may share it. nil: every token is
	// verified every time.
	Tokens *TokenCache
	// ClientAllowed reports whether a client is (still) registered. nil: all are.
	ClientAllowed func(clientID string) bool
	// Proofs checks the proofs of possession that DPoP-bound tokens need; it must
	// not be nil while requests come. A nil function: the scheme is not known
	// here, and bound tokens are refused.
	Proofs func() *dpop.Verifier
	// Limits counts the callers of rules with rates. A nil function or result:
	// nothing is counted.
	Limits func() *ratelimit.Limiter
	// ClientAddress is where a request comes from, for rates by address. nil, or an
	// address that is not valid: not known, and not counted.
	ClientAddress func(*http.Request) netip.Addr
	// RequestPath returns the escaped path as the client sent it, which proofs
	// name, where something before the gate may have rewritten it. nil: the
	// path of the request.
	RequestPath func(*http.Request) string
	// PassUnmatched lets requests go on that no rule names: the table was made
	// for the matcher of a short-form gate. A request that a case-blind reader
	// would find a rule for is still refused.
	PassUnmatched bool
	// CORSOrigins: preflights of these origins are answered here instead of
	// being forwarded; "*" is every origin. nil: preflights are forwarded.
	CORSOrigins []string
	// Leeway forgives clock skew between nodes on `exp` and `iat`. Zero: 5 seconds.
	Leeway time.Duration
	// Now is the node's clock. nil: time.Now.
	Now func() time.Time
}
