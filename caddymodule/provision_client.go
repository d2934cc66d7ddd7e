package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

func (a *App) provisionClients() error {
	a.clients = make(map[string]*issuer.Client, len(a.Clients))
	for i := range a.Clients {
		settings := &a.Clients[i]
		if strings.HasPrefix(settings.ID, issuer.OperatorClientPrefix) {
			return atSource(settings.Source, "client "+settings.ID, fmt.Errorf("a client_id that begins with %s belongs to a client that an operator adds: caddy oauth client add", issuer.OperatorClientPrefix))
		}
		client, err := a.client(settings)
		if err != nil {
			return atSource(settings.Source, "client "+settings.ID, err)
		}
		if a.clients[client.ID] != nil {
			return atSource(settings.Source, "client "+settings.ID, errors.New("declared twice"))
		}
		a.clients[client.ID] = client
	}
	return nil
}

// shortestClientSecret is what an HTTP client cannot guess in the time the
// token endpoint gives it; anything shorter gets a warning.
const shortestClientSecret = 16

// grantTypes are the grant types by the names that the configuration has for
// them.
var grantTypes = map[string]string{
	"authorization_code": "authorization_code",
	"refresh_token":      "refresh_token",
	"client_credentials": "client_credentials",
	"device_code":        "urn:ietf:params:oauth:grant-type:device_code",
	"jwt_bearer":         jwtBearer,
}

// client checks the settings of one client and fills their defaults.
func (a *App) client(s *ClientSettings) (*issuer.Client, error) {
	secrets, err := resolveAll("secret", s.Secrets)
	if err != nil {
		return nil, err
	}
	var digests []issuer.Digest
	for _, secret := range secrets {
		if len(secret) < shortestClientSecret {
			a.logger.Warn("the secret of a client is short; make one with: openssl rand -hex 32", zap.String("client_id", s.ID))
		}
		digests = append(digests, issuer.HashClientSecret(secret))
	}
	return a.clientWith(s, digests)
}

// clientWith is client, of one whose secrets have these digests.
func (a *App) clientWith(s *ClientSettings, secrets []issuer.Digest) (*issuer.Client, error) {
	c := &issuer.Client{ID: s.ID, Name: cmp.Or(s.Name, s.ID), SecretDigests: secrets, PKCEOptional: s.PKCE == "optional",
		RequirePushed: s.RequirePushedAuthorizationRequests, RequireDPoP: s.DPoPBoundAccessTokens}
	if c.ID == "" {
		return nil, errors.New("the client_id is empty")
	}
	if strings.HasPrefix(c.ID, issuer.DynamicClientPrefix) {
		return nil, fmt.Errorf("a client_id that begins with %s belongs to a client that registered itself", issuer.DynamicClientPrefix)
	}
	// Who it is comes first: whether it can prove that decides what it may have.
	for _, fill := range []func(*issuer.Client, *ClientSettings) error{
		a.fillCredentials, a.fillIntrospection, a.fillGrants, a.fillRedirectURIs, a.fillAccess, a.fillLifetimes,
	} {
		if err := fill(c, s); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// fillCredentials fills how the client proves who it is.
func (a *App) fillCredentials(c *issuer.Client, s *ClientSettings) (err error) {
	if c.JWKS, err = clientKeys(s); err != nil {
		return err
	}
	if c.AuthMethods, err = authMethods(s.AuthMethods, len(c.SecretDigests) > 0, c.JWKS != nil); err != nil {
		return err
	}
	if s.PKCE != "" && s.PKCE != "required" && s.PKCE != "optional" {
		return fmt.Errorf("pkce: %q is not one of required, optional", s.PKCE)
	}
	if c.PKCEOptional && !c.Confidential() {
		return errors.New("pkce optional is for clients with a secret; without both, a stolen code is enough")
	}
	return nil
}

// fillIntrospection fills of which resources the client may ask about tokens.
func (a *App) fillIntrospection(c *issuer.Client, s *ClientSettings) (err error) {
	if c.Introspects, err = resolveAll("introspect", s.Introspect); err != nil {
		return err
	}
	for _, resource := range c.Introspects {
		if err := oauth.CheckIdentifier("introspect", resource); err != nil {
			return err
		}
	}
	if len(c.Introspects) > 0 && !c.Confidential() {
		return errors.New("introspect is for a client that can prove who it is: give it a secret or keys")
	}
	return nil
}

func (a *App) fillGrants(c *issuer.Client, s *ClientSettings) error {
	grants := s.Grants
	resourceServer := len(c.Introspects) > 0 && len(s.RedirectURIs) == 0
	if len(grants) == 0 && !resourceServer {
		grants = []string{"authorization_code", "refresh_token"}
	}
	for _, name := range grants {
		grant, ok := grantTypes[name]
		switch {
		case !ok:
			return fmt.Errorf("grants: %q is not one of %s", name, strings.Join(slices.Sorted(maps.Keys(grantTypes)), ", "))
		case (grant == "client_credentials" || grant == jwtBearer) && !c.Confidential():
			return fmt.Errorf("grants: %s is for a client that can prove who it is: give it a secret or keys", name)
		case grant == jwtBearer && len(a.IdentityProviders) == 0:
			return errors.New("grants: jwt_bearer needs an identity_provider whose assertions count")
		}
		c.Grants = append(c.Grants, grant)
	}
	return exchanges(c, s.TokenExchange)
}

func (a *App) fillRedirectURIs(c *issuer.Client, s *ClientSettings) (err error) {
	if c.RedirectURIs, err = resolveAll("redirect_uri", s.RedirectURIs); err != nil {
		return err
	}
	for _, uri := range c.RedirectURIs {
		if err := issuer.CheckRedirectURI(uri); err != nil {
			return fmt.Errorf("redirect_uri %q: %w", uri, err)
		}
	}
	if c.PostLogoutRedirectURIs, err = a.postLogoutURIs(s.PostLogoutRedirectURIs); err != nil {
		return err
	}
	if len(c.RedirectURIs) == 0 && slices.Contains(c.Grants, "authorization_code") {
		return errors.New("redirect_uri is missing: where the client wants its codes")
	}
	return nil
}

// fillAccess fills what the client may ask for: resource and scopes.
func (a *App) fillAccess(c *issuer.Client, s *ClientSettings) (err error) {
	if s.Resource != "" {
		if c.Resource, err = resolve("resource", s.Resource); err != nil {
			return err
		}
		if err := oauth.CheckIdentifier("resource", c.Resource); err != nil {
			return err
		}
	}
	for _, name := range s.Scopes {
		if err := a.checkAskable(name); err != nil {
			return err
		}
	}
	if len(s.Scopes) > 0 {
		c.Scopes = oauth.NewScopeSet(s.Scopes...)
	}
	return nil
}

func (a *App) fillLifetimes(c *issuer.Client, s *ClientSettings) error {
	for word, d := range map[string]*caddy.Duration{
		"access_token_ttl": s.AccessTokenTTL, "refresh_token_ttl": s.RefreshTokenTTL, "refresh_idle_ttl": s.RefreshIdleTTL,
	} {
		if d != nil && *d <= 0 {
			return fmt.Errorf("%s must be above zero", word)
		}
	}
	if s.RefreshGrace != nil && *s.RefreshGrace < 0 {
		return errors.New("refresh_grace is below zero")
	}
	c.AccessTokenTTL = (*time.Duration)(s.AccessTokenTTL)
	c.RefreshTokenTTL = (*time.Duration)(s.RefreshTokenTTL)
	c.RefreshIdleTTL = (*time.Duration)(s.RefreshIdleTTL)
	c.RefreshGrace = (*time.Duration)(s.RefreshGrace)
	return nil
}

func (a *App) postLogoutURIs(settings []string) ([]string, error) {
	if len(settings) > 0 && !a.OpenID {
		return nil, errors.New("post_logout_redirect_uri is of OpenID Connect; turn it on with the word openid in the oauth block")
	}
	uris, err := resolveAll("post_logout_redirect_uri", settings)
	if err != nil {
		return nil, err
	}
	for _, uri := range uris {
		if err := issuer.CheckRedirectURI(uri); err != nil {
			return nil, fmt.Errorf("post_logout_redirect_uri %q: %w", uri, err)
		}
	}
	return uris, nil
}

// exchanges reads token_exchange.
func exchanges(c *issuer.Client, resources []string) (err error) {
	if len(resources) == 0 {
		return nil
	}
	if len(c.Introspects) == 0 {
		return errors.New("token_exchange: say with introspect which resources the client serves: their tokens are those that it may exchange")
	}
	if c.Exchanges, err = resolveAll("token_exchange", resources); err != nil {
		return err
	}
	for _, resource := range c.Exchanges {
		if err := oauth.CheckIdentifier("token_exchange", resource); err != nil {
			return err
		}
	}
	c.Grants = append(c.Grants, "urn:ietf:params:oauth:grant-type:token-exchange")
	return nil
}

// clientKeys reads the keys of a client; nil: it has none.
func clientKeys(s *ClientSettings) (func(context.Context) (issuer.ClientKeys, error), error) {
	document, word := []byte(s.JWKS), "jwks"
	switch {
	case s.JWKS == "" && s.JWKSFile == "":
		return nil, nil
	case s.JWKS != "" && s.JWKSFile != "":
		return nil, errors.New("jwks contradicts jwks_file")
	case s.JWKSFile != "":
		word = "jwks_file"
		path, err := resolve(word, s.JWKSFile)
		if err != nil {
			return nil, err
		}
		if document, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("%s: %w", word, err)
		}
	}
	keys, err := issuer.ParseClientKeys(document)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", word, err)
	}
	return issuer.StaticKeys(keys), nil
}

// authMethods checks the methods of a client, or takes those that fit what it
// has.
func authMethods(configured []string, secret, keys bool) ([]string, error) {
	for _, method := range configured {
		switch method {
		case "client_secret_basic", "client_secret_post":
			if !secret {
				return nil, fmt.Errorf("auth_method %s needs a secret", method)
			}
		case "private_key_jwt":
			if !keys {
				return nil, errors.New("auth_method private_key_jwt needs jwks or jwks_file")
			}
		case "none":
			if secret {
				return nil, errors.New("auth_method none contradicts secret")
			}
			if keys {
				return nil, errors.New("auth_method none contradicts jwks")
			}
		default:
			return nil, fmt.Errorf("auth_method: %q is not one of client_secret_basic, client_secret_post, private_key_jwt, none", method)
		}
	}
	if len(configured) > 0 {
		return configured, nil
	}
	var methods []string
	if secret {
		methods = append(methods, "client_secret_basic", "client_secret_post")
	}
	if keys {
		methods = append(methods, "private_key_jwt")
	}
	if len(methods) == 0 {
		methods = []string{"none"}
	}
	return methods, nil
}
