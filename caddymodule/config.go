package caddymodule

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// Settings is what the global option `oauth` and the app `oauth` configure.
// String fields that are marked "placeholders" may hold Caddy's global
// placeholders, such as {env.NAME} or {file./run/secrets/name}. They are
// resolved when the configuration is loaded and never stand in adapted JSON.
type Settings struct {
	// Issuer is the public URL of the authorization server, such as
	// https://api.example.com: no trailing slash, no query; plain http only for
	// a loopback host. It is never derived from a request. Placeholders.
	// Required.
	Issuer string `json:"issuer,omitempty"`

	// Remote is an authorization server elsewhere, in place of Issuer: this Caddy only
	// gates. Default: this is the authorization server.
	Remote *RemoteSettings `json:"remote,omitempty"`

	// Postgres is the database that all nodes share. Required, but for Remote.
	Postgres *PostgresSettings `json:"postgres,omitempty"`

	// Secrets are root secrets, each at least 32 bytes; the first one is in use,
	// the others are old ones that are honoured while what was made under them
	// lives (30 days). The same on all nodes. Placeholders. Default: one secret
	// is made and kept in Caddy's storage.
	Secrets []string `json:"secrets,omitempty"`

	// SigningKeys are P-256 private keys: base64 of a PEM (PKCS#8 or SEC 1), a
	// PEM, a JWK, or the name of a file that holds one of these. The first one
	// signs, the others verify only. Placeholders. Default: keys are made, kept
	// sealed in Postgres and rotated.
	SigningKeys []string `json:"signing_keys,omitempty"`

	// KeyRotationInterval is the age at which a self-made signing key is replaced
	// by the next one. It contradicts SigningKeys. Default: 90 days.
	KeyRotationInterval caddy.Duration `json:"key_rotation_interval,omitempty"`

	// Scopes are the scopes clients can ask for, in the order in which the
	// consent page shows them. At least one, here or by ScopesFrom.
	Scopes []ScopeSettings `json:"scopes,omitempty"`

	// ScopesFrom are OpenAPI documents (3.0 or 3.1, YAML or JSON) that declare
	// further scopes: those of the flows of their OAuth 2 schemes, with the
	// descriptions that stand there, which users read. One that is in Scopes stays
	// as it is there. Placeholders. Default: none.
	ScopesFrom []string `json:"scopes_from,omitempty"`

	// AppsScope is the declared scope by which a client may list and end what its
	// user has connected, at /oauth/api/apps. Only a client that names it among its
	// own scopes can ask for it. Default: there is no such list for clients.
	AppsScope string `json:"apps_scope,omitempty"`

	// Theme is what the pages look like. Default: as they are.
	Theme *ThemeSettings `json:"theme,omitempty"`

	// Resources are those whose gates are elsewhere: in another Caddy, or in a service.
	// Default: none.
	Resources []ResourceSettings `json:"resources,omitempty"`

	// Clients are the pre-registered clients. Default: none.
	Clients []ClientSettings `json:"clients,omitempty"`

	// Grants are grant types that clients in the database may use although no client
	// of the configuration does: client_credentials, device_code, jwt_bearer. Default:
	// those that clients of the configuration use, and authorization_code and
	// refresh_token.
	Grants []string `json:"grants,omitempty"`

	// OpenID makes the server an OpenID provider: clients may ask for the scopes
	// openid, profile and email, and get ID tokens. Default: false.
	OpenID bool `json:"openid,omitempty"`

	// Registration lets clients register themselves. Default: they cannot.
	Registration *RegistrationSettings `json:"registration,omitempty"`

	// IdentityProviders are those whose assertions stand in for what users allow, for
	// clients with the grant jwt_bearer. Default: none.
	IdentityProviders []IdentityProviderSettings `json:"identity_providers,omitempty"`

	// ClientPolicies bound clients by where they come from; the most specific one
	// holds. Default: none.
	ClientPolicies []ClientPolicySettings `json:"client_policies,omitempty"`

	// LoginsRaw are the ways in which users sign in. Default: none, and nobody
	// can sign in.
	LoginsRaw []json.RawMessage `json:"logins,omitempty" caddy:"namespace=oauth.login inline_key=method"`

	// Events are those who tell of accounts that have ended elsewhere. Default:
	// nobody.
	Events []EventSettings `json:"events,omitempty"`

	// EventsWebhooks are who is sent the audit trail. Default: nobody.
	EventsWebhooks []EventsWebhookSettings `json:"events_webhooks,omitempty"`

	// SessionLimit is how many live sessions a user may have. Default: no limit.
	SessionLimit int `json:"session_limit,omitempty"`

	// RateLimits bound how often callers may ask endpoints. Default: as often as they
	// like, but for what is bounded anyway.
	RateLimits []EndpointRateSettings `json:"rate_limits,omitempty"`

	// SessionCheck says how the gate learns that a session is alive. "live" reads
	// it once and then decides from a view in memory that hears of every
	// revocation; "strict" reads Postgres for every request. Default: "live".
	SessionCheck string `json:"session_check,omitempty"`

	// MaxStaleness is the bound of "live": no request of a session is admitted
	// later than this after its revocation has committed, whatever breaks. At
	// least 100ms, at most 1m. Default: 1s.
	MaxStaleness caddy.Duration `json:"max_staleness,omitempty"`

	// AccessTokenTTL is the life of an access token. Default: 15m.
	AccessTokenTTL caddy.Duration `json:"access_token_ttl,omitempty"`

	// CodeTTL is the life of an authorization code. Default: 5m; at most 10m.
	CodeTTL caddy.Duration `json:"code_ttl,omitempty"`

	// RefreshTokenTTL is the life of a session from consent on, however often it
	// is refreshed. Default: 30d.
	RefreshTokenTTL caddy.Duration `json:"refresh_token_ttl,omitempty"`

	// RefreshIdleTTL ends a session that was not refreshed for so long.
	// Default: no such bound.
	RefreshIdleTTL caddy.Duration `json:"refresh_idle_ttl,omitempty"`

	// RefreshGrace is how long the previous refresh token still yields the same
	// successor; 0s: exactly one success. Default: 60s.
	RefreshGrace *caddy.Duration `json:"refresh_grace,omitempty"`

	// LoginTTL is how long a browser stays signed in. Default: 12h.
	LoginTTL caddy.Duration `json:"login_ttl,omitempty"`

	// EventRetention is how long the audit trail (gpt_oauth_events) is kept, at
	// least a day; 0: for ever. What an adopted database held before stays in any
	// case. Default: 365 days.
	EventRetention *caddy.Duration `json:"event_retention,omitempty"`

	// Sources tells where words of the Caddyfile stand, such as "Caddyfile:4" for
	// issuer, in the order in which a word is repeated; errors name them.
	Sources map[string][]string `json:"sources,omitempty"`
}

// PostgresSettings names the database: a DSN, or a server that Caddy runs
// itself.
type PostgresSettings struct {
	// DSN is a connection string or URL. Placeholders. Required, unless Embedded.
	DSN string `json:"dsn,omitempty"`

	// Embedded runs a Postgres server of our own: with the binaries that are
	// installed, else with downloaded ones. Default: false.
	Embedded bool `json:"embedded,omitempty"`

	// DataDir holds the data of the embedded server. Placeholders. Default:
	// "oauth-postgres" in Caddy's data directory.
	DataDir string `json:"data_dir,omitempty"`

	// Schema holds the tables. Default: "public".
	Schema string `json:"schema,omitempty"`

	// MigrateDSN is used in place of DSN for migrations: a role that may create
	// tables, or a way past a pooler. Placeholders. Default: DSN.
	MigrateDSN string `json:"migrate_dsn,omitempty"`

	// Pooled says that DSN leads to a transaction pooler such as PgBouncer: no
	// named statements, no LISTEN, no session locks. Default: false.
	Pooled bool `json:"pooled,omitempty"`

	// AdoptFor takes over a database of the system that went before, and gives
	// its sessions to this confidential client. Default: such a database is
	// refused.
	AdoptFor string `json:"adopt_for,omitempty"`
}

// ScopeSettings declares one scope.
type ScopeSettings struct {
	// Name is what clients ask for, such as "jobs:read". Required.
	Name string `json:"name"`
	// Description is what users read on the consent page. Required.
	Description string `json:"description"`
	// Implies names other declared scopes that this one includes. Default: none.
	Implies []string `json:"implies,omitempty"`
	// Optional lets users leave the scope out of what they allow. Default: false.
	Optional bool `json:"optional,omitempty"`
	// Link is an https URL where users read more. Default: none.
	Link string `json:"link,omitempty"`
	// In holds the description in other languages, by language tag. Default:
	// Description in all of them.
	In map[string]string `json:"in,omitempty"`
	// Source is where the scope was declared, such as "Caddyfile:12"; errors
	// name it.
	Source string `json:"source,omitempty"`
}

// ClientSettings declares one pre-registered client.
type ClientSettings struct {
	// ID is the client_id. Required.
	ID string `json:"id"`
	// Name is what users read on the consent page. Default: ID.
	Name string `json:"name,omitempty"`
	// Secrets make the client confidential: any of them authenticates it, so that
	// one can be replaced without a gap. Placeholders. Default: a public client.
	Secrets []string `json:"secrets,omitempty"`
	// RedirectURIs are compared byte for byte, but for the port of a loopback
	// redirect. Placeholders. Required for grant authorization_code.
	RedirectURIs []string `json:"redirect_uris,omitempty"`
	// PostLogoutRedirectURIs are where the client may have a user sent who has
	// signed out; compared as RedirectURIs are. For OpenID. Placeholders. Default:
	// none, and a page says that the user is signed out.
	PostLogoutRedirectURIs []string `json:"post_logout_redirect_uris,omitempty"`
	// RequirePushedAuthorizationRequests refuses authorization requests that were
	// not pushed to /oauth/par before. Default: false.
	RequirePushedAuthorizationRequests bool `json:"require_pushed_authorization_requests,omitempty"`
	// DPoPBoundAccessTokens refuses token requests without a proof of possession
	// (RFC 9449), so that no access token of the client works without its key.
	// Default: false, a client may send proofs.
	DPoPBoundAccessTokens bool `json:"dpop_bound_access_tokens,omitempty"`
	// PKCE is "required", or "optional" for a confidential client that cannot
	// send a code_challenge. Default: "required".
	PKCE string `json:"pkce,omitempty"`
	// JWKS is a JWK set of the public keys with which the client signs its
	// assertions (private_key_jwt): P-256 for ES256, RSA of 2048 bits and more for
	// RS256, Ed25519 for EdDSA; at most ten. It makes the client confidential.
	// Default: none.
	JWKS string `json:"jwks,omitempty"`
	// JWKSFile names a file that holds such a set. Placeholders. It contradicts
	// JWKS. Default: none.
	JWKSFile string `json:"jwks_file,omitempty"`
	// AuthMethods at the token endpoint: client_secret_basic,
	// client_secret_post, private_key_jwt or none. Default: both secret methods
	// for a client with a secret, private_key_jwt for one with keys, none for a
	// public one.
	AuthMethods []string `json:"auth_methods,omitempty"`
	// Grants are the grant types it may use: authorization_code, refresh_token,
	// client_credentials, device_code, jwt_bearer. Default: authorization_code and
	// refresh_token.
	Grants []string `json:"grants,omitempty"`
	// Resource is what its tokens are for when a request names no resource.
	// Placeholders. Default: the only resource whose rules use all requested
	// scopes, else the issuer's own.
	Resource string `json:"resource,omitempty"`
	// Scopes it may ask for. Default: every declared scope.
	Scopes []string `json:"scopes,omitempty"`

	// Introspect names resources whose access tokens the client may ask about at
	// /oauth/introspect, because it serves them. Placeholders. Default: none; a
	// client with a secret may always ask about its own tokens.
	Introspect []string `json:"introspect,omitempty"`

	// TokenExchange names resources that the client, a service, may call for the
	// users whose tokens come to it, by exchanging those (RFC 8693); they come to
	// it for one of Introspect. It gives the client the grant token_exchange.
	// Placeholders. Default: none.
	TokenExchange []string `json:"token_exchange,omitempty"`

	// AccessTokenTTL, RefreshTokenTTL, RefreshIdleTTL and RefreshGrace replace
	// the settings of the same name for this client. Default: those.
	AccessTokenTTL  *caddy.Duration `json:"access_token_ttl,omitempty"`
	RefreshTokenTTL *caddy.Duration `json:"refresh_token_ttl,omitempty"`
	RefreshIdleTTL  *caddy.Duration `json:"refresh_idle_ttl,omitempty"`
	RefreshGrace    *caddy.Duration `json:"refresh_grace,omitempty"`

	// Source is where the client was declared, such as "Caddyfile:20"; errors
	// name it.
	Source string `json:"source,omitempty"`
}

// RegistrationSettings is how clients register themselves. Whoever registers
// gets nothing by it but the right to ask a user.
type RegistrationSettings struct {
	// Dynamic turns on dynamic registration at /oauth/register (RFC 7591, RFC
	// 7592). Default: false.
	Dynamic bool `json:"dynamic,omitempty"`
	// MetadataDocuments turns on client_ids that are the https URL of a document
	// about the client. Default: false.
	MetadataDocuments bool `json:"metadata_documents,omitempty"`
	FetchSettings
	// InitialAccessTokens: a dynamic registration must bring one of them.
	// Placeholders. Default: anybody may register.
	InitialAccessTokens []string `json:"initial_access_tokens,omitempty"`
	// ClientTTL is how long a client that registered itself is kept unused; one
	// that no user ever allowed goes after a day. Default: 90d.
	ClientTTL caddy.Duration `json:"client_ttl,omitempty"`
}

// FetchSettings are the exceptions to what documents and keys are fetched from:
// public addresses, port 443.
type FetchSettings struct {
	// AllowAddresses are networks, such as 10.1.0.0/16, that may be fetched from
	// although they are not public. Default: none.
	AllowAddresses []string `json:"allow_addresses,omitempty"`
	// AllowPorts that may be fetched from beside 443. Default: none.
	AllowPorts []int `json:"allow_ports,omitempty"`
}

// IdentityProviderSettings is an identity provider whose assertions stand in for
// what users allow: an organization decides for its people
// (draft-ietf-oauth-identity-assertion-authz-grant, ID-JAG).
type IdentityProviderSettings struct {
	// Issuer is its identifier, an https URL, to the byte as in its assertions.
	// Placeholders. Required.
	Issuer string `json:"issuer"`
	// JWKSURI is where its public keys are. Placeholders. Default: where its OpenID
	// metadata say.
	JWKSURI string `json:"jwks_uri,omitempty"`
	ClaimSettings
	// KnownUsers refuses users who are not known here already. Default: false, and
	// who is seen for the first time becomes a user, as at a sign-in.
	KnownUsers bool `json:"known_users,omitempty"`
	FetchSettings
	// Source is where the provider was written, such as "Caddyfile:20"; errors name
	// it.
	Source string `json:"source,omitempty"`
}

// ClientPolicySettings bounds the clients that come from one place.
type ClientPolicySettings struct {
	// Pattern is https://HOST/* or https://HOST/PATH/*, where HOST may begin with
	// "*."; "loopback" for apps on the user's own device; "*" for every client that
	// registers itself and that no other pattern names. It is held against the
	// client_id of a metadata document, and against every redirect URI of any other
	// client. Required.
	Pattern string `json:"pattern"`
	// Scopes are the most that such clients may ever get. Default: no such bound.
	Scopes []string `json:"scopes,omitempty"`
	// Deny refuses such clients, unless they stand in the configuration. Default:
	// false.
	Deny bool `json:"deny,omitempty"`
	// Source is where the policy was written, such as "Caddyfile:20"; errors name
	// it.
	Source string `json:"source,omitempty"`
}

// RuleSettings is one scope rule: what a method and path require.
type RuleSettings struct {
	// Methods, upper case; GET includes HEAD. Default: any method.
	Methods []string `json:"methods,omitempty"`
	// Path pattern: literal segments, `*` or `{name}` for exactly one segment,
	// and a final `/*` for everything below. A lone "*" is every path. Required.
	Path string `json:"path"`
	// Access is "scopes" (all of Scopes), "any" (one of Scopes),
	// "authenticated" (any live session) or "public". Default: "scopes".
	Access string `json:"access,omitempty"`
	// Scopes are names of declared scopes. Required for "scopes" and "any".
	Scopes []string `json:"scopes,omitempty"`
	// Observe lets requests pass that the rule would refuse, and counts them; see
	// ModeSettings. Default: false.
	Observe bool `json:"observe,omitempty"`
	// User is what is asked of the user besides, all of it: that a claim has one of
	// the values, or holds one in its list. Default: nothing.
	User []oauth.UserRequirement `json:"user,omitempty"`
	// Rates bound how often callers may come; those of a public rule are per
	// address. Default: none.
	Rates []RateSettings `json:"rates,omitempty"`
	// Source is where the rule was written, such as "Caddyfile:34"; errors
	// name it.
	Source string `json:"source,omitempty"`
}

// ToolSettings is the rule for one tool of the MCP server behind a gate: what a
// call of it requires, besides what the rule of its path does.
type ToolSettings struct {
	// Name of the tool, as tools/list names it. Required.
	Name string `json:"name"`
	// Access is "scopes" (all of Scopes), "any" (one of Scopes), "authenticated"
	// (any live session) or "public" (nothing). Default: "scopes".
	Access string `json:"access,omitempty"`
	// Scopes are names of declared scopes. Required for "scopes" and "any".
	Scopes []string `json:"scopes,omitempty"`
	// User is what is asked of the user besides, as in a scope rule. Default:
	// nothing.
	User []oauth.UserRequirement `json:"user,omitempty"`
	// Rates bound how often callers may call the tool. Default: none.
	Rates []RateSettings `json:"rates,omitempty"`
	// Source is where the rule was written, such as "Caddyfile:36"; errors
	// name it.
	Source string `json:"source,omitempty"`
}

// IdentityHeaderSettings renames the headers that tell the upstream who is
// calling.
type IdentityHeaderSettings struct {
	User    string `json:"user,omitempty"`    // Default: X-User-Id
	Client  string `json:"client,omitempty"`  // Default: X-Client-Id
	Session string `json:"session,omitempty"` // Default: X-Session-Id
	Scopes  string `json:"scopes,omitempty"`  // Default: X-Scopes
	// Claims of the user that are passed on as well, to the headers that carry
	// them. Default: none.
	Claims map[string]string `json:"claims,omitempty"`
}

// names are those that the validator takes.
func (s *IdentityHeaderSettings) names() validator.IdentityHeaders {
	if s == nil {
		return validator.IdentityHeaders{}
	}
	names := validator.IdentityHeaders{User: s.User, Client: s.Client, Session: s.Session, Scopes: s.Scopes}
	for _, claim := range slices.Sorted(maps.Keys(s.Claims)) {
		names.Claims = append(names.Claims, validator.ClaimHeader{Claim: claim, Header: s.Claims[claim]})
	}
	return names
}
