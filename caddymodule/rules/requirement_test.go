package rules

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

var scopeNames = []string{"a", "b", "c", "d"}

// drawCatalog declares four scopes; each may include some that come later.
func drawCatalog(t *rapid.T) *oauth.Catalog {
	scopes := make([]oauth.Scope, len(scopeNames))
	for i, name := range scopeNames {
		scopes[i] = oauth.Scope{Name: name, Description: name}
		for _, later := range scopeNames[i+1:] {
			if rapid.IntRange(0, 3).Draw(t, "implies") == 0 {
				scopes[i].Implies = append(scopes[i].Implies, later)
			}
		}
	}
	catalog, err := oauth.NewCatalog(scopes)
	if err != nil {
		t.Fatal(err)
	}
	return catalog
}

func drawRule(t *rapid.T) *validator.Rule {
	access := rapid.SampledFrom([]validator.Access{validator.AccessScopes, validator.AccessScopes, validator.AccessAny, validator.AccessAuthenticated, validator.AccessPublic, ""}).Draw(t, "access")
	rule := &validator.Rule{Access: access}
	switch access {
	case "":
		return nil
	case validator.AccessScopes, validator.AccessAny:
		rule.Scopes = oauth.NewScopeSet(rapid.SliceOfN(rapid.SampledFrom(scopeNames), 1, 3).Draw(t, "scopes")...)
	}
	return rule
}

// passes says of one caller, by the rule alone, what the gate says: nil scopes
// are no token.
func passes(rule *validator.Rule, catalog *oauth.Catalog, token bool, granted oauth.ScopeSet) bool {
	switch {
	case rule == nil:
		return false
	case rule.Access == validator.AccessPublic:
		return true
	}
	return token && rule.Missing(catalog.Expand(granted)) == nil
}

// RULE-05: TestRequirementsCompareAsAllCallersDo: random rules under random hierarchies;
// every set of scopes is tried.
func TestRequirementsCompareAsAllCallersDo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		catalogs := []*oauth.Catalog{drawCatalog(t), drawCatalog(t)}
		rules := []*validator.Rule{drawRule(t), drawRule(t)}
		was, is := NewHierarchy(catalogs[0]).Of(rules[0]), NewHierarchy(catalogs[1]).Of(rules[1])
		var gained, lost bool
		everyCaller(func(token bool, granted oauth.ScopeSet) {
			before, now := passes(rules[0], catalogs[0], token, granted), passes(rules[1], catalogs[1], token, granted)
			if token && was.Admits(granted) != before {
				t.Fatalf("%v with %v: admitted %t, passes %t", rules[0], granted, was.Admits(granted), before)
			}
			gained, lost = gained || now && !before, lost || before && !now
			if now && !before && token && !is.open && !covered(is.Beyond(was), granted) {
				t.Fatalf("%v to %v: %v gains and is not among %v", rules[0], rules[1], granted, is.Beyond(was))
			}
		})
		if is.Within(was) == gained || was.Within(is) == lost {
			t.Fatalf("%v to %v: gained %t lost %t, within %t %t", rules[0], rules[1], gained, lost, is.Within(was), was.Within(is))
		}
		for _, caller := range is.Beyond(was) {
			if !passes(rules[1], catalogs[1], !caller.Anonymous, caller.Scopes) || passes(rules[0], catalogs[0], !caller.Anonymous, caller.Scopes) {
				t.Fatalf("%v to %v: %v gains nothing", rules[0], rules[1], caller)
			}
		}
	})
}

func everyCaller(do func(token bool, granted oauth.ScopeSet)) {
	do(false, nil)
	for mask := range 1 << len(scopeNames) {
		var granted []string
		for i, name := range scopeNames {
			if mask&(1<<i) != 0 {
				granted = append(granted, name)
			}
		}
		do(true, oauth.NewScopeSet(granted...))
	}
}

func covered(callers []Caller, granted oauth.ScopeSet) bool {
	for _, c := range callers {
		if granted.ContainsAll(c.Scopes) {
			return true
		}
	}
	return false
}

// TestManyCombinationsAreBounded
func TestManyCombinationsAreBounded(t *testing.T) {
	t.Parallel()
	var scopes []oauth.Scope
	rule := &validator.Rule{Access: validator.AccessScopes}
	for i := range 12 {
		read := fmt.Sprintf("read%02d", i)
		scopes = append(scopes, oauth.Scope{Name: read, Description: "r"}, oauth.Scope{Name: fmt.Sprintf("write%02d", i), Description: "w", Implies: []string{read}})
		rule.Scopes = append(rule.Scopes, read)
	}
	catalog, err := oauth.NewCatalog(scopes)
	if err != nil {
		t.Fatal(err)
	}
	one := &validator.Rule{Access: validator.AccessScopes, Scopes: oauth.ScopeSet{"write11"}}
	h := NewHierarchy(catalog)
	beyond := h.Of(rule).Beyond(h.Of(one))
	if len(beyond) == 0 || len(beyond) > maxCallers {
		t.Fatalf("%d callers", len(beyond))
	}
	for _, caller := range beyond {
		if !passes(rule, catalog, true, caller.Scopes) || passes(one, catalog, true, caller.Scopes) {
			t.Errorf("%v", caller)
		}
	}
}
