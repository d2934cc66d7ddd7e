package caddymodule

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/caddymodule/doctor"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// stage is the rehearsal as products are tried on it.
func (h *rehearsal) stage() (*doctor.Stage, error) {
	s := &doctor.Stage{
		Issuer: h.app.issuer, Places: h.app.Sources, SignIn: len(h.app.logins) > 0, Policy: h.app.policyFor,
		Rehearse: func(documents map[string][]byte) (http.RoundTripper, error) { return h, h.openServer(documents) },
	}
	for _, set := range h.app.ruleSets() {
		resource, err := set.examined()
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(s.Resources, func(r doctor.Resource) bool { return r.Identifier == resource.Identifier })
		if i < 0 {
			s.Resources = append(s.Resources, resource)
			continue
		}
		s.Resources[i].MCP = s.Resources[i].MCP || resource.MCP
		s.Resources[i].Calls = append(s.Resources[i].Calls, resource.Calls...)
	}
	for i := range h.app.Clients {
		client, err := h.app.examinedClient(&h.app.Clients[i])
		if err != nil {
			return nil, err
		}
		s.Clients = append(s.Clients, client)
	}
	return s, nil
}

// policyFor returns the client_policy for a place.
func (a *App) policyFor(place string) doctor.Policy {
	policy := a.policies.ForPlace(place)
	if policy == nil {
		return doctor.Policy{}
	}
	p := doctor.Policy{Pattern: policy.Pattern, Deny: policy.Deny}
	if policy.Scopes != nil {
		p.Scopes = policy.Scopes
	}
	for _, s := range a.ClientPolicies {
		if s.Pattern == policy.Pattern {
			p.Source = s.Source
		}
	}
	return p
}

func (a *App) examinedClient(s *ClientSettings) (doctor.Client, error) {
	client := a.clients[s.ID]
	c := doctor.Client{
		ID: s.ID, Source: s.Source, RedirectURIs: client.RedirectURIs, AuthMethods: client.AuthMethods, Grants: client.Grants,
		Scopes: client.Scopes, PKCEOptional: client.PKCEOptional,
		Demanding: client.RequirePushed || client.RequireDPoP,
	}
	if c.Scopes == nil {
		c.Scopes = a.catalog.Names()
	}
	secrets, err := resolveAll("secret", s.Secrets)
	if err != nil {
		return c, atSource(s.Source, "client "+s.ID, err)
	}
	if len(secrets) > 0 {
		c.Secret = secrets[0]
	}
	return c, nil
}

// examined is what products are told of a gate. One in short form, or with tools,
// or whose resource is a path, may stand before an MCP server.
func (s *ruleSet) examined() (doctor.Resource, error) {
	gate := s.gates[0]
	r := doctor.Resource{Identifier: s.resource.Identifier(), Source: gate.Source}
	origin := oauth.Origin(r.Identifier)
	r.MCP = gate.Short || slices.ContainsFunc(s.gates, func(g *Protect) bool { return len(g.Tools) > 0 })
	for _, e := range s.resource.Examples() {
		if e.Method == "" || e.Rule.Access == validator.AccessPublic {
			continue
		}
		call := doctor.Call{Method: e.Method, URL: origin + escaped(e.Path), Rule: strings.TrimSpace(e.Rule.String() + " (" + e.Rule.Source + ")")}
		if r.MCP {
			call.Method, call.URL = http.MethodPost, r.Identifier
		}
		r.Calls = append(r.Calls, call)
	}
	if !r.MCP {
		return r, nil
	}
	r.Calls = r.Calls[:min(len(r.Calls), 1)]
	for i := range r.Calls {
		r.Calls[i].Body = []byte(doctor.Initialize)
	}
	for _, g := range s.gates {
		for _, tool := range g.Tools {
			body, err := toolCall(tool.Name)
			if err != nil {
				return r, err
			}
			r.Calls = append(r.Calls, doctor.Call{Method: http.MethodPost, URL: r.Identifier, Body: body, Rule: fmt.Sprintf("tool %s (%s)", tool.Name, tool.Source)})
		}
	}
	return r, nil
}
