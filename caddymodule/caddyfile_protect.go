package caddymodule

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// parseProtect reads the gate. The block form is a table of scope rules, and a
// request that no rule covers is refused:
//
//	oauth_protect {
//		<methods> <path> <requirement> {
//			rate <number>/<window> per user | client | session | address
//		}
//		...
//		observe <methods> <path> <requirement>
//		openapi    <file> {          # again for each
//			scheme <name...>         # all of OAuth
//			prefix <path>            # that of the servers
//			except <method> <path>   # again for each
//		}
//		rate       <number>/<window> per <key>   # over all rules; again for each
//		tool       <name> <requirement>          # with rates of its own, as a rule
//		tool_list  callable | declared
//		mode       observe | enforce <percent>   # what is refused does not pass
//		resource   <identifier> | <path>   # the issuer
//		bypass     <matcher>
//		identity_headers {
//			user    <name>           # X-User-Id
//			client  <name>           # X-Client-Id
//			session <name>           # X-Session-Id
//			scopes  <name>           # X-Scopes
//			claim   <claim> <name>   # again for each
//		}
//		identity_token <header> [<audience>]   # none; the resource and #upstream
//		forward_token
//		cors       <origin...>
//		streams    until_close       # they end with token and session
//		errors     caddy
//		request_id <header> | off    # X-Request-Id
//	}
//
// <methods> is *, a method, or methods joined by commas; <requirement> is one
// or more scopes (all are needed), `any` and scopes (one of them),
// `authenticated` or `public`; after any but `public` may stand what is asked of
// the user besides: <claim>=<value> or, for one of several, <claim>=<value>,<value>.
// The operations of an OpenAPI document are rules
// by their security requirements; a line replaces what the document says for its
// methods at its path. A tool of an MCP server needs what its line says
// besides what the rule of its path does; where one tool has a line, a tool
// without one cannot be called.
//
// The short form has one requirement for every method and path that reach it,
// or that its matcher names; the rest passes:
//
//	oauth_protect [<path> | <@matcher>] <requirement>
func parseProtect(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // the name of the directive
	p := &Protect{Source: source(h.Dispenser)}

	matched, err := p.parseShortMatcher(h)
	if err != nil {
		return nil, err
	}
	requirement := h.RemainingArgs()
	if len(requirement) > 0 {
		if err := p.applyShortForm(h, requirement); err != nil {
			return nil, err
		}
	} else if matched {
		return nil, h.Err("oauth_protect: a requirement is missing after the matcher; the block form takes no matcher, write the paths in it")
	}
	hadBlock, err := p.parseProtectBlock(h, len(requirement) > 0)
	if err != nil {
		return nil, err
	}
	if len(p.Rules)+len(p.OpenAPI) == 0 {
		if hadBlock {
			return nil, h.Err("oauth_protect: the block has no rule, so nothing would pass")
		}
		return nil, h.Err("oauth_protect: a block of rules or a requirement is expected")
	}
	// The gate stands before everything in its route. What it covers is in its
	// own table, decided by its own grammar: Caddy's path matcher ignores case
	// and folds slashes, so a request could slip past it.
	return h.NewRoute(nil, p), nil
}

// parseShortMatcher reads the optional matcher of the short form into rules
// that have no requirement yet.
func (p *Protect) parseShortMatcher(h httpcaddyfile.Helper) (bool, error) {
	set, matched, err := h.MatcherToken()
	if err != nil {
		return false, h.WrapErr(err)
	}
	if !matched { // the look-ahead was the first word of the requirement
		h.Reset()
		h.Next()
		return false, nil
	}
	if set == nil { // *
		return false, nil
	}
	var (
		paths   []string
		methods []string
	)
	for name, raw := range set {
		var target *[]string
		switch name {
		case "path":
			target = &paths
		case "method":
			target = &methods
		default:
			return false, h.Errf("oauth_protect: a matcher may name only path and method, not %s; put the directive into a handle block with that matcher", name)
		}
		if err := json.Unmarshal(raw, target); err != nil {
			return false, h.Errf("oauth_protect: matcher %s: %v", name, err)
		}
	}
	for _, method := range methods {
		if !isMethod(method) {
			return false, h.Errf("oauth_protect: %q is not a method in upper case", method)
		}
	}
	if len(paths) == 0 {
		paths = []string{"*"}
	}
	for _, path := range paths {
		if path != "*" {
			if path, err = rulePath(h, path); err != nil {
				return false, err
			}
		}
		p.Rules = append(p.Rules, RuleSettings{Methods: slices.Clone(methods), Path: path, Source: p.Source})
	}
	p.PassUnmatched = true
	return true, nil
}

func (p *Protect) applyShortForm(h httpcaddyfile.Helper, requirement []string) error {
	required, err := parseRequirement(h, requirement)
	if err != nil {
		return err
	}
	if len(p.Rules) == 0 {
		p.Rules = []RuleSettings{{Path: "*", Source: p.Source}}
	}
	for i := range p.Rules {
		p.Rules[i].Access, p.Rules[i].Scopes, p.Rules[i].User = required.access, required.scopes, required.user
	}
	p.Short = true
	return nil
}

// parseProtectBlock reads the block. In the short form it holds words, no rules.
func (p *Protect) parseProtectBlock(h httpcaddyfile.Helper, short bool) (bool, error) {
	words := map[string]word{
		"openapi":          many(nil),
		"rate":             many(parseRate(&p.Rates)),
		"mode":             once(nil),
		"observe":          many(nil),
		"resource":         once(text(&p.Resource)),
		"tool":             many(nil),
		"tool_list":        once(oneOf(&p.ToolList, toolListCallable, toolListDeclared)),
		"bypass":           once(nil),
		"identity_headers": once(nil),
		"identity_token":   once(p.parseIdentityToken),
		"forward_token":    once(flag(&p.ForwardToken)),
		"cors":             once(texts(&p.CORS)),
		"streams":          once(oneOf(&p.Streams, streamsUntilClose)),
		"errors":           once(oneOf(&p.Errors, "caddy")),
		"request_id":       once(text(&p.RequestID)),
	}
	seen := make(map[string]int)
	hadBlock := false
	for nesting := h.Nesting(); h.NextBlock(nesting); {
		hadBlock = true
		name := h.Val()
		w, known := words[name]
		if !known {
			if short || !looksLikeMethods(name) {
				return hadBlock, h.Errf("unrecognized word %q; one of %s is expected, or a rule: METHODS PATH REQUIREMENT", name, wordList(words))
			}
			if err := p.parseRule(h, name); err != nil {
				return hadBlock, err
			}
			continue
		}
		if line, again := seen[name]; again && !w.many {
			return hadBlock, h.Errf("%s is already set, at line %d", name, line)
		}
		seen[name] = h.Line()
		var err error
		switch name {
		case "openapi":
			if short {
				return hadBlock, h.Err("openapi: the short form has its one requirement; write the block form to take rules from a document")
			}
			err = p.parseOpenAPI(h)
		case "mode":
			err = p.parseMode(h)
		case "observe":
			err = p.parseObservedRule(h, short)
		case "tool":
			err = p.parseTool(h)
		case "bypass":
			err = p.parseBypass(h)
		case "identity_headers":
			err = p.parseIdentityHeaders(h)
		default:
			err = w.parse(h.Dispenser)
		}
		if err != nil {
			return hadBlock, err
		}
		if h.NextArg() {
			return hadBlock, h.Errf("%s: unexpected %q", name, h.Val())
		}
	}
	return hadBlock, nil
}

// parseRule reads
//
//	<methods> <path> <requirement> {
//		rate <number>/<window> per <key>
//	}
func (p *Protect) parseRule(h httpcaddyfile.Helper, methods string) error {
	rule := RuleSettings{Source: source(h.Dispenser)}
	if methods != "*" {
		for _, method := range strings.Split(methods, ",") {
			if !isMethod(method) {
				return h.Errf("%q is not a list of methods such as GET,POST (without spaces)", methods)
			}
			if slices.Contains(rule.Methods, method) {
				return h.Errf("method %s stands here twice", method)
			}
			rule.Methods = append(rule.Methods, method)
		}
	}
	args := h.RemainingArgs()
	if len(args) == 0 {
		return h.Errf("rule %s: a path and a requirement are missing", methods)
	}
	path, err := rulePath(h, args[0])
	if err != nil {
		return err
	}
	rule.Path = path
	if len(args) == 1 {
		return h.Errf("rule %s %s: a requirement is missing: scopes, any SCOPES, authenticated or public", methods, rule.Path)
	}
	required, err := parseRequirement(h, args[1:])
	if err != nil {
		return err
	}
	rule.Access, rule.Scopes, rule.User = required.access, required.scopes, required.user
	if rule.Rates, err = parseRates(h.Dispenser); err != nil {
		return err
	}
	p.Rules = append(p.Rules, rule)
	return nil
}

// requirement is what stands behind a path or the name of a tool.
type requirement struct {
	access string
	scopes []string
	user   []oauth.UserRequirement
}

// parseRequirement reads
//
//	<scope...> [<claim>=<value...>...] | any <scope...> [<claim>=<value...>...] |
//	authenticated [<claim>=<value...>...] | public
func parseRequirement(h httpcaddyfile.Helper, args []string) (r requirement, err error) {
	// What is asked of the user comes last: among scopes it would be overlooked.
	ofUser := slices.IndexFunc(args, oauth.IsUserRequirement)
	if ofUser < 0 {
		ofUser = len(args)
	}
	if ofUser == 0 {
		return r, h.Errf("%s is asked of the user besides a scope: name a scope before it, or authenticated", args[0])
	}
	if r.user, err = parseUserRequirements(h, args[ofUser:]); err != nil {
		return r, err
	}
	args = args[:ofUser]
	switch args[0] {
	case "public", "authenticated":
		if len(args) > 1 {
			return r, h.Errf("%s stands alone, but %q follows it", args[0], args[1])
		}
		if args[0] == "public" && r.user != nil {
			return r, h.Errf("public asks nobody who they are, but %s follows it", r.user[0])
		}
		r.access = args[0]
		return r, nil
	case "any":
		r.access, r.scopes = string(validator.AccessAny), slices.Clone(args[1:])
		if len(r.scopes) < 2 {
			return r, h.Err("any: two or more scopes are expected")
		}
	default:
		r.access, r.scopes = string(validator.AccessScopes), slices.Clone(args)
	}
	for i, name := range r.scopes {
		switch {
		case slices.Contains(oauth.Reserved, name):
			return r, h.Errf("%s is a reserved name and cannot stand among scopes", name)
		case !oauth.IsScopeToken(name):
			return r, h.Errf("%q is not the name of a scope", name)
		case slices.Contains(r.scopes[:i], name):
			return r, h.Errf("scope %s stands here twice", name)
		}
	}
	return r, nil
}

func parseUserRequirements(h httpcaddyfile.Helper, args []string) ([]oauth.UserRequirement, error) {
	var list []oauth.UserRequirement
	for _, arg := range args {
		if !oauth.IsUserRequirement(arg) {
			return nil, h.Errf("%q stands behind %s: scopes come first, what is asked of the user last", arg, args[0])
		}
		required, err := oauth.ParseUserRequirement(arg)
		if err != nil {
			return nil, h.WrapErr(err)
		}
		list = append(list, required)
	}
	if err := oauth.CheckUserRequirements(list); err != nil {
		return nil, h.WrapErr(err)
	}
	return list, nil
}

// parseBypass reads
//
//	bypass <@matcher> | <path>
func (p *Protect) parseBypass(h httpcaddyfile.Helper) error {
	set, ok, err := h.MatcherToken()
	if err != nil {
		return h.WrapErr(err)
	}
	if !ok || len(set) == 0 {
		return h.Err("bypass: a matcher such as @own is expected; * would open the gate for everyone")
	}
	p.BypassRaw = caddyhttp.RawMatcherSets{set}
	return nil
}

// parseIdentityHeaders reads
//
//	identity_headers {
//		user    <name>
//		client  <name>
//		session <name>
//		scopes  <name>
//		claim   <claim> <name>
//	}
func (p *Protect) parseIdentityHeaders(h httpcaddyfile.Helper) error {
	p.IdentityHeaders = new(IdentityHeaderSettings)
	return parseBlock(h.Dispenser, map[string]word{
		"user":    once(text(&p.IdentityHeaders.User)),
		"client":  once(text(&p.IdentityHeaders.Client)),
		"session": once(text(&p.IdentityHeaders.Session)),
		"scopes":  once(text(&p.IdentityHeaders.Scopes)),
		"claim":   many(p.IdentityHeaders.parseClaim),
	})
}

// parseClaim reads
//
//	claim <claim> <name>
func (s *IdentityHeaderSettings) parseClaim(d *caddyfile.Dispenser) error {
	claim, err := value(d)
	if err != nil {
		return err
	}
	if _, again := s.Claims[claim]; again {
		return d.Errf("claim %s has a header already", claim)
	}
	if s.Claims == nil {
		s.Claims = make(map[string]string)
	}
	s.Claims[claim], err = value(d)
	return err
}

// rulePath returns a path pattern as it was written. Caddy replaces shorthands
// such as {file} by their full names before any directive sees them.
func rulePath(h httpcaddyfile.Helper, path string) (string, error) {
	path = shorthands.Replace(path)
	if !strings.HasPrefix(path, "/") {
		return "", h.Errf("path %q does not begin with a slash (an unset {$VARIABLE} leaves nothing)", path)
	}
	return path, nil
}

// shorthands turns what Caddy made of a shorthand back into the shorthand.
var shorthands = func() *strings.Replacer {
	var pairs []string
	for _, name := range []string{
		"host", "hostport", "port", "orig_method", "orig_uri", "orig_path", "orig_dir", "orig_file", "orig_query",
		"method", "uri", "path", "dir", "file", "query", "remote", "remote_host", "remote_port", "scheme", "uuid",
		"tls_cipher", "tls_version", "tls_client_fingerprint", "tls_client_issuer", "tls_client_serial",
		"tls_client_subject", "tls_client_certificate_pem", "tls_client_certificate_der_base64",
		"upstream_hostport", "client_ip",
	} {
		pairs = append(pairs, expandShorthand("{"+name+"}"), "{"+name+"}")
	}
	return strings.NewReplacer(pairs...)
}()

// expandShorthand does to s what Caddy does before it hands out tokens.
func expandShorthand(s string) string {
	segment := caddyfile.Segment{{Text: s}}
	httpcaddyfile.NewShorthandReplacer().ApplyToSegment(&segment)
	return segment[0].Text
}

// isMethod reports whether s is spelled like a method: a token in upper case.
func isMethod(s string) bool {
	for _, c := range s {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return s != ""
}

// looksLikeMethods tells a rule from a word: words are in lower case.
func looksLikeMethods(s string) bool {
	return s == "*" || s != strings.ToLower(s) || strings.Contains(s, ",")
}
