package validator

import (
	"maps"
	"slices"
	"strings"
)

// PathMap says of every path that begins with a slash what a function of paths says, in finitely many
// ranges. It is exact when the function tells paths apart by nothing but the
// patterns that the map was made with.
type PathMap[V comparable] struct {
	ranges []PathRange[V]
	index  ruleIndex
	fresh  string
}

// PathRange is a set of paths with one value.
type PathRange[V comparable] struct {
	// Pattern in the grammar of Rule.Path; the ranges of Except are not part of it.
	Pattern string
	Value   V
	// Example is one path of the range.
	Example string

	parsed pattern
	place  int
}

// MapPaths asks value about one path of each class that the patterns tell apart.
//
// Why one path is enough: a segment that is a literal of no pattern is matched
// by `*` alone, so any other such segment in its place is matched by the same
// patterns; and a path that has left every pattern behind stays under the same
// `/*` however it goes on.
func MapPaths[V comparable](patterns []string, value func(path string) V) (*PathMap[V], error) {
	w := pathWalk[V]{value: value, fresh: freshSegment(patterns)}
	root := &node{}
	for _, path := range patterns {
		p, err := parsePattern(path)
		if err != nil {
			return nil, err
		}
		n := root
		for _, segment := range p.segments {
			n = n.child(segment)
		}
	}
	m := &PathMap[V]{fresh: w.fresh}
	m.addBelow(w.class([]*node{root}, ""), nil, nil)
	return m, nil
}

// freshSegment returns a word that is part of no pattern, in any case.
func freshSegment(patterns []string) string {
	all := strings.ToLower(strings.Join(patterns, " "))
	fresh := "any"
	for strings.Contains(all, fresh) {
		fresh += "x"
	}
	return fresh
}

// pathWalk asks about every class of paths.
type pathWalk[V comparable] struct {
	value func(path string) V
	fresh string
}

// pathClass is what is known of the paths that begin alike.
type pathClass[V comparable] struct {
	path         string // so far; empty: the root
	exact, slash V      // ends here; ends here with a slash
	literal      map[string]*pathClass[V]
	other        *pathClass[V] // with any other segment next; nil: see uniform
	uniform      bool          // whatever follows, the value is exact
}

// class asks about the paths that begin with path. alive are the nodes of the
// patterns to which it leads.
func (w *pathWalk[V]) class(alive []*node, path string) *pathClass[V] {
	c := &pathClass[V]{path: path}
	if path != "" {
		c.exact = w.value(path)
	}
	if len(alive) == 0 {
		c.slash, c.uniform = c.exact, true
		return c
	}
	c.slash = w.value(path + "/")
	c.literal = make(map[string]*pathClass[V])
	for _, n := range alive {
		for segment := range n.literal {
			if segment != "" && c.literal[segment] == nil {
				c.literal[segment] = w.class(step(alive, segment), path+"/"+segment)
			}
		}
	}
	c.other = w.class(step(alive, wildcard), path+"/"+w.fresh)
	for segment, child := range c.literal {
		if child.equal(c.other) {
			delete(c.literal, segment)
		}
	}
	return c
}

// step returns where the next segment leads; wildcard: one that is no literal.
func step(alive []*node, segment string) []*node {
	var next []*node
	for _, n := range alive {
		if child := n.literal[segment]; child != nil {
			next = append(next, child)
		}
		if n.single != nil {
			next = append(next, n.single)
		}
	}
	return next
}

func (c *pathClass[V]) equal(other *pathClass[V]) bool {
	if c.exact != other.exact || c.slash != other.slash || c.uniform != other.uniform {
		return c.exact == other.exact && c.slash == other.slash && c.allOf(c.exact) && other.allOf(c.exact)
	}
	return c.uniform || c.other.equal(other.other) && maps.EqualFunc(c.literal, other.literal, (*pathClass[V]).equal)
}

// allOf reports whether the class has no other value.
func (c *pathClass[V]) allOf(v V) bool {
	if c.exact != v || c.slash != v || c.uniform {
		return c.exact == v && c.slash == v
	}
	for _, child := range c.literal {
		if !child.allOf(v) {
			return false
		}
	}
	return c.other.allOf(v)
}

// addBelow adds ranges for all that begins with the segments. told is what the
// ranges so far say about it; nil: nothing.
func (m *PathMap[V]) addBelow(c *pathClass[V], told *V, at []string) {
	below, deep := c.below()
	if c.path != "" && (told == nil || c.exact != *told) {
		m.add(pattern{segments: at}, c.exact, c.path)
	}
	if told == nil || c.slash != *told {
		m.add(pattern{segments: append(slices.Clone(at), "")}, c.slash, c.path+"/")
	}
	if told == nil || below != *told {
		m.add(pattern{segments: at, below: true}, below, deep+"/"+m.fresh)
	}
	if c.uniform {
		return
	}
	m.addBelow(c.other, &below, append(slices.Clone(at), wildcard))
	for _, segment := range slices.Sorted(maps.Keys(c.literal)) {
		m.addLiteral(c.literal[segment], c.other, &below, append(slices.Clone(at), segment))
	}
}

// addLiteral adds ranges for a literal segment, beside what was said about any
// other segment in its place.
func (m *PathMap[V]) addLiteral(c, other *pathClass[V], above *V, at []string) {
	switch {
	case other.allOf(*above): // nothing was
		m.addBelow(c, above, at)
	case !c.uniform && !other.uniform && c.other.equal(other.other) && maps.EqualFunc(c.literal, other.literal, (*pathClass[V]).equal):
		if c.exact != other.exact {
			m.add(pattern{segments: at}, c.exact, c.path)
		}
		if c.slash != other.slash {
			m.add(pattern{segments: append(slices.Clone(at), "")}, c.slash, c.path+"/")
		}
	default:
		m.addBelow(c, nil, at)
	}
}

// below is the value of paths that go on and on with segments that are no
// literals, and such a path.
func (c *pathClass[V]) below() (V, string) {
	for !c.uniform {
		c = c.other
	}
	return c.exact, c.path
}

func (m *PathMap[V]) add(p pattern, v V, example string) {
	place := len(m.ranges)
	m.ranges = append(m.ranges, PathRange[V]{Pattern: p.String(), Value: v, Example: example, parsed: p, place: place})
	m.index.add(&placedRule{pattern: p, index: place})
}

// Ranges returns the ranges; every path that begins with a slash is in exactly
// one.
func (m *PathMap[V]) Ranges() []PathRange[V] { return m.ranges }

// Except returns the ranges that take paths away from r, the largest ones only
// and only those with another value.
func (m *PathMap[V]) Except(r PathRange[V]) []string {
	var inside []pattern
	var names []string
	for other := range m.index.sharing(r.parsed) {
		o := m.ranges[other.index]
		if o.place != r.place && o.Value != r.Value && precedes(o.parsed, r.parsed) {
			inside = append(inside, o.parsed)
			names = append(names, o.Pattern)
		}
	}
	var largest []string
	for i, p := range inside {
		within := func(q pattern) bool { return comparePatterns(p, q) == narrower }
		if !slices.ContainsFunc(inside, within) {
			largest = append(largest, names[i])
		}
	}
	slices.Sort(largest)
	return largest
}

// precedes reports whether a path of both patterns is decided by the first: it
// is the more specific one at the first segment at which they differ.
func precedes(a, b pattern) bool {
	switch comparePatterns(a, b) {
	case narrower:
		return true
	case crossing:
		for i := range min(len(a.segments), len(b.segments)) {
			if a.segments[i] != b.segments[i] {
				return b.segments[i] == wildcard
			}
		}
	}
	return false
}
