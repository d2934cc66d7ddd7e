package caddymodule

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/login"
)

// ClaimSettings says which claims of a user matter. A name with dots leads into
// objects: "realm_access.roles".
type ClaimSettings struct {
	// UserClaim becomes the user id when a user is first seen. An email address
	// counts only if email_verified is true. Default: "sub".
	UserClaim string `json:"user_claim,omitempty"`
	// NameClaim is what pages call the user. Default: "email", else
	// "preferred_username", else "name".
	NameClaim string `json:"name_claim,omitempty"`
	// Claims are kept with the user. Default: none.
	Claims []string `json:"claims,omitempty"`
	// Require are claims that must have one of the values, or hold it in a list.
	// Default: none, and everybody whom the authority knows may sign in.
	Require map[string][]string `json:"require,omitempty"`
}

func (c *ClaimSettings) words() map[string]word {
	return map[string]word{
		"user_claim": once(text(&c.UserClaim)),
		"name_claim": once(text(&c.NameClaim)),
		"claims":     once(texts(&c.Claims)),
		"require":    many(c.parseRequire),
	}
}

// parseRequire reads
//
//	require <claim> <value...>
func (c *ClaimSettings) parseRequire(d *caddyfile.Dispenser) error {
	name, err := value(d)
	if err != nil {
		return err
	}
	if c.Require == nil {
		c.Require = make(map[string][]string)
	}
	if c.Require[name] != nil {
		return d.Errf("require %s is already set", name)
	}
	values := d.RemainingArgs()
	if len(values) == 0 || slices.Contains(values, "") {
		return d.Errf("require %s: a value is missing (an unset {$VARIABLE} leaves none)", name)
	}
	c.Require[name] = values
	return nil
}

func (c *ClaimSettings) claims() login.Claims {
	return login.Claims{User: c.UserClaim, Name: c.NameClaim, Keep: c.Claims, Require: c.Require}
}

// OIDCLogin signs users in at an OpenID provider, such as Google, Microsoft,
// Auth0, Keycloak, Supabase or Clerk. Who signs in there for the first time
// becomes a user here. The provider must know the redirect URI
// <issuer>/oauth/login/<name>, and may know <issuer>/oauth/login/<name>/logout,
// its way to say that a user has signed out (backchannel_logout_uri).
type OIDCLogin struct {
	// Issuer is the identifier of the provider, such as
	// https://accounts.google.com. Placeholders. Required.
	Issuer string `json:"issuer,omitempty"`
	// Name tells this login from others; it stands in the redirect URI. Default:
	// "oidc".
	Name string `json:"name,omitempty"`
	// Label is what users know the provider as. Default: the host of Issuer.
	Label string `json:"label,omitempty"`
	// ClientID is what the provider calls us. Placeholders. Required.
	ClientID string `json:"client_id,omitempty"`
	// ClientSecret is the secret that the provider gave us. Placeholders.
	// Default: a public client, with PKCE alone.
	ClientSecret string `json:"client_secret,omitempty"`
	// Scopes to ask for besides openid. Default: profile and email.
	Scopes []string `json:"scopes,omitempty"`
	ClaimSettings
	// UserInfo asks the provider's UserInfo endpoint for claims that the ID token
	// lacks. Default: false.
	UserInfo bool `json:"userinfo,omitempty"`
	// LogoutProvider signs users out at the provider too when they sign out here,
	// where the provider offers that (end_session_endpoint). It must know the
	// address <issuer>/oauth/login/<name>/signed_out, as a
	// post_logout_redirect_uri. Default: false.
	LogoutProvider bool `json:"logout_provider,omitempty"`
	// LogoutSessions ends all sessions of a user who signs out, here or at the
	// provider, and not the login alone. Default: false.
	LogoutSessions bool `json:"logout_sessions,omitempty"`
	// Timeout bounds each request to the provider. Default: 5s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	method issuer.LoginMethod
}

// CaddyModule returns the Caddy module information.
func (OIDCLogin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: loginNamespace + ".oidc", New: func() caddy.Module { return new(OIDCLogin) }}
}

// UnmarshalCaddyfile reads
//
//	login oidc <issuer> {
//		name          <name>              # oidc
//		label         <text>              # the host of the issuer
//		client_id     <id>
//		client_secret <secret>            # a public client
//		scopes        <scope...>          # profile email
//		user_claim    <claim>             # sub
//		name_claim    <claim>             # email, preferred_username, name
//		claims        <claim...>
//		require       <claim> <value...>  # again for each claim
//		userinfo
//		logout        provider|sessions... # the login here, and no more
//		timeout       <duration>          # 5s
//	}
func (l *OIDCLogin) UnmarshalCaddyfile(d *caddyfile.Dispenser) (err error) {
	d.Next() // the method
	if l.Issuer, err = value(d); err != nil {
		return err
	}
	if d.NextArg() {
		return d.Errf("login oidc: unexpected %q", d.Val())
	}
	words := l.ClaimSettings.words()
	words["name"] = once(text(&l.Name))
	words["label"] = once(text(&l.Label))
	words["client_id"] = once(text(&l.ClientID))
	words["client_secret"] = once(text(&l.ClientSecret))
	words["scopes"] = once(texts(&l.Scopes))
	words["userinfo"] = once(flag(&l.UserInfo))
	words["logout"] = once(l.parseLogout)
	words["timeout"] = once(period(&l.Timeout))
	return parseBlock(d, words)
}

// parseLogout reads
//
//	logout provider|sessions...
func (l *OIDCLogin) parseLogout(d *caddyfile.Dispenser) error {
	var what []string
	if err := texts(&what)(d); err != nil {
		return err
	}
	for _, word := range what {
		switch word {
		case "provider":
			l.LogoutProvider = true
		case "sessions":
			l.LogoutSessions = true
		default:
			return d.Errf("logout: %q is neither provider nor sessions", word)
		}
	}
	return nil
}

// Provision resolves placeholders. It asks the provider nothing.
func (l *OIDCLogin) Provision(caddy.Context) (err error) {
	config := login.OIDCConfig{Scopes: l.Scopes, Claims: l.claims(), UserInfo: l.UserInfo, LogoutHint: l.LogoutProvider, Timeout: time.Duration(l.Timeout)}
	if config.Issuer, err = resolve("login oidc", l.Issuer); err != nil {
		return err
	}
	if l.ClientID == "" {
		return fmt.Errorf("login oidc %s: client_id is missing: what the provider calls this server", config.Issuer)
	}
	if config.ClientID, err = resolve("client_id", l.ClientID); err != nil {
		return err
	}
	if l.ClientSecret != "" {
		if config.ClientSecret, err = resolve("client_secret", l.ClientSecret); err != nil {
			return err
		}
	}
	provider, err := login.NewOIDC(config)
	if err != nil {
		return fmt.Errorf("login oidc: %w", err)
	}
	l.method = issuer.LoginMethod{
		Name: orDefault(l.Name, "oidc"), Label: orDefault(l.Label, hostOf(config.Issuer)), Provider: provider,
		SignOutThere: l.LogoutProvider, SignOutEndsSessions: l.LogoutSessions,
	}
	return nil
}

// ConfigureLogin implements LoginMethod.
func (l *OIDCLogin) ConfigureLogin(config *issuer.Config) error { return addMethod(config, l.method) }

// addMethod adds a method; two of one name are an error.
func addMethod(config *issuer.Config, method issuer.LoginMethod) error {
	config.Methods = append(config.Methods, method)
	return issuer.CheckLoginMethods(config.Methods)
}

func orDefault(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}

// hostOf is the host of an address that was checked.
func hostOf(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// Interface guards
var (
	_ LoginMethod           = (*OIDCLogin)(nil)
	_ caddy.Provisioner     = (*OIDCLogin)(nil)
	_ caddyfile.Unmarshaler = (*OIDCLogin)(nil)
)
