package caddymodule

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/authserver"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/ratelimit"
	"github.com/caddy-scope/caddy-scope/validator"
)

// RemoteSettings name an authorization server that runs elsewhere: this Caddy only
// gates. Its keys are read from its JWK set. Sessions are asked about by
// introspection, or read from the same Postgres where that is configured.
type RemoteSettings struct {
	// Issuer is its identifier. Placeholders. Required.
	Issuer string `json:"issuer"`
	// ClientID and ClientSecret are those of the client by which this Caddy introspects
	// tokens: one that names the resources of the gates with introspect there.
	// Placeholders. Required, unless Postgres is configured.
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
}

// ResourceSettings name a resource whose gate is elsewhere: another Caddy, or a
// service with the middleware.
type ResourceSettings struct {
	// Identifier that its access tokens are for. Placeholders. Required.
	Identifier string `json:"identifier"`
	// Scopes that its rules use, all declared. Required.
	Scopes []string `json:"scopes"`
	// Source is where it was written; errors name it.
	Source string `json:"source,omitempty"`
}

// remotes outlive a reload, with the keys and answers they hold.
var remotes = caddy.NewUsagePool() // by authserver.Config

type sharedRemote struct{ *authserver.Server }

// Destruct implements caddy.Destructor.
func (sharedRemote) Destruct() error { return nil }

// remoteKey tells remotes apart.
type remoteKey struct {
	issuer, client, secret string
	maxStaleness           time.Duration
}

// parseRemote reads
//
//	remote <issuer> {
//		client <client_id> <secret>
//	}
func (s *Settings) parseRemote(d *caddyfile.Dispenser) (err error) {
	s.Remote = new(RemoteSettings)
	if s.Remote.Issuer, err = value(d); err != nil {
		return err
	}
	if d.NextArg() {
		return d.Errf("remote: unexpected %q", d.Val())
	}
	return parseBlock(d, map[string]word{"client": once(func(d *caddyfile.Dispenser) error {
		if !d.AllArgs(&s.Remote.ClientID, &s.Remote.ClientSecret) || s.Remote.ClientID == "" || s.Remote.ClientSecret == "" {
			return d.Err("client: a client_id and its secret are expected (an unset {$VARIABLE} leaves none)")
		}
		return nil
	})})
}

// parseResource reads
//
//	resource <identifier> <scope...>
func (s *Settings) parseResource(d *caddyfile.Dispenser) (err error) {
	r := ResourceSettings{Source: source(d)}
	if r.Identifier, err = value(d); err != nil {
		return err
	}
	if r.Scopes = d.RemainingArgs(); len(r.Scopes) == 0 {
		return d.Errf("resource %s: the scopes that its rules use are missing", r.Identifier)
	}
	s.Resources = append(s.Resources, r)
	return nil
}

// provisionResources checks the resources whose gates are elsewhere.
func (a *App) provisionResources() error {
	seen := make(map[string]bool)
	for i := range a.Resources {
		r := &a.Resources[i]
		identifier, err := resolve("resource", r.Identifier)
		if err != nil {
			return atSource(r.Source, "", err)
		}
		if err := oauth.CheckIdentifier("resource", identifier); err != nil {
			return atSource(r.Source, "", err)
		}
		if seen[identifier] {
			return atSource(r.Source, "", fmt.Errorf("resource %s is declared twice", identifier))
		}
		seen[identifier] = true
		for _, name := range r.Scopes {
			if !a.declares(name) {
				return atSource(r.Source, "resource "+identifier, fmt.Errorf("scope %q is not declared", name))
			}
		}
		a.elsewhere = append(a.elsewhere, issuer.ProtectedResource{Identifier: identifier, Scopes: oauth.NewScopeSet(r.Scopes...)})
	}
	return nil
}

// provisionRemote checks that nothing is configured that only an authorization
// server has, and fills what the gates ask for.
func (a *App) provisionRemote() error {
	for _, has := range []struct {
		word string
		set  bool
	}{
		{"issuer", a.Settings.Issuer != ""}, {"secret", len(a.Secrets) > 0}, {"signing_key", len(a.SigningKeys) > 0}, {"key_rotation_interval", a.KeyRotationInterval != 0},
		{"client", len(a.Clients) > 0}, {"openid", a.OpenID}, {"registration", a.Registration != nil}, {"identity_provider", len(a.IdentityProviders) > 0},
		{"client_policy", len(a.ClientPolicies) > 0}, {"login", len(a.LoginsRaw) > 0}, {"events", len(a.Events) > 0}, {"login_ttl", a.LoginTTL != 0},
		{"session_limit", a.SessionLimit != 0}, {"apps_scope", a.AppsScope != ""}, {"theme", a.Theme != nil}, {"grants", len(a.Grants) > 0}, {"resource", len(a.Resources) > 0},
		{"access_token_ttl", a.AccessTokenTTL != 0}, {"code_ttl", a.CodeTTL != 0}, {"refresh_token_ttl", a.RefreshTokenTTL != 0},
		{"refresh_idle_ttl", a.RefreshIdleTTL != 0}, {"refresh_grace", a.RefreshGrace != nil}, {"event_retention", a.EventRetention != nil},
	} {
		if has.set {
			return a.at(has.word, 0, fmt.Errorf("%s belongs to the authorization server, which is elsewhere (remote): write it there", has.word))
		}
	}
	for _, step := range []func() error{
		a.provisionRemoteIssuer, a.provisionScopes, a.provisionLifetimes, a.provisionRemoteSessions, a.provisionTokens, a.provisionRates,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	a.clients = make(map[string]*issuer.Client)
	return nil
}

func (a *App) provisionRemoteIssuer() (err error) {
	if a.issuer, err = resolve("remote", a.Remote.Issuer); err != nil {
		return a.at("remote", 0, err)
	}
	if err := oauth.CheckIdentifier("remote", a.issuer); err != nil {
		return a.at("remote", 0, err)
	}
	a.issuerURL, err = oauth.ParseIdentifier(a.issuer)
	return err
}

func (a *App) provisionRemoteSessions() (err error) {
	key := remoteKey{issuer: a.issuer, maxStaleness: time.Duration(a.MaxStaleness)}
	switch {
	case a.Postgres == nil && a.Remote.ClientID == "":
		return a.at("remote", 0, errors.New("remote: say how sessions are asked about: client <client_id> <secret> (introspection), or postgres <dsn> (the database of the authorization server)"))
	case a.Postgres != nil && a.Remote.ClientID != "":
		return a.at("remote", 0, errors.New("remote: sessions are read from postgres, or asked about by client; remove one of the two"))
	case a.Postgres != nil && (a.Postgres.Embedded || a.Postgres.MigrateDSN != "" || a.Postgres.AdoptFor != ""):
		return a.at("postgres", 0, errors.New("postgres: with remote it is the database of the authorization server, which alone runs and changes it: dsn, schema and pooled are all there is to say"))
	case a.Postgres != nil:
		return a.provisionPostgres()
	case a.SessionCheck != "":
		return a.at("session_check", 0, errors.New("session_check is about Postgres; with remote and client, answers of introspection count for max_staleness"))
	}
	if key.client, err = resolve("client", a.Remote.ClientID); err != nil {
		return a.at("remote", 0, err)
	}
	if key.secret, err = resolve("client", a.Remote.ClientSecret); err != nil {
		return a.at("remote", 0, err)
	}
	a.remoteKey = key
	return nil
}

// onlyGates says where to administer instead of here.
func (a *App) onlyGates() string {
	return fmt.Sprintf("this Caddy only gates (remote): users, clients, sessions, keys and the database are administered where %s runs", a.issuer)
}

// How a node that only gates asks about sessions.
const (
	remoteIntrospection = "introspection"
	remotePostgres      = "postgres"
)

// openRemote makes what the gates need of an authorization server elsewhere. That
// it cannot be reached keeps nobody from starting: requests are then answered with
// 503, and it is asked again. That it is another one does.
func (a *App) openRemote(ctx context.Context) (*runtime, error) {
	key := a.remoteKey
	key.issuer = a.issuer
	opened, _, err := remotes.LoadOrNew(key, func() (caddy.Destructor, error) {
		server, err := authserver.New(authserver.Config{Issuer: key.issuer, ClientID: key.client, ClientSecret: key.secret, MaxStaleness: key.maxStaleness})
		return sharedRemote{server}, err
	})
	if err != nil {
		return nil, err
	}
	a.onRelease(func() error { _, err := remotes.Delete(key); return err })
	server := opened.(sharedRemote).Server
	switch err := server.Check(ctx); {
	case errors.Is(err, authserver.ErrOtherIssuer):
		return nil, fmt.Errorf("remote: %w", err)
	case err != nil:
		a.logger.Warn("the authorization server cannot be reached; requests are answered with 503 until it can", zap.String("issuer", a.issuer), zap.Error(err))
	}
	rt := &runtime{verify: server, sessions: server, ready: server.Check, limiter: ratelimit.NewLimiter(localRates(), localRateKey())}
	if a.Postgres == nil {
		return rt, nil
	}
	db, err := a.openPool(ctx, a.database)
	if err != nil {
		return nil, err
	}
	rt.sessions, rt.clock, rt.ready = db.sessions, db.clock, db.db.Ready
	if a.SessionCheck != "strict" {
		if rt.view, err = a.openView(db); err != nil {
			return nil, err
		}
		rt.sessions = rt.view
	}
	return rt, nil
}

// localRateKey is that of rates that each node counts for itself.
var localRateKey = sync.OnceValue(func() (key [32]byte) {
	_, _ = rand.Read(key[:]) // never fails
	return key
})

// tokenSessions asks about sessions by their tokens.
type tokenSessions struct{ *App }

// ReadTokenSession implements validator.TokenSessionReader.
func (s tokenSessions) ReadTokenSession(ctx context.Context, token, resource string) (validator.Session, error) {
	if s.runtime == nil {
		return validator.Session{}, errNotStarted
	}
	reader, ok := s.runtime.sessions.(validator.TokenSessionReader)
	if !ok { // a rehearsal
		return s.runtime.sessions.ReadSession(ctx, "")
	}
	return reader.ReadTokenSession(ctx, token, resource)
}

// gateSessions is what gates ask about sessions.
func (a *App) gateSessions() validator.SessionReader {
	if a.Remote != nil && a.Postgres == nil {
		return tokenSessions{a}
	}
	return a
}

// FindKey implements validator.KeyFinder for the gates.
func (a *App) FindKey(ctx context.Context, kid string) (*ecdsa.PublicKey, error) {
	if finder, ok := a.runtime.verify.(validator.KeyFinder); ok {
		return finder.FindKey(ctx, kid)
	}
	return nil, oauth.ErrUnknownKey
}

// serveRemoteMetadata answers the metadata of this Caddy's resources (RFC 9728),
// which is all of the protocol that a gate alone has to say.
func (a *App) serveRemoteMetadata(w http.ResponseWriter, r *http.Request) {
	asked := hostname(r.Host)
	for _, resource := range a.protectedResources() {
		origin := oauth.Origin(resource.Identifier)
		if _, host, _ := strings.Cut(origin, "://"); hostname(host) == asked {
			issuer.ResourceMetadata(a.issuer, a.protectedResources, origin).ServeHTTP(w, r)
			return
		}
	}
	http.NotFound(w, r)
}

var (
	_ validator.KeyFinder          = (*App)(nil)
	_ validator.TokenSessionReader = tokenSessions{}
	_ validator.SessionReader      = (*authserver.Server)(nil)
	_ validator.SessionReader      = (*postgres.SessionView)(nil)
)
