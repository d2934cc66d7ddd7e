package caddymodule

import (
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/issuer"
)

const jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// parseIdentityProvider reads
//
//	identity_provider <issuer> {
//		jwks_uri      <url>
//		user_claim    <claim>
//		name_claim    <claim>
//		claims        <claim...>
//		require       <claim> <value...>
//		known_users
//		allow_address <cidr...>
//		allow_port    <port...>
//	}
func (s *Settings) parseIdentityProvider(d *caddyfile.Dispenser) (err error) {
	p := IdentityProviderSettings{Source: source(d)}
	if p.Issuer, err = value(d); err != nil {
		return err
	}
	if d.NextArg() {
		return d.Errf("identity_provider %s: unexpected %q", p.Issuer, d.Val())
	}
	words := map[string]word{
		"jwks_uri":      once(text(&p.JWKSURI)),
		"known_users":   once(flag(&p.KnownUsers)),
		"allow_address": once(texts(&p.AllowAddresses)),
		"allow_port":    once(p.parsePorts),
	}
	for name, w := range p.ClaimSettings.words() {
		words[name] = w
	}
	if err := parseBlock(d, words); err != nil {
		return err
	}
	s.IdentityProviders = append(s.IdentityProviders, p)
	return nil
}

// provisionIdentityProviders checks the providers. It asks them nothing.
func (a *App) provisionIdentityProviders() error {
	for i := range a.IdentityProviders {
		s := &a.IdentityProviders[i]
		provider, err := a.identityProvider(s)
		if err == nil && slices.ContainsFunc(a.identityProviders, func(o issuer.IdentityProvider) bool { return o.Issuer == provider.Issuer }) {
			err = errors.New("is already declared")
		}
		if err == nil {
			err = issuer.CheckIdentityProvider(a.issuer, provider)
		}
		if err != nil {
			return atSource(s.Source, "identity_provider "+s.Issuer, err)
		}
		a.identityProviders = append(a.identityProviders, provider)
	}
	used := false
	for _, client := range a.clients {
		used = used || slices.Contains(client.Grants, jwtBearer)
	}
	if len(a.identityProviders) > 0 && !used {
		a.logger.Warn("no client may bring the assertions of an identity_provider; give one the grant jwt_bearer", zap.String("issuer", a.identityProviders[0].Issuer))
	}
	return nil
}

func (a *App) identityProvider(s *IdentityProviderSettings) (p issuer.IdentityProvider, err error) {
	if p.Issuer, err = resolve("identity_provider", s.Issuer); err != nil {
		return p, err
	}
	if s.JWKSURI != "" {
		if p.JWKSURI, err = resolve("jwks_uri", s.JWKSURI); err != nil {
			return p, err
		}
	}
	if p.Fetch.AllowedAddresses, p.Fetch.AllowedPorts, err = s.allowed(); err != nil {
		return p, err
	}
	// An identity is a provider and a subject: with two tenants behind one provider
	// it would be two people.
	if len(s.Require["tenant"]) > 1 {
		return p, errors.New("require tenant: there can be only one; of another tenant, the same subject may be another user")
	}
	if err := a.sameUserClaim(p.Issuer, s.UserClaim); err != nil {
		return p, err
	}
	claims := s.claims()
	p.Tenant, p.KnownUsersOnly = len(s.Require["tenant"]) == 1, s.KnownUsers
	p.User = func(all map[string]any) (issuer.ExternalUser, error) { return claims.UserOf(p.Issuer, all) }
	return p, nil
}

// sameUserClaim: who is seen first by an assertion and who is seen first at the
// sign-in must get the same user id.
func (a *App) sameUserClaim(provider, userClaim string) error {
	for _, login := range a.logins {
		oidc, ok := login.(*OIDCLogin)
		if !ok {
			continue
		}
		there, err := resolve("login oidc", oidc.Issuer)
		if err != nil {
			return err
		}
		if there == provider && orDefault(oidc.UserClaim, "sub") != orDefault(userClaim, "sub") {
			return fmt.Errorf("user_claim is %s here and %s at login oidc of the same issuer; users would get one id or the other", orDefault(userClaim, "sub"), orDefault(oidc.UserClaim, "sub"))
		}
	}
	return nil
}
