package caddymodule

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/ratelimit"
	"github.com/caddy-scope/caddy-scope/validator"
)

// runtime is what Start opened. It is complete before App.started is closed,
// and does not change afterwards.
type runtime struct {
	db       *postgres.Store
	store    issuer.Store
	keys     *issuer.KeyRing
	verify   validator.KeySource // keys, as the gates see them
	sessions validator.SessionReader
	view     *postgres.SessionView // nil: session_check strict
	server   *issuer.Server
	proofs   *dpop.Verifier
	touch    func(sessionID string)
	usage    *validator.Usage // nil: nobody counts
	ready    func(context.Context) error
	clock    *postgres.Clock // nil: the node's alone
	pool     *postgres.DB    // nil, and upkeep too: there is no database
	upkeep   *postgres.Upkeep
	limiter  *ratelimit.Limiter
	senders  []*issuer.WebhookSender
}

// openRuntime is App.open; tests of the gate alone put their own sessions here.
var openRuntime = (*App).open

// Start opens the database, brings it up to date and loads the keys. The
// listeners may be open already; requests wait.
func (a *App) Start() error {
	defer close(a.started)
	ctx, stop := context.WithCancel(a.ctx)
	a.stop = stop
	running.add(a)
	rt, err := openRuntime(a, ctx)
	if err != nil {
		return err
	}
	a.runtime = rt
	a.documents = nil // large, and read for good
	go a.caddyEvents.run(ctx, rt)
	return nil
}

// Stop leaves everything as it is: requests in flight still need it.
func (a *App) Stop() error { return nil }

// Cleanup gives back what Start, or a Start that failed halfway, opened. Caddy
// calls it right after Stop, and requests in flight go on: after a reload they keep
// what they need until the last has ended, unless the new configuration is without
// this app.
func (a *App) Cleanup() error {
	running.remove(a)
	if inForce := running.Load(); inForce != nil && inForce.runtime.upkeep != nil {
		running.keepEvents(inForce.runtime.upkeep, nil)
	}
	if a.stop != nil {
		a.stop()
	}
	releases := a.releases
	a.releases = nil
	switch last := running.Load() == nil || caddy.Exiting(); {
	case last:
		return errors.Join(release(releases), leaving.now())
	case a.runtime == nil: // has not started
		return release(releases)
	}
	leaving.later(a.requests, releases)
	return nil
}

// issuerConfig is the configuration of the authorization server.
func (a *App) issuerConfig(rt *runtime) (issuer.Config, error) {
	config := issuer.Config{
		Issuer:            a.issuer,
		Catalog:           a.catalog,
		Clients:           a,
		Registration:      a.register,
		Policies:          a.policies,
		Resources:         a.protectedResources,
		Routes:            a.routesOf,
		AppsScope:         a.AppsScope,
		Look:              a.look,
		Events:            a.eventSources,
		OpenID:            a.OpenID,
		IdentityProviders: a.identityProviders,
		Store:             &tellingStore{rt.store, a.caddyEvents},
		Keys:              rt.keys,
		Secrets:           a.secrets,
		Grants:            a.grants(),
		AccessTokenTTL:    time.Duration(a.AccessTokenTTL),
		CodeTTL:           time.Duration(a.CodeTTL),
		RefreshTokenTTL:   time.Duration(a.RefreshTokenTTL),
		RefreshIdleTTL:    time.Duration(a.RefreshIdleTTL),
		RefreshGrace:      (*time.Duration)(a.RefreshGrace),
		LoginTTL:          time.Duration(a.LoginTTL),
		SessionLimit:      a.SessionLimit,
		ClientAddress:     clientAddress,
		Rates:             a.rates,
		Limiter:           rt.limiter,
		Ready:             func(ctx context.Context) error { return readiness(ctx, rt) },
		Logger:            a.logger,
		Tally:             tellingTally{events: a.caddyEvents},
	}
	if rt.clock != nil {
		config.Tokens = rt.clock
	}
	return config, a.configureLogins(&config)
}

// errShuttingDown is the answer of the readiness check during Caddy's
// shutdown_delay, in which the balancer is to take this node out.
var errShuttingDown = errors.New("shutting down")

// readiness reports why this node should get no further requests; nil: it may.
func readiness(ctx context.Context, rt *runtime) error {
	if replacer, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if down, _ := replacer.Get("http.shutting_down"); down == true {
			return errShuttingDown
		}
	}
	return rt.ready(ctx)
}

// grants are the grant types that some client of the configuration may use, those
// that the word grants turns on, and the two that always stand in the metadata.
func (a *App) grants() []string {
	on := []string{"authorization_code", "refresh_token"}
	for _, grant := range issuer.GrantTypes() {
		if slices.ContainsFunc(a.Grants, func(name string) bool { return grantTypes[name] == grant }) && !slices.Contains(on, grant) {
			on = append(on, grant)
		}
		for _, client := range a.clients {
			if slices.Contains(client.Grants, grant) && !slices.Contains(on, grant) {
				on = append(on, grant)
			}
		}
	}
	return on
}

// clientAddress is the caller's address by the owner's trusted_proxies, which
// Caddy has worked out; a header of the request is never read here.
func clientAddress(r *http.Request) netip.Addr {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return address.Unmap()
}

// VerificationKey implements validator.KeySource for the gates, which are made
// before the keys are there. Requests come here after awaitStart.
func (a *App) VerificationKey(kid string) (*ecdsa.PublicKey, bool) {
	if a.runtime == nil {
		return nil, false
	}
	return a.runtime.verify.VerificationKey(kid)
}

// ReadSession implements validator.SessionReader for the gates.
func (a *App) ReadSession(ctx context.Context, sessionID string) (validator.Session, error) {
	if a.runtime == nil {
		return validator.Session{}, errNotStarted
	}
	return a.runtime.sessions.ReadSession(ctx, sessionID)
}

// Held implements validator.SessionReader for the gates.
func (a *App) Held(handle uint64) (validator.Session, bool) {
	if a.runtime == nil {
		return validator.Session{}, false
	}
	return a.runtime.sessions.Held(handle)
}

// proofsForGates returns nil where there are none: a gate whose authorization server
// is elsewhere has neither its nonces nor a store of proofs, and refuses tokens that
// are bound to a key.
func (a *App) proofsForGates() func() *dpop.Verifier {
	if a.Remote != nil {
		return nil
	}
	return a.dpopProofs
}

// dpopProofs checks the proofs of possession that come to the gates. Requests
// come here after awaitStart.
func (a *App) dpopProofs() *dpop.Verifier { return a.runtime.proofs }

// judging is the time by which the gates judge tokens.
func (a *App) judging() time.Time {
	if a.runtime == nil || a.runtime.clock == nil {
		return time.Now()
	}
	return a.runtime.clock.Judging()
}

// touchSession notes that the session was used; the store writes it in batches.
func (a *App) touchSession(sessionID string) {
	if a.runtime.touch != nil {
		a.runtime.touch(sessionID)
	}
}

var (
	_ validator.KeySource     = (*App)(nil)
	_ validator.SessionReader = (*App)(nil)
)
