package caddymodule

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/openapi"
	"github.com/caddy-scope/caddy-scope/validator"
)

// OpenAPISettings names an OpenAPI document whose operations become rules.
type OpenAPISettings struct {
	// File is the document, 3.0 or 3.1, in YAML or JSON. It is read when the
	// configuration is loaded. Placeholders. Required.
	File string `json:"file"`
	// Schemes are the security schemes of the document that access tokens of this
	// gate stand for; alternatives without one of them are left out. Default: those
	// of type oauth2 and openIdConnect, and any other scheme is an error.
	Schemes []string `json:"schemes,omitempty"`
	// Prefix stands before every path, in place of what the document's servers say;
	// "/" is none. Default: the path of the servers.
	Prefix string `json:"prefix,omitempty"`
	// Except are operations that do not become rules, each as METHOD PATH with the
	// path as it stands in the document. Default: none.
	Except []string `json:"except,omitempty"`
	// Source is where the document was named, such as "Caddyfile:31"; errors name
	// it.
	Source string `json:"source,omitempty"`
}

// parseOpenAPI reads
//
//	openapi <file> {
//		scheme <name...>
//		prefix <path>
//		except <method> <path>
//	}
func (p *Protect) parseOpenAPI(h httpcaddyfile.Helper) error {
	s := OpenAPISettings{Source: source(h.Dispenser)}
	if err := text(&s.File)(h.Dispenser); err != nil {
		return err
	}
	if h.NextArg() {
		return h.Errf("openapi: unexpected %q", h.Val())
	}
	if i := slices.IndexFunc(p.OpenAPI, func(o OpenAPISettings) bool { return o.File == s.File }); i >= 0 {
		return h.Errf("openapi %s is already named, at %s", s.File, p.OpenAPI[i].Source)
	}
	if err := parseBlock(h.Dispenser, map[string]word{
		"scheme": once(texts(&s.Schemes)),
		"prefix": once(text(&s.Prefix)),
		"except": many(s.parseExcept),
	}); err != nil {
		return err
	}
	p.OpenAPI = append(p.OpenAPI, s)
	return nil
}

// parseExcept reads
//
//	except <method> <path>
func (s *OpenAPISettings) parseExcept(d *caddyfile.Dispenser) error {
	var method, path string
	if !d.AllArgs(&method, &path) {
		return d.Err("except: a method and a path, as it stands in the document, are expected")
	}
	path = shorthands.Replace(path)
	switch {
	case !isMethod(method):
		return d.Errf("except: %q is not a method in upper case", method)
	case slices.Contains(s.Except, method+" "+path):
		return d.Errf("except: %s %s stands here twice", method, path)
	}
	s.Except = append(s.Except, method+" "+path)
	return nil
}

// document returns a parsed document. It is read once for a configuration.
func (a *App) document(word, file string) (*openapi.Document, error) {
	path, err := resolve(word, file)
	if err != nil {
		return nil, err
	}
	if d := a.documents[path]; d != nil {
		return d, nil
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", word, err)
	case !info.Mode().IsRegular() || info.Size() > openapi.MaxSize:
		return nil, fmt.Errorf("%s: %s is no file, or larger than %d MiB", word, path, openapi.MaxSize>>20)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", word, err)
	}
	d, err := openapi.Parse(path, content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", word, err)
	}
	if a.documents == nil {
		a.documents = make(map[string]*openapi.Document)
	}
	a.documents[path] = d
	return d, nil
}

// maxProblems bounds how many operations an error tells of.
const maxProblems = 10

// rulesOf returns the operations of the document as rules. A line of the block
// replaces what the document says for its methods at its path.
func (s *OpenAPISettings) rulesOf(a *App, lines []RuleSettings) ([]RuleSettings, error) {
	document, err := a.document("openapi", s.File)
	if err != nil {
		return nil, err
	}
	if s.Prefix != "" && !strings.HasPrefix(s.Prefix, "/") {
		return nil, fmt.Errorf("openapi: prefix %q does not begin with a slash", s.Prefix)
	}
	operations, err := document.Operations(s.Prefix)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	security, err := document.Security(s.Schemes)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	except := make(map[string]bool, len(s.Except))
	for _, name := range s.Except {
		except[name] = false
	}
	replaced := linesByPath(lines)
	var rules []RuleSettings
	var problems []error
	for _, o := range operations {
		name := o.Method + " " + o.Template
		if _, excepted := except[name]; excepted {
			except[name] = true
			continue
		}
		if o.Method == "TRACE" || replaced.has(o.Method, o.Path) {
			continue
		}
		if o.Problem != nil {
			problems = append(problems, o.Problem)
			continue
		}
		required, err := security.Of(o)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if i := slices.IndexFunc(required.Scopes, func(name string) bool { return !a.declares(name) }); i >= 0 {
			problems = append(problems, fmt.Errorf("%s: %s: scope %q is not declared: declare it in the oauth block, or all of the document with scopes_from %s", o.Source, o, required.Scopes[i], s.File))
			continue
		}
		rules = append(rules, RuleSettings{Methods: []string{o.Method}, Path: o.Path, Access: required.Access, Scopes: required.Scopes, Source: o.Source})
	}
	for name, used := range except {
		if !used {
			problems = append(problems, fmt.Errorf("except %s: %s has no such operation", name, s.File))
		}
	}
	if len(problems) > maxProblems {
		problems = append(problems[:maxProblems], fmt.Errorf("and %d more", len(problems)-maxProblems))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("openapi: %w; a line of the block, such as METHOD PATH REQUIREMENT, replaces what the document says of an operation, and except METHOD PATH leaves it out", err)
	}
	if rules, err = reconciled(rules, replaced); err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return rules, nil
}

// reconciled adds a rule for what operations share with none more specific, such
// as /groups/rules/apps of /groups/{id}/apps and /groups/rules/{id}: it requires
// what all of them require, since only the upstream knows which one serves the
// request.
func reconciled(rules []RuleSettings, lines replacing) ([]RuleSettings, error) {
	compiled := make([]validator.Rule, len(rules))
	for i := range rules {
		compiled[i] = rules[i].rule()
	}
	for _, o := range validator.Overlaps(compiled) {
		if lines.has(o.Methods[0], o.Path) {
			continue
		}
		sources, texts := make([]string, len(o.Rules)), make([]string, len(o.Rules))
		for i, rule := range o.Rules {
			sources[i], texts[i] = rule.Source, rule.String()
		}
		shared := RuleSettings{Methods: o.Methods, Path: o.Path, Source: strings.Join(sources, " and ")}
		var ok bool
		if shared.Access, shared.Scopes, ok = requiredByAll(o.Rules); !ok {
			return nil, fmt.Errorf("%s: %s all match %s %s, and what they require together is no rule: write a line for it",
				shared.Source, strings.Join(texts, ", "), strings.Join(o.Methods, ","), o.Path)
		}
		rules = append(rules, shared)
	}
	return rules, nil
}

// requiredByAll returns the requirement that is met by whoever meets them all,
// and by nobody else; false: no rule says it.
func requiredByAll(rules []*validator.Rule) (access string, scopes oauth.ScopeSet, ok bool) {
	access = openapi.AccessPublic
	for _, rule := range rules {
		switch {
		case rule.Access == validator.AccessScopes:
			access, scopes = openapi.AccessScopes, scopes.Union(rule.Scopes)
		case rule.Access != validator.AccessPublic && access == openapi.AccessPublic:
			access = openapi.AccessAuthenticated
		}
	}
	var one oauth.ScopeSet // of which one is needed; nil: of none
	for _, rule := range rules {
		switch {
		case rule.Access != validator.AccessAny || len(rule.Scopes.Intersect(scopes)) > 0:
		case one == nil || one.ContainsAll(rule.Scopes):
			one = rule.Scopes
		case !rule.Scopes.ContainsAll(one):
			return "", nil, false
		}
	}
	switch {
	case one == nil:
		return access, scopes, true
	case scopes != nil:
		return "", nil, false
	}
	return openapi.AccessAny, one, true
}

// replacing are the lines of a block by their paths, whatever their parameters
// are called.
type replacing map[string][]RuleSettings

func linesByPath(lines []RuleSettings) replacing {
	r := make(replacing, len(lines))
	for _, line := range lines {
		path := nameless(line.Path)
		r[path] = append(r[path], line)
	}
	return r
}

func (r replacing) has(method, path string) bool {
	return slices.ContainsFunc(r[nameless(path)], func(line RuleSettings) bool { return methodsOverlap(line.Methods, []string{method}) })
}

// nameless is the path with the names of its parameters left out.
func nameless(path string) string {
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		if strings.HasPrefix(segment, "{") || segment == "*" && i < len(segments)-1 {
			segments[i] = "{}"
		}
	}
	return strings.Join(segments, "/")
}
