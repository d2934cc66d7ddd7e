package validator

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/caddy-scope/caddy-scope/dpop"
)

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
