package issuer

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// Client is an application registered to ask for access.
type Client struct {
	// ID is the client_id.
	ID string
	// Name is what users read on the consent page.
	Name string
	// SecretDigests are the SHA-256 of its secrets; none: a public client.
	SecretDigests []Digest
	// JWKS returns the public keys whose private halves sign its assertions, for
	// the method private_key_jwt; nil: it has none. ClientKeys makes it of
	// configured keys. An error means that the keys cannot be had now.
	JWKS func(ctx context.Context) (ClientKeys, error)
	// AuthMethods it may use at the token endpoint: "none" for a public client;
	// "client_secret_basic" and "client_secret_post" for one with a secret,
	// "private_key_jwt" for one with keys.
	AuthMethods []string
	// RedirectURIs are compared byte for byte, but for the port of a loopback
	// redirect. RFC 9700 section 4.1.3, RFC 8252 section 7.3.
	RedirectURIs []string
	// PostLogoutRedirectURIs are where the client may have a user sent who has
	// signed out; compared as RedirectURIs are. OpenID Connect RP-Initiated Logout
	// section 3.1.
	PostLogoutRedirectURIs []string
	// RequirePushed refuses authorization requests that were not pushed. RFC 9126
	// section 6.
	RequirePushed bool
	// RequireDPoP refuses token requests without a proof of possession, so that
	// no access token of the client works without its key. RFC 9449 section 5.2.
	RequireDPoP bool
	// PKCEOptional lets a confidential client leave code_challenge out.
	PKCEOptional bool
	// Grants are the grant types it may use.
	Grants []string
	// Resource is the identifier its tokens are for when a request names none;
	// empty: see Resource selection in resource.go.
	Resource string
	// Scopes it may ask for; nil: every declared scope.
	Scopes oauth.ScopeSet
	// DefaultScopes are what a request without `scope` asks for, where the resource
	// uses any of them; nil: all that the client may have.
	DefaultScopes oauth.ScopeSet
	// Ceiling is the most that it may ever get, by a client policy; nil: no such
	// bound. A request for more is narrowed, not refused: clients ask for all that
	// a resource names.
	Ceiling oauth.ScopeSet
	// Registration is how it came to be known.
	Registration RegistrationKind
	// Revision is a digest of what a client that registered itself says of itself;
	// users are asked again when it changes. Zero: a configured client.
	Revision Digest
	// Introspects are the resources whose access tokens it may ask about at
	// /oauth/introspect, as their resource server does. Any confidential client
	// may ask about its own tokens.
	Introspects []string
	// Exchanges are the resources that it may call for the users whose tokens
	// come to it, by the grant token-exchange; such tokens are for one of
	// Introspects.
	Exchanges []string
	// Lifetimes of its own; a nil field means the server's.
	AccessTokenTTL, RefreshTokenTTL, RefreshIdleTTL, RefreshGrace *time.Duration
}

// RegistrationKind is how a client came to be known.
type RegistrationKind string

const (
	RegisteredByOwner    RegistrationKind = ""         // it stands in the configuration
	RegisteredByDocument RegistrationKind = "document" // its client_id is the URL of its metadata
	RegisteredByItself   RegistrationKind = "dynamic"  // RFC 7591
)

// SelfRegistered reports whether nobody vouches for the client.
func (c *Client) SelfRegistered() bool { return c.Registration != RegisteredByOwner }

// Confidential reports whether the client must authenticate: it has a secret or
// keys, and cannot do without.
func (c *Client) Confidential() bool {
	return (len(c.SecretDigests) > 0 || c.JWKS != nil) && !slices.Contains(c.AuthMethods, methodNone)
}

// ClientSource finds registered clients. It returns ErrNotFound for an unknown
// or disabled one; any other error means that it could not say.
type ClientSource interface {
	Client(ctx context.Context, clientID string) (*Client, error)
}

// ProtectedResource is one gate that this server issues tokens for.
type ProtectedResource struct {
	Identifier string         // `aud`, RFC 8707
	Scopes     oauth.ScopeSet // every scope its rules name
	Name       string         // resource_name, RFC 9728; may be empty
}

// Config makes a Server.
type Config struct {
	// Issuer is the public identifier, checked by oauth.ParseIdentifier.
	// Required.
	Issuer string
	// Catalog holds the declared scopes. Required.
	Catalog *oauth.Catalog
	// Clients finds clients. Required.
	Clients ClientSource
	// Registration lets clients register themselves. nil: they cannot.
	Registration *Registration
	// Policies bound clients by where they come from. nil: none.
	Policies ClientPolicies
	// Resources returns the protected resources as they stand. Required.
	Resources func() []ProtectedResource
	// OpenID makes the server an OpenID provider: the scopes openid, profile and
	// email, ID tokens, UserInfo, and logout that a client asks for. OpenID
	// Connect Core.
	OpenID bool
	// Routes returns what the rules of a resource open, for the consent page. nil:
	// the page does not say.
	Routes func(resource string) []Route
	// IdentityProviders are those whose assertions stand in for what a user allows:
	// an organization decides for its people. nil: none, and the grant jwt-bearer is
	// off. draft-ietf-oauth-identity-assertion-authz-grant.
	IdentityProviders []IdentityProvider
	// Store keeps codes, sessions, logins and users. Required.
	Store Store
	// Keys signs access tokens. Required.
	Keys *KeyRing
	// Secrets derives refresh, sealing and code keys. Required.
	Secrets *RootSecrets
	// Password turns on `login password`.
	Password bool
	// Passkeys lets the users of `login password` sign in with passkeys, and keep
	// them at /oauth/account. The issuer must have a host name.
	Passkeys bool
	// SecondFactor is whether the users of `login password` have a second factor,
	// codes by time (RFC 6238). Who signs in with a passkey has shown two.
	SecondFactor SecondFactorMode
	// SendMail sends a mail to a user of `login password`, and returns when the mail
	// server has taken it. It is called in the background, a few at once. nil: there
	// are no mails, and no page for who has forgotten the password.
	SendMail func(context.Context, Mail) error
	// ResetTTL is how long the link of such a mail works. Zero: 30 minutes.
	ResetTTL time.Duration
	// Methods are the other ways to sign in. Without any, and without Password,
	// nobody can sign in.
	Methods []LoginMethod

	// Events are those who tell of accounts that have ended elsewhere. nil: nobody.
	Events []EventSource

	// Grants are the grant types that are on: those that some client may use.
	// nil: authorization_code and refresh_token. Others are answered with
	// unsupported_grant_type, their endpoints with 404.
	Grants []string

	AccessTokenTTL  time.Duration // zero: 15 minutes
	CodeTTL         time.Duration // zero: 5 minutes
	RefreshTokenTTL time.Duration // zero: 30 days
	RefreshIdleTTL  time.Duration // zero: no idle bound
	// RefreshGrace is how long the previous refresh token still yields its
	// successor. nil: 60 seconds; a pointer to zero: exactly one success.
	RefreshGrace *time.Duration
	LoginTTL     time.Duration // zero: 12 hours
	SessionLimit int           // per user; zero: no limit

	// AppsScope is the declared scope by which a client may list and end what its
	// user has connected, at /oauth/api/apps. Empty: no client may.
	AppsScope string

	// Look is what the pages look like. nil: ours, in our languages.
	Look *Look

	// ClientAddress returns the address of the caller by the owner's
	// trusted_proxies. nil: the peer's address.
	ClientAddress func(*http.Request) netip.Addr
	// Ready reports why the node cannot serve now; nil: it can. For
	// /oauth/healthz/ready.
	Ready func(context.Context) error
	// Logger; nil: none.
	Logger *zap.Logger
	// Rates bound how often callers may ask endpoints. None: as often as they like,
	// but for what is bounded anyway.
	Rates []EndpointRate
	// Limiter counts; nil: one of this server's own.
	Limiter *ratelimit.Limiter
	// Tally counts; nil: nobody does.
	Tally Tally
	// BodyTimeout is how long the body of a request may take to arrive. Zero: 10
	// seconds.
	BodyTimeout time.Duration
	// Now is the clock of the node. nil: time.Now.
	Now func() time.Time
	// Tokens is the clock of access tokens, the same for all nodes; nil: Now.
	Tokens TokenClock
}

// TokenClock dates access tokens and says when they have expired. The two may
// differ where clocks do: then a token is dated by what all nodes share, and has
// expired as soon as any clock says so.
type TokenClock interface {
	Issuing() time.Time
	Judging() time.Time
	// Skew is how far this node's clock is ahead of the shared one.
	Skew() time.Duration
}

// nodeClock is a TokenClock of the node alone.
type nodeClock struct{ now func() time.Time }

func (c nodeClock) Issuing() time.Time { return c.now() }
func (c nodeClock) Judging() time.Time { return c.now() }
func (nodeClock) Skew() time.Duration  { return 0 }
