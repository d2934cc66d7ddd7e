package caddymodule

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// parseRegistration reads
//
//	registration {
//		dynamic
//		metadata_documents
//		allow_address        <cidr...>
//		allow_port           <port...>
//		initial_access_token <token>
//		client_ttl           <duration>
//	}
func (s *Settings) parseRegistration(d *caddyfile.Dispenser) error {
	r := &RegistrationSettings{}
	s.Registration = r
	return parseBlock(d, map[string]word{
		"dynamic":              once(flag(&r.Dynamic)),
		"metadata_documents":   once(flag(&r.MetadataDocuments)),
		"allow_address":        once(texts(&r.AllowAddresses)),
		"allow_port":           once(r.parsePorts),
		"initial_access_token": many(appendText(&r.InitialAccessTokens)),
		"client_ttl":           once(period(&r.ClientTTL)),
	})
}

func (r *FetchSettings) parsePorts(d *caddyfile.Dispenser) error {
	var ports []string
	if err := texts(&ports)(d); err != nil {
		return err
	}
	for _, text := range ports {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return d.Errf("allow_port: %q is not a port from 1 to 65535", text)
		}
		r.AllowPorts = append(r.AllowPorts, int(port))
	}
	return nil
}

// parseClientPolicy reads
//
//	client_policy <pattern> {
//		scopes <name...>
//		deny
//	}
func (s *Settings) parseClientPolicy(d *caddyfile.Dispenser) error {
	p := ClientPolicySettings{Source: source(d)}
	pattern, err := value(d)
	if err != nil {
		return err
	}
	p.Pattern = pattern
	if d.NextArg() {
		return d.Errf("client_policy %s: unexpected %q", p.Pattern, d.Val())
	}
	if err := parseBlock(d, map[string]word{
		"scopes": once(texts(&p.Scopes)),
		"deny":   once(flag(&p.Deny)),
	}); err != nil {
		return err
	}
	s.ClientPolicies = append(s.ClientPolicies, p)
	return nil
}

// provisionPolicies checks the policies, and that none denies a client that
// stands in the configuration.
func (a *App) provisionPolicies() error {
	for i := range a.ClientPolicies {
		s := &a.ClientPolicies[i]
		if err := a.checkPolicy(s, a.ClientPolicies[:i]); err != nil {
			return atSource(s.Source, "client_policy "+s.Pattern, err)
		}
		policy := issuer.ClientPolicy{Pattern: s.Pattern, Deny: s.Deny}
		if len(s.Scopes) > 0 {
			policy.Scopes = oauth.NewScopeSet(s.Scopes...)
		}
		a.policies = append(a.policies, policy)
	}
	for i := range a.Clients {
		s := &a.Clients[i]
		if _, err := a.policies.Limit(a.clients[s.ID]); err != nil {
			return atSource(s.Source, "client "+s.ID, errors.New("a client_policy denies the host of its redirect_uri; remove one of the two"))
		}
	}
	return nil
}

func (a *App) checkPolicy(s *ClientPolicySettings, before []ClientPolicySettings) error {
	if err := issuer.CheckPolicyPattern(s.Pattern); err != nil {
		return fmt.Errorf("the pattern %w", err)
	}
	if j := slices.IndexFunc(before, func(o ClientPolicySettings) bool { return o.Pattern == s.Pattern }); j >= 0 {
		return fmt.Errorf("is already declared, at %s", before[j].Source)
	}
	switch {
	case s.Deny && len(s.Scopes) > 0:
		return errors.New("deny contradicts scopes")
	case !s.Deny && len(s.Scopes) == 0:
		return errors.New("says nothing: write scopes NAME..., or deny")
	}
	for _, name := range s.Scopes {
		if err := a.checkAskable(name); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) provisionRegistration() error {
	s := a.Registration
	if s == nil {
		return nil
	}
	r, err := registration(s)
	if err != nil {
		return a.at("registration", 0, fmt.Errorf("registration: %w", err))
	}
	a.register = r
	open := !slices.ContainsFunc(a.ClientPolicies, func(p ClientPolicySettings) bool { return p.Pattern == "*" })
	if len(a.ClientPolicies) > 0 && open {
		a.logger.Warn("clients that register themselves and that no client_policy names may ask for every scope; client_policy * says what they may",
			zap.Bool("dynamic", r.Dynamic), zap.Bool("metadata_documents", r.MetadataDocuments))
	}
	return nil
}

// registration checks the settings and fills their defaults.
func registration(s *RegistrationSettings) (*issuer.Registration, error) {
	switch {
	case !s.Dynamic && !s.MetadataDocuments:
		return nil, errors.New("is empty: write dynamic, metadata_documents or both")
	case len(s.InitialAccessTokens) > 0 && !s.Dynamic:
		return nil, errors.New("initial_access_token is for dynamic")
	case s.ClientTTL < 0:
		return nil, errors.New("client_ttl is below zero")
	}
	r := &issuer.Registration{Dynamic: s.Dynamic, MetadataDocuments: s.MetadataDocuments, ClientTTL: time.Duration(s.ClientTTL)}
	tokens, err := resolveAll("initial_access_token", s.InitialAccessTokens)
	if err != nil {
		return nil, err
	}
	for _, token := range tokens {
		if len(token) < shortestClientSecret {
			return nil, fmt.Errorf("an initial_access_token is shorter than %d characters; make one with: openssl rand -hex 32", shortestClientSecret)
		}
		r.InitialAccessTokens = append(r.InitialAccessTokens, issuer.Digest(sha256.Sum256([]byte(token))))
	}
	r.Fetch.AllowedAddresses, r.Fetch.AllowedPorts, err = s.allowed()
	return r, err
}

// allowed checks what may be fetched besides public addresses and port 443.
func (s *FetchSettings) allowed() (addresses []netip.Prefix, ports []uint16, err error) {
	for _, text := range s.AllowAddresses {
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix.Masked() != prefix || prefix.Addr().Is4In6() {
			return nil, nil, fmt.Errorf("allow_address: %q is not a network such as 10.1.0.0/16", text)
		}
		addresses = append(addresses, prefix)
	}
	for _, port := range s.AllowPorts {
		if port < 1 || port > 65535 {
			return nil, nil, fmt.Errorf("allow_port: %d is not a port from 1 to 65535", port)
		}
		ports = append(ports, uint16(port))
	}
	return addresses, ports, nil
}
