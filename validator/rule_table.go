package validator

import (
	"math/bits"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// methods are the methods a request may have. Anything else, in any other
// case, is answered 405 before a rule is looked for: an upstream may take
// `get` for GET.
var methods = [...]string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
	http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// Methods returns every method that a request may have.
func Methods() []string { return slices.Clone(methods[:]) }

// methodIndex returns the place of method in methods, or -1.
func methodIndex(method string) int {
	switch method {
	case http.MethodGet:
		return 0
	case http.MethodHead:
		return 1
	case http.MethodPost:
		return 2
	case http.MethodPut:
		return 3
	case http.MethodPatch:
		return 4
	case http.MethodDelete:
		return 5
	case http.MethodOptions:
		return 6
	}
	return -1
}

// methodSet has one bit for each of methods.
type methodSet uint8

const allMethods methodSet = 1<<len(methods) - 1

func newMethodSet(names []string) methodSet {
	if names == nil {
		return allMethods
	}
	var set methodSet
	for _, name := range names {
		set |= 1 << methodIndex(name)
		if name == http.MethodGet {
			set |= 1 << methodIndex(http.MethodHead)
		}
	}
	return set
}

func compareMethods(a, b methodSet) relation {
	switch {
	case a == b:
		return equal
	case a&b == 0:
		return disjoint
	case a&b == a:
		return narrower
	case a&b == b:
		return wider
	default:
		return crossing
	}
}

// ruleTable finds the rule that decides a request. Of the rules that match one
// request, one is narrower than all others: of two, the narrower one, or a third
// that is for what both match. It decides, whatever the order they were written
// in, as in http.ServeMux (which knows no third).
type ruleTable struct {
	root       node
	everything slots
	rules      []*Rule
	ofTools    []*Rule
}

// slots hold the rule for each of methods.
type slots [len(methods)]*Rule

// node is one step of the segment trie.
type node struct {
	literal map[string]*node
	single  *node // `*` or `{name}`
	exact   slots // the pattern ends here
	below   slots // the pattern ends here with /*
}

// newRuleTable checks and compiles the rules. The error is a *RuleError.
func newRuleTable(rules []Rule, catalog *oauth.Catalog) (*ruleTable, error) {
	table := &ruleTable{}
	all := make([]*placedRule, 0, len(rules))
	var placed ruleIndex
	for i := range rules {
		rule := rules[i]
		if err := rule.check(catalog); err != nil {
			return nil, err
		}
		if rule.Tools != nil {
			tools, err := newToolTable(&rule, catalog)
			if err != nil {
				return nil, err
			}
			rule.tools = tools
		}
		rule.index = i
		p, _ := parsePattern(rule.Path) // checked above
		all = append(all, &placedRule{&rule, p, newMethodSet(rule.Methods), i})
		table.rules = append(table.rules, &rule)
		placed.add(all[i])
	}
	for _, c := range all {
		switch other, rel := placed.conflict(c); {
		case other != nil && rel == equal:
			problem := "matches the same requests as"
			if !c.Tools.equal(other.Tools) {
				problem = "matches the same requests, with other rules for tools, as"
			}
			return nil, &RuleError{Rule: *c.Rule, Other: other, Problem: problem}
		case other != nil:
			return nil, &RuleError{Rule: *c.Rule, Other: other, Problem: "neither is more specific for the requests that both match"}
		}
	}
	table.numberTools()
	for _, c := range all {
		table.slotsOf(c.pattern).put(c.Rule, c.methodSet)
	}
	for _, c := range all {
		if by := table.hiding(c.Rule, c.pattern, c.methodSet); by != nil {
			return nil, &RuleError{Rule: *c.Rule, Other: by, Problem: "is unreachable: all it matches has a more specific rule, such as"}
		}
	}
	return table, nil
}

// numberTools gives the rules of tools the places after those of paths.
func (t *ruleTable) numberTools() {
	for _, path := range t.rules {
		if path.tools == nil {
			continue
		}
		for _, configured := range path.Tools.Rules {
			rule := path.tools.calls[configured.Tool]
			rule.index = len(t.rules) + len(t.ofTools)
			t.ofTools = append(t.ofTools, rule)
		}
	}
}

// hiding returns one of the rules that together take every request of the given
// one, or nil when a request is left for it.
func (t *ruleTable) hiding(rule *Rule, p pattern, set methodSet) (by *Rule) {
	place := t.slotsOf(p)
	for i, holder := range place {
		if set&(1<<i) == 0 {
			continue
		}
		if holder == rule {
			switch {
			case p.everything:
				holder = t.hidingEverything(i)
			case p.below:
				holder = t.nodeOf(p.segments).hidingBelow(i)
			}
			if holder == rule || holder == nil {
				return nil
			}
		}
		by = holder
	}
	return by
}

// hidingBelow returns one of the rules that take all that is below n, or nil:
// `/a/{x}`, `/a/{x}/` and `/a/{x}/*` leave nothing for `/a/*`.
func (n *node) hidingBelow(method int) *Rule {
	single := n.single
	if single == nil || single.exact[method] == nil || single.slash(method) == nil {
		return nil
	}
	if single.below[method] != nil {
		return single.below[method]
	}
	return single.hidingBelow(method)
}

func (t *ruleTable) hidingEverything(method int) *Rule {
	if http.MethodOptions == methods[method] || t.root.slash(method) == nil { // OPTIONS * has no other rule
		return nil
	}
	if t.root.below[method] != nil {
		return t.root.below[method]
	}
	return t.root.hidingBelow(method)
}

// slash returns the rule of n's path with a slash at its end.
func (n *node) slash(method int) *Rule {
	if child := n.literal[""]; child != nil {
		return child.exact[method]
	}
	return nil
}

// put gives the rule every slot of its methods that no narrower rule holds.
func (s *slots) put(rule *Rule, set methodSet) {
	for i := range s {
		if set&(1<<i) == 0 {
			continue
		}
		if s[i] == nil || bits.OnesCount8(uint8(set)) < bits.OnesCount8(uint8(newMethodSet(s[i].Methods))) {
			s[i] = rule
		}
	}
}

func (t *ruleTable) slotsOf(p pattern) *slots {
	if p.everything {
		return &t.everything
	}
	n := t.nodeOf(p.segments)
	if p.below {
		return &n.below
	}
	return &n.exact
}

func (t *ruleTable) nodeOf(segments []string) *node {
	n := &t.root
	for _, segment := range segments {
		n = n.child(segment)
	}
	return n
}

func (n *node) child(segment string) *node {
	if segment == wildcard {
		if n.single == nil {
			n.single = &node{}
		}
		return n.single
	}
	if n.literal == nil {
		n.literal = make(map[string]*node)
	}
	if n.literal[segment] == nil {
		n.literal[segment] = &node{}
	}
	return n.literal[segment]
}

// match returns the rule that decides the request, or nil. path is canonical
// (see checkTarget) and decoded. It allocates nothing.
func (t *ruleTable) match(method int, path string) *Rule {
	if path != "" && path[0] == '/' {
		if rule := t.root.match(method, path[1:]); rule != nil {
			return rule
		}
	}
	return t.everything[method]
}

// match walks rest, the path without the slash before it. Literal before
// single before below: the narrowest rule has a literal wherever another one
// that matches has, so it is found first.
func (n *node) match(method int, rest string) *Rule {
	segment, after, more := strings.Cut(rest, "/")
	if child := n.literal[segment]; child != nil {
		if rule := child.take(method, after, more); rule != nil {
			return rule
		}
	}
	if n.single != nil && segment != "" {
		if rule := n.single.take(method, after, more); rule != nil {
			return rule
		}
	}
	if rest != "" {
		return n.below[method]
	}
	return nil
}

func (n *node) take(method int, after string, more bool) *Rule {
	if !more {
		return n.exact[method]
	}
	return n.match(method, after)
}
