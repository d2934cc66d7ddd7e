package caddymodule

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// LoginMethod is a way in which users sign in: a module in the namespace
// oauth.login.
type LoginMethod interface {
	// ConfigureLogin turns the method on in the configuration of the server.
	ConfigureLogin(config *issuer.Config) error
}

// PasswordLogin signs users in with an email address and a password, both kept
// in Postgres (the password as argon2id). `caddy oauth user add` makes users.
type PasswordLogin struct {
	// Passkeys lets users register passkeys at /oauth/account and sign in with them.
	// The issuer must have a host name: passkeys belong to it. Default: false.
	Passkeys bool `json:"passkeys,omitempty"`
	// TOTP is whether users have a second factor, a code from an authenticator app:
	// "optional", they may set one up at /oauth/account; "required", whoever has none
	// sets one up when signing in. Default: there is none.
	TOTP string `json:"totp,omitempty"`
	// SMTP lets users who have forgotten their password have a link mailed by which
	// they set a new one. Default: `caddy oauth user reset` alone makes such links.
	SMTP *SMTPSettings `json:"smtp,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (PasswordLogin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: loginNamespace + ".password", New: func() caddy.Module { return new(PasswordLogin) }}
}

// UnmarshalCaddyfile reads
//
//	login password {
//		passkeys
//		totp optional|required
//		smtp <host:port> { ... }   # see parseSMTP
//	}
func (l *PasswordLogin) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the method
	if d.NextArg() {
		return d.Errf("login password: unexpected %q", d.Val())
	}
	return parseBlock(d, map[string]word{
		"passkeys": once(flag(&l.Passkeys)),
		"totp":     once(oneOf(&l.TOTP, "optional", "required")),
		"smtp":     once(l.parseSMTP),
	})
}

// ConfigureLogin implements LoginMethod.
func (l *PasswordLogin) ConfigureLogin(config *issuer.Config) error {
	if config.Password {
		return errors.New("login password is set twice")
	}
	if l.Passkeys {
		if err := issuer.CheckPasskeys(config.Issuer); err != nil {
			return fmt.Errorf("login password: %w", err)
		}
	}
	switch mode := issuer.SecondFactorMode(l.TOTP); mode {
	case issuer.SecondFactorOff, issuer.SecondFactorOptional, issuer.SecondFactorRequired:
		config.SecondFactor = mode
	default:
		return fmt.Errorf("login password: totp: %q is neither optional nor required", l.TOTP)
	}
	if l.SMTP != nil {
		m, err := l.SMTP.mailer()
		if err != nil {
			return fmt.Errorf("login password: %w", err)
		}
		config.SendMail = m.send
	}
	config.Password, config.Passkeys = true, l.Passkeys
	return nil
}

func (a *App) provisionLogins() error {
	if len(a.LoginsRaw) == 0 {
		a.logger.Warn("no login is configured, so nobody can sign in; add: login password")
		return nil
	}
	modules, err := a.ctx.LoadModule(&a.Settings, "LoginsRaw")
	if err != nil {
		return a.at("login", 0, fmt.Errorf("login: %w", err))
	}
	for _, module := range modules.([]any) {
		method, ok := module.(LoginMethod)
		if !ok {
			return fmt.Errorf("login: module %T is not a login method", module)
		}
		a.logins = append(a.logins, method)
	}
	// A dry run: contradictions between methods are errors of the configuration.
	if err := a.configureLogins(&issuer.Config{Issuer: a.issuer}); err != nil {
		return a.at("login", 0, err)
	}
	return nil
}

func (a *App) configureLogins(config *issuer.Config) error {
	for _, method := range a.logins {
		if err := method.ConfigureLogin(config); err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ LoginMethod           = (*PasswordLogin)(nil)
	_ caddyfile.Unmarshaler = (*PasswordLogin)(nil)
)
