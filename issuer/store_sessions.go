package issuer

import (
	"context"
	"net/netip"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// SessionStore holds sessions: a client's live permission to act for a user.
type SessionStore interface {
	// RotateRefreshToken moves the session's counter from n to n+1 in one
	// statement. The previous counter, while its grace lasts, moves nothing and
	// yields the same successor. A counter above the row's (restored backup) is
	// accepted and the row moves past it, with an event. It returns ErrReplayed,
	// after revoking the session, if the counter was passed long ago, and
	// ErrNotFound if the session is not alive, not this client's, or bound to
	// another key. RFC 9700 section 4.14.2, RFC 9449 section 5.
	RotateRefreshToken(ctx context.Context, r Rotation, origin Origin) (Rotated, error)

	// OpenClientSession returns the session in which the client acts for itself
	// at the resource: UserID is ClientID. There is one, made when there is none
	// or it has less than AccessTokenTTL left; a token minted now is noted in
	// its row and its scopes are added. So that however often a client asks, the
	// number of rows does not grow. ErrNotFound: the client is disabled.
	// RFC 6749 section 4.4.
	OpenClientSession(ctx context.Context, clientID, resource string, scopes oauth.ScopeSet, lifetime SessionLifetime, origin Origin) (Session, error)

	// DelegateSession returns the session in which a client, a service, acts on
	// for the user of the parent session. There is one for each parent, client
	// and resource, made when there is none; a token minted now is noted in its
	// row and its scopes are added. It ends with the parent, in the same
	// transaction, and when the parent is narrowed. ErrNotFound: the parent is
	// not alive or another client's, or the client is disabled. RFC 8693.
	DelegateSession(ctx context.Context, d Delegation, origin Origin) (Session, error)

	// AssertSession returns the session in which the client acts for the user whom
	// an identity provider names, and uses the assertion up, in one transaction.
	// There is one for each provider, user, client and resource, made when there is
	// none or it has less than AccessTokenTTL left; a token minted now is noted in
	// its row and its scopes are added. Who is seen for the first time becomes a
	// user, unless KnownUsersOnly. ErrReplayed: the assertion was used, on whichever
	// node. ErrNotFound: the user or the client is disabled, or the user is not
	// known. ErrExists: the user id is somebody else's.
	AssertSession(ctx context.Context, a AssertedSession, origin Origin) (Session, error)

	// OpenOperatorSession makes a session in which the client acts for the user by
	// the word of an operator, with an event that says so. AssertedBy of it is
	// AssertedByOperator. ErrNotFound: the client or the user is not known, or
	// disabled.
	OpenOperatorSession(ctx context.Context, o OperatorSession) (Session, error)

	// FindSession returns a live session of the client without touching it, so
	// that what a refresh asks for is checked before anything moves.
	FindSession(ctx context.Context, sessionID, clientID string) (Session, error)

	// FindAdoptedRefreshToken returns the session that a refresh token of the
	// adopted system leads to (digest of the whole token). It counts as counter
	// 0. ErrReplayed, after revoking the session: rotated by the old system
	// longer than grace ago.
	FindAdoptedRefreshToken(ctx context.Context, digest Digest, clientID string, grace time.Duration, origin Origin) (Session, error)

	// RevokeSession ends a session of the client. ErrNotFound, and nothing
	// changed: not alive, or another client's. RFC 7009 section 2.1.
	RevokeSession(ctx context.Context, sessionID, clientID, reason string, origin Origin) error

	// EndUserSession ends a session on behalf of its user.
	EndUserSession(ctx context.Context, sessionID, userID string, origin Origin) error

	// UserSessions returns the live sessions of a user, newest first, at most
	// 100.
	UserSessions(ctx context.Context, userID string) ([]Session, error)
}

// AppStore is what users see of the apps that they have connected, and how they
// take that back.
type AppStore interface {
	// ConnectedApps returns live sessions that the user allowed, newest first: those
	// after the position, at most limit.
	ConnectedApps(ctx context.Context, userID string, after AppPosition, limit int) ([]ConnectedApp, error)
	// ConnectedApp returns one of them. ErrNotFound: not alive, or another user's.
	ConnectedApp(ctx context.Context, userID, sessionID string) (ConnectedApp, error)
	// EndUserSessions ends all of them and says how many. What the user allowed and
	// no client has fetched yet is taken back too.
	EndUserSessions(ctx context.Context, userID string, origin Origin) (ended int, err error)
	// NarrowSession leaves the session no scopes but keep; for others its client
	// must ask again. ErrNotFound: not alive, another user's, or its scopes are not
	// `from` any more.
	NarrowSession(ctx context.Context, userID, sessionID string, from, keep oauth.ScopeSet, origin Origin) error
}

// Origin tells the audit event where a step came from.
type Origin struct {
	Address   netip.Addr // the client's address by trusted_proxies; may be invalid
	RequestID string     // correlates with the log; may be empty
	Agent     string     // the User-Agent, cleaned and cut; may be empty
}

// SessionLifetime bounds a new session.
type SessionLifetime struct {
	TTL            time.Duration // refresh_token_ttl: from consent to the end, however often refreshed
	IdleTTL        time.Duration // refresh_idle_ttl: ends earlier if not refreshed for so long; 0: no such bound
	AccessTokenTTL time.Duration // of the token minted with it; raises tokens_expire_at
	Limit          int           // session_limit per user; 0: none
	DPoPKey        string        // see Session
}

// Session is one row of gpt_sessions.
type Session struct {
	ID            string // uuid
	UserID        string
	ClientID      string
	Resource      string // empty on an adopted session: the client's default
	RedirectURI   string // where its code was sent; empty on an adopted session
	Scopes        oauth.ScopeSet
	GrantedScopes oauth.ScopeSet
	Counter       int64 // of the current refresh token
	AuthTime      time.Time
	CreatedAt     time.Time
	LastActive    time.Time
	ExpiresAt     time.Time
	// DPoPKey is the thumbprint of the key that its refresh tokens are bound to;
	// empty: none. RFC 9449 section 5.
	DPoPKey string
	// AssertedBy is the identity provider by whose word, and not the user's, the
	// session exists, or AssertedByOperator; empty: the user allowed it.
	AssertedBy string
	// LoginMethod is how the user had signed in; empty: not known.
	LoginMethod string
	// Profile is what is known of the user, as a JSON object of claims of OpenID
	// Connect Core section 5.1; nil unless the session has an identity scope.
	Profile []byte
	// nonce of the authorization request, for the ID token; empty: none.
	nonce string
	// actor is who acts in it for the user; nil: the client that the user allowed.
	actor *actor
	// Remaining is ExpiresAt minus the database's clock when the row was read;
	// an access token lives no longer.
	Remaining time.Duration
}

// ConnectedApp is a session as its user sees it.
type ConnectedApp struct {
	Session
	Consent Place            // where the user was who allowed it
	Client  Place            // where the client last fetched tokens
	Calls   map[string]int64 // by scope, in the last 30 days
	// CallsSince is when counting began; before it nobody knows.
	CallsSince time.Time
}

// Place is where somebody was.
type Place struct {
	Address string // IP address; empty: not known
	Agent   string // the User-Agent, cleaned and cut; may be empty
}

// AppPosition is where a list of connected apps goes on: after the session of
// this id, created then. The zero value: at the beginning.
type AppPosition struct {
	CreatedAt time.Time
	SessionID string
}

// Delegation is what a service asks for that calls on for a user.
type Delegation struct {
	ParentID       string // the session of the token that came to the service
	ParentClientID string
	ClientID       string // the service
	Resource       string // what it calls
	Scopes         oauth.ScopeSet
	AccessTokenTTL time.Duration
}

// AssertedSession is what an identity assertion asks for.
type AssertedSession struct {
	Assertion      Digest        // of its issuer and jti
	AssertionTTL   time.Duration // for which it is remembered
	User           ExternalUser  // User.Authority is the provider
	KnownUsersOnly bool
	ClientID       string
	Resource       string
	Scopes         oauth.ScopeSet
	TTL            time.Duration // of a session that is made
	AccessTokenTTL time.Duration
}

// AssertedByOperator is Session.AssertedBy of what an operator has made.
const AssertedByOperator = "operator"

// OperatorSession is what an operator makes for a token.
type OperatorSession struct {
	ClientID, UserID, Resource string
	Scopes                     oauth.ScopeSet
	TTL                        time.Duration // of the session, and of its only token
}

// Rotation is one use of a refresh token.
type Rotation struct {
	SessionID      string
	ClientID       string
	Counter        int64  // of the presented token
	DPoPKey        string // thumbprint of the key that the request proved; empty: none
	Resource       string // noted in a session that has none yet, an adopted one; may be empty
	Grace          time.Duration
	IdleTTL        time.Duration
	AccessTokenTTL time.Duration
}

// Rotated is the outcome of a rotation: the session as it stands after, with
// the successor's counter in Session.Counter.
type Rotated struct {
	Session Session
	// Repeated: the previous counter came again within its grace.
	Repeated bool
}
