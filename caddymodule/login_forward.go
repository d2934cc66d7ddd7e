package caddymodule

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/login"
)

// ForwardLogin signs users in by asking the owner's own app whom their browser's
// cookie belongs to. Who is not signed in there goes to the app's sign-in page
// and comes back.
type ForwardLogin struct {
	AppSettings
	// URL of the app that answers: 2xx with UserHeader for who is signed in; 401 or
	// a redirect: nobody; 403: somebody who may not. Placeholders. Required.
	URL string `json:"url,omitempty"`
	// PlainHTTP lets URL be plain http over a network that is yours, such as that
	// of the containers of one machine. Default: plain http is for loopback only.
	PlainHTTP bool `json:"plain_http,omitempty"`
	// CopyHeaders are the headers of the browser that the app gets; our own cookies
	// are never among them. Default: Cookie.
	CopyHeaders []string `json:"copy_headers,omitempty"`
	// UserHeader of the answer becomes the user id. Required.
	UserHeader string `json:"user_header,omitempty"`
	// NameHeader of the answer is what pages call the user. Default: they are called
	// by their id.
	NameHeader string `json:"name_header,omitempty"`
	// ClaimHeaders of the answer become claims, kept with the user; keyed by the
	// name of the claim.
	ClaimHeaders map[string]ClaimHeader `json:"claim_headers,omitempty"`
	// Require are claims that must have one of the values, or hold it in a list.
	// Default: none.
	Require map[string][]string `json:"require,omitempty"`
	// Timeout bounds the question. Default: 5s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// ClaimHeader is a header that becomes a claim.
type ClaimHeader struct {
	// Header is its name.
	Header string `json:"header,omitempty"`
	// List: its value is a list, with commas between.
	List bool `json:"list,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (ForwardLogin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: loginNamespace + ".forward", New: func() caddy.Module { return new(ForwardLogin) }}
}

// UnmarshalCaddyfile reads
//
//	login forward <url> {
//		name             <name>                   # forward
//		label            <text>                   # the host of sign_in
//		plain_http
//		copy_headers     <header...>              # Cookie
//		user_header      <header>
//		name_header      <header>
//		claim            <claim> <header> [list]  # again for each claim
//		require          <claim> <value...>       # again for each claim
//		sign_in          <url>
//		return_parameter <name>                   # redirect_url
//		timeout          <duration>               # 5s
//	}
func (l *ForwardLogin) UnmarshalCaddyfile(d *caddyfile.Dispenser) (err error) {
	d.Next() // the method
	if l.URL, err = value(d); err != nil {
		return err
	}
	if err := noArguments(d, "forward"); err != nil {
		return err
	}
	var claims ClaimSettings // of which only require has a place here
	err = parseBlock(d, mergeWords(l.AppSettings.words(), map[string]word{
		"plain_http":   once(flag(&l.PlainHTTP)),
		"copy_headers": once(texts(&l.CopyHeaders)),
		"user_header":  once(text(&l.UserHeader)),
		"name_header":  once(text(&l.NameHeader)),
		"claim":        many(l.parseClaim),
		"require":      many(claims.parseRequire),
		"timeout":      once(period(&l.Timeout)),
	}))
	l.Require = claims.Require
	return err
}

// parseClaim reads
//
//	claim <claim> <header> [list]
func (l *ForwardLogin) parseClaim(d *caddyfile.Dispenser) error {
	name, err := value(d)
	if err != nil {
		return err
	}
	if _, again := l.ClaimHeaders[name]; again {
		return d.Errf("claim %s is already set", name)
	}
	var claim ClaimHeader
	if claim.Header, err = value(d); err != nil {
		return err
	}
	if d.NextArg() {
		if d.Val() != "list" {
			return d.Errf("claim %s: unexpected %q; list is possible", name, d.Val())
		}
		claim.List = true
	}
	if l.ClaimHeaders == nil {
		l.ClaimHeaders = make(map[string]ClaimHeader)
	}
	l.ClaimHeaders[name] = claim
	return nil
}

// Provision resolves placeholders. It asks the app nothing.
func (l *ForwardLogin) Provision(caddy.Context) (err error) {
	config := login.ForwardConfig{
		PlainHTTP: l.PlainHTTP, Copy: l.CopyHeaders, User: l.UserHeader, Name: l.NameHeader, ClaimHeaders: map[string]login.ClaimHeader{},
		Require: l.Require, Timeout: time.Duration(l.Timeout),
	}
	for name, claim := range l.ClaimHeaders {
		config.ClaimHeaders[name] = login.ClaimHeader(claim)
	}
	if config.URL, err = resolve("login forward", l.URL); err != nil {
		return err
	}
	if config.Return, err = l.back(); err != nil {
		return fmt.Errorf("login forward: %w", err)
	}
	app, err := login.NewForward(config)
	if err != nil {
		return fmt.Errorf("login forward: %w", err)
	}
	l.use("forward", config.Return, app)
	return nil
}

// Interface guards
var (
	_ LoginMethod           = (*ForwardLogin)(nil)
	_ caddy.Provisioner     = (*ForwardLogin)(nil)
	_ caddyfile.Unmarshaler = (*ForwardLogin)(nil)
)
