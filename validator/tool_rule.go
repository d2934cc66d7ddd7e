package validator

import (
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// Tools are the rules for the tools of the MCP server behind a scope rule. A
// call must meet the scope rule of its path and the rule of its tool; a tool
// without a rule cannot be called.
type Tools struct {
	// Rules, each with its Tool. At least one.
	Rules []Rule
	// ListDeclared keeps every tool that has a rule in the answers to tools/list.
	// Otherwise those are left out that the token may not call.
	ListDeclared bool
}

// equal reports whether both say the same. nil: no tools.
func (t *Tools) equal(other *Tools) bool {
	if t == nil || other == nil {
		return t == other
	}
	return t.ListDeclared == other.ListDeclared && slices.EqualFunc(t.Rules, other.Rules, func(a, b Rule) bool {
		return a.Tool == b.Tool && a.Access == b.Access && a.Scopes.Equal(b.Scopes) && sameUser(a.User, b.User) && sameRates(a.Rates, b.Rates)
	})
}

// Same reports whether two scope rules say the same, wherever they were
// written.
func (r *Rule) Same(other *Rule) bool {
	return slices.Equal(r.Methods, other.Methods) && r.Path == other.Path && r.Access == other.Access &&
		r.Scopes.Equal(other.Scopes) && sameUser(r.User, other.User) && sameRates(r.Rates, other.Rates) && r.Observe == other.Observe && r.Tools.equal(other.Tools)
}

func sameUser(a, b []oauth.UserRequirement) bool {
	return slices.EqualFunc(a, b, func(a, b oauth.UserRequirement) bool { return a.Claim == b.Claim && slices.Equal(a.Values, b.Values) })
}

// toolTable finds what a call of a tool requires.
type toolTable struct {
	path         *Rule
	calls        map[string]*Rule // by tool: its own rule and, in also, that of the path
	listDeclared bool
}

// newToolTable checks and compiles the rules for the tools behind path. The
// error is a *RuleError.
func newToolTable(path *Rule, catalog *oauth.Catalog) (*toolTable, error) {
	table := &toolTable{path: path, calls: make(map[string]*Rule, len(path.Tools.Rules)), listDeclared: path.Tools.ListDeclared}
	for _, rule := range path.Tools.Rules {
		if err := rule.checkTool(catalog); err != nil {
			return nil, err
		}
		if other := table.calls[rule.Tool]; other != nil {
			return nil, &RuleError{Rule: rule, Other: other, Problem: "is about the same tool as"}
		}
		if err := rule.checkRates(path.Access == AccessPublic && rule.Access == AccessPublic); err != nil {
			return nil, &RuleError{Rule: rule, Problem: err.Error()}
		}
		rule.also = []*Rule{path}
		table.calls[rule.Tool] = &rule
	}
	return table, nil
}

// maxToolName is what the specification recommends, in bytes. MCP 2025-11-25,
// server/tools.
const maxToolName = 128

// checkTool reports what is wrong with the rule of a tool by itself.
func (r Rule) checkTool(catalog *oauth.Catalog) error {
	if !isToolName(r.Tool) {
		return &RuleError{Rule: r, Problem: "the name of a tool has letters, digits and _ - . : / only, at most 128"}
	}
	return r.checkRequirement(catalog)
}

// isToolName allows what every tool that follows the specification is called,
// and the separators of gateways that join servers.
func isToolName(name string) bool {
	return name != "" && len(name) <= maxToolName && !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_-.:/", c)
	})
}

// operation returns the rule of a request that calls these tools, or the name
// of a tool that has none. Of several calls all rules must be met.
func (t *toolTable) operation(tools []string) (rule *Rule, unknown string) {
	rule = t.path
	var several []*Rule
	for _, tool := range tools {
		call := t.calls[tool]
		switch {
		case call == nil:
			return nil, tool
		case rule == t.path:
			rule = call
		case call != rule && !slices.Contains(several, call):
			several = append(several, call)
		}
	}
	if several != nil {
		rule = &Rule{also: append(several, rule), index: t.path.index, limits: t.path.limits}
	}
	return t.limited(rule, tools), ""
}

// isBundle reports whether the rule says nothing of its own: several tools are
// called in one request.
func (r *Rule) isBundle() bool { return r.also != nil && r.Tool == "" }

func (r *Rule) bundleString() string {
	var texts []string
	for _, part := range r.Parts() {
		texts = append(texts, part.String())
	}
	return strings.Join(texts, " and ")
}

// Parts returns the rules that a request must meet, all of them, that of its
// path first: the rule itself, unless tools are called.
func (r *Rule) Parts() []*Rule {
	var parts []*Rule
	for _, other := range r.also {
		for _, part := range other.Parts() {
			if !slices.Contains(parts, part) {
				parts = append(parts, part)
			}
		}
	}
	if !r.isBundle() {
		parts = append(parts, r)
	}
	return parts
}

// isPublic reports whether the rule asks for no credentials.
func (r *Rule) isPublic() bool {
	for _, other := range r.also {
		if !other.isPublic() {
			return false
		}
	}
	return r.Access == AccessPublic || r.isBundle()
}

// Observed reports whether refusals under the rule are only to be noted: that is
// said of its path.
func (r *Rule) Observed() bool {
	if len(r.also) > 0 {
		return r.also[0].Observed()
	}
	return r.Observe
}

// operationScopes returns every scope that the rule names: what a challenge
// must name in one go. RFC 6750 section 3, MCP authorization.
func (r *Rule) operationScopes() oauth.ScopeSet {
	all := r.Scopes
	for _, other := range r.also {
		all = all.Union(other.operationScopes())
	}
	return all
}
