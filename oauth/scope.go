package oauth

import (
	"fmt"
	"slices"
	"strings"
)

// MaxScopeParameter bounds the `scope` parameter, in bytes: room for a hundred
// long names, and short work for a hostile one.
const MaxScopeParameter = 4096

// ScopeSet is a set of scope names, sorted, without duplicates. The zero value
// is the empty set. Comparison is byte for byte (RFC 6749 section 3.3).
type ScopeSet []string

// NewScopeSet returns the set of names.
func NewScopeSet(names ...string) ScopeSet {
	s := slices.Clone(names)
	slices.Sort(s)
	return ScopeSet(slices.Compact(s))
}

// ParseScope reads a `scope` parameter: scope-tokens separated by single
// spaces. Duplicates fold. An empty string is the empty set. The error is an
// *Error with code invalid_scope. RFC 6749 section 3.3.
func ParseScope(param string) (ScopeSet, error) {
	if param == "" {
		return nil, nil
	}
	if len(param) > MaxScopeParameter {
		return nil, InvalidScope("The scope parameter is too long.")
	}
	names := strings.Split(param, " ")
	for _, name := range names {
		if !IsScopeToken(name) {
			return nil, InvalidScope("The scope parameter is malformed.")
		}
	}
	return NewScopeSet(names...), nil
}

// IsScopeToken reports whether name is a scope-token of RFC 6749 section 3.3:
// one or more of %x21 / %x23-5B / %x5D-7E.
func IsScopeToken(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return name != ""
}

// String returns the names joined by spaces, as in the `scope` parameter.
func (s ScopeSet) String() string { return strings.Join(s, " ") }

// Contains reports whether name is in the set.
func (s ScopeSet) Contains(name string) bool {
	_, ok := slices.BinarySearch(s, name)
	return ok
}

// ContainsAll reports whether every name of other is in the set.
func (s ScopeSet) ContainsAll(other ScopeSet) bool {
	for _, name := range other {
		if !s.Contains(name) {
			return false
		}
	}
	return true
}

// Union returns the names in either set.
func (s ScopeSet) Union(other ScopeSet) ScopeSet {
	return NewScopeSet(append(slices.Clone(s), other...)...)
}

// Intersect returns the names in both sets.
func (s ScopeSet) Intersect(other ScopeSet) ScopeSet {
	var both ScopeSet
	for _, name := range s {
		if other.Contains(name) {
			both = append(both, name)
		}
	}
	return both
}

// Without returns the names that are not in other.
func (s ScopeSet) Without(other ScopeSet) ScopeSet {
	var rest ScopeSet
	for _, name := range s {
		if !other.Contains(name) {
			rest = append(rest, name)
		}
	}
	return rest
}

// Equal reports whether both sets hold the same names.
func (s ScopeSet) Equal(other ScopeSet) bool { return slices.Equal(s, other) }

// Scope is one declared scope.
type Scope struct {
	// Name is the scope-token clients ask for, such as "jobs:read".
	Name string
	// Description is what a user reads on the consent page.
	Description string
	// Implies names declared scopes that this one includes.
	Implies []string
	// Optional lets users leave it out of what they allow.
	Optional bool
	// Link is an https URL where users read more; empty: none.
	Link string
	// In holds the description in other languages, by language tag.
	In map[string]string
}

// Reserved names have a meaning of their own in scope rules and cannot be
// declared as scopes.
var Reserved = []string{"public", "authenticated", "any"}

// ScopeOpenID asks for an ID token and for the user's identifier. OpenID Connect
// Core section 3.1.2.1.
const ScopeOpenID = "openid"

// identityScopes say who the user is. They open nothing at a gate, which does
// not know them. OpenID Connect Core section 5.4; `profile` and `email` do
// nothing without `openid`.
var identityScopes = []Scope{{Name: ScopeOpenID}, {Name: "profile", Implies: []string{ScopeOpenID}}, {Name: "email", Implies: []string{ScopeOpenID}}}

// IdentityScopes are the scopes by which a client learns who the user is.
func IdentityScopes() ScopeSet {
	names := make([]string, 0, len(identityScopes))
	for _, s := range identityScopes {
		names = append(names, s.Name)
	}
	return NewScopeSet(names...)
}

// Catalog is the set of declared scopes with their hierarchy.
// It is immutable and safe for concurrent use.
type Catalog struct {
	ordered []Scope
	closure map[string]ScopeSet
}

// NewCatalog checks the declarations and closes the hierarchy. Errors name the
// scope: a name that is no scope-token or is reserved, a duplicate, a missing
// description, an implied scope that is not declared, a cycle.
func NewCatalog(scopes []Scope) (*Catalog, error) {
	c := &Catalog{ordered: slices.Clone(scopes), closure: make(map[string]ScopeSet, len(scopes))}
	implies := make(map[string][]string, len(scopes))
	for _, s := range scopes {
		switch {
		case !IsScopeToken(s.Name):
			return nil, fmt.Errorf("scope %q: a name is printable ASCII without space, quote or backslash (RFC 6749 section 3.3)", s.Name)
		case IsUserRequirement(s.Name):
			return nil, fmt.Errorf("scope %q: a name with = would be read as a requirement on the user in scope rules (CLAIM=VALUE)", s.Name)
		case slices.Contains(Reserved, s.Name):
			return nil, fmt.Errorf("scope %q: the name is reserved for scope rules", s.Name)
		case s.Name == "offline_access" || s.Name == ScopeOpenID:
			return nil, fmt.Errorf("scope %q: the name belongs to OpenID Connect and cannot be declared", s.Name)
		case strings.TrimSpace(s.Description) == "":
			return nil, fmt.Errorf("scope %q: say in words what it allows; users read them on the consent page", s.Name)
		}
		if _, dup := implies[s.Name]; dup {
			return nil, fmt.Errorf("scope %q: declared twice", s.Name)
		}
		implies[s.Name] = s.Implies
	}
	if err := c.close(implies); err != nil {
		return nil, err
	}
	return c, nil
}

// WithIdentity returns a catalog in which the identity scopes come before the
// declared ones. They have no description: what users read is in the language of
// the page. The error names a declared scope of such a name.
func (c *Catalog) WithIdentity() (*Catalog, error) {
	with := &Catalog{ordered: append(slices.Clone(identityScopes), c.ordered...), closure: make(map[string]ScopeSet, len(c.ordered)+len(identityScopes))}
	implies := make(map[string][]string, len(with.ordered))
	for _, s := range with.ordered {
		if _, dup := implies[s.Name]; dup {
			return nil, fmt.Errorf("scope %q: the name belongs to OpenID Connect, which is on; give it another one", s.Name)
		}
		implies[s.Name] = s.Implies
	}
	if err := with.close(implies); err != nil {
		return nil, err
	}
	return with, nil
}

// close fills in what each scope includes.
func (c *Catalog) close(implies map[string][]string) error {
	for _, s := range c.ordered {
		set, err := closeOver(s.Name, implies, nil)
		if err != nil {
			return err
		}
		c.closure[s.Name] = set
	}
	return nil
}

func closeOver(name string, implies map[string][]string, path []string) (ScopeSet, error) {
	if slices.Contains(path, name) {
		return nil, fmt.Errorf("scope %q: implies itself through %s", path[0], strings.Join(append(path[1:], name), ", "))
	}
	set := NewScopeSet(name)
	for _, implied := range implies[name] {
		if _, ok := implies[implied]; !ok {
			return nil, fmt.Errorf("scope %q: implies %q, which is not declared", name, implied)
		}
		sub, err := closeOver(implied, implies, append(path, name))
		if err != nil {
			return nil, err
		}
		set = set.Union(sub)
	}
	return set, nil
}

// Scopes returns the declarations in the order they were made.
func (c *Catalog) Scopes() []Scope { return slices.Clone(c.ordered) }

// Names returns every declared name.
func (c *Catalog) Names() ScopeSet {
	names := make([]string, 0, len(c.ordered))
	for _, s := range c.ordered {
		names = append(names, s.Name)
	}
	return NewScopeSet(names...)
}

// Lookup returns the declaration of name.
func (c *Catalog) Lookup(name string) (Scope, bool) {
	i := slices.IndexFunc(c.ordered, func(s Scope) bool { return s.Name == name })
	if i < 0 {
		return Scope{}, false
	}
	return c.ordered[i], true
}

// Expand returns the set together with everything its members imply. Names
// that are not declared grant nothing and are dropped, so that a scope removed
// from the configuration is gone from tokens issued before.
func (c *Catalog) Expand(s ScopeSet) ScopeSet {
	var all ScopeSet
	for _, name := range s {
		all = all.Union(c.closure[name])
	}
	return all
}
