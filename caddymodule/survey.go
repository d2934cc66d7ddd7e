package caddymodule

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// routeSurvey is what the routes of the whole configuration say about gates:
// their rules, and what stands before and behind them. It is made once, when
// the first handler is provisioned. At that moment the routes before it hold
// loaded handlers, and the later ones their JSON.
type routeSurvey struct {
	gates   []*step
	servers []*step

	resources []*surveyedResource
}

// stepKind is what a request can meet on its way.
type stepKind int

const (
	stepGate stepKind = iota
	stepServer
	stepRewrite
	stepProxy
)

// step is one such thing, with the routes that lead to it, outermost first.
type step struct {
	kind     stepKind
	gate     *Protect // of a stepGate
	server   *Server  // of a stepServer
	rewrites bool     // a stepProxy that changes method or path itself
	chain    []*hop
	site     string
}

// surveyRoutes walks the routes of the http app that is being provisioned.
func (a *App) surveyRoutes(ctx caddy.Context) (*routeSurvey, error) {
	a.surveyOnce.Do(func() {
		for _, module := range ctx.Modules() {
			if http, ok := module.(*caddyhttp.App); ok {
				a.survey, a.surveyErr = a.surveyServers(http)
				return
			}
		}
		a.survey = new(routeSurvey) // a handler outside the http app
	})
	return a.survey, a.surveyErr
}

func (a *App) surveyServers(http *caddyhttp.App) (*routeSurvey, error) {
	survey := new(routeSurvey)
	names := make([]string, 0, len(http.Servers))
	for name := range http.Servers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		server := http.Servers[name]
		lists := []caddyhttp.RouteList{server.Routes}
		if server.Errors != nil {
			lists = append(lists, server.Errors.Routes)
		}
		for _, routes := range lists {
			walk := &routeWalk{named: server.NamedRoutes}
			walk.routes(routes, nil, name)
			if err := a.checkChain(walk.steps); err != nil {
				return nil, err
			}
			for _, s := range walk.steps {
				switch s.kind {
				case stepGate:
					survey.gates = append(survey.gates, s)
				case stepServer:
					survey.servers = append(survey.servers, s)
				}
			}
		}
	}
	a.collectResources(survey)
	return survey, a.checkResources(survey)
}

// routeWalk collects steps in the order in which requests meet them.
type routeWalk struct {
	named   map[string]*caddyhttp.Route
	invoked []string
	steps   []*step
}

func (w *routeWalk) routes(list caddyhttp.RouteList, chain []*hop, site string) {
	for i := range list {
		route := &list[i]
		h := newHop(&list[0], i, route)
		inSite := site
		if len(chain) == 0 && h.namesHosts() { // a site of a Caddyfile
			inSite = fmt.Sprintf("%s/%d", site, i)
		}
		w.route(route, append(slices.Clone(chain), h), inSite)
	}
}

func (w *routeWalk) route(route *caddyhttp.Route, chain []*hop, site string) {
	for _, handler := range route.Handlers {
		switch handler := handler.(type) {
		case *caddyhttp.Subroute:
			w.routes(handler.Routes, chain, site)
		case *caddyhttp.Invoke:
			w.invoke(handler.Name, chain, site)
		case *Protect:
			w.add(step{kind: stepGate, gate: handler}, chain, site)
		case *Server:
			w.add(step{kind: stepServer, server: handler}, chain, site)
		case *rewrite.Rewrite:
			w.rewrite(handler, chain, site)
		case *reverseproxy.Handler:
			w.proxy(handler.Rewrite, len(handler.HandleResponse), chain, site)
		}
	}
	for _, raw := range route.HandlersRaw {
		w.raw(raw, chain, site)
	}
}

// raw reads a handler that is not loaded yet. One that is malformed is
// reported when Caddy loads it.
func (w *routeWalk) raw(raw json.RawMessage, chain []*hop, site string) {
	var name struct {
		Handler string `json:"handler"`
	}
	_ = json.Unmarshal(raw, &name)
	switch name.Handler {
	case "subroute":
		var handler caddyhttp.Subroute
		_ = json.Unmarshal(raw, &handler)
		w.routes(handler.Routes, chain, site)
	case "invoke":
		var handler caddyhttp.Invoke
		_ = json.Unmarshal(raw, &handler)
		w.invoke(handler.Name, chain, site)
	case "oauth_protect":
		handler := new(Protect)
		_ = json.Unmarshal(raw, handler)
		w.add(step{kind: stepGate, gate: handler}, chain, site)
	case "oauth_server":
		handler := new(Server)
		_ = json.Unmarshal(raw, handler)
		w.add(step{kind: stepServer, server: handler}, chain, site)
	case "rewrite":
		var handler rewrite.Rewrite
		_ = json.Unmarshal(raw, &handler)
		w.rewrite(&handler, chain, site)
	case "reverse_proxy":
		var handler struct {
			Rewrite        *rewrite.Rewrite  `json:"rewrite"`
			HandleResponse []json.RawMessage `json:"handle_response"`
		}
		_ = json.Unmarshal(raw, &handler)
		w.proxy(handler.Rewrite, len(handler.HandleResponse), chain, site)
	}
}

func (w *routeWalk) invoke(name string, chain []*hop, site string) {
	route := w.named[name]
	if route == nil || slices.Contains(w.invoked, name) {
		return
	}
	w.invoked = append(w.invoked, name)
	w.routes(caddyhttp.RouteList{*route}, chain, site)
	w.invoked = w.invoked[:len(w.invoked)-1]
}

func (w *routeWalk) rewrite(r *rewrite.Rewrite, chain []*hop, site string) {
	if changesTarget(r) {
		w.add(step{kind: stepRewrite}, chain, site)
	}
}

// proxy notes a reverse_proxy. One that asks another server about the request
// (forward_auth) and goes on with the next handler does not forward it.
func (w *routeWalk) proxy(r *rewrite.Rewrite, responses int, chain []*hop, site string) {
	if r != nil && r.Method == "GET" && responses > 0 {
		return
	}
	w.add(step{kind: stepProxy, rewrites: changesTarget(r)}, chain, site)
}

func (w *routeWalk) add(s step, chain []*hop, site string) {
	s.chain, s.site = chain, site
	w.steps = append(w.steps, &s)
}

// changesTarget reports whether the rewrite changes what the gate decides on:
// the method or the path. The query plays no part.
func changesTarget(r *rewrite.Rewrite) bool {
	return r != nil && (r.Method != "" || (r.URI != "" && r.URI[0] != '?') || r.StripPathPrefix != "" ||
		r.StripPathSuffix != "" || len(r.URISubstring) > 0 || len(r.PathRegexp) > 0)
}

// checkChain holds the order of things on the way of one request.
func (a *App) checkChain(steps []*step) error {
	gated := make(map[string]bool)
	for i, s := range steps {
		for _, earlier := range steps[:i] {
			if !canMeetBoth(earlier, s) {
				continue
			}
			if err := checkPair(earlier, s, steps[:i]); err != nil {
				return err
			}
		}
		gated[s.site] = gated[s.site] || s.kind == stepGate
	}
	for i, s := range steps {
		if s.kind == stepProxy && gated[s.site] && !standsBehindGate(s, steps[:i]) {
			a.logger.Warn("a reverse_proxy has no oauth_protect before it, although its site has one: what it proxies is open to everyone")
		}
	}
	return nil
}

// checkPair looks at two steps that one request can meet in turn.
func checkPair(first, second *step, before []*step) error {
	switch {
	case first.kind == stepGate && second.kind == stepGate && gatesOverlap(first.gate, second.gate):
		return fmt.Errorf("%w; one request would pass both gates in turn: put them into handle blocks, or make one of them",
			atSource(second.gate.Source, "oauth_protect", fmt.Errorf("stands behind the oauth_protect at %s", place(first.gate.Source))))
	case first.kind == stepServer && second.kind == stepServer && first.server.Metadata == second.server.Metadata:
		return atSource(second.server.Source, "oauth_server", fmt.Errorf("stands behind the oauth_server at %s, so it answers nothing", place(first.server.Source)))
	case first.kind == stepGate && second.kind == stepServer && !first.gate.PassUnmatched:
		return atSource(second.server.Source, "oauth_server", fmt.Errorf("stands behind the oauth_protect at %s, which would ask for a token to get a token: put oauth_server before it", place(first.gate.Source)))
	case first.kind == stepGate && second.kind == stepProxy && second.rewrites:
		return atSource(first.gate.Source, "oauth_protect", fmt.Errorf("a reverse_proxy behind it rewrites the method or path that was decided on: rewrite before the gate"))
	case first.kind == stepRewrite && second.kind == stepProxy:
		for _, gate := range before {
			if gate == first {
				break
			}
			if gate.kind == stepGate && canMeetBoth(gate, first) && canMeetBoth(gate, second) {
				return atSource(gate.gate.Source, "oauth_protect", fmt.Errorf("a rewrite, uri, method or handle_path between it and a reverse_proxy changes what was decided on: put oauth_protect behind it, and write the rules for the changed path"))
			}
		}
	}
	return nil
}

// standsBehindGate reports whether a gate stands on every way to the proxy.
func standsBehindGate(proxy *step, before []*step) bool {
	return slices.ContainsFunc(before, func(s *step) bool {
		return s.kind == stepGate && s.isOnEveryWayTo(proxy)
	})
}

func place(source string) string {
	if source == "" {
		return "an earlier place"
	}
	return source
}

// checkResources holds that clients can learn about every resource.
func (a *App) checkResources(survey *routeSurvey) error {
	if len(survey.gates) > 0 && len(survey.servers) == 0 && a.Remote == nil {
		a.logger.Warn("there are gates, but no site has oauth_server: clients have nowhere to get a token")
	}
	for _, gate := range survey.gates {
		identifier, err := a.resourceIdentifier(gate.gate)
		if err != nil {
			return gate.gate.at(err)
		}
		if oauth.Origin(identifier) == oauth.Origin(a.issuer) {
			continue
		}
		if !slices.ContainsFunc(survey.servers, func(s *step) bool { return s.site == gate.site }) {
			return gate.gate.at(fmt.Errorf("resource %s is of another origin than the issuer %s: its site needs the line oauth_server metadata", identifier, a.issuer))
		}
	}
	return nil
}

// resourceIdentifier returns what access tokens must be for at this gate.
func (a *App) resourceIdentifier(p *Protect) (string, error) {
	if p.Resource == "" {
		return a.issuer, nil
	}
	identifier, err := resolve("resource", p.Resource)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(identifier, "/") {
		identifier = oauth.Origin(a.issuer) + identifier
	}
	return identifier, oauth.CheckIdentifier("resource", identifier)
}

// rulesFor returns the rules that gate p decides by: its own, and those of all
// other gates in block form with the same resource.
func (s *routeSurvey) rulesFor(a *App, p *Protect, identifier string) (shared []validator.Rule, err error) {
	if p.own, err = p.compileRules(a); err != nil || p.Short {
		return p.own, err
	}
	// The same block seen again (this gate itself, or a snippet imported into two
	// sites), or the same thing said twice: no conflict.
	shared = slices.Clone(p.own)
	seen := make(map[string][]*validator.Rule, len(shared))
	for i := range p.own {
		text := p.own[i].String()
		seen[text] = append(seen[text], &p.own[i])
	}
	for _, other := range s.gates {
		if id, err := a.resourceIdentifier(other.gate); err != nil || id != identifier || other.gate.Short {
			continue
		}
		rules, err := other.gate.compileRules(a)
		if err != nil {
			return nil, err
		}
		for _, rule := range rules {
			text := rule.String()
			if !slices.ContainsFunc(seen[text], rule.Same) {
				seen[text] = append(seen[text], &rule)
				shared = append(shared, rule)
			}
		}
	}
	return shared, nil
}

// compileRules turns settings into rules of the validator.
func (p *Protect) compileRules(a *App) ([]validator.Rule, error) {
	settings := slices.Clone(p.Rules)
	for i := range p.OpenAPI {
		more, err := p.OpenAPI[i].rulesOf(a, p.Rules)
		if err != nil {
			return nil, atSource(p.OpenAPI[i].Source, "oauth_protect", err)
		}
		settings = append(settings, more...)
	}
	if len(settings) == 0 {
		return nil, p.at(fmt.Errorf("has no rule, so nothing would pass"))
	}
	tools, err := p.compileTools(settings)
	if err != nil {
		return nil, p.at(err)
	}
	rules := make([]validator.Rule, len(settings))
	for i := range settings {
		rules[i] = settings[i].rule()
		rules[i].Tools = tools
		if rules[i].Rates, err = p.compileRates(settings[i].Rates); err != nil {
			return nil, atSource(settings[i].Source, "oauth_protect", err)
		}
	}
	return rules, nil
}

// rule returns the rule of the validator.
func (r *RuleSettings) rule() validator.Rule {
	rule := validator.Rule{Methods: r.Methods, Path: r.Path, Access: validator.Access(r.Access), Observe: r.Observe, Source: r.Source}
	if rule.Access == "" {
		rule.Access = validator.AccessScopes
	}
	if len(r.Scopes) > 0 {
		rule.Scopes = oauth.NewScopeSet(r.Scopes...)
	}
	rule.User = r.User
	return rule
}
