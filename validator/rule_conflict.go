package validator

import "iter"

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

// conflict returns the first rule of the list that cannot stand beside the given
// one, and how they relate: equal or crossing. nil: there is none.
func (x *ruleIndex) conflict(rule *placedRule) (other *Rule, rel relation) {
	first := rule.index
	for candidate := range x.sharing(rule.pattern) {
		if candidate.index >= first || candidate.methodSet&rule.methodSet == 0 {
			continue
		}
		switch r := both(compareMethods(rule.methodSet, candidate.methodSet), comparePatterns(rule.pattern, candidate.pattern)); r {
		case equal, crossing:
			other, rel, first = candidate.Rule, r, candidate.index
		}
	}
	return other, rel
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
