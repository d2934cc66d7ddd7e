package validator

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"
	"unique"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// Resource is one protected resource: a table of scope rules, and everything
// needed to decide a request against it. Safe for concurrent use.
type Resource struct {
	cfg         Config
	table       *ruleTable
	folded      *ruleTable // the same rules with lower-case literals, for PassUnmatched
	verifier    *verifier
	metadataURL string
	origin      string // of the identifier: where proofs are for
	grants      grantTable
	byToken     TokenSessionReader // nil: sessions are read by their ids
}

// New checks the rules and compiles them. A problem with a rule is a
// *RuleError that names the source lines.
func New(cfg Config) (*Resource, error) {
	switch {
	case cfg.Issuer == "":
		return nil, errors.New("validator: Issuer is missing")
	case cfg.Resource == "":
		return nil, errors.New("validator: Resource is missing")
	case cfg.Catalog == nil:
		return nil, errors.New("validator: Catalog is missing")
	case cfg.Keys == nil:
		return nil, errors.New("validator: Keys is missing")
	case cfg.Sessions == nil:
		return nil, errors.New("validator: Sessions is missing")
	}
	if cfg.Leeway == 0 {
		cfg.Leeway = 5 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.RequestPath == nil {
		cfg.RequestPath = func(req *http.Request) string { return req.URL.EscapedPath() }
	}
	if cfg.Limits == nil {
		cfg.Limits = func() *ratelimit.Limiter { return nil }
	}
	if cfg.ClientAddress == nil {
		cfg.ClientAddress = func(*http.Request) netip.Addr { return netip.Addr{} }
	}
	if cfg.ClientAllowed == nil {
		cfg.ClientAllowed = func(string) bool { return true }
	}
	table, err := newRuleTable(cfg.Rules, cfg.Catalog)
	if err != nil {
		return nil, err
	}
	r := &Resource{
		cfg:         cfg,
		table:       table,
		metadataURL: oauth.ResourceMetadataURL(cfg.Resource),
		grants:      grantTable{catalog: cfg.Catalog},
		origin:      oauth.Origin(cfg.Resource),
		// Shared strings are compared by their address; see TokenCache.sharedClaims.
		verifier: &verifier{unique.Make(cfg.Issuer).Value(), unique.Make(cfg.Resource).Value(), cfg.Keys, cfg.Tokens, cfg.Leeway, cfg.Now},
	}
	if err := table.compileRates(cfg.Resource); err != nil {
		return nil, err
	}
	r.byToken, _ = cfg.Sessions.(TokenSessionReader)
	if cfg.PassUnmatched {
		r.folded = foldTable(table)
	}
	return r, nil
}

// foldTable is the table with lower-case literals. Rules that fold together
// need no order: the answer is only whether one of them would match.
func foldTable(table *ruleTable) *ruleTable {
	folded := &ruleTable{}
	for _, rule := range table.rules {
		p, _ := parsePattern(foldCase(rule.Path)) // compiled before
		folded.slotsOf(p).put(rule, newMethodSet(rule.Methods))
	}
	return folded
}

// Rules returns the rules in the order they were given.
func (r *Resource) Rules() []*Rule { return slices.Clone(r.table.rules) }

// AllRules returns Rules and after them those of tools, each at its Rule.Index.
func (r *Resource) AllRules() []*Rule { return slices.Concat(r.table.rules, r.table.ofTools) }

// Identifier returns what access tokens must be for.
func (r *Resource) Identifier() string { return r.cfg.Resource }

// Scopes returns every scope that a rule names.
func (r *Resource) Scopes() oauth.ScopeSet {
	var all oauth.ScopeSet
	for _, rule := range r.table.rules {
		all = all.Union(rule.Scopes)
		if rule.Tools != nil {
			for _, tool := range rule.Tools.Rules {
				all = all.Union(tool.Scopes)
			}
		}
	}
	return all
}
