package validator

import (
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

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
