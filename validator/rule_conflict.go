package validator

import (
	"iter"
	"net/http"
	"slices"
)

// placedRule is a rule with its compiled parts and its place in the list.
type placedRule struct {
	*Rule
	pattern
	methodSet
	index int
}

// ruleIndex finds the rules whose paths may be shared with those of another
// rule. It is needed while a table is built only; the table itself keeps the
// rule that decides, not those that it hides.
type ruleIndex struct {
	root       indexNode
	everything []*placedRule
}

// indexNode is one step of a segment trie, as node is.
type indexNode struct {
	literal map[string]*indexNode
	single  *indexNode
	exact   []*placedRule
	below   []*placedRule
}

func (x *ruleIndex) add(rule *placedRule) {
	if rule.everything {
		x.everything = append(x.everything, rule)
		return
	}
	n := &x.root
	for _, segment := range rule.segments {
		n = n.child(segment)
	}
	if rule.below {
		n.below = append(n.below, rule)
	} else {
		n.exact = append(n.exact, rule)
	}
}

func (n *indexNode) child(segment string) *indexNode {
	if segment == wildcard {
		if n.single == nil {
			n.single = &indexNode{}
		}
		return n.single
	}
	if n.literal == nil {
		n.literal = make(map[string]*indexNode)
	}
	if n.literal[segment] == nil {
		n.literal[segment] = &indexNode{}
	}
	return n.literal[segment]
}

// conflict returns the first rule of the list that stands before the given one
// and cannot stand beside it, and how they relate: equal or crossing. nil: there
// is none. Rules may cross where a third one is for what both match.
func (x *ruleIndex) conflict(rule *placedRule) (other *Rule, rel relation) {
	first := rule.index
	for candidate := range x.sharing(rule.pattern) {
		if candidate.index >= first || candidate.methodSet&rule.methodSet == 0 {
			continue
		}
		r := rule.compare(candidate)
		if r == equal || r == crossing && !x.has(rule.methodSet&candidate.methodSet, intersect(rule.pattern, candidate.pattern)) {
			other, rel, first = candidate.Rule, r, candidate.index
		}
	}
	return other, rel
}

func (r *placedRule) compare(other *placedRule) relation {
	return both(compareMethods(r.methodSet, other.methodSet), comparePatterns(r.pattern, other.pattern))
}

// has reports whether a rule is for exactly these requests.
func (x *ruleIndex) has(set methodSet, p pattern) bool {
	rules := x.everything
	if !p.everything {
		n := x.root.find(p.segments)
		if n == nil {
			return false
		}
		if rules = n.exact; p.below {
			rules = n.below
		}
	}
	return slices.ContainsFunc(rules, func(r *placedRule) bool { return r.methodSet == set })
}

func (n *indexNode) find(segments []string) *indexNode {
	for _, segment := range segments {
		if n == nil {
			return nil
		}
		if segment == wildcard {
			n = n.single
		} else {
			n = n.literal[segment]
		}
	}
	return n
}

// intersect returns the pattern of the paths that two patterns share, which are
// not disjoint.
func intersect(a, b pattern) pattern {
	switch {
	case a.everything:
		return b
	case b.everything:
		return a
	case len(a.segments) < len(b.segments):
		a, b = b, a
	}
	p := pattern{segments: slices.Clone(a.segments), below: a.below}
	for i, segment := range b.segments {
		if p.segments[i] == wildcard {
			p.segments[i] = segment
		}
	}
	return p
}

// sharing yields every rule that has a path in common with the pattern, in no
// order; now and then one that has none.
func (x *ruleIndex) sharing(p pattern) iter.Seq[*placedRule] {
	return func(yield func(*placedRule) bool) {
		for _, rule := range x.everything {
			if !yield(rule) {
				return
			}
		}
		if p.everything {
			x.root.all(yield)
			return
		}
		x.root.sharing(p.segments, p.below, yield)
	}
}

// sharing walks rest, what the pattern has beyond n.
func (n *indexNode) sharing(rest []string, below bool, yield func(*placedRule) bool) bool {
	if len(rest) == 0 && below {
		return n.all(yield)
	}
	if len(rest) == 0 {
		return yieldAll(n.exact, yield)
	}
	if !yieldAll(n.below, yield) { // of a pattern that goes on below n
		return false
	}
	if n.single != nil && rest[0] != "" && !n.single.sharing(rest[1:], below, yield) {
		return false
	}
	if rest[0] != wildcard {
		child := n.literal[rest[0]]
		return child == nil || child.sharing(rest[1:], below, yield)
	}
	for segment, child := range n.literal {
		if segment != "" && !child.sharing(rest[1:], below, yield) {
			return false
		}
	}
	return true
}

// all yields every rule at n and below it.
func (n *indexNode) all(yield func(*placedRule) bool) bool {
	if !yieldAll(n.exact, yield) || !yieldAll(n.below, yield) {
		return false
	}
	if n.single != nil && !n.single.all(yield) {
		return false
	}
	for _, child := range n.literal {
		if !child.all(yield) {
			return false
		}
	}
	return true
}

func yieldAll(rules []*placedRule, yield func(*placedRule) bool) bool {
	for _, rule := range rules {
		if !yield(rule) {
			return false
		}
	}
	return true
}

// Overlap is what some rules have in common that cross: none is more specific
// there, and no rule is for it.
type Overlap struct {
	// Methods and Path as those of a Rule.
	Methods []string
	Path    string
	// Rules that match all of it, without those that are wider than another one. At
	// least two, in the order they were given.
	Rules []*Rule
}

// Overlaps returns every overlap of the rules; a rule for each makes a table of
// them. Rules that are wrong by themselves are left out.
func Overlaps(rules []Rule) []Overlap {
	var given, placed ruleIndex
	var all []*placedRule
	for i := range rules {
		if rule := place(rules, i); rule != nil {
			all = append(all, rule)
			given.add(rule)
			placed.add(rule)
		}
	}
	var overlaps []Overlap
	for i := 0; i < len(all); i++ { // grows: an overlap may cross others
		rule := all[i]
		var crossed []*placedRule
		for other := range placed.sharing(rule.pattern) {
			if rule.compare(other) == crossing {
				crossed = append(crossed, other)
			}
		}
		slices.SortFunc(crossed, func(a, b *placedRule) int { return a.index - b.index })
		for _, other := range crossed {
			set, p := rule.methodSet&other.methodSet, intersect(rule.pattern, other.pattern)
			if placed.has(set, p) {
				continue
			}
			shared := &placedRule{nil, p, set, len(rules) + len(overlaps)}
			all = append(all, shared)
			placed.add(shared)
			overlaps = append(overlaps, Overlap{set.names(), p.String(), given.narrowestAround(shared)})
		}
	}
	return overlaps
}

// narrowestAround returns the rules that match all that r does, without those
// that are wider than another one.
func (x *ruleIndex) narrowestAround(r *placedRule) []*Rule {
	var around []*placedRule
	for other := range x.sharing(r.pattern) {
		if r.compare(other) == narrower {
			around = append(around, other)
		}
	}
	slices.SortFunc(around, func(a, b *placedRule) int { return a.index - b.index })
	var narrowest []*Rule
	for _, rule := range around {
		if !slices.ContainsFunc(around, func(o *placedRule) bool { return o.compare(rule) == narrower }) {
			narrowest = append(narrowest, rule.Rule)
		}
	}
	return narrowest
}

// names returns the methods of the set as a rule names them.
func (s methodSet) names() []string {
	if s == allMethods {
		return nil
	}
	var names []string
	for i, name := range methods {
		if s&(1<<i) != 0 && (name != http.MethodHead || s&(1<<methodIndex(http.MethodGet)) == 0) {
			names = append(names, name)
		}
	}
	return names
}

// Compare calls found for each pair of rules, one of each list, that some request
// matches both of. within: the second one matches all that the first does. Rules
// that are wrong by themselves are left out.
func Compare(a, b []Rule, found func(i, j int, within bool)) {
	var placed ruleIndex
	for j := range b {
		if rule := place(b, j); rule != nil {
			placed.add(rule)
		}
	}
	for i := range a {
		rule := place(a, i)
		if rule == nil {
			continue
		}
		for other := range placed.sharing(rule.pattern) {
			if rel := rule.compare(other); rel != disjoint {
				found(i, other.index, rel == narrower || rel == equal)
			}
		}
	}
}

// Within reports whether other matches all requests that r does.
func (r *Rule) Within(other *Rule) bool {
	a, b := place([]Rule{*r}, 0), place([]Rule{*other}, 0)
	if a == nil || b == nil {
		return false
	}
	rel := a.compare(b)
	return rel == narrower || rel == equal
}

// place compiles rule i of the list; nil: it is wrong by itself.
func place(rules []Rule, i int) *placedRule {
	p, err := parsePattern(rules[i].Path)
	if err != nil || slices.ContainsFunc(rules[i].Methods, func(m string) bool { return methodIndex(m) < 0 }) {
		return nil
	}
	return &placedRule{&rules[i], p, newMethodSet(rules[i].Methods), i}
}
