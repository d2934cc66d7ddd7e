package caddymodule

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/identity"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// IdentityTokenSettings is how the upstream gets the proof that a request came
// through the gate: a JWT of half a minute, signed with the signing key, for this
// method, host, path and query.
type IdentityTokenSettings struct {
	// Header carries the token; what comes in under its name is removed. Required.
	Header string `json:"header"`
	// Audience is `aud` of the token: a name such as jobs-api, or a URL with a
	// fragment. It keeps the tokens of several upstreams apart. Default: the
	// resource, followed by #upstream.
	Audience string `json:"audience,omitempty"`
}

// parseIdentityToken reads
//
//	identity_token <header> [<audience>]
func (p *Protect) parseIdentityToken(d *caddyfile.Dispenser) (err error) {
	p.IdentityToken = new(IdentityTokenSettings)
	if p.IdentityToken.Header, err = value(d); err != nil {
		return err
	}
	if d.NextArg() {
		p.IdentityToken.Audience = d.Val()
		if d.Val() == "" {
			return d.Err("identity_token: the audience is empty (an unset {$VARIABLE} leaves none)")
		}
	}
	return nil
}

// headerNames are those that only the gate may set.
func (p *Protect) headerNames() validator.IdentityHeaders {
	names := p.IdentityHeaders.names()
	if p.IdentityToken != nil {
		names.Token = p.IdentityToken.Header
	}
	return names
}

func (p *Protect) provisionIdentityToken(resource string) (err error) {
	s := p.IdentityToken
	if s == nil {
		return nil
	}
	if s.Header == "" {
		return fmt.Errorf("identity_token: the header is missing, such as %s", identity.DefaultHeader)
	}
	if p.app.Remote != nil {
		return errors.New("identity_token is signed with the key of the authorization server, which is elsewhere (remote); gate there, or leave it out")
	}
	audience := s.Audience
	if audience == "" {
		audience = oauth.UpstreamAudience(resource)
	}
	if err := oauth.CheckUpstreamAudience(audience); err != nil {
		return fmt.Errorf("identity_token: the audience %q %w", audience, err)
	}
	p.minter, err = identity.NewMinter(p.app.issuer, audience, p.app.judging)
	return err
}

// proveIdentity gives the request an identity token, also at a public rule, where
// it says that the request came through the gate and nothing of who sent it. It
// stands where nothing changes the request any more: a rewrite behind a gate is an
// error of the configuration.
func (p *Protect) proveIdentity(r *http.Request, decision *validator.Decision) error {
	if p.minter == nil || decision.Preflight || p.app.rehearsal != nil {
		return nil
	}
	id := &decision.Identity
	caller := identity.Caller{UserID: id.UserID, ClientID: id.ClientID, SessionID: id.SessionID, Scopes: id.Scopes, Claims: p.headers.Passed(id.Claims)}
	token, err := p.minter.Token(p.app.runtime.keys, r, &caller)
	if err != nil {
		return err
	}
	p.headers.SetToken(r.Header, token)
	return nil
}
