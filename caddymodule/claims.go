package caddymodule

import (
	"errors"
	"fmt"
	"slices"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// claimKeeper is a login method that keeps claims with the users whom it signs
// in.
type claimKeeper interface {
	// KeptClaims are their names. every: any may be there.
	KeptClaims() (names []string, every bool)
}

// KeptClaims implements claimKeeper: the owner sets claims of these users.
func (*PasswordLogin) KeptClaims() ([]string, bool) { return nil, true }

// KeptClaims implements claimKeeper.
func (c *ClaimSettings) KeptClaims() ([]string, bool) { return c.Claims, false }

// KeptClaims implements claimKeeper.
func (l *ForwardLogin) KeptClaims() ([]string, bool) {
	var names []string
	for name := range l.ClaimHeaders {
		names = append(names, name)
	}
	return names, false
}

// keepsClaim reports whether users may have the claim.
func (a *App) keepsClaim(claim string) bool {
	if a.Remote != nil { // its logins may; introspection does not tell of claims
		return a.Postgres != nil
	}
	return slices.ContainsFunc(a.logins, func(method LoginMethod) bool {
		keeper, ok := method.(claimKeeper)
		if !ok { // somebody else's module: it may
			return true
		}
		names, every := keeper.KeptClaims()
		return every || slices.Contains(names, claim)
	})
}

// checkClaims refuses rules that nobody could ever meet, and headers that would
// never be sent, because no login keeps the claim.
func (p *Protect) checkClaims(rules []validator.Rule) error {
	if p.app.Remote != nil && p.app.Postgres == nil {
		return p.checkNoClaims(rules)
	}
	check := func(required []oauth.UserRequirement, source string) error {
		for _, r := range required {
			if !p.app.keepsClaim(r.Claim) {
				return atSource(source, "oauth_protect", fmt.Errorf("%s: no login keeps the claim %s; add it to the claims of a login: claims %s (login forward: claim %s HEADER)", r, r.Claim, r.Claim, r.Claim))
			}
		}
		return nil
	}
	for i := range rules {
		if err := check(rules[i].User, rules[i].Source); err != nil {
			return err
		}
		if rules[i].Tools == nil {
			continue
		}
		for _, tool := range rules[i].Tools.Rules {
			if err := check(tool.User, tool.Source); err != nil {
				return err
			}
		}
	}
	for _, c := range p.IdentityHeaders.names().Claims {
		if !p.app.keepsClaim(c.Claim) {
			return p.at(fmt.Errorf("identity_headers: no login keeps the claim %s; add it to the claims of a login: claims %s (login forward: claim %s HEADER)", c.Claim, c.Claim, c.Claim))
		}
	}
	return nil
}

// checkNoClaims refuses what needs claims of users where nobody tells of them.
func (p *Protect) checkNoClaims(rules []validator.Rule) error {
	problem := errors.New("introspection tells nothing of users but who they are: give this Caddy the postgres of the authorization server")
	for i := range rules {
		asks := len(rules[i].User) > 0
		if rules[i].Tools != nil {
			asks = asks || slices.ContainsFunc(rules[i].Tools.Rules, func(tool validator.Rule) bool { return len(tool.User) > 0 })
		}
		if asks {
			return atSource(rules[i].Source, "oauth_protect", problem)
		}
	}
	if len(p.IdentityHeaders.names().Claims) > 0 {
		return p.at(fmt.Errorf("identity_headers: claim: %w", problem))
	}
	return nil
}
