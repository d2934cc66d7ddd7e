package caddymodule

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-scope/caddy-scope/caddymodule/rules"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// comparison holds two configurations against each other. For one request of
// each class that routes and rules tell apart it asks both, as they would serve;
// what callers of the class need is then known without further requests, because
// it is in the rule.
type comparison struct {
	was, is   *rehearsal
	hierarchy [2]rules.Hierarchy
	progress  func(asked int)
	asked     int
	differs   map[changed]bool
	gates     map[[2]string]bool // of the same requests, old and new
}

// changed is a class with both verdicts; the zero value: its callers stay the
// same.
type changed struct{ was, is verdict }

func compareConfigurations(ctx context.Context, was, is *rehearsal, progress func(asked int)) (*rules.Diff, error) {
	c := &comparison{was: was, is: is, progress: progress, differs: make(map[changed]bool), gates: make(map[[2]string]bool)}
	c.hierarchy = [2]rules.Hierarchy{rules.NewHierarchy(was.app.catalog), rules.NewHierarchy(is.app.catalog)}
	diff := &rules.Diff{Changes: []rules.Change{}, Clients: rules.CompareClients(reachByClient(was.app), reachByClient(is.app))}
	if was.app.issuer != is.app.issuer {
		diff.Notes = append(diff.Notes, fmt.Sprintf("the issuer was %s and is %s: no token, client or session goes on", was.app.issuer, is.app.issuer))
	}
	bounds, names := c.bounds()
	for _, b := range bounds {
		diff.Notes = append(diff.Notes, b.unknown...)
	}
	diff.Notes = append(diff.Notes, append(was.notes, is.notes...)...)
	slices.Sort(diff.Notes)
	diff.Notes = slices.Compact(diff.Notes)
	for i, b := range bounds {
		changes, err := c.server(ctx, names[i], b)
		if err != nil {
			return nil, err
		}
		for j := range changes {
			changes[j].Server = names[i]
		}
		diff.Changes = append(diff.Changes, changes...)
	}
	diff.Bypasses, diff.Rates = c.bypasses(), c.rates()
	return diff, ctx.Err()
}

// bypasses returns the gates of the same requests whose bypass differs.
func (c *comparison) bypasses() []rules.BypassChange {
	changes := []rules.BypassChange{}
	for gates := range c.gates {
		was, is := c.was.bypassAt(gates[0]), c.is.bypassAt(gates[1])
		if was != is {
			changes = append(changes, rules.BypassChange{GateWas: gates[0], GateIs: gates[1], Was: was, Is: is})
		}
	}
	slices.SortFunc(changes, func(a, b rules.BypassChange) int {
		return cmp.Or(strings.Compare(a.GateIs, b.GateIs), strings.Compare(a.GateWas, b.GateWas))
	})
	return changes
}

// rates returns the rules of both whose rates differ.
func (c *comparison) rates() (changes []rules.RateChange) {
	type key struct{ resource, rule string }
	ratesOf := func(h *rehearsal) map[key][]string {
		rates := make(map[key][]string)
		for _, set := range h.app.ruleSets() {
			for _, rule := range set.resource.Rules() {
				rates[key{set.resource.Identifier(), rule.String()}] = rule.RateTexts()
				if rule.Tools != nil {
					for _, tool := range rule.Tools.Rules {
						rates[key{set.resource.Identifier(), tool.String()}] = tool.RateTexts()
					}
				}
			}
		}
		return rates
	}
	was := ratesOf(c.was)
	for k, is := range ratesOf(c.is) {
		if before, there := was[k]; there && !slices.Equal(before, is) {
			changes = append(changes, rules.RateChange{Resource: k.resource, Rule: k.rule, Was: before, Is: is})
		}
	}
	slices.SortFunc(changes, func(a, b rules.RateChange) int {
		return cmp.Or(strings.Compare(a.Resource, b.Resource), strings.Compare(a.Rule, b.Rule))
	})
	return changes
}

func reachByClient(a *App) map[string]oauth.ScopeSet {
	reaches := make(map[string]oauth.ScopeSet)
	for _, r := range a.clientReaches() {
		reaches[r.client] = r.scopes
	}
	return reaches
}

// bounds returns for each server of either configuration, by its addresses, what
// tells requests to it apart.
func (c *comparison) bounds() (bounds []*routeBounds, names []string) {
	all := make(map[string]*routeBounds)
	for _, h := range []*rehearsal{c.was, c.is} {
		for _, server := range h.http.Servers {
			name := addresses(server)
			if all[name] == nil {
				all[name] = new(routeBounds)
			}
			b := all[name]
			b.invoked = nil
			b.routes(server.Routes, server.NamedRoutes)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		bounds, names = append(bounds, all[name]), append(names, name)
	}
	return bounds, names
}

func addresses(server *caddyhttp.Server) string {
	listen := slices.Clone(server.Listen)
	slices.Sort(listen)
	return strings.Join(listen, " ")
}

func (h *rehearsal) serverAt(name string) *caddyhttp.Server {
	for _, server := range h.http.Servers {
		if addresses(server) == name {
			return server
		}
	}
	return nil
}

// gatesAt reports whether a gate stands in the server that listens there.
func (h *rehearsal) gatesAt(name string) bool {
	if h.app.survey == nil {
		return false
	}
	return slices.ContainsFunc(h.app.survey.gates, func(gate *step) bool {
		key, _, _ := strings.Cut(gate.site, "/")
		return h.http.Servers[key] != nil && addresses(h.http.Servers[key]) == name
	})
}

// anyHost stands for a host that no site names.
const anyHost = "*"

// server compares the servers of both configurations that listen at the same
// addresses.
func (c *comparison) server(ctx context.Context, name string, b *routeBounds) ([]rules.Change, error) {
	patterns, opened := c.patterns(name, b)
	methodClasses := c.methodClasses(b)
	type key struct {
		path, except, example string
		changed
	}
	merged := make(map[key]*rules.Change)
	var order []key
	for _, host := range hostsOf(b) {
		inHost := make(map[key][]string) // to methods
		var seen []key
		for _, class := range methodClasses {
			m, err := validator.MapPaths(patterns, func(path string) changed { return c.ask(ctx, name, host, class[0], path) })
			if err != nil {
				return nil, err
			}
			for _, r := range m.Ranges() {
				if r.Value == (changed{}) {
					continue
				}
				k := key{r.Pattern, strings.Join(m.Except(r), " "), r.Example, r.Value}
				if inHost[k] == nil {
					seen = append(seen, k)
				}
				inHost[k] = append(inHost[k], class...)
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, k := range seen {
			methods := inMethodOrder(inHost[k])
			with := k
			with.example += " " + strings.Join(methods, ",")
			if merged[with] != nil {
				merged[with].Hosts = append(merged[with].Hosts, host)
				continue
			}
			change := rules.Change{Hosts: []string{host}, Methods: methods, Path: opened.Replace(k.path), Example: k.example, Was: k.was.side(), Is: k.is.side()}
			if k.except != "" {
				change.Except = strings.Split(opened.Replace(k.except), " ")
			}
			merged[with] = &change
			order = append(order, with)
		}
	}
	// What differs only in the case of a route's path is the same to the route, and
	// said once.
	respelled := strings.NewReplacer(b.cased...)
	order = slices.DeleteFunc(order, func(k key) bool {
		respelling := respelled.Replace(k.path)
		return respelling != k.path && slices.ContainsFunc(order, func(o key) bool {
			return o.path == respelling && o.changed == k.changed && slices.Equal(merged[o].Methods, merged[k].Methods)
		})
	})
	var changes []rules.Change
	for _, k := range order {
		changes = append(changes, c.changes(*merged[k], k.changed)...)
	}
	return changes, nil
}

// changes returns the change of a class, and those of tools called in it.
func (c *comparison) changes(change rules.Change, v changed) []rules.Change {
	var all []rules.Change
	whole, differs := change.Compare(c.required(0, v.was), c.required(1, v.is))
	if differs {
		all = append(all, whole)
	}
	for _, tool := range toolsOf(v.was.rule, v.is.rule) {
		change.Tool = tool
		of, differs := change.Compare(c.requiredForTool(0, v.was, tool), c.requiredForTool(1, v.is, tool))
		if differs && !of.SameCallers(whole) {
			all = append(all, of)
		}
	}
	return all
}

// ask returns the verdicts about one request, if its callers are not the same.
func (c *comparison) ask(ctx context.Context, server, host, method, path string) changed {
	if ctx.Err() != nil {
		return changed{}
	}
	if c.asked++; c.progress != nil {
		c.progress(c.asked)
	}
	v := changed{c.was.verdict(server, host, method, path), c.is.verdict(server, host, method, path)}
	if c.gates[[2]string{v.was.gate, v.is.gate}] = true; v.was == v.is {
		return changed{}
	}
	differs, known := c.differs[v]
	if !known {
		differs = len(c.changes(rules.Change{Was: v.was.side(), Is: v.is.side()}, v)) > 0
		c.differs[v] = differs
	}
	if !differs {
		return changed{}
	}
	return v
}
