package caddymodule

import (
	"slices"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// ruleSet is a table of scope rules, and the gates that decide by it: all that
// are in block form and have the same resource, or one in short form.
type ruleSet struct {
	resource *validator.Resource
	gates    []*Protect
}

// ruleSets returns the tables of all gates, in the order in which these were
// provisioned. A block that several sites import is one gate.
func (a *App) ruleSets() []*ruleSet {
	var sets []*ruleSet
	for _, gate := range a.gates {
		i := slices.IndexFunc(sets, func(s *ruleSet) bool { return s.has(gate) })
		if i < 0 {
			sets = append(sets, &ruleSet{gate.resource, []*Protect{gate}})
			continue
		}
		if !slices.ContainsFunc(sets[i].gates, func(g *Protect) bool { return g.Source != "" && g.Source == gate.Source }) {
			sets[i].gates = append(sets[i].gates, gate)
		}
	}
	return sets
}

// has reports whether the gate decides by this table.
func (s *ruleSet) has(gate *Protect) bool {
	first := s.gates[0]
	if gate.Short || first.Short {
		return gate.Short && first.Short && gate.Source != "" && gate.Source == first.Source
	}
	return gate.resource.Identifier() == s.resource.Identifier()
}

func (s *ruleSet) sources() []string {
	var sources []string
	for _, gate := range s.gates {
		sources = append(sources, place(gate.Source))
	}
	return sources
}

// reach is the most that a client can get.
type reach struct {
	client string
	scopes oauth.ScopeSet
}

// selfRegistered stands for every client that registers itself.
const selfRegistered = "(registered)"

// clientReaches returns the most that each client can get: what it may ask for,
// as far as policies let it. Clients without a grant get no token.
func (a *App) clientReaches() []reach {
	var reaches []reach
	all := a.catalog.Names()
	for i := range a.Clients {
		client, err := a.policies.Limit(a.clients[a.Clients[i].ID])
		if err != nil || len(client.Grants) == 0 {
			continue
		}
		scopes := all
		if client.Scopes != nil {
			scopes = client.Scopes.Intersect(all)
		}
		if client.Ceiling != nil {
			scopes = scopes.Intersect(a.catalog.Expand(client.Ceiling))
		}
		reaches = append(reaches, reach{client.ID, scopes})
	}
	if a.register != nil && (a.register.Dynamic || a.register.MetadataDocuments) {
		if scopes, some := a.selfRegisteredScopes(); some {
			reaches = append(reaches, reach{selfRegistered, scopes})
		}
	}
	return reaches
}

// selfRegisteredScopes returns the most that a client can get that registers
// itself from the best place for it; false: policies deny all.
func (a *App) selfRegisteredScopes() (scopes oauth.ScopeSet, some bool) {
	rest := false
	for _, policy := range a.policies {
		rest = rest || policy.Pattern == "*"
		switch {
		case policy.Deny:
		case policy.Scopes == nil:
			return a.catalog.Names(), true
		default:
			scopes, some = scopes.Union(a.catalog.Expand(policy.Scopes)), true
		}
	}
	if !rest { // a place that no policy names has no cap
		return a.catalog.Names(), true
	}
	return scopes, some
}
