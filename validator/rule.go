package validator

import "github.com/caddy-scope/caddy-scope/oauth"

// Access is what a scope rule requires.
type Access string

// The requirements a rule can have.
const (
	AccessScopes        Access = "scopes"        // all of Rule.Scopes
	AccessAny           Access = "any"           // one of Rule.Scopes
	AccessAuthenticated Access = "authenticated" // any live session
	AccessPublic        Access = "public"        // credentials are ignored
)

// Rule is one scope rule.
type Rule struct {
	// Methods, upper case; "GET" includes HEAD; nil: any method.
	Methods []string
	// Path pattern: literal segments, `*` or `{name}` for one segment, a final
	// `/*` for one or more bytes below. "*" alone covers every path (the short
	// form of oauth_protect).
	Path   string
	Access Access
	Scopes oauth.ScopeSet
	// Source is where the rule was written, such as "Caddyfile:34".
	Source string
}
