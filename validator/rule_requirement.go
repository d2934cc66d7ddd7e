package validator

import (
	"slices"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// Missing returns what held lacks of the rule's requirement; nil: nothing. Of
// AccessAny each one returned would do. held is expanded (see Catalog.Expand).
func (r *Rule) Missing(held oauth.ScopeSet) oauth.ScopeSet {
	if r.allows(held) {
		return nil
	}
	var missing oauth.ScopeSet
	for _, part := range r.Parts() {
		if !part.allowsAlone(held) {
			missing = missing.Union(part.Scopes.Without(held))
		}
	}
	return missing
}

// allows reports whether the scopes meet the rule's requirement.
func (r *Rule) allows(scopes oauth.ScopeSet) bool {
	for _, other := range r.also {
		if !other.allows(scopes) {
			return false
		}
	}
	return r.isBundle() || r.allowsAlone(scopes)
}

// admits reports whether the user meets what the rule asks of users.
func (r *Rule) admits(claims oauth.UserClaims) bool {
	for _, other := range r.also {
		if !other.admits(claims) {
			return false
		}
	}
	return oauth.UserMeets(r.User, claims)
}

// MissingOfUser returns what the rule asks of the user that these claims do not
// meet; nil: nothing.
func (r *Rule) MissingOfUser(claims oauth.UserClaims) []oauth.UserRequirement {
	var missing []oauth.UserRequirement
	for _, part := range r.Parts() {
		for _, required := range part.User {
			if !required.MetBy(claims) {
				missing = append(missing, required)
			}
		}
	}
	return missing
}

// allowsAlone is allows without the rules that must be met too.
func (r *Rule) allowsAlone(scopes oauth.ScopeSet) bool {
	switch r.Access {
	case AccessScopes:
		return scopes.ContainsAll(r.Scopes)
	case AccessAny:
		return slices.ContainsFunc(r.Scopes, scopes.Contains)
	case AccessAuthenticated, AccessPublic:
		return true
	}
	return false
}
