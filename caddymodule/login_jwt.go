package caddymodule

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/login"
)

// JWTLogin signs users in by the signed token that the owner's own app (or what
// it signs users in with, such as Clerk or Supabase) has given their browser. Who
// is not signed in there goes to the app's sign-in page and comes back.
type JWTLogin struct {
	AppSettings
	// Cookie is the app's cookie with the token, also in pieces (<name>.0,
	// <name>.1), also as @supabase/ssr writes it. Either Cookie or Header is
	// required.
	Cookie string `json:"cookie,omitempty"`
	// Header is the header with the token, for apps behind a proxy that adds one.
	Header string `json:"header,omitempty"`
	// Issuer is `iss` of the tokens. Placeholders. Required.
	Issuer string `json:"issuer,omitempty"`
	// Audience: one of these must be in `aud`. Default: none, and tokens that have
	// an `aud` are refused.
	Audience []string `json:"audience,omitempty"`
	// AuthorizedParties: `azp` must be one of these. Default: it is not looked at.
	AuthorizedParties []string `json:"authorized_parties,omitempty"`
	// JWKS is the address of the keys that verify the tokens. Placeholders. Either
	// JWKS or Secret is required.
	JWKS string `json:"jwks,omitempty"`
	// Secret is the key that the app shares with us. Placeholders.
	Secret string `json:"secret,omitempty"`
	// Algorithms that tokens may be signed with. Default: with JWKS every
	// asymmetric one that fits the key, with Secret HS256.
	Algorithms []string `json:"algorithms,omitempty"`
	ClaimSettings
	// Timeout bounds reading the keys. Default: 5s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (JWTLogin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: loginNamespace + ".jwt", New: func() caddy.Module { return new(JWTLogin) }}
}

// UnmarshalCaddyfile reads
//
//	login jwt {
//		name               <name>              # jwt
//		label              <text>              # the host of sign_in
//		cookie             <name>              # or header
//		header             <name>
//		issuer             <text>
//		audience           <text...>           # tokens have none
//		authorized_parties <text...>           # any
//		jwks               <url>               # or secret
//		secret             <text>
//		algorithms         <name...>           # those that fit the key
//		sign_in            <url>
//		return_parameter   <name>              # redirect_url
//		user_claim         <claim>             # sub
//		name_claim         <claim>             # email, preferred_username, name
//		claims             <claim...>
//		require            <claim> <value...>  # again for each claim
//		timeout            <duration>          # 5s
//	}
func (l *JWTLogin) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the method
	if err := noArguments(d, "jwt"); err != nil {
		return err
	}
	return parseBlock(d, mergeWords(l.AppSettings.words(), l.ClaimSettings.words(), map[string]word{
		"cookie":             once(text(&l.Cookie)),
		"header":             once(text(&l.Header)),
		"issuer":             once(text(&l.Issuer)),
		"audience":           once(texts(&l.Audience)),
		"authorized_parties": once(texts(&l.AuthorizedParties)),
		"jwks":               once(text(&l.JWKS)),
		"secret":             once(text(&l.Secret)),
		"algorithms":         once(texts(&l.Algorithms)),
		"timeout":            once(period(&l.Timeout)),
	}))
}

// Provision resolves placeholders. It asks nobody for keys.
func (l *JWTLogin) Provision(caddy.Context) (err error) {
	config := login.JWTConfig{
		Cookie: l.Cookie, Header: l.Header, Audience: l.Audience, AuthorizedParties: l.AuthorizedParties, Algorithms: l.Algorithms,
		Claims: l.claims(), Timeout: time.Duration(l.Timeout),
	}
	for _, option := range []struct {
		word, value string
		into        *string
	}{{"issuer", l.Issuer, &config.Issuer}, {"jwks", l.JWKS, &config.JWKS}, {"secret", l.Secret, &config.Secret}} {
		if option.value == "" {
			continue
		}
		if *option.into, err = resolve("login jwt: "+option.word, option.value); err != nil {
			return err
		}
	}
	if config.Return, err = l.back(); err != nil {
		return fmt.Errorf("login jwt: %w", err)
	}
	app, err := login.NewJWT(config)
	if err != nil {
		return fmt.Errorf("login jwt: %w", err)
	}
	l.use("jwt", config.Return, app)
	return nil
}

// Interface guards
var (
	_ LoginMethod           = (*JWTLogin)(nil)
	_ caddy.Provisioner     = (*JWTLogin)(nil)
	_ caddyfile.Unmarshaler = (*JWTLogin)(nil)
)
