// Package explain says in words and in JSON why a gate decided about a request
// as it did. It decides nothing: what it tells comes from the gate.
package explain

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// Outcome is what became of a request.
type Outcome string

// The outcomes.
const (
	Allowed             Outcome = "allowed"
	Preflight           Outcome = "preflight" // a CORS preflight, passed on or answered
	Bypass              Outcome = "bypass"    // the owner's own traffic
	Unmatched           Outcome = "unmatched" // a short-form gate does not name it
	Refused             Outcome = "refused"
	Observed            Outcome = "observed"  // it passes, but would be refused in earnest
	NotGated            Outcome = "not_gated" // no gate stood on its way
	AuthorizationServer Outcome = "authorization_server"
)

// Explanation is the whole answer about one request.
type Explanation struct {
	// ID and Time are those of a request that happened; zero: none did.
	ID   string    `json:"id,omitempty"`
	Time time.Time `json:"time,omitzero"`

	Method string `json:"method"`
	Host   string `json:"host"`
	Path   string `json:"path"` // escaped, without the query; see MaxPath

	Outcome  Outcome `json:"outcome"`
	Gate     string  `json:"gate,omitempty"`     // where it is configured, such as "Caddyfile:31"
	Resource string  `json:"resource,omitempty"` // what tokens must be for
	Rule     *Rule   `json:"rule,omitempty"`     // nil: none decided
	Tools    []*Rule `json:"tools,omitempty"`    // the rules of the tools that are called, to be met too

	Caller *Caller  `json:"caller,omitempty"` // nil: nobody in particular
	Missed []string `json:"missing_scopes,omitempty"`
	// MissedOfUser is what is asked of the user and the caller does not meet.
	MissedOfUser []string `json:"missing_of_user,omitempty"`

	// Answer is what the client is sent. Of a request that passes it is the
	// upstream's affair, and nil.
	Answer *Answer `json:"answer,omitempty"`
	// Withheld is what a client whose request is only observed would be sent.
	Withheld *Answer `json:"withheld_answer,omitempty"`
	// Forwarded are the identity headers that the upstream gets.
	Forwarded http.Header `json:"forwarded,omitempty"`
	// Handler that the request comes to behind the gates, such as "reverse_proxy
	// localhost:9001"; known offline only.
	Handler string `json:"handler,omitempty"`

	Cause string   `json:"cause,omitempty"` // what the client does not hear
	Notes []string `json:"notes,omitempty"` // what the answer assumes, and what to do
}

// MaxPath bounds Explanation.Path in bytes.
const MaxPath = 2048

// Rule is the rule that decided.
type Rule struct {
	Text   string   `json:"text"`
	Source string   `json:"source,omitempty"`
	Access string   `json:"access"`
	Scopes []string `json:"scopes,omitempty"` // needed: all of them, of access any one
	User   []string `json:"user,omitempty"`   // asked of the user besides, as CLAIM=VALUE,VALUE: all of it
	Rates  []string `json:"rates,omitempty"`  // that bound how often callers may come, as 30/m per user
}

// Caller is who a good token is of.
type Caller struct {
	ClientID  string   `json:"client_id"`
	UserID    string   `json:"user_id,omitempty"` // empty: the client acts for itself
	SessionID string   `json:"session_id"`
	Scopes    []string `json:"scopes"` // held, with what they imply
}

// Answer is an answer of the gate.
type Answer struct {
	Status int         `json:"status"`
	Header http.Header `json:"headers"`
	Body   string      `json:"body,omitempty"`
}

// Passes reports whether the request gets behind the gate.
func (e *Explanation) Passes() bool { return e.Outcome != Refused }

// Request begins the explanation of a request.
func Request(r *http.Request) *Explanation {
	path := r.URL.EscapedPath()
	// Explanations are kept; the request's line and header, of which these are
	// pieces and which may be a megabyte, must not be.
	return &Explanation{Method: strings.Clone(r.Method), Host: strings.Clone(r.Host), Path: strings.Clone(path[:min(len(path), MaxPath)])}
}

// Decide adds a rule and the caller that it let in. rule may be nil.
func (e *Explanation) Decide(rule *validator.Rule, caller validator.Identity) {
	if rule != nil {
		parts := rule.Parts()
		e.Rule = describe(parts[0])
		for _, tool := range parts[1:] {
			e.Tools = append(e.Tools, describe(tool))
		}
	}
	if caller.SessionID == "" {
		return
	}
	held, _ := oauth.ParseScope(caller.Scopes) // ours, well-formed
	// The ids are parts of a larger text.
	e.Caller = &Caller{ClientID: caller.ClientID, UserID: strings.Clone(caller.UserID), SessionID: strings.Clone(caller.SessionID), Scopes: append([]string{}, held...)}
	if rule != nil {
		e.Missed = rule.Missing(held)
		e.MissedOfUser = requirements(rule.MissingOfUser(caller.Claims))
	}
}

// Observe turns a refusal into one that the request was spared.
func (e *Explanation) Observe() {
	e.Outcome, e.Answer, e.Withheld = Observed, nil, e.Answer
	e.Notes = append([]string{"the gate only observes this: the request passes as it came, without identity; caddy oauth report lists such requests"}, e.Notes...)
}

// NoteRates says that a request which passes was not counted.
func (e *Explanation) NoteRates() {
	if e.Rule == nil {
		return
	}
	for _, rule := range append([]*Rule{e.Rule}, e.Tools...) {
		if len(rule.Rates) > 0 {
			e.note("not decided here: whether the caller comes too often (" + strings.Join(rule.Rates, ", ") + "); a live gate answers 429 then")
		}
	}
}

func requirements(list []oauth.UserRequirement) []string {
	var texts []string
	for _, r := range list {
		texts = append(texts, r.String())
	}
	return texts
}

func describe(rule *validator.Rule) *Rule {
	return &Rule{Text: rule.String(), Source: rule.Source, Access: string(rule.Access), Scopes: rule.Scopes, User: requirements(rule.User), Rates: rule.RateTexts()}
}

// Refuse adds a refusal with the header fields that were sent for it.
func (e *Explanation) Refuse(refusal *validator.Refusal, header http.Header, body string) {
	e.Outcome = Refused
	e.Decide(refusal.Rule, refusal.Identity)
	if e.Caller == nil && e.Rule != nil && refusal.Tool == "" {
		e.Missed = slices.Clone(refusal.Scopes) // no good token: it lacks them all
	}
	e.Answer = &Answer{Status: refusal.Status, Header: header, Body: body}
	if refusal.Cause != nil {
		e.Cause = refusal.Cause.Error()
	}
	switch {
	case refusal.Limits != nil:
		e.note("the caller came too often: " + refusal.Limits[0].Limit.Name + "; the next request passes after Retry-After")
	case refusal.Tool != "":
		e.note("no rule names this tool: to open it, add a line such as \"tool " + refusal.Tool + " SCOPE\" to the gate")
	case len(e.MissedOfUser) > 0:
		e.note("no scope helps: the user must have " + strings.Join(e.MissedOfUser, " and ") + "; what a login keeps of its users is as of their last sign-in")
	case refusal.Code == oauth.CodeAccessDenied:
		e.note("no rule names this method and path: to open it, add a rule such as \"" + e.Method + " " + e.Path + " SCOPE\" to the gate")
	case refusal.Code == oauth.CodeInsufficientScope:
		e.note("the client must ask the user for the missing scope: the challenge tells it so")
	}
}

func (e *Explanation) note(text string) { e.Notes = append(e.Notes, text) }
