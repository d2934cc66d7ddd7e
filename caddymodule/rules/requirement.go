// Package rules says in words and in JSON what the scope rules of a
// configuration let callers do, and what another configuration changes about
// it. It decides about no request: rules and tables come from the gates.
package rules

import (
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// Requirement is what a caller must bring, in terms of the scopes that users
// grant: the hierarchy of scopes is worked out.
type Requirement struct {
	open   bool // no token is needed
	never  bool // nobody passes
	groups []oauth.ScopeSet
}

// The requirements that no scope meets or misses.
var (
	Open  = Requirement{open: true}
	Never = Requirement{never: true}
)

// Hierarchy knows for each declared scope those whose grant includes it.
type Hierarchy map[string]oauth.ScopeSet

// NewHierarchy returns the hierarchy of the catalog.
func NewHierarchy(catalog *oauth.Catalog) Hierarchy {
	including := make(Hierarchy)
	for _, name := range catalog.Names() { // in order, so that the sets are sorted
		for _, included := range catalog.Expand(oauth.ScopeSet{name}) {
			including[included] = append(including[included], name)
		}
	}
	return including
}

// Of returns what the rule requires. nil: there is no rule, so nobody passes.
func (h Hierarchy) Of(rule *validator.Rule) Requirement {
	switch {
	case rule == nil:
		return Never
	case rule.Access == validator.AccessPublic:
		return Open
	}
	var r Requirement
	if rule.Access == validator.AccessAny {
		var group oauth.ScopeSet
		for _, scope := range rule.Scopes {
			group = group.Union(h[scope])
		}
		r.groups = append(r.groups, group)
	} else {
		for _, scope := range rule.Scopes {
			r.groups = append(r.groups, h[scope])
		}
	}
	// What is asked of the user stands among scopes as CLAIM=VALUE, which no scope is
	// called: what holds of one holds of the other.
	for _, required := range rule.User {
		r.groups = append(r.groups, required.Alternatives())
	}
	return r.simplified()
}

// ofUser reports whether the group is about the user, and no scope.
func ofUser(group oauth.ScopeSet) bool { return len(group) > 0 && oauth.IsUserRequirement(group[0]) }

// OfScopes returns what scopes must be granted for, whoever the user is.
func (r Requirement) OfScopes() Requirement {
	r.groups = slices.DeleteFunc(slices.Clone(r.groups), ofUser)
	return r
}

// simplified leaves out groups that another one implies.
func (r Requirement) simplified() Requirement {
	var groups []oauth.ScopeSet
	for i, group := range r.groups {
		implied := slices.ContainsFunc(r.groups[:i], func(o oauth.ScopeSet) bool { return group.ContainsAll(o) }) ||
			slices.ContainsFunc(r.groups[i+1:], func(o oauth.ScopeSet) bool { return group.ContainsAll(o) && !group.Equal(o) })
		if !implied {
			groups = append(groups, group)
		}
	}
	return Requirement{groups: groups}
}

// Groups returns lists of scopes of each of which one must be granted; nil: no
// scope is needed, or none helps.
func (r Requirement) Groups() [][]string {
	var groups [][]string
	for _, group := range r.OfScopes().groups {
		groups = append(groups, group)
	}
	return groups
}

// Admits reports whether a token with these scopes, as granted, is enough.
func (r Requirement) Admits(granted oauth.ScopeSet) bool {
	return !r.never && !slices.ContainsFunc(r.groups, func(group oauth.ScopeSet) bool { return len(group.Intersect(granted)) == 0 })
}

// Within reports whether everyone whom r admits is admitted by other.
func (r Requirement) Within(other Requirement) bool {
	switch {
	case r.never || other.open:
		return true
	case r.open || other.never:
		return false
	}
	// Who holds everything but one group of other passes r, unless r has a group
	// within that one.
	for _, group := range other.groups {
		if !slices.ContainsFunc(r.groups, func(own oauth.ScopeSet) bool { return group.ContainsAll(own) }) {
			return false
		}
	}
	return true
}

// Caller is somebody who gets through with no scope to spare.
type Caller struct {
	// Anonymous: without a token.
	Anonymous bool `json:"anonymous,omitempty"`
	// Scopes that were granted; empty: any token.
	Scopes []string `json:"scopes"`
}

func (c Caller) String() string {
	switch {
	case c.Anonymous:
		return "anyone without a token"
	case len(c.Scopes) == 0:
		return "any token"
	}
	return strings.Join(c.Scopes, "+")
}

// maxCallers bounds Beyond: a requirement of many scopes that are each included
// in several others has more combinations than anybody reads.
const maxCallers = 64

// Beyond returns the least callers that r admits and other does not, at most
// maxCallers of them; nil if and only if r is within other.
func (r Requirement) Beyond(other Requirement) []Caller {
	if r.Within(other) {
		return nil
	}
	if r.open {
		return []Caller{{Anonymous: true, Scopes: []string{}}}
	}
	var beyond []Caller
	for _, granted := range r.least() {
		if other.never || !other.Admits(granted) {
			beyond = append(beyond, Caller{Scopes: append([]string{}, granted...)})
		}
	}
	if len(beyond) == 0 { // cut off by the bound: all but the group that is missing
		beyond = append(beyond, Caller{Scopes: r.without(other)})
	}
	return beyond
}

// least returns least sets of scopes that meet r.
func (r Requirement) least() []oauth.ScopeSet {
	sets := []oauth.ScopeSet{nil}
	for _, group := range r.groups {
		var next []oauth.ScopeSet
		for _, set := range sets {
			if len(set.Intersect(group)) > 0 {
				next = append(next, set)
				continue
			}
			for _, scope := range group {
				next = append(next, set.Union(oauth.ScopeSet{scope}))
			}
		}
		if sets = leastOf(next); len(sets) > maxCallers {
			sets = sets[:maxCallers]
		}
	}
	return sets
}

func leastOf(sets []oauth.ScopeSet) []oauth.ScopeSet {
	var least []oauth.ScopeSet
	for i, set := range sets {
		if !slices.ContainsFunc(sets, func(o oauth.ScopeSet) bool { return len(o) < len(set) && set.ContainsAll(o) }) &&
			!slices.ContainsFunc(sets[:i], set.Equal) {
			least = append(least, set)
		}
	}
	return least
}

// without returns scopes that meet r and not other.
func (r Requirement) without(other Requirement) []string {
	for _, missing := range other.groups {
		var all oauth.ScopeSet
		for _, group := range r.groups {
			all = all.Union(group.Without(missing))
		}
		if r.Admits(all) && !other.Admits(all) {
			return all
		}
	}
	return []string{}
}
