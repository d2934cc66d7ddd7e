package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	// discoveryMaxAge is how long a provider's metadata are trusted.
	discoveryMaxAge = time.Hour
	// discoveryRetry keeps a provider that is down from being asked by everyone
	// at once.
	discoveryRetry = 2 * time.Second
	// clockSkew between provider and node that is borne.
	clockSkew = time.Minute
)

// OIDCConfig makes an OIDC.
type OIDCConfig struct {
	// Issuer is the identifier of the provider; its metadata are at
	// /.well-known/openid-configuration below it. Required.
	Issuer string
	// ClientID and ClientSecret are what the provider registered us as; no
	// secret: a public client. ClientID is required.
	ClientID, ClientSecret string
	// Scopes to ask for besides openid. nil: profile and email.
	Scopes []string
	// Claims says which claims matter.
	Claims Claims
	// UserInfo asks the UserInfo endpoint for claims that the ID token lacks.
	UserInfo bool
	// LogoutHint keeps the ID token of each login, to sign the user out by.
	LogoutHint bool
	// Timeout bounds each request. Zero: DefaultTimeout.
	Timeout time.Duration
	// Now is the clock of the node. nil: time.Now.
	Now func() time.Time
}

// OIDC signs users in at an OpenID provider, with the code flow, PKCE and a
// nonce. Nothing is asked of the provider before somebody signs in, and one that
// is down is asked again.
type OIDC struct {
	cfg    OIDCConfig
	client *http.Client

	mu      sync.Mutex
	found   *discovered
	tried   time.Time
	failure error
}

var _ issuer.Provider = (*OIDC)(nil)

// discovered is a provider as its metadata describe it.
type discovered struct {
	*oidc.Provider
	verifier    *oidc.IDTokenVerifier
	keys        *remoteKeys
	config      oauth2.Config
	requiresIss bool // RFC 9207 section 3
	at          time.Time

	logoutVerifier *oidc.IDTokenVerifier
	endSession     string // where users sign out; empty: nowhere
}

// NewOIDC checks the configuration. It sends nothing.
func NewOIDC(cfg OIDCConfig) (*OIDC, error) {
	if err := checkURL("issuer", cfg.Issuer); err != nil {
		return nil, err
	}
	if cfg.ClientID == "" {
		return nil, errors.New("client_id is missing")
	}
	if cfg.Scopes == nil {
		cfg.Scopes = []string{"profile", "email"}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &OIDC{cfg: cfg, client: newClient(cfg.Timeout, maxBody)}, nil
}

// checkURL refuses addresses over which an answer could be forged: plain http
// is for loopback only.
func checkURL(what, address string) error {
	u, err := url.Parse(address)
	switch {
	case address == "":
		return fmt.Errorf("%s is missing", what)
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%s %q is not an https address", what, address)
	case u.Scheme == "http" && !oauth.IsLoopbackHost(u.Hostname()):
		return fmt.Errorf("%s %q is plain http, which is for this machine only: use https", what, address)
	}
	return nil
}

// discover returns the provider. The metadata are read when they are first
// needed, and again when they are old.
func (o *OIDC) discover(ctx context.Context) (*discovered, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.cfg.Now()
	if o.found != nil && now.Sub(o.found.at) < discoveryMaxAge {
		return o.found, nil
	}
	if now.Sub(o.tried) >= discoveryRetry {
		o.tried = now
		found, err := o.readMetadata(ctx)
		if err == nil {
			o.found = found
		}
		o.failure = err
	}
	if o.found != nil { // old metadata are better than none while it is down
		return o.found, nil
	}
	return nil, fmt.Errorf("read the metadata of %s: %w", o.cfg.Issuer, o.failure)
}

func (o *OIDC) readMetadata(ctx context.Context) (*discovered, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), o.client), o.cfg.Issuer)
	if err != nil {
		return nil, err
	}
	var more struct {
		AuthMethods  []string `json:"token_endpoint_auth_methods_supported"`
		Algorithms   []string `json:"id_token_signing_alg_values_supported"`
		JWKSURI      string   `json:"jwks_uri"`
		AuthorizeIss bool     `json:"authorization_response_iss_parameter_supported"`
		EndSession   string   `json:"end_session_endpoint"`
	}
	if err := provider.Claims(&more); err != nil {
		return nil, err
	}
	endpoint := provider.Endpoint()
	for what, address := range map[string]string{"authorization_endpoint": endpoint.AuthURL, "token_endpoint": endpoint.TokenURL, "jwks_uri": more.JWKSURI} {
		if err := checkURL(what, address); err != nil {
			return nil, err
		}
	}
	if more.EndSession != "" {
		if err := checkURL("end_session_endpoint", more.EndSession); err != nil {
			return nil, err
		}
	}
	endpoint.AuthStyle = oauth2.AuthStyleInHeader // the default of RFC 8414 section 2
	if o.cfg.ClientSecret == "" || len(more.AuthMethods) > 0 && !slices.Contains(more.AuthMethods, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	var algorithms []string
	for _, algorithm := range asymmetric {
		if slices.Contains(more.Algorithms, string(algorithm)) {
			algorithms = append(algorithms, string(algorithm))
		}
	}
	if len(algorithms) == 0 { // the one that every provider must have
		algorithms = []string{oidc.RS256}
	}
	keys := &remoteKeys{url: more.JWKSURI, client: o.client, now: o.cfg.Now}
	return &discovered{
		Provider: provider, keys: keys, requiresIss: more.AuthorizeIss, at: o.cfg.Now(),
		logoutVerifier: o.logoutVerifier(keys, algorithms), endSession: more.EndSession,
		verifier: oidc.NewVerifier(o.cfg.Issuer, keys, &oidc.Config{ClientID: o.cfg.ClientID, SupportedSigningAlgs: algorithms, Now: o.cfg.Now}),
		config: oauth2.Config{
			ClientID: o.cfg.ClientID, ClientSecret: o.cfg.ClientSecret, Endpoint: endpoint,
			Scopes: append([]string{oidc.ScopeOpenID}, o.cfg.Scopes...),
		},
	}, nil
}

// Authority is what identities of its users are kept under.
func (o *OIDC) Authority() string { return o.cfg.Issuer }

// AuthorizationURL is described at issuer.Provider.
func (o *OIDC) AuthorizationURL(ctx context.Context, request issuer.ProviderRequest) (string, error) {
	provider, err := o.discover(ctx)
	if err != nil {
		return "", err
	}
	options := []oauth2.AuthCodeOption{oidc.Nonce(request.Nonce), oauth2.S256ChallengeOption(request.Verifier)}
	var prompt []string
	if request.Reauthenticate {
		// max_age too, which makes the provider say when it asked: else nobody
		// could tell whether it did. OpenID Connect Core section 3.1.2.1.
		prompt = append(prompt, "login")
		options = append(options, oauth2.SetAuthURLParam("max_age", "0"))
	} else if request.MaxAge != nil {
		options = append(options, oauth2.SetAuthURLParam("max_age", fmt.Sprint(int(request.MaxAge.Seconds()))))
	}
	if request.SelectAccount {
		prompt = append(prompt, "select_account")
	}
	if len(prompt) > 0 {
		options = append(options, oauth2.SetAuthURLParam("prompt", strings.Join(prompt, " ")))
	}
	if request.LoginHint != "" {
		options = append(options, oauth2.SetAuthURLParam("login_hint", request.LoginHint))
	}
	if request.UILocales != "" {
		options = append(options, oauth2.SetAuthURLParam("ui_locales", request.UILocales))
	}
	config := provider.config
	config.RedirectURL = request.RedirectURI
	return config.AuthCodeURL(request.State, options...), nil
}

func refused(format string, args ...any) error {
	return &issuer.ProviderRefusal{Err: fmt.Errorf(format, args...)}
}

// Redeem is described at issuer.Provider. OpenID Connect Core sections 3.1.2.5
// to 3.1.3.7.
func (o *OIDC) Redeem(ctx context.Context, request issuer.ProviderRequest, answer url.Values) (issuer.ExternalUser, error) {
	var none issuer.ExternalUser
	provider, err := o.discover(ctx)
	if err != nil {
		return none, err
	}
	// 1. The answer is this provider's. RFC 9207 section 2.4.
	if iss := answer.Get("iss"); iss != o.cfg.Issuer && (iss != "" || provider.requiresIss) {
		return none, refused("the answer names another issuer, or none")
	}
	if code := answer.Get("error"); code != "" {
		return none, &issuer.ProviderRefusal{Denied: code == "access_denied" || code == "consent_required" || code == "interaction_required",
			Err: fmt.Errorf("the provider answered with the error %q", cut(code))}
	}
	if answer.Get("code") == "" {
		return none, refused("the answer has neither code nor error")
	}
	// 2. The code, for tokens.
	config := provider.config
	config.RedirectURL = request.RedirectURI
	token, err := config.Exchange(context.WithValue(ctx, oauth2.HTTPClient, o.client), answer.Get("code"), oauth2.VerifierOption(request.Verifier))
	if err != nil {
		var answered *oauth2.RetrieveError
		if errors.As(err, &answered) && answered.Response.StatusCode < 500 {
			return none, refused("the provider did not take the code: %s %s", answered.Response.Status, cut(answered.ErrorCode))
		}
		return none, fmt.Errorf("redeem the code: %w", withoutURL(err))
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return none, refused("the provider gave no ID token")
	}
	// 3. The ID token: signature, iss, aud, exp; then what ties it to us.
	claims, err := o.readIDToken(ctx, provider, raw, request)
	if err != nil {
		return none, err
	}
	if o.cfg.UserInfo && len(o.cfg.Claims.missing(claims)) > 0 {
		if err := o.addUserInfo(ctx, provider, token, claims); err != nil {
			return none, err
		}
	}
	// 4. Who that is here.
	user, err := o.cfg.Claims.UserOf(o.cfg.Issuer, claims)
	if err != nil {
		return none, refused("%w", err)
	}
	if o.cfg.LogoutHint {
		user.LogoutHint = raw
	}
	return user, o.checkFreshness(request, user)
}

func (o *OIDC) readIDToken(ctx context.Context, provider *discovered, raw string, request issuer.ProviderRequest) (map[string]any, error) {
	if _, _, err := provider.keys.current(ctx, false); err != nil {
		return nil, err
	}
	verified, err := provider.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, refused("the ID token does not hold: %w", err)
	}
	var object json.RawMessage
	if err := verified.Claims(&object); err != nil {
		return nil, refused("the ID token: %w", err)
	}
	claims, err := readClaims(object)
	if err != nil {
		return nil, refused("the ID token: %w", err)
	}
	azp, hasAZP := claims["azp"]
	switch {
	case verified.Nonce != request.Nonce: // compared with what only this browser's state holds
		return nil, refused("the ID token has another nonce")
	case hasAZP && azp != o.cfg.ClientID, !hasAZP && len(verified.Audience) > 1:
		return nil, refused("the ID token was issued to another client")
	case verified.IssuedAt.After(o.cfg.Now().Add(clockSkew)):
		return nil, refused("the ID token is of the future")
	}
	return claims, nil
}

// addUserInfo adds claims that the ID token lacks. OpenID Connect Core section
// 5.3.2.
func (o *OIDC) addUserInfo(ctx context.Context, provider *discovered, token *oauth2.Token, claims map[string]any) error {
	info, err := provider.UserInfo(oidc.ClientContext(ctx, o.client), oauth2.StaticTokenSource(token))
	if err != nil {
		return fmt.Errorf("ask for user info: %w", withoutURL(err))
	}
	if info.Subject != claims["sub"] { // another user's, by mistake or on purpose
		return refused("the user info is about another subject")
	}
	var object json.RawMessage
	if err := info.Claims(&object); err != nil {
		return refused("the user info: %w", err)
	}
	more, err := readClaims(object)
	if err != nil {
		return refused("the user info: %w", err)
	}
	for name, value := range more {
		if _, ok := claims[name]; !ok { // the signed ones stay
			claims[name] = value
		}
	}
	return nil
}

// checkFreshness holds the provider to having asked as it was told to.
// SECURITY-CASES A-17.
func (o *OIDC) checkFreshness(request issuer.ProviderRequest, user issuer.ExternalUser) error {
	var after time.Time
	switch {
	case request.Reauthenticate:
		after = request.StartedAt
	case request.MaxAge != nil:
		after = request.StartedAt.Add(-*request.MaxAge)
	default:
		return nil
	}
	if user.AuthTime.Before(after.Add(-clockSkew)) {
		return refused("the provider did not ask the user again, or did not say when it did (auth_time)")
	}
	return nil
}

// cut bounds what the other side wrote before it is logged.
func cut(text string) string {
	if len(text) > 100 {
		text = text[:100]
	}
	return strings.ToValidUTF8(text, "")
}

// withoutURL takes the address out of an error of the client: its query may hold
// what a log must not.
func withoutURL(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
