package validator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/caddy-scope/caddy-scope/dpop"
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
		// Shared strings are compared by their address; see newVerifiedToken.
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

// Identity is who is calling.
type Identity struct {
	UserID    string // empty: a client that acts for itself
	ClientID  string
	SessionID string
	Scopes    string    // space separated, sorted, hierarchy expanded
	ExpiresAt time.Time // of the access token
	Claims    oauth.UserClaims
}

// Decision is a request let through.
type Decision struct {
	// Rule that decided; nil when the table does not cover the request and
	// Config.PassUnmatched lets it go on.
	Rule *Rule
	// Identity is set for rules that need credentials; zero for public rules,
	// preflights and unmatched requests.
	Identity Identity
	// Preflight: a CORS preflight, to be forwarded without credentials or
	// answered by AnswerPreflight.
	Preflight bool
	// Limits is how the caller stands under the rates of the rule, for
	// ratelimit.SetHeader; nil: it has none.
	Limits []ratelimit.State
	// NextNonce is what the answer shall give the client in DPoP-Nonce; empty:
	// no such field.
	NextNonce string

	token   verifiedToken // none: it rests on none
	granted *grantedScopes
	shown   string     // as it came; set where sessions are read by their tokens
	tools   *toolTable // the answer may list them; nil: it does not
}

// Grant is what a decision rests on. See Confirm.
type Grant struct {
	rule  *Rule
	token verifiedToken
	shown string // see Decision
}

// Grant returns what an authenticated decision rests on.
func (d *Decision) Grant() Grant { return Grant{d.Rule, d.token, d.shown} }

// Rule returns the rule that decided.
func (g Grant) Rule() *Rule { return g.rule }

// NoteUse reports, about once in every interval for each token, that the use of
// the session is worth a note; the token's own clock spares busy ones the
// question.
func (d *Decision) NoteUse(interval time.Duration, now time.Time) bool {
	if d.token.isNone() {
		return false
	}
	last := d.token.noted.Load()
	return now.UnixNano()-last >= int64(interval) && d.token.noted.CompareAndSwap(last, now.UnixNano())
}

// Authenticated reports whether the decision rests on an access token.
func (d *Decision) Authenticated() bool { return d.Identity.SessionID != "" }

// Authorize decides the request. It changes nothing in it, but that the body of
// a request to an MCP server with rules for its tools is read and stands there
// anew, byte for byte. The error is a *Refusal.
//
// The rule is found first: what no rule names is refused with or without a
// token, and what is public never looks at one. Then credentials, signature,
// claims, session, scope, and last that a proof of possession was not used
// before; each step assumes that the ones before it held.
func (r *Resource) Authorize(req *http.Request) (Decision, error) {
	target, refusal := checkTarget(req)
	if refusal != nil {
		return Decision{}, r.challenged(refusal, nil)
	}
	if refusal := checkUpgrade(req); refusal != nil {
		return Decision{}, r.challenged(refusal, nil)
	}
	if requested, ok := preflightMethod(req); ok {
		return r.authorizePreflight(target, requested)
	}
	rule, refusal := r.ruleFor(methodIndex(req.Method), target)
	switch {
	case refusal != nil:
		return Decision{}, r.challenged(refusal, nil)
	case rule == nil:
		return r.authorizeUnmatched(methodIndex(req.Method), target)
	}
	decision, err := r.authorizeUnder(req, rule)
	if err != nil && rule.Observed() {
		markObserved(err)
	}
	return decision, err
}

func markObserved(err error) {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		refusal.Observe = true
	}
}

// authorizeUnder decides a request whose path and method come under the rule.
func (r *Resource) authorizeUnder(req *http.Request, rule *Rule) (Decision, error) {
	if rule.tools != nil {
		return r.authorizeMessages(req, rule)
	}
	return r.authorizeBy(req, rule)
}

// authorizeBy decides a request for which the rule was found.
func (r *Resource) authorizeBy(req *http.Request, rule *Rule) (Decision, error) {
	if rule.isPublic() {
		return r.counted(req, Decision{Rule: rule})
	}
	shown, refusal := readCredentials(req)
	if refusal != nil {
		return Decision{}, r.challenged(refusal, rule)
	}
	decision, refusal := r.authorizeToken(req, rule, shown)
	if refusal != nil {
		refusal.dpop = refusal.dpop || shown.dpop
		return Decision{}, r.challenged(refusal, rule)
	}
	return r.counted(req, decision)
}

// counted is the last step: what is refused for another reason costs nothing of a
// rate.
func (r *Resource) counted(req *http.Request, decision Decision) (Decision, error) {
	if decision.Rule.limits == nil {
		return decision, nil
	}
	if refusal := r.limit(req, &decision); refusal != nil {
		return Decision{}, r.challenged(refusal, decision.Rule)
	}
	return decision, nil
}

// Confirm decides again about a request that was let through and whose answer
// still flows. The error is a *Refusal; of status 503 when nobody can say.
func (r *Resource) Confirm(ctx context.Context, g Grant) error {
	// With the leeway of a request: else a client that comes back with the token
	// that ended its stream would be let in and cut off again, over and over.
	if !r.cfg.Now().Before(g.token.expires().Add(r.cfg.Leeway)) {
		return invalidToken(errors.New("the token has expired"))
	}
	if _, _, refusal := r.admit(ctx, g); refusal != nil {
		return refusal
	}
	return nil
}

// challenged completes a refusal with what only the resource knows.
func (r *Resource) challenged(refusal *Refusal, rule *Rule) *Refusal {
	refusal.MetadataURL = r.metadataURL
	if rule != nil {
		refusal.Rule, refusal.Scopes = rule, rule.operationScopes()
	}
	return refusal
}

// ruleFor returns the rule of a request, nil when there is none. An upstream
// that routes on the bytes must be under the same rule as one that decodes.
func (r *Resource) ruleFor(method int, t target) (*Rule, *Refusal) {
	rule := r.table.match(method, t.path)
	if t.literal != "" && r.table.match(method, t.literal) != rule {
		return nil, badPath("an escape that is not needed")
	}
	return rule, nil
}

// authorizeUnmatched refuses, or lets a request pass that another part of the
// site answers. It stays when a more generous reader would find a rule: such an
// upstream must not be reached around the gate. (One that does not decode finds
// none that is not found here: a rule's literals have no escapes.)
func (r *Resource) authorizeUnmatched(method int, t target) (Decision, error) {
	if r.folded != nil && method >= 0 && !r.foldedMatch(method, t.path) {
		return Decision{}, nil
	}
	return Decision{}, r.challenged(noRule(), nil)
}

// foldedMatch reports whether a reader would find a rule that ignores case, or
// the slash at the end, or serves a folder for what is in it.
func (r *Resource) foldedMatch(method int, path string) bool {
	path = foldCase(path)
	bare := strings.TrimSuffix(path, "/")
	return r.folded.match(method, path) != nil || r.folded.match(method, bare) != nil || r.folded.match(method, bare+"/") != nil ||
		bare != path && r.folded.match(method, path+"index") != nil
}

// foldCase is the form that all spellings of a word share whose letters differ in
// case only; by way of upper case, which also takes letters like the long s.
func foldCase(path string) string { return strings.ToLower(strings.ToUpper(path)) }

// authorizeToken decides a request that a rule names by the credentials that it
// shows.
func (r *Resource) authorizeToken(req *http.Request, rule *Rule, shown credentials) (Decision, *Refusal) {
	token, err := r.verifier.verify(req.Context(), shown.token)
	if err != nil {
		return Decision{}, refusedToken(err)
	}
	var proof *dpop.Proof
	if shown.dpop || token.boundKey() != "" {
		var refusal *Refusal
		if proof, refusal = r.checkProof(req, shown, token); refusal != nil {
			return Decision{}, refusal
		}
	}
	identity, granted, refusal := r.admit(req.Context(), Grant{rule, token, shown.token})
	if refusal != nil {
		return Decision{}, refusal
	}
	decision := Decision{Rule: rule, Identity: identity, token: token, granted: granted}
	if r.byToken != nil {
		decision.shown = shown.token
	}
	if proof != nil {
		if refusal := r.useProof(req.Context(), proof); refusal != nil {
			return Decision{}, refusal
		}
		decision.NextNonce = proof.NextNonce
	}
	return decision, nil
}

// refusedToken is the refusal of a token that was not verified.
func refusedToken(err error) *Refusal {
	if errors.Is(err, errKeysUnknown) {
		return unconfirmed(err)
	}
	return invalidToken(err)
}

// admit decides what a genuine token allows at this moment.
func (r *Resource) admit(ctx context.Context, g Grant) (Identity, *grantedScopes, *Refusal) {
	t := g.token
	session, refusal := r.sessionOf(ctx, g)
	if refusal != nil {
		return Identity{}, nil, refusal
	}
	if !r.cfg.ClientAllowed(t.clientID) {
		return Identity{}, nil, invalidToken(errors.New("the client is not registered any more"))
	}
	granted := t.grantedBy(session.Scopes, &r.grants)
	id := Identity{
		UserID: t.userID(), ClientID: t.clientID, SessionID: t.sessionID(),
		Scopes: granted.text, ExpiresAt: t.expires(),
	}
	if id.UserID == id.ClientID {
		// The grant client_credentials: `sub` is the client. An upstream must not
		// take it for the user of that name. RFC 9068 section 5.
		id.UserID = ""
	} else {
		id.Claims = session.Claims
	}
	// The user first: whom a scope would not help must not be asked for one.
	if !g.rule.admits(id.Claims) {
		refusal := userNotAllowed()
		refusal.Identity = id
		return Identity{}, nil, refusal
	}
	if !g.rule.allows(granted.scopes) {
		refusal := insufficientScope()
		refusal.Identity = id
		return Identity{}, nil, refusal
	}
	return id, granted, nil
}

// sessionOf returns the session of the token as it stands. What was read for
// this token before is asked about first.
func (r *Resource) sessionOf(ctx context.Context, g Grant) (Session, *Refusal) {
	t := g.token
	if session, ok := r.cfg.Sessions.Held(t.session.Load()); ok {
		return session, nil
	}
	session, err := r.readSession(ctx, g)
	switch {
	case errors.Is(err, ErrSessionEnded):
		return Session{}, invalidToken(err)
	case err != nil:
		// Never 401 (clients would drop good tokens), never a pass.
		return Session{}, unconfirmed(fmt.Errorf("read session: %w", err))
	case session.UserID != t.userID() || session.ClientID != t.clientID:
		return Session{}, invalidToken(errors.New("the session is another user's or client's"))
	}
	if session.Handle != 0 {
		t.session.Store(session.Handle)
	}
	return session, nil
}

func (r *Resource) readSession(ctx context.Context, g Grant) (Session, error) {
	if r.byToken != nil {
		return r.byToken.ReadTokenSession(ctx, g.shown, r.cfg.Resource)
	}
	return r.cfg.Sessions.ReadSession(ctx, g.token.sessionID())
}

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
