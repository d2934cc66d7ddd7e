package openapi

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// The kinds of Requirement.Access, by the words of rules.
const (
	AccessScopes        = "scopes"
	AccessAny           = "any"
	AccessAuthenticated = "authenticated"
	AccessPublic        = "public"
)

// Requirement is what an operation requires.
type Requirement struct {
	Access string
	Scopes oauth.ScopeSet // of AccessScopes all of them, of AccessAny one
	// Limited: callers may come too often. Documents that are read do not say it.
	Limited bool
}

// scheme is a security scheme of the document.
type scheme struct {
	kind string // type
	node *yaml.Node
}

// isOAuth reports whether the scheme's tokens are those of an authorization
// server.
func (s scheme) isOAuth() bool { return s.kind == "oauth2" || s.kind == "openIdConnect" }

// Security reads the security requirements of a document.
type Security struct {
	document *Document
	schemes  map[string]scheme
	order    []string // of schemes
	ours     []string // schemes whose tokens the gate takes; nil: all that are OAuth
	general  *yaml.Node
}

// Security prepares to read requirements. ours names the schemes that the gate's
// tokens stand for: an alternative without one of them is left out, and what
// stands beside one of them is the upstream's affair. nil: every scheme of type
// oauth2 and openIdConnect; any other scheme is then an error where it is used.
func (d *Document) Security(ours []string) (*Security, error) {
	top, err := d.members(d.root)
	if err != nil {
		return nil, err
	}
	s := &Security{document: d, schemes: make(map[string]scheme), ours: ours, general: top["security"]}
	if top["components"] != nil {
		schemes, err := d.member(top["components"], "securitySchemes")
		if err != nil {
			return nil, err
		}
		if schemes != nil {
			if err := s.readSchemes(schemes); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range ours {
		if _, known := s.schemes[name]; !known {
			return nil, d.problem(nil, "scheme %s is not among its securitySchemes", name)
		}
	}
	return s, nil
}

func (s *Security) readSchemes(schemes *yaml.Node) error {
	pairs, err := s.document.pairs(schemes)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		n, err := s.document.follow(p.value)
		if err != nil {
			return err
		}
		kind, err := s.document.member(n, "type")
		if err != nil {
			return err
		}
		s.schemes[p.key.Value] = scheme{text(kind), n}
		s.order = append(s.order, p.key.Value)
	}
	return nil
}

// Of returns what the operation requires. The error is an *Error that says what
// is missing or unclear.
func (s *Security) Of(o *Operation) (Requirement, error) {
	list, err := s.document.member(o.node, "security")
	if err != nil {
		return Requirement{}, err
	}
	if list == nil {
		list = s.general
	}
	fail := func(at *yaml.Node, format string, args ...any) (Requirement, error) {
		return Requirement{}, s.document.fail(o, at, format, args...)
	}
	switch {
	case list == nil:
		return fail(nil, "neither it nor the document says what it requires: add security, which is [] for what is public")
	case list.Kind != yaml.SequenceNode:
		return fail(list, "security is no list")
	case len(list.Content) == 0:
		return Requirement{Access: AccessPublic}, nil
	}
	var alternatives []oauth.ScopeSet
	for _, item := range list.Content {
		item = unalias(item)
		named, err := s.document.pairs(item)
		if err != nil {
			return Requirement{}, err
		}
		if len(named) == 0 {
			return fail(item, "credentials are optional ({} among the alternatives), which no rule says: write a rule for it, public or authenticated")
		}
		scopes, ours, err := s.alternative(o, named)
		if err != nil {
			return Requirement{}, err
		}
		if ours {
			alternatives = append(alternatives, scopes)
		}
	}
	if len(alternatives) == 0 {
		return fail(list, "no alternative is of scheme %s", strings.Join(s.ours, ", "))
	}
	r, ok := asRequirement(alternatives)
	if !ok {
		return fail(list, "its alternatives (%s) are no rule, which needs all scopes of a list or one of them: write a rule for it", describe(alternatives))
	}
	return r, nil
}

// alternative reads one security requirement object: all of its schemes are
// needed. ours: one of them is the gate's.
func (s *Security) alternative(o *Operation, named []pair) (scopes oauth.ScopeSet, ours bool, err error) {
	var first string
	for _, p := range named {
		name := p.key.Value
		scheme, known := s.schemes[name]
		switch {
		case !known:
			return nil, false, s.document.fail(o, p.key, "the security scheme %s is not declared in components.securitySchemes", name)
		case s.ours == nil && !scheme.isOAuth():
			return nil, false, s.document.fail(o, p.key, "the security scheme %s is of type %s, which the gate does not know: say with scheme NAME which schemes its tokens stand for", name, scheme.kind)
		case s.ours != nil && !slices.Contains(s.ours, name):
			continue
		case ours && s.ours == nil:
			return nil, false, s.document.fail(o, p.key, "two tokens are needed, of %s and %s, and a request has one: say with scheme NAME which schemes the gate's tokens stand for", first, name)
		case p.value.Kind != yaml.SequenceNode:
			return nil, false, s.document.fail(o, p.key, "the scopes of %s are no list", name)
		}
		first, ours = name, true
		for _, n := range p.value.Content {
			scope := text(unalias(n))
			if !oauth.IsScopeToken(scope) {
				return nil, false, s.document.fail(o, n, "%q is no name of a scope", scope)
			}
			scopes = scopes.Union(oauth.ScopeSet{scope})
		}
	}
	return scopes, ours, nil
}

// asRequirement turns alternatives into one requirement, if it can be one. An
// alternative that asks for more than another one adds nobody.
func asRequirement(alternatives []oauth.ScopeSet) (Requirement, bool) {
	var least []oauth.ScopeSet
	for i, a := range alternatives {
		adds := !slices.ContainsFunc(alternatives, func(b oauth.ScopeSet) bool { return len(b) < len(a) && a.ContainsAll(b) }) &&
			!slices.ContainsFunc(alternatives[:i], a.Equal)
		if adds {
			least = append(least, a)
		}
	}
	switch {
	case len(least) == 1 && len(least[0]) == 0:
		return Requirement{Access: AccessAuthenticated}, true
	case len(least) == 1:
		return Requirement{Access: AccessScopes, Scopes: least[0]}, true
	}
	var one oauth.ScopeSet
	for _, a := range least {
		if len(a) != 1 {
			return Requirement{}, false
		}
		one = one.Union(a)
	}
	return Requirement{Access: AccessAny, Scopes: one}, true
}

func describe(alternatives []oauth.ScopeSet) string {
	texts := make([]string, len(alternatives))
	for i, a := range alternatives {
		texts[i] = fmt.Sprintf("[%s]", a)
	}
	return strings.Join(texts, " or ")
}

// Scopes returns the scopes that the flows of the OAuth schemes declare, in the
// order of the document, each once, but for those that are known already. One
// without a description is an error: users read it.
func (s *Security) Scopes(known func(name string) bool) ([]oauth.Scope, error) {
	var all []oauth.Scope
	seen := make(map[string]bool)
	for _, name := range s.order {
		flows, err := s.document.member(s.schemes[name].node, "flows")
		if err != nil {
			return nil, err
		}
		if s.schemes[name].kind != "oauth2" || s.ours != nil && !slices.Contains(s.ours, name) || flows == nil {
			continue
		}
		kinds, err := s.document.pairs(flows)
		if err != nil {
			return nil, err
		}
		for _, flow := range kinds {
			if strings.HasPrefix(flow.key.Value, "x-") {
				continue
			}
			scopes, err := s.document.member(flow.value, "scopes")
			if err != nil {
				return nil, err
			}
			if scopes == nil {
				return nil, s.document.problem(flow.key, "the flow has no scopes")
			}
			declared, err := s.document.pairs(scopes)
			if err != nil {
				return nil, err
			}
			for _, p := range declared {
				scope := oauth.Scope{Name: p.key.Value, Description: strings.Join(strings.Fields(text(p.value)), " ")}
				switch {
				case seen[scope.Name] || known(scope.Name):
				case scope.Description == "":
					return nil, s.document.problem(p.key, "scope %s has no description, and users read it: add one, or declare the scope in the oauth block", scope.Name)
				default:
					seen[scope.Name] = true
					all = append(all, scope)
				}
			}
		}
	}
	return all, nil
}
