package caddymodule

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/openapi"
	"github.com/caddy-scope/caddy-scope/validator"
)

const (
	appName        = "oauth"
	loginNamespace = "oauth.login"
)

func init() {
	caddy.RegisterModule(new(App))
	caddy.RegisterModule(Protect{})
	caddy.RegisterModule(Server{})
	caddy.RegisterModule(PasswordLogin{})
	caddy.RegisterModule(OIDCLogin{})
	caddy.RegisterModule(JWTLogin{})
	caddy.RegisterModule(ForwardLogin{})
	caddy.RegisterModule(adminAPI{})
	httpcaddyfile.RegisterGlobalOption(appName, parseGlobalOption)
	httpcaddyfile.RegisterHandlerDirective("oauth_server", parseServer)
	httpcaddyfile.RegisterDirective("oauth_protect", parseProtect)
	// After redir, rewrite, uri and try_files, so that the decision is made on the
	// path that is forwarded; before request_header, encode and reverse_proxy.
	httpcaddyfile.RegisterDirectiveOrder("oauth_server", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("oauth_protect", httpcaddyfile.After, "forward_auth")
}

// App is the authorization server and what the gates share: scopes, clients,
// keys, sessions. It serves nothing by itself; the handlers `oauth_server` and
// `oauth_protect` do.
type App struct {
	Settings

	issuer    string // Settings.Issuer, resolved
	issuerURL *url.URL
	catalog   *oauth.Catalog
	look      *issuer.Look
	clients   map[string]*issuer.Client
	register  *issuer.Registration // nil: clients cannot
	policies  issuer.ClientPolicies
	misfits   misfits

	identityProviders []issuer.IdentityProvider

	remoteKey remoteKey                  // of Remote with a client
	elsewhere []issuer.ProtectedResource // Resources, resolved

	database     database
	secrets      *issuer.RootSecrets // nil: to be made, or read from storage, by Start
	keys         []*ecdsa.PrivateKey
	logins       []LoginMethod
	eventSources []issuer.EventSource
	caddyEvents  *caddyEvents
	webhooks     []*issuer.Webhook

	ctx    caddy.Context
	logger *zap.Logger

	tokens *validator.TokenCache
	rates  []issuer.EndpointRate

	gates     []*Protect                   // that were provisioned
	documents map[string]*openapi.Document // by file

	surveyOnce sync.Once
	survey     *routeSurvey
	surveyErr  error

	// started is closed when Start has ended; runtime is nil if it failed.
	started chan struct{}
	runtime *runtime
	stop    context.CancelFunc
	// releases gives back what Start took, in reverse order.
	releases []func() error
	requests *atomic.Int64 // in flight
	command  bool          // provisioned by `caddy oauth …`, not to serve
	// rehearsal notes what the handlers decide; nil when serving.
	rehearsal *rehearsal
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: appName, New: func() caddy.Module { return new(App) }}
}

// Provision resolves placeholders and checks every setting. It opens no
// connection, makes no key and starts no server: `caddy validate` needs no
// database.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger, a.started, a.requests = ctx, lastErrors.watch(ctx.Logger()), make(chan struct{}), new(atomic.Int64)
	if err := registerMetrics(ctx); err != nil {
		return err
	}
	if err := a.provisionCaddyEvents(); err != nil {
		return err
	}
	if a.Remote != nil {
		return a.provisionRemote()
	}
	for _, step := range []func() error{
		a.provisionIssuer, a.provisionScopes, a.provisionResources, a.provisionLook, a.provisionClients, a.provisionGrants, a.provisionPolicies, a.provisionRegistration, a.provisionLifetimes,
		a.provisionPostgres, a.provisionSecrets, a.provisionSigningKeys, a.provisionLogins, a.provisionEvents, a.provisionEventsWebhooks, a.provisionIdentityProviders, a.provisionTokens, a.provisionRates,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) provisionIssuer() (err error) {
	if a.Issuer == "" {
		return a.at("oauth", 0, errors.New("issuer is missing: the public URL of this server, such as https://api.example.com"))
	}
	if a.issuer, err = resolve("issuer", a.Issuer); err != nil {
		return a.at("issuer", 0, err)
	}
	if err := oauth.CheckIdentifier("issuer", a.issuer); err != nil {
		return a.at("issuer", 0, err)
	}
	a.issuerURL, err = oauth.ParseIdentifier(a.issuer)
	return err
}

func (a *App) provisionScopes() (err error) {
	if err := a.addDocumentedScopes(); err != nil {
		return err
	}
	if len(a.Scopes) == 0 && !a.OpenID {
		return a.at("oauth", 0, errors.New(`no scope is declared: add a line such as scope jobs:read "Search jobs"`))
	}
	scopes := make([]oauth.Scope, len(a.Scopes))
	for i, s := range a.Scopes {
		scopes[i] = oauth.Scope{Name: s.Name, Description: s.Description, Implies: s.Implies, Optional: s.Optional, Link: s.Link, In: s.In}
		// Checked one by one first, so that the error can name the line.
		alone := scopes[i]
		alone.Implies = nil
		if _, err := oauth.NewCatalog([]oauth.Scope{alone}); err != nil {
			return atSource(s.Source, "", err)
		}
		for _, implied := range s.Implies {
			if !a.declares(implied) {
				return atSource(s.Source, "", fmt.Errorf("scope %q: implies %q, which is not declared", s.Name, implied))
			}
		}
	}
	if a.catalog, err = oauth.NewCatalog(scopes); err != nil {
		return a.nameScope(err)
	}
	if a.OpenID {
		if _, err := a.catalog.WithIdentity(); err != nil {
			return a.nameScope(err)
		}
	}
	return nil
}

// addDocumentedScopes declares the scopes of documents, but for those that are
// declared already.
func (a *App) addDocumentedScopes() error {
	for i, file := range a.ScopesFrom {
		document, err := a.document("scopes_from", file)
		if err != nil {
			return a.at("scopes_from", i, err)
		}
		security, err := document.Security(nil)
		if err != nil {
			return a.at("scopes_from", i, fmt.Errorf("scopes_from: %w", err))
		}
		scopes, err := security.Scopes(a.declares)
		if err != nil {
			return a.at("scopes_from", i, fmt.Errorf("scopes_from: %w", err))
		}
		for _, s := range scopes {
			a.Scopes = append(a.Scopes, ScopeSettings{Name: s.Name, Description: s.Description, Source: file})
		}
	}
	return nil
}

func (a *App) declares(name string) bool {
	for _, s := range a.Scopes {
		if s.Name == name {
			return true
		}
	}
	return false
}

// checkAskable refuses a scope that no client can ask for: one that is neither
// declared nor, with openid, an identity scope.
func (a *App) checkAskable(name string) error {
	identity := oauth.IdentityScopes().Contains(name)
	switch {
	case a.declares(name) || identity && a.OpenID:
		return nil
	case identity:
		return fmt.Errorf("scope %q belongs to OpenID Connect; turn it on with the word openid in the oauth block", name)
	}
	return fmt.Errorf("scope %q is not declared", name)
}

// nameScope adds the line of the scope that an error of the whole catalog (a
// cycle, a duplicate) begins with.
func (a *App) nameScope(err error) error {
	for _, s := range a.Scopes {
		prefix := fmt.Sprintf("scope %q: ", s.Name)
		if len(err.Error()) > len(prefix) && err.Error()[:len(prefix)] == prefix {
			return atSource(s.Source, "", err)
		}
	}
	return err
}

// A view polls four times within its bound; below the first a busy network
// makes it stale, above the second nobody would call it a switch-off.
const minStaleness, maxMaxStaleness = 100 * time.Millisecond, time.Minute

// minEventRetention keeps a slip from emptying the audit trail.
const minEventRetention = 24 * time.Hour

func (a *App) provisionLifetimes() error {
	switch {
	case a.SessionLimit < 0:
		return a.at("session_limit", 0, fmt.Errorf("session_limit %d is below zero", a.SessionLimit))
	case a.SessionCheck != "" && a.SessionCheck != "live" && a.SessionCheck != "strict":
		return a.at("session_check", 0, fmt.Errorf("session_check: %q is neither live nor strict", a.SessionCheck))
	case a.MaxStaleness != 0 && a.SessionCheck == "strict":
		return a.at("max_staleness", 0, errors.New("max_staleness: session_check strict reads Postgres for every request and is never stale; remove one of the two"))
	case a.MaxStaleness != 0 && (time.Duration(a.MaxStaleness) < minStaleness || time.Duration(a.MaxStaleness) > maxMaxStaleness):
		return a.at("max_staleness", 0, fmt.Errorf("max_staleness %s is not between %s and %s", time.Duration(a.MaxStaleness), minStaleness, maxMaxStaleness))
	case a.EventRetention != nil && *a.EventRetention != 0 && time.Duration(*a.EventRetention) < minEventRetention:
		return a.at("event_retention", 0, fmt.Errorf("event_retention %s is shorter than a day; off keeps the audit trail for ever", time.Duration(*a.EventRetention)))
	case a.RefreshGrace != nil && *a.RefreshGrace < 0:
		return a.at("refresh_grace", 0, errors.New("refresh_grace is below zero"))
	}
	for word, d := range map[string]caddy.Duration{
		"access_token_ttl": a.AccessTokenTTL, "code_ttl": a.CodeTTL, "refresh_token_ttl": a.RefreshTokenTTL,
		"refresh_idle_ttl": a.RefreshIdleTTL, "login_ttl": a.LoginTTL, "key_rotation_interval": a.KeyRotationInterval,
	} {
		if d < 0 {
			return a.at(word, 0, fmt.Errorf("%s is below zero", word))
		}
	}
	if time.Duration(a.CodeTTL) > 10*time.Minute { // RFC 6749 section 4.1.2
		return a.at("code_ttl", 0, fmt.Errorf("code_ttl %s is too long: a code lives 10 minutes at most", time.Duration(a.CodeTTL)))
	}
	return nil
}

// at names the place of the nth use of a word in an error.
func (a *App) at(word string, n int, err error) error {
	places := a.Sources[word]
	if len(places) == 0 {
		places, n = a.Sources["oauth"], 0
	}
	if n >= len(places) {
		return err
	}
	return atSource(places[n], "", err)
}

// atSource names the place in the configuration that an error is about.
func atSource(source, what string, err error) error {
	switch {
	case source != "" && what != "":
		return fmt.Errorf("%s: %s: %w", source, what, err)
	case source != "":
		return fmt.Errorf("%s: %w", source, err)
	case what != "":
		return fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// loadApp returns the app for the handler at source that needs it. An error of
// the app itself names its own place.
func loadApp(ctx caddy.Context, source, directive string) (*App, error) {
	app, err := ctx.AppIfConfigured(appName)
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, atSource(source, directive, errors.New("the global option oauth is missing: it names the issuer, the database and the scopes"))
	}
	if err != nil {
		return nil, err
	}
	return app.(*App), nil
}

// clientAllowed reports whether there is still a way by which the client is
// registered. Of one that registered itself, or that an operator has added, the
// session says the rest: it ends with the client's row.
func (a *App) clientAllowed(clientID string) bool {
	if _, ok := a.clients[clientID]; ok || strings.HasPrefix(clientID, issuer.OperatorClientPrefix) {
		return true
	}
	switch {
	case a.Remote != nil: // it knows its clients, and ends the sessions of those that are gone
		return true
	case a.register == nil:
		return false
	case issuer.IsMetadataDocument(clientID):
		return a.register.MetadataDocuments && !a.policies.Denies(clientID)
	}
	return a.register.Dynamic && strings.HasPrefix(clientID, issuer.DynamicClientPrefix)
}

// Client implements issuer.ClientSource: the clients of the configuration and
// those that operators have added, less those that were disabled in the database.
func (a *App) Client(ctx context.Context, clientID string) (*issuer.Client, error) {
	if strings.HasPrefix(clientID, issuer.OperatorClientPrefix) {
		return a.operatorClient(ctx, clientID)
	}
	client, ok := a.clients[clientID]
	if !ok {
		return nil, issuer.ErrNotFound
	}
	enabled, err := a.runtime.db.ClientEnabled(ctx, clientID)
	if err != nil {
		return nil, fmt.Errorf("find client: %w", err)
	}
	if !enabled {
		return nil, issuer.ErrNotFound
	}
	return client, nil
}

// maxStartWait bounds how long a request waits for Start. Apps start in any
// order, so after a reload the listeners may be open first.
const maxStartWait = 10 * time.Second

// errNotStarted is the cause of a 503 before the database was reached.
var errNotStarted = errors.New("the oauth app has not started")

// awaitStart returns once the app can decide requests.
func (a *App) awaitStart(ctx context.Context) error {
	select {
	case <-a.started:
	default:
		timer := time.NewTimer(maxStartWait)
		defer timer.Stop()
		select {
		case <-a.started:
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return errNotStarted
		}
	}
	if a.runtime == nil {
		return errNotStarted
	}
	return nil
}

// Interface guards
var (
	_ caddy.App           = (*App)(nil)
	_ caddy.Provisioner   = (*App)(nil)
	_ caddy.CleanerUpper  = (*App)(nil)
	_ issuer.ClientSource = (*App)(nil)
	_ http.Handler        = (*issuer.Server)(nil)
)
