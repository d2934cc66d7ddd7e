package issuer

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/oauth"
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

// RegistrationStore holds clients that registered themselves, for all nodes.
type RegistrationStore interface {
	// RegisterClient stores a new client. It goes by itself when it was not used
	// for unusedTTL, and sooner when it was never used. ErrTooManyClients.
	RegisterClient(ctx context.Context, registration ClientRegistration, unusedTTL time.Duration, origin Origin) error
	// FindRegistration returns a client that registered itself. ErrNotFound: no
	// such client, or it is disabled.
	FindRegistration(ctx context.Context, clientID string) (ClientRegistration, error)
	// UpdateRegistration replaces name, metadata and secret of the client.
	// ErrNotFound: the registration access token is not its. RFC 7592 section 2.2.
	UpdateRegistration(ctx context.Context, registration ClientRegistration, origin Origin) error
	// DeleteRegistration removes the client with all its sessions. ErrNotFound:
	// the registration access token is not its. RFC 7592 section 2.3.
	DeleteRegistration(ctx context.Context, clientID string, accessToken Digest, origin Origin) error

	// FindDocument returns the client metadata document that was fetched last,
	// fresh or not. ErrNotFound: none was.
	FindDocument(ctx context.Context, clientID string) (ClientDocument, error)
	// KeepDocument keeps a document that was checked, for as long as it is fresh
	// and, for use in need, until it was not used for unusedTTL. ErrNotFound: the
	// client is disabled. ErrTooManyClients.
	KeepDocument(ctx context.Context, document ClientDocument, unusedTTL time.Duration, origin Origin) error
	// DropDocument forgets that a document is fresh: its host says that it is none.
	DropDocument(ctx context.Context, clientID string) error

	// ApproveClient notes which revision of a client the user said yes to.
	// ErrNotFound: the client is gone.
	ApproveClient(ctx context.Context, clientID, userID string, revision Digest) error
	// ClientApproval returns the revision that was noted last. ErrNotFound: none.
	ClientApproval(ctx context.Context, clientID, userID string) (Digest, error)
}

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

// LoginStore holds logins: a user's signed-in browser.
type LoginStore interface {
	// CreateLogin stores a login of a user of `login password`, made by the method of
	// that name, that lives for ttl, and returns it.
	CreateLogin(ctx context.Context, digest Digest, userID, method string, ttl time.Duration, origin Origin) (Login, error)
	// CreateExternalLogin stores a login of a user whom another authority names,
	// made by the login method of that name; hint, sealed, may be nil. Who is seen for the first time
	// becomes a user under ExternalUser.UserID; afterwards authority and subject
	// decide, and name, claims and profile follow what is said now. ErrNotFound: the user
	// is disabled, or their account or session there has ended meanwhile.
	// ErrExists: the id is another user's, or a client's.
	CreateExternalLogin(ctx context.Context, digest Digest, method string, user ExternalUser, hint []byte, ttl time.Duration, origin Origin) (Login, error)
	// FindLogin returns the live login whose cookie has this digest.
	// ErrNotFound: unknown, expired, ended, or its user is disabled.
	FindLogin(ctx context.Context, digest Digest) (Login, error)
	// LogoutHint returns the sealed hint that the login was made with. ErrNotFound:
	// no such login; nil: it has none.
	LogoutHint(ctx context.Context, digest Digest) (sealed []byte, err error)
	// EndLogin removes the login (sign-out). Codes made under it and not yet
	// redeemed die with it. Unknown digests are no error.
	EndLogin(ctx context.Context, digest Digest, origin Origin) error
	// EndProviderLogins removes the logins of a user who has signed out at the
	// provider, as EndLogin does, also those whose sign-in is under way, and if it
	// is asked to, all sessions of the user. It returns how many of each, which may
	// be none. ErrReplayed, and nothing changed: the token was used before, on
	// whichever node.
	EndProviderLogins(ctx context.Context, logout ProviderLogout, origin Origin) (logins, sessions int, err error)
}

// PasskeyStore holds the passkeys of the users of `login password`.
type PasskeyStore interface {
	// Passkeys returns those of the user, oldest first.
	Passkeys(ctx context.Context, userID string) ([]Passkey, error)
	// FindPasskey returns the passkey with this credential id. ErrNotFound: there is
	// none, or its user is disabled.
	FindPasskey(ctx context.Context, credentialID []byte) (Passkey, error)
	// AddPasskey stores a passkey of a user who has fewer than limit, and renews the
	// login at which they did that. ErrTooManyPasskeys; ErrExists: the credential is
	// somebody's already; ErrNotFound: the user is gone, disabled, or signs in
	// elsewhere.
	AddPasskey(ctx context.Context, passkey Passkey, limit int, login RenewedLogin, origin Origin) error
	// RenamePasskey gives a passkey of the user another name. ErrNotFound.
	RenamePasskey(ctx context.Context, userID, passkeyID, name string) error
	// RemovePasskey removes a passkey of the user, and ends the logins that were
	// made with it but the one whose cookie has the digest keep. ErrNotFound.
	RemovePasskey(ctx context.Context, userID, passkeyID string, keep Digest, origin Origin) error
	// CreatePasskeyLogin moves the passkey's counter to passkey.SignCount and stores
	// a login that lives for ttl. ErrReplayed, with an event and nothing changed: the
	// counter was there before, so that two devices hold the key. WebAuthn section
	// 7.2 step 22. ErrNotFound: the passkey was removed or its user disabled
	// meanwhile.
	CreatePasskeyLogin(ctx context.Context, digest Digest, passkey Passkey, ttl time.Duration, origin Origin) (Login, error)
}

// AccountStore follows accounts that other authorities keep.
type AccountStore interface {
	// EndAccount disables a user: all logins and sessions end at once, and nobody
	// signs in until the user is enabled again. It returns their id. ErrNotFound:
	// nobody here; whoever it is cannot become a user within the next hour.
	// ErrReplayed, and nothing changed: the event was used before, on whichever
	// node.
	EndAccount(ctx context.Context, end AccountEnd, origin Origin) (userID string, err error)
}

// FactorStore holds second factors of the users of `login password`.
type FactorStore interface {
	// FindSecondFactor returns that of the user. ErrNotFound: they have none.
	FindSecondFactor(ctx context.Context, userID string) (SecondFactor, error)
	// TrySecondFactor counts an attempt, before it is known what comes of it, and
	// returns the second factor. *TooManyAttempts: there were as many as each of the
	// bounds allows, on all nodes together. ErrNotFound.
	TrySecondFactor(ctx context.Context, userID string, lately, daily AttemptBound) (SecondFactor, error)
	// UseSecondFactor notes that a code of this time step counted, forgets the
	// attempts of lately, and takes this one from those of the day: who guesses gains
	// nothing from the user's own codes. resealed replaces the sealed secret unless it
	// is nil. ErrReplayed: a code of this step, or a later one, counted before, on
	// whichever node. RFC 6238 section 5.2.
	UseSecondFactor(ctx context.Context, userID string, step int64, resealed []byte) error
	// UseRecoveryCode forgets the code and the attempts of lately. ErrNotFound: the
	// user has no such code.
	UseRecoveryCode(ctx context.Context, userID string, code Digest, origin Origin) error
	// SetSecondFactor gives the user a second factor and recovery codes. Logins by
	// password alone end, but the one that is renewed, which counts as one by both
	// from now on. ErrExists: the user has one, or is gone.
	SetSecondFactor(ctx context.Context, userID string, factor SecondFactor, codes []Digest, login RenewedLogin, origin Origin) error
	// SetRecoveryCodes replaces the user's recovery codes. ErrNotFound: the user has
	// no second factor.
	SetRecoveryCodes(ctx context.Context, userID string, codes []Digest, origin Origin) error
	// RemoveSecondFactor removes it with its recovery codes. ErrNotFound.
	RemoveSecondFactor(ctx context.Context, userID string, origin Origin) error
}

// AttemptBound is how many attempts there may be in how long.
type AttemptBound struct {
	Limit  int
	Window time.Duration
}

// TooManyAttempts: no more of them are looked at for so long.
type TooManyAttempts struct{ For time.Duration }

func (e *TooManyAttempts) Error() string {
	return "too many attempts; again in " + e.For.Round(time.Second).String()
}

// RenewedLogin is a login whose cookie changes: by digests. The zero value renews
// none.
type RenewedLogin struct{ Before, After Digest }

// ResetStore holds links by which a user of `login password` sets a new password.
type ResetStore interface {
	// CreateReset stores the digest of a link that works for ttl. ErrNotFound: there
	// is no such user, or they are disabled.
	CreateReset(ctx context.Context, digest Digest, reset Reset, ttl time.Duration, origin Origin) error
	// FindReset returns what the link would do, and changes nothing. ErrNotFound:
	// unknown, used, expired, or its user is disabled.
	FindReset(ctx context.Context, digest Digest) (Reset, error)
	// UseReset sets the password, ends the user's logins, does what else the link
	// says, and forgets the user's links. ErrNotFound, and nothing changed: as above.
	UseReset(ctx context.Context, digest Digest, passwordHash string, origin Origin) error
}

// UserStore manages the users of `login password`.
type UserStore interface {
	// FindUserByEmail compares without regard to case. Disabled users are
	// returned with Disabled set. ErrNotFound: no such user.
	FindUserByEmail(ctx context.Context, email string) (User, error)
	// CreateUser stores a new user and returns its id. ErrExists: email taken.
	CreateUser(ctx context.Context, email, passwordHash string, origin Origin) (User, error)
	// SetPassword replaces the hash and ends the user's logins. ErrNotFound.
	SetPassword(ctx context.Context, email, passwordHash string, origin Origin) error
	// DisableUser disables the user, ends its logins, revokes its sessions and takes
	// back its reset links. Who has no address is named by user id. ErrNotFound.
	DisableUser(ctx context.Context, name string, origin Origin) error
	// EnableUser undoes DisableUser, but no session and no reset link comes back.
	// ErrNotFound.
	EnableUser(ctx context.Context, name string, origin Origin) error
}

// KeyStore holds signing keys, sealed. See KeyRing.
type KeyStore interface {
	// MaintainSigningKeys moves every key to the phase that policy and the
	// database's clock give it, under a lock that all nodes share, and returns
	// the keys that are not gone, oldest first. newKey is called, inside the
	// transaction, when a key must be made; two nodes on an empty database make
	// one.
	MaintainSigningKeys(ctx context.Context, policy KeyPolicy, newKey func() (SealedKey, error)) ([]SealedKey, error)
	// SigningKeys returns the keys that are not gone, oldest first, and moves none.
	SigningKeys(ctx context.Context) ([]SealedKey, error)
	// PublishSigningKey adds a published key ahead of schedule, unless another is
	// published; with another, also then. It returns all keys that are not gone.
	PublishSigningKey(ctx context.Context, policy KeyPolicy, another bool, newKey func() (SealedKey, error)) ([]SealedKey, error)
	// ReplaceSigningKey makes a published key sign at once; the one that signed
	// until now is gone (a compromise). ErrNotFound: the key is not published.
	ReplaceSigningKey(ctx context.Context, kid string) ([]SealedKey, error)
	// ResealSigningKey replaces the sealed bytes of a key, after the root secret
	// changed.
	ResealSigningKey(ctx context.Context, kid string, sealed []byte) error
}

// Digest is the SHA-256 of a secret: what storage keeps in its place.
type Digest [32]byte

// Origin tells the audit event where a step came from.
type Origin struct {
	Address   netip.Addr // the client's address by trusted_proxies; may be invalid
	RequestID string     // correlates with the log; may be empty
	Agent     string     // the User-Agent, cleaned and cut; may be empty
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

// ClientRegistration is a client that registered itself. RFC 7591.
type ClientRegistration struct {
	ClientID    string
	Name        string
	Metadata    []byte    // JSON, checked
	Secret      *Digest   // nil: it has none
	AccessToken Digest    // of the registration access token, RFC 7592
	IssuedAt    time.Time // by the database's clock
}

// ClientDocument is a client metadata document as it was fetched.
type ClientDocument struct {
	ClientID string // its URL
	Name     string
	Body     []byte
	// Fresh is how long it need not be fetched again; counted by the database's
	// clock, below zero by what it is stale.
	Fresh    time.Duration
	Disabled bool // switched off in SQL
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

// Login is one row of gpt_logins.
type Login struct {
	ID        string // uuid
	UserID    string
	Name      string // what the pages call the user: the email address
	Method    string // the login method that made it, such as "password"
	AuthTime  time.Time
	ExpiresAt time.Time
	// Authority and Subject are who names the user elsewhere, and how; empty: they
	// sign in with a password.
	Authority, Subject string
	// Claims of the user as they stand now; nil: none.
	Claims oauth.UserClaims
	// HalfDone: made by the password alone, of a user who has a second factor.
	HalfDone bool
}

// SecondFactor is one row of gpt_second_factors.
type SecondFactor struct {
	Sealed        []byte // the secret, sealed under the root secret
	Step          int64  // time step of the last code that counted
	RecoveryCodes int    // that are left
	CreatedAt     time.Time
}

// Reset is what a link to set a new password does besides.
type Reset struct {
	Email         string // of the user
	EndSessions   bool   // revokes the user's sessions
	RemoveFactors bool   // removes passkeys and second factor
}

// Passkey is one row of gpt_passkeys: a credential of WebAuthn section 4.
type Passkey struct {
	ID           string // uuid
	CredentialID []byte
	UserID       string
	Name         string // as the user calls it
	PublicKey    []byte // COSE_Key
	SignCount    int64  // zero for ever where the authenticator does not count
	// BackupEligible: it may be copied to other devices of the user, which never
	// changes; BackedUp: it is.
	BackupEligible, BackedUp bool
	Transports               []string
	CreatedAt, LastUsed      time.Time // LastUsed zero: never
}

// AccountEnd is the word of an authority that an account of its is no more.
type AccountEnd struct {
	// EventID is the same for the same event, RememberFor how long it could come
	// again.
	EventID     Digest
	RememberFor time.Duration
	// Authority and Subject are those of ExternalUser; no Authority: Subject is the
	// user id.
	Authority, Subject string
	// Deleted: what is known of the user is removed too, but the id and that they
	// may not sign in.
	Deleted bool
	Source  string // for the audit trail
}

// User is one row of gpt_users.
type User struct {
	ID           string // `sub` in tokens
	Email        string
	PasswordHash string // PHC string, argon2id
	Disabled     bool
	CreatedAt    time.Time
}

// KeyPhase is where a signing key stands in its life.
type KeyPhase string

// A key goes through these in order. A gone key's row is kept, without its
// private part, so that its kid is never used again.
const (
	KeyPublished KeyPhase = "published" // in the JWKS, does not sign yet
	KeyActive    KeyPhase = "active"    // signs; exactly one
	KeyRetiring  KeyPhase = "retiring"  // verifies until its last token has expired
	KeyGone      KeyPhase = "gone"
)

// SealedKey is a signing key as it is stored.
type SealedKey struct {
	KID    string
	Phase  KeyPhase
	Public []byte // JWK, JSON
	Sealed []byte // private JWK, sealed under the root secret
	// Since is when the key entered its phase, CreatedAt when it was made.
	Since, CreatedAt time.Time
}

// KeyPolicy times the phases.
type KeyPolicy struct {
	RotateEvery time.Duration // age of the active key at which the next takes over
	PublishFor  time.Duration // at least one JWKS lifetime in phase published
	RetireFor   time.Duration // longest access token lifetime plus skew
}
