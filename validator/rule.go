package validator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
)

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
	// User is what is asked of the user besides: all of it. nil: nothing.
	User []oauth.UserRequirement
	// Rates bound how often callers may come. nil: they may as often as they like.
	Rates []Rate
	// Source is where the rule was written, such as "Caddyfile:34".
	Source string
	// Tools are the rules for the tools of the MCP server at Path. nil: it has
	// none, and bodies are not looked at.
	Tools *Tools
	// Observe marks a rule whose refusals are only to be noted (Refusal.Observe).
	// It changes no decision: letting the request pass is the caller's affair.
	Observe bool
	// Tool is set in the rule of a tool, which has no Methods and no Path.
	Tool string

	tools   *toolTable  // compiled Tools
	also    []*Rule     // must be met too; of a rule without Path and Tool: instead
	limits  []rateLimit // that a request is counted by, also those of also; nil: none
	perCall []rateLimit // of these, those of the tool
	index   int
}

// Everything is the pattern that covers every path.
const Everything = "*"

// RuleError is a rule that cannot stand in the table, alone or beside another.
type RuleError struct {
	Rule    Rule
	Other   *Rule // the rule it collides with; nil if it is wrong by itself
	Problem string
}

func (e *RuleError) Error() string {
	at := func(r Rule) string {
		if r.Source == "" {
			return r.String()
		}
		return r.Source + ": " + r.String()
	}
	if e.Other == nil {
		return fmt.Sprintf("%s: %s", at(e.Rule), e.Problem)
	}
	return fmt.Sprintf("%s: %s: %s", at(e.Rule), e.Problem, at(*e.Other))
}

// Index is the rule's place in Resource.AllRules, by which a caller finds what it
// keeps for the rule without looking it up. When several tools are called in one
// request it is that of their path.
func (r *Rule) Index() int { return r.index }

// String returns the rule as it is written in a Caddyfile.
func (r Rule) String() string {
	if r.isBundle() {
		return r.bundleString()
	}
	methods := "*"
	if r.Methods != nil {
		methods = strings.Join(r.Methods, ",")
	}
	words := []string{methods, r.Path}
	if r.Tool != "" {
		words = []string{"tool", r.Tool}
	}
	switch r.Access {
	case AccessScopes:
		words = append(words, r.Scopes...)
	case AccessAny:
		words = append(append(words, "any"), r.Scopes...)
	default:
		words = append(words, string(r.Access))
	}
	for _, required := range r.User {
		words = append(words, required.String())
	}
	return strings.Join(words, " ")
}

// check reports what is wrong with the rule by itself.
func (r Rule) check(catalog *oauth.Catalog) error {
	fail := func(format string, args ...any) error {
		return &RuleError{Rule: r, Problem: fmt.Sprintf(format, args...)}
	}
	if r.Methods != nil && len(r.Methods) == 0 {
		return fail("names no method; write * for any")
	}
	for i, method := range r.Methods {
		switch {
		case methodIndex(method) < 0 && methodIndex(strings.ToUpper(method)) >= 0:
			return fail("method %q: methods are upper case", method)
		case methodIndex(method) < 0:
			return fail("method %q is not known; known are %s", method, strings.Join(methods[:], ", "))
		case slices.Contains(r.Methods[:i], method):
			return fail("method %s is named twice", method)
		}
	}
	if err := r.checkRequirement(catalog); err != nil {
		return err
	}
	if _, err := parsePattern(r.Path); err != nil {
		return fail("path %q: %v", r.Path, err)
	}
	return nil
}

// checkRequirement reports what is wrong with Access and Scopes.
func (r Rule) checkRequirement(catalog *oauth.Catalog) error {
	fail := func(format string, args ...any) error {
		return &RuleError{Rule: r, Problem: fmt.Sprintf(format, args...)}
	}
	switch r.Access {
	case AccessScopes, AccessAny:
		if len(r.Scopes) == 0 {
			return fail("says not what is needed; name a scope, or public, or authenticated")
		}
	case AccessPublic, AccessAuthenticated:
		if len(r.Scopes) != 0 {
			return fail("%s stands alone; remove the scopes or the word", r.Access)
		}
		if r.Access == AccessPublic && len(r.User) != 0 {
			return fail("public asks nobody who they are; remove %s or the word", r.User[0])
		}
	default:
		return fail("says not what is needed; name a scope, or public, or authenticated")
	}
	if err := oauth.CheckUserRequirements(r.User); err != nil {
		return fail("%v", err)
	}
	if err := r.checkRates(r.Access == AccessPublic && r.Tool == ""); err != nil {
		return fail("%v", err)
	}
	for _, name := range r.Scopes {
		if slices.Contains(oauth.Reserved, name) {
			return fail("%s cannot stand beside scopes", name)
		}
		_, declared := catalog.Lookup(name)
		switch {
		case declared:
		case oauth.IdentityScopes().Contains(name):
			return fail("scope %q says who a user is and opens no route; name a declared scope, or authenticated", name)
		default:
			return fail("scope %q is not declared; add it to the oauth block: scope %s \"what a user reads\"", name, name)
		}
	}
	return nil
}

// pattern is a parsed path pattern.
type pattern struct {
	segments   []string // literals; "" at the end: a trailing slash; wildcard: one segment
	below      bool     // ends in /*: one or more bytes below
	everything bool     // "*"
}

// IsPattern reports whether the path could stand in a rule.
func IsPattern(path string) bool {
	_, err := parsePattern(path)
	return err == nil
}

// wildcard stands for `*` and `{name}` in pattern.segments. No literal can
// equal it: a slash never stands in a segment.
const wildcard = "/"

// String returns the pattern as it is written; a wildcard is {any}.
func (p pattern) String() string {
	if p.everything {
		return Everything
	}
	var b strings.Builder
	for _, segment := range p.segments {
		if segment == wildcard {
			segment = "{any}"
		}
		b.WriteString("/" + segment)
	}
	if p.below {
		b.WriteString("/*")
	}
	return b.String()
}

// parsePattern reads a path pattern. The error says what to change.
func parsePattern(path string) (pattern, error) {
	if path == Everything {
		return pattern{everything: true}, nil
	}
	if !strings.HasPrefix(path, "/") {
		return pattern{}, fmt.Errorf("must begin with /")
	}
	if strings.HasPrefix(path, "/oauth/") || strings.HasPrefix(path, "/.well-known/oauth-") {
		return pattern{}, fmt.Errorf("is never gated: it belongs to oauth_server, so the rule is unreachable")
	}
	var p pattern
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		switch {
		case segment == "*" && last:
			p.below = true
		case segment == "*":
			p.segments = append(p.segments, wildcard)
		case segment == "" && !last:
			return pattern{}, fmt.Errorf("has an empty segment (is a variable unset?)")
		case strings.HasPrefix(segment, "{") && strings.HasSuffix(segment, "}") && isName(segment[1:len(segment)-1]):
			p.segments = append(p.segments, wildcard)
		case strings.ContainsAny(segment, "*{}"):
			return pattern{}, fmt.Errorf("segment %q: * and {name} stand for a whole segment", segment)
		default:
			if strings.Contains(segment, "%") {
				return pattern{}, fmt.Errorf("segment %q: write it decoded, without %%", segment)
			}
			if problem := pathProblem("/" + segment); problem != "" {
				return pattern{}, fmt.Errorf("segment %q can never match: %s", segment, problem)
			}
			p.segments = append(p.segments, segment)
		}
	}
	return p, nil
}

func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}

// relation is how the requests of one rule stand to those of another.
type relation int

const (
	disjoint relation = iota
	equal
	narrower // a strict part of the other's
	wider
	crossing // some shared, each with some of its own
)

// both combines the relations of two independent parts (methods and path, or
// two segments) to that of the whole.
func both(a, b relation) relation {
	switch {
	case a == disjoint || b == disjoint:
		return disjoint
	case a == equal:
		return b
	case b == equal || a == b:
		return a
	default:
		return crossing
	}
}

func comparePatterns(a, b pattern) relation {
	switch {
	case a.everything && b.everything:
		return equal
	case a.everything:
		return wider
	case b.everything:
		return narrower
	}
	rel := equal
	n := min(len(a.segments), len(b.segments))
	for i := range n {
		if rel = both(rel, compareSegments(a.segments[i], b.segments[i])); rel == disjoint {
			return disjoint
		}
	}
	switch {
	case len(a.segments) == len(b.segments) && a.below == b.below:
		return rel
	case len(a.segments) == len(b.segments):
		return disjoint // /jobs and /jobs/*
	case len(a.segments) > n:
		return both(rel, compareRest(a.segments[n:], b.below, narrower))
	default:
		return both(rel, compareRest(b.segments[n:], a.below, wider))
	}
}

// compareRest compares what a longer pattern has beyond a shorter one.
func compareRest(rest []string, shorterGoesBelow bool, ifShared relation) relation {
	// "/*" wants one byte below, so that it does not cover a trailing slash.
	if !shorterGoesBelow || rest[0] == "" {
		return disjoint
	}
	return ifShared
}

func compareSegments(a, b string) relation {
	switch {
	case a == b:
		return equal
	case a == wildcard && b != "":
		return wider
	case b == wildcard && a != "":
		return narrower
	default:
		return disjoint
	}
}
