package validator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// ParseRule reads a rule as Rule.String writes it and as it stands in a Caddyfile:
//
//	<methods> <path> <scope...> [<claim>=<value>...]
//	<methods> <path> any <scope...> [<claim>=<value>...]
//	<methods> <path> authenticated [<claim>=<value>...]
//	<methods> <path> public
//
// Whether it can stand in a table (known methods, declared scopes, a path that can
// be matched) is for New to say, which names Source.
func ParseRule(line, source string) (Rule, error) {
	words := strings.Fields(line)
	if len(words) < 3 {
		return Rule{}, fmt.Errorf("%s: rule %q: methods, a path and a requirement are expected, such as: GET /jobs/* jobs:read", source, line)
	}
	r := Rule{Path: words[1], Source: source}
	if words[0] != "*" {
		r.Methods = strings.Split(words[0], ",")
	}
	required := words[2:]
	scopes := required
	if ofUser := slices.IndexFunc(required, oauth.IsUserRequirement); ofUser >= 0 {
		for _, word := range required[ofUser:] {
			if !oauth.IsUserRequirement(word) {
				return Rule{}, fmt.Errorf("%s: rule %q: scopes come first, what is asked of the user last", source, line)
			}
			user, err := oauth.ParseUserRequirement(word)
			if err != nil {
				return Rule{}, fmt.Errorf("%s: rule %q: %w", source, line, err)
			}
			r.User = append(r.User, user)
		}
		scopes = required[:ofUser]
	}
	switch {
	case len(scopes) == 0:
		return Rule{}, fmt.Errorf("%s: rule %q: name a scope before what is asked of the user, or authenticated", source, line)
	case scopes[0] == string(AccessPublic) || scopes[0] == string(AccessAuthenticated):
		r.Access, scopes = Access(scopes[0]), scopes[1:]
	case scopes[0] == string(AccessAny):
		r.Access, scopes = AccessAny, scopes[1:]
		if len(scopes) < 2 {
			return Rule{}, fmt.Errorf("%s: rule %q: any: two or more scopes are expected", source, line)
		}
	default:
		r.Access = AccessScopes
	}
	for i, name := range scopes {
		switch {
		case slices.Contains(oauth.Reserved, name) || !oauth.IsScopeToken(name):
			return Rule{}, fmt.Errorf("%s: rule %q: %s is not the name of a scope", source, line, name)
		case slices.Contains(scopes[:i], name):
			return Rule{}, fmt.Errorf("%s: rule %q: scope %s stands here twice", source, line, name)
		}
	}
	if len(scopes) > 0 {
		r.Scopes = oauth.NewScopeSet(scopes...)
	}
	return r, nil
}
