package issuer

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// Server is the authorization server.
type Server struct {
	cfg            Config
	mux            *http.ServeMux
	pages          *Look
	host           string // of the issuer
	password       *passwordLogin
	passkeys       *webauthn.WebAuthn // nil: passkeys are off
	clientFailures *throttle          // of client authentication
	proofs         *dpop.Verifier

	deviceStarts, userCodeFailures, pushes *throttle // by network
	registrations, wrongTokens             *throttle // by network

	forgotten *forgottenPasswords

	limiter    *ratelimit.Limiter
	limits     map[string][]endpointLimit // by path
	deadGrants *ratelimit.Limit

	registry *registry // also cfg.Clients

	providers map[string]*identityProvider // by issuer
}

// Ten wrong secrets of one client from one network in five minutes, then 429.
const (
	clientFailureLimit  = 10
	clientFailureWindow = 5 * time.Minute
	clientFailureKeys   = 10_000
)

// New checks the configuration, fills its defaults and returns the server.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Catalog == nil:
		return nil, errors.New("issuer: Catalog is missing")
	case cfg.Clients == nil:
		return nil, errors.New("issuer: Clients is missing")
	case cfg.Resources == nil:
		return nil, errors.New("issuer: Resources is missing")
	case cfg.Store == nil:
		return nil, errors.New("issuer: Store is missing")
	case cfg.Keys == nil:
		return nil, errors.New("issuer: Keys is missing")
	case cfg.Secrets == nil:
		return nil, errors.New("issuer: Secrets is missing")
	case cfg.SecondFactor != SecondFactorOff && !cfg.Password:
		return nil, errors.New("issuer: SecondFactor needs Password: it is that of its users")
	case cfg.SendMail != nil && !cfg.Password:
		return nil, errors.New("issuer: SendMail needs Password: mails go to its users")
	case cfg.Passkeys && !cfg.Password:
		return nil, errors.New("issuer: Passkeys needs Password: passkeys are those of its users")
	}
	if err := oauth.CheckIdentifier("issuer", cfg.Issuer); err != nil {
		return nil, err
	}
	if _, declared := cfg.Catalog.Lookup(cfg.AppsScope); cfg.AppsScope != "" && !declared {
		return nil, fmt.Errorf("issuer: AppsScope %q is not declared", cfg.AppsScope)
	}
	if err := CheckLoginMethods(cfg.Methods); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if err := CheckEventSources(cfg.Events, cfg.Methods); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	setDefaults(&cfg)
	if cfg.OpenID {
		catalog, err := cfg.Catalog.WithIdentity()
		if err != nil {
			return nil, fmt.Errorf("issuer: %w", err)
		}
		cfg.Catalog = catalog
	}
	s := &Server{
		cfg:            cfg,
		pages:          cfg.Look,
		host:           hostOf(cfg.Issuer),
		password:       newPasswordLogin(cfg.Now),
		clientFailures: newThrottle(clientFailureLimit, clientFailureWindow, clientFailureKeys, cfg.Now),
		proofs:         &dpop.Verifier{Nonces: cfg.Secrets.Nonces(cfg.Now), Store: cfg.Store, Now: cfg.Now},

		deviceStarts:     newThrottle(deviceStartLimit, deviceStartWindow, deviceStartKeys, cfg.Now),
		pushes:           newThrottle(pushLimit, pushWindow, pushKeys, cfg.Now),
		userCodeFailures: newThrottle(userCodeFailureLimit, userCodeFailureWindow, userCodeFailureKeys, cfg.Now),
	}
	s.registrations = newThrottle(registrationLimit, registrationWindow, registrationKeys, cfg.Now)
	s.wrongTokens = newThrottle(wrongTokenLimit, registrationWindow, registrationKeys, cfg.Now)
	s.forgotten = newForgottenPasswords(cfg.Now)
	var err error
	if cfg.Passkeys {
		if s.passkeys, err = newRelyingParty(&cfg); err != nil {
			return nil, fmt.Errorf("issuer: %w", err)
		}
	}
	if s.registry, err = newRegistry(s); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	s.cfg.Clients = s.registry
	if err := s.openIdentityProviders(); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if err := s.openRates(); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	s.mux = s.routes()
	return s, nil
}

func setDefaults(cfg *Config) {
	setDefault(&cfg.AccessTokenTTL, 15*time.Minute)
	setDefault(&cfg.CodeTTL, 5*time.Minute)
	setDefault(&cfg.RefreshTokenTTL, 30*24*time.Hour)
	setDefault(&cfg.LoginTTL, 12*time.Hour)
	setDefault(&cfg.ResetTTL, 30*time.Minute)
	setDefault(&cfg.BodyTimeout, defaultBodyTimeout)
	if cfg.Grants == nil {
		cfg.Grants = []string{grantAuthorizationCode, grantRefreshToken}
	}
	if cfg.RefreshGrace == nil {
		grace := time.Minute
		cfg.RefreshGrace = &grace
	}
	if cfg.Look == nil {
		cfg.Look = defaultLook()
	}
	if cfg.ClientAddress == nil {
		cfg.ClientAddress = peerAddress
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Tally == nil {
		cfg.Tally = noTally{}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Tokens == nil {
		cfg.Tokens = nodeClock{cfg.Now}
	}
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// routes is the table of endpoints; see the package comment.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	get, post := http.MethodGet, http.MethodPost
	handle := func(path string, handler http.HandlerFunc, methods ...string) {
		mux.HandleFunc(path, onlyMethods(s.limited(path, handler), methods...))
	}
	handle("/oauth/authorize", s.handleAuthorize, get, post)
	handle("/oauth/login", s.handleLogin, post)
	handle("/oauth/login/{method}", s.handleLoginMethod, get, post)
	handle("/oauth/login/{method}/signed_out", s.handleSignedOutThere, get)
	handle("/oauth/login/{method}/logout", s.handleProviderLogout, post)
	for _, source := range s.cfg.Events {
		_ = source.prepare(s.cfg.Methods) // New has checked it
		handle(eventPath(&source), s.handleEvent(&source), post)
	}
	handle("/oauth/consent", s.handleConsent, get, post)
	if s.managesCredentials() {
		handle(accountPath, s.handleAccount, get, post)
	} else {
		handle(accountPath, s.handleAccount, post)
	}
	if s.cfg.Password {
		handle(resetPath, s.handleReset, get, post)
	}
	if s.cfg.SendMail != nil {
		handle(forgotPath, s.handleForgot, get, post)
	}
	if s.cfg.SecondFactor != SecondFactorOff {
		handle(secondFactorPath, s.handleSecondFactor, post)
	}
	if s.passkeys != nil {
		handle(passkeyLoginPath, s.handlePasskeyLogin, post)
		handle(passkeyScriptPath, s.handlePasskeyScript, get)
	}
	handle("/oauth/logout", s.handleLogout, post)
	handle(appsPath, s.handleApps, get, post)
	if s.cfg.AppsScope != "" {
		del := http.MethodDelete
		handle(appsAPIPath, withCORS(s.handleAppsAPI, get, del), get, del, http.MethodOptions)
		handle(appsAPIPath+"/{id}", withCORS(s.handleAppAPI, del), del, http.MethodOptions)
		handle(appsAPIPath+"/{id}/drop", withCORS(s.handleDropAPI, post), post, http.MethodOptions)
	}
	handle("/oauth/token", withCORS(s.handleToken, post), post, http.MethodOptions)
	handle("/oauth/revoke", withCORS(s.handleRevoke, post), post, http.MethodOptions)
	if s.offers(grantDeviceCode) {
		handle(devicePath, s.handleDevice, get, post)
		handle("/oauth/device_authorization", withCORS(s.handleDeviceAuthorization, post), post, http.MethodOptions)
	}
	if s.cfg.OpenID {
		handle(endSessionPath, s.handleEndSession, get, post)
		handle(userInfoPath, withCORS(s.handleUserInfo, get, post), get, post, http.MethodOptions)
		for _, path := range openIDConfigurationPaths(s.cfg.Issuer) {
			handle(path, withCORS(s.handleOpenIDConfiguration, get), get, http.MethodOptions)
		}
	}
	handle("/oauth/par", withCORS(s.handlePush, post), post, http.MethodOptions)
	if s.registry.with.Dynamic {
		put, del := http.MethodPut, http.MethodDelete
		handle(registerPath, withCORS(s.handleRegister, post), post, http.MethodOptions)
		handle(registerPath+"/", withCORS(s.handleRegistered, get, put, del), get, put, del, http.MethodOptions)
	}
	handle("/oauth/introspect", s.handleIntrospect, post)
	handle("/oauth/healthz/live", s.handleLive, get)
	handle("/oauth/healthz/ready", s.handleReady, get)
	for path, document := range map[string]http.HandlerFunc{
		"/oauth/jwks.json":                       s.handleJWKS,
		oauth.WellKnownAuthorizationServer:       s.handleServerMetadata,
		oauth.WellKnownAuthorizationServer + "/": s.handleServerMetadata,
		oauth.WellKnownProtectedResource:         s.handleResourceMetadata,
		oauth.WellKnownProtectedResource + "/":   s.handleResourceMetadata,
	} {
		handle(path, withCORS(document, get), get, http.MethodOptions)
	}
	return mux
}

// onlyMethods answers other methods with 405. GET includes HEAD.
func onlyMethods(next http.HandlerFunc, methods ...string) http.HandlerFunc {
	allowed := make(map[string]bool)
	for _, method := range methods {
		allowed[method] = true
		if method == http.MethodGet {
			allowed[http.MethodHead] = true
		}
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if !allowed[r.Method] {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		next(w, r)
	}
}

// Handles reports whether path belongs to the server of the issuer: /oauth/* and
// the well-known documents of OAuth and OpenID, also where there are none, since
// clients look for both and take 404 for an answer. Everything else is somebody
// else's. The endpoints stand at the root of the issuer's origin, also for an
// issuer with a path: metadata says where they are.
func Handles(issuer, path string) bool {
	switch {
	case path == "/oauth", strings.HasPrefix(path, "/oauth/"), strings.HasPrefix(path, "/.well-known/oauth-"):
		return true
	case strings.Contains(path, oauth.WellKnownOpenIDConfiguration): // rare: every request of the API comes by here
		return path == oauth.WellKnownOpenIDConfiguration || slices.Contains(openIDConfigurationPaths(issuer), path)
	}
	return false
}

// ServeHTTP answers every path that Handles reports; unknown ones with 404,
// never 5xx, which would end the discovery of some clients.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// No cleaning redirects: a path is one of ours byte for byte, or it is not.
	if _, pattern := s.mux.Handler(r); pattern == "" || path.Clean(r.URL.Path) != strings.TrimSuffix(r.URL.Path, "/") {
		http.NotFound(w, r)
		return
	}
	boundArrival(w, r, s.cfg.BodyTimeout)
	s.mux.ServeHTTP(w, s.withCaller(withVisit(r)))
}
