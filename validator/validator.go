package validator

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"net/http"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// KeySource finds the public keys that access tokens are signed with.
// It must not block: an unknown kid is simply unknown.
type KeySource interface {
	VerificationKey(kid string) (*ecdsa.PublicKey, bool)
}

// ErrSessionEnded: the session was revoked, has expired or never was.
var ErrSessionEnded = errors.New("session ended")

// SessionReader reads session state. ErrSessionEnded: the session is not
// alive. Any other error means that the state cannot be confirmed, and the
// request is answered with 503.
type SessionReader interface {
	ReadSession(ctx context.Context, sessionID string) (Session, error)
}

// Session is what a live session allows.
type Session struct {
	UserID   string
	ClientID string
	Scopes   oauth.ScopeSet // as they stand now; a token never exceeds them
}

// Config makes a Resource.
type Config struct {
	Issuer   string         // `iss` of accepted tokens. Required.
	Resource string         // `aud` of accepted tokens. Required.
	Catalog  *oauth.Catalog // declared scopes. Required.
	Rules    []Rule         // the scope rules. Required.
	Keys     KeySource      // Required.
	Sessions SessionReader  // Required.
	// ClientAllowed reports whether a client is (still) registered. nil: all are.
	ClientAllowed func(clientID string) bool
	// IdentityHeaders names the headers that tell the upstream who is calling.
	IdentityHeaders IdentityHeaders
	// CORSOrigins: preflights of these origins are answered here instead of
	// being forwarded; "*" is every origin. nil: preflights are forwarded.
	CORSOrigins []string
	// Leeway forgives clock skew between nodes on `exp` and `iat`. Zero: 5 seconds.
	Leeway time.Duration
	// Now is the node's clock. nil: time.Now.
	Now func() time.Time
}

// Resource is one protected resource: a table of scope rules, and everything
// needed to decide a request against it. Safe for concurrent use.
type Resource struct {
	cfg Config
}

// New checks the rules and compiles them. A problem with a rule is a
// *RuleError that names the source lines.
func New(cfg Config) (*Resource, error) { return &Resource{cfg: cfg}, nil }

// Identity is who is calling.
type Identity struct {
	UserID    string
	ClientID  string
	SessionID string
	Scopes    string    // space separated, sorted, hierarchy expanded
	ExpiresAt time.Time // of the access token
}

// Decision is a request let through.
type Decision struct {
	// Rule that decided; nil when the rule table does not cover the request
	// (only with a table made for a matcher, see Config).
	Rule *Rule
	// Identity is set for rules that need credentials; zero for public rules
	// and preflights.
	Identity Identity
	// Preflight: a CORS preflight to forward without credentials.
	Preflight bool
}

// Authorize decides the request. It changes nothing in it. The error is a
// *Refusal.
func (r *Resource) Authorize(req *http.Request) (Decision, error) { return Decision{}, nil }
