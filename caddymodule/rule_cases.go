package caddymodule

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
	"github.com/caddy-scope/caddy-scope/caddymodule/ruletest"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// generatedCases returns requests at the boundaries of every rule: with what it
// needs and with one scope less, with other methods, and in spellings that other
// readers of a path take for the same. What is expected of them comes from the
// rule as it is written; what becomes of them goes through the routes as well, so
// that a gate that stands where no such request comes by is seen.
func (h *rehearsal) generatedCases() []ruletest.Case {
	var cases []ruletest.Case
	for _, set := range h.app.ruleSets() {
		for _, example := range set.resource.Examples() {
			rule := example.Rule
			g := caseGenerator{h: h, resource: set.resource, gate: set.gates[0], rule: rule, method: example.Method, path: example.Path}
			for _, gate := range set.gates { // the one whose line it is
				if slices.ContainsFunc(gate.own, func(r validator.Rule) bool { return r.Source == rule.Source && r.Same(rule) }) {
					g.gate = gate
				}
			}
			cases = append(cases, g.cases()...)
		}
	}
	return cases
}

// caseGenerator makes the cases of one rule.
type caseGenerator struct {
	h        *rehearsal
	resource *validator.Resource
	gate     *Protect
	rule     *validator.Rule

	method, path string // that it decides about, as the gate sees it
	host, prefix string // where a client sends that
	handler      string // that such requests come to
	all          []ruletest.Case
}

func (g *caseGenerator) cases() []ruletest.Case {
	if g.method == "" {
		return nil
	}
	g.findPlace()
	g.scopes()
	g.otherMethods()
	g.spellings()
	return g.all
}

// findPlace looks for the host, and for the prefix that a handle_path takes away,
// with which the request comes to the rule. Without one the cases fail, and say
// where the request came instead.
func (g *caseGenerator) findPlace() {
	hosts := g.h.hostsOfGate(g.gate.Source)
	g.host = hosts[0]
	prefixes, paths := []string{""}, []string{g.path}
	for _, server := range g.h.http.Servers {
		b := boundsOf(server)
		prefixes = append(prefixes, b.prefixes...)
		if g.rule.Path == validator.Everything { // of what its handle takes
			for _, path := range b.paths {
				if bare, below := strings.CutSuffix(path, "/*"); below {
					paths = append(paths, bare+g.path)
				} else {
					paths = append(paths, path)
				}
			}
		}
	}
	for _, host := range hosts {
		for _, prefix := range prefixes {
			for _, path := range paths {
				_, err := g.h.explain(rehearsedRequest{method: g.method, path: prefix + escaped(path), host: host, anyone: true})
				if decided := g.h.decided; err == nil && decided != nil && decided.Same(g.rule) && decided.Source == g.rule.Source {
					g.host, g.prefix, g.path = host, prefix, path
					g.findHandler()
					return
				}
			}
		}
	}
}

// findHandler notes where requests of the rule go that pass.
func (g *caseGenerator) findHandler() {
	q := rehearsedRequest{method: g.method, path: g.prefix + escaped(g.path), host: g.host, scopes: g.h.app.catalog.Names(), user: userTexts(g.rule.User)}
	if told, err := g.h.explain(q); err == nil {
		g.handler = told.Handler
	}
}

// hostsOfGate returns hosts of the routes that lead to a gate.
func (h *rehearsal) hostsOfGate(source string) []string {
	var hosts []string
	for _, step := range h.app.survey.gates {
		if step.gate.Source != source {
			continue
		}
		for _, hop := range step.chain {
			for _, set := range hop.matchers {
				for _, host := range set.hosts {
					hosts = append(hosts, strings.Replace(host, "*", "any", 1))
				}
			}
		}
	}
	if len(hosts) == 0 {
		hosts = []string{h.app.issuerURL.Host}
	}
	return hosts
}

func escaped(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// add adds a case for the rule's own request, changed.
func (g *caseGenerator) add(name string, change func(*ruletest.Case)) {
	c := ruletest.Case{
		User: userTexts(g.rule.User), Source: place(g.rule.Source), Method: g.method, Path: g.prefix + escaped(g.path), Host: g.host,
		Anyone: true, Want: ruletest.Expectation{Rule: g.rule.String()},
	}
	change(&c)
	c.Name = g.rule.String() + ": " + c.Method + " " + c.Path + " " + name
	g.all = append(g.all, c)
}

// with is a token of these scopes.
func with(c *ruletest.Case, scopes oauth.ScopeSet) { c.Anyone, c.Scopes = false, scopes }

func (g *caseGenerator) scopes() {
	allowed := func(c *ruletest.Case) { c.Want.Allow = true }
	if g.rule.Access == validator.AccessPublic {
		g.add("without token", allowed)
		return
	}
	g.add("without token", func(c *ruletest.Case) { c.Want.Status = http.StatusUnauthorized })
	g.users()
	switch g.rule.Access {
	case validator.AccessAuthenticated:
		g.add("with no scope", func(c *ruletest.Case) { with(c, nil); allowed(c) })
		return
	case validator.AccessAny:
		for _, scope := range g.rule.Scopes {
			g.add("with "+scope, func(c *ruletest.Case) { with(c, oauth.ScopeSet{scope}); allowed(c) })
		}
		g.refusedWith(nil)
	default:
		g.add("with "+g.rule.Scopes.String(), func(c *ruletest.Case) { with(c, g.rule.Scopes); allowed(c) })
		for _, scope := range g.rule.Scopes {
			less := g.rule.Scopes.Without(oauth.ScopeSet{scope})
			if !g.h.app.catalog.Expand(less).Contains(scope) { // another one may include it
				g.refusedWith(less)
			}
		}
	}
}

// users are those who meet all that is asked of the user but one thing: no scope
// helps them.
func (g *caseGenerator) users() {
	for i, missing := range g.rule.User {
		g.add("with every scope, of a user without "+missing.String(), func(c *ruletest.Case) {
			with(c, g.h.app.catalog.Names())
			c.User = slices.Delete(slices.Clone(c.User), i, i+1)
			c.Want.Status, c.Want.Code = http.StatusForbidden, oauth.CodeAccessDenied
		})
	}
}

func (g *caseGenerator) refusedWith(scopes oauth.ScopeSet) {
	name := "with no scope"
	if len(scopes) > 0 {
		name = "with " + scopes.String()
	}
	g.add(name, func(c *ruletest.Case) {
		with(c, scopes)
		c.Want.Status, c.Want.Code = http.StatusForbidden, oauth.CodeInsufficientScope
	})
}

// otherMethods are those for which the path has no rule: nobody passes.
func (g *caseGenerator) otherMethods() {
	if g.gate.PassUnmatched {
		return
	}
	for _, method := range validator.Methods() {
		if g.resource.Find(method, g.path) == nil {
			g.add("with every scope", func(c *ruletest.Case) {
				c.Method = method
				with(c, g.h.app.catalog.Names())
				c.Want = ruletest.Expectation{Status: http.StatusForbidden, Code: oauth.CodeAccessDenied}
			})
		}
	}
}

// spellings are paths that a router behind the gate, or a route before it, may
// take for the rule's own. Without a token none may come to the handler that the
// rule's own come to, unless a rule says that it is public.
func (g *caseGenerator) spellings() {
	if g.rule.Access == validator.AccessPublic || g.gate.PassUnmatched {
		return
	}
	path := escaped(g.path)
	last := strings.LastIndexByte(strings.TrimSuffix(path, "/"), '/')
	head, tail := path[:last], path[last+1:]
	odd := []string{
		"/" + path, head + "//" + tail, head + "/./" + tail, path + "/.", path + "/x/..", head + "/x/../" + tail, head + "/%2e/" + tail, path + "/x/%2e%2e",
		head + "%2f" + tail, head + "%5c" + tail, head + "/" + tail + ";a=b", path + "%00", path + "%20", head + "/%25" + tail, path + "%2f", path + "%0a", path + ".",
		head + "%ef%bc%8f" + tail, strings.ToUpper(path), strings.ToLower(path), path + "/",
	}
	if tail != "" {
		odd = append(odd, head+"/"+percent(tail[0])+tail[1:])
	}
	for _, spelled := range odd {
		decoded, err := url.PathUnescape(spelled)
		if err != nil || spelled == path || spelled[0] != '/' { // no request has such a target
			continue
		}
		if rule := g.resource.Find(g.method, decoded); rule != nil && rule.Access == validator.AccessPublic {
			continue
		}
		g.add("without token", func(c *ruletest.Case) {
			c.Path = g.prefix + spelled
			c.Want = ruletest.Expectation{Refuse: g.handler == "", NotTo: g.handler}
		})
	}
}

// percent escapes a byte that needs no escape.
func percent(b byte) string {
	const digits = "0123456789ABCDEF"
	return "%" + string(digits[b>>4]) + string(digits[b&15])
}

// run has a case rehearsed.
func (h *rehearsal) run(c ruletest.Case) (told *explain.Explanation, code string, err error) {
	q := rehearsedRequest{method: c.Method, path: c.Path, host: c.Host, client: c.Client, scopes: c.Scopes, user: c.User, anyone: c.Anyone, origin: c.Origin, preflightFor: c.For}
	if c.Tool != "" {
		if q.body, err = toolCall(c.Tool); err != nil {
			return nil, "", err
		}
	}
	if told, err = h.explain(q); err != nil {
		return nil, "", err
	}
	if h.refused != nil {
		code = h.refused.Code
	}
	return told, code, nil
}
