package rules

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// Diff is what another configuration lets callers do that this one does not, and
// the other way round.
type Diff struct {
	Changes  []Change       `json:"changes"`
	Bypasses []BypassChange `json:"bypasses"`
	Clients  []ClientChange `json:"clients"`
	// Rates of rules that stand in both.
	Rates []RateChange `json:"rates,omitempty"`
	// Notes say what the comparison does not know.
	Notes []string `json:"notes,omitempty"`
}

// Change is a set of requests whose callers change.
type Change struct {
	// Hosts that the requests are for; "*" is any that no site names.
	Hosts   []string `json:"hosts"`
	Server  string   `json:"server"`  // the addresses that it listens at
	Methods []string `json:"methods"` // each one: GET does not include HEAD here
	// Path is a pattern in the grammar of rules; the paths of Except are not part
	// of it.
	Path   string   `json:"path"`
	Except []string `json:"except,omitempty"`
	// Tool of an MCP server that the requests call; empty: all of them, or none.
	Tool    string `json:"tool,omitempty"`
	Example string `json:"example"` // one path of the set

	Was Side `json:"was"`
	Is  Side `json:"is"`
	// GainedBy are the least callers that pass now and did not before, LostBy those
	// that did and do no more. Whoever holds more is like them, unless it is enough
	// for the other configuration too.
	GainedBy []Caller `json:"gained_by"`
	LostBy   []Caller `json:"lost_by"`
}

// Side is what becomes of the requests under one of the configurations.
type Side struct {
	// Outcome is "rule" (Rule decides), "no_rule" (a gate refuses), "observed" (a
	// gate refuses, in a rehearsal only: they pass), "open" (no gate stands before Handler), "bypass", "unmatched" (a short-form gate does not name
	// them), "nothing" (no handler takes them) or "authorization_server".
	Outcome  string `json:"outcome"`
	Rule     string `json:"rule,omitempty"`
	Source   string `json:"source,omitempty"`
	Gate     string `json:"gate,omitempty"`
	Resource string `json:"resource,omitempty"`
}

// BypassChange is other matchers of requests that pass a gate untouched. What
// they match is not compared beyond host, method and path.
type BypassChange struct {
	GateWas string `json:"gate_was,omitempty"`
	GateIs  string `json:"gate_is,omitempty"`
	Was     string `json:"was,omitempty"` // in JSON
	Is      string `json:"is,omitempty"`
}

// RateChange is a rule whose callers may come more or less often than before.
type RateChange struct {
	Resource string   `json:"resource"`
	Rule     string   `json:"rule"`
	Was      []string `json:"was"` // as 30/m per user; null: as often as they like
	Is       []string `json:"is"`
}

// ClientChange is a client that can get other scopes than before.
type ClientChange struct {
	Client string   `json:"client"`
	Was    []string `json:"was"` // scopes; null: it was not there, or got no token
	Is     []string `json:"is"`
}

// Empty reports whether nothing changes.
func (d *Diff) Empty() bool { return len(d.Changes)+len(d.Bypasses)+len(d.Clients)+len(d.Rates) == 0 }

// Compare returns the change between two requirements of tokens for a resource,
// and whether there is any.
func (c Change) Compare(was, is Requirement) (Change, bool) {
	c.GainedBy, c.LostBy = is.Beyond(was), was.Beyond(is)
	if c.Was.Resource != c.Is.Resource && was.needsToken() && is.needsToken() {
		// A token for the one is none for the other.
		c.GainedBy, c.LostBy = is.Beyond(Never), was.Beyond(Never)
	}
	changed := len(c.GainedBy)+len(c.LostBy) > 0
	if c.GainedBy == nil {
		c.GainedBy = []Caller{}
	}
	if c.LostBy == nil {
		c.LostBy = []Caller{}
	}
	return c, changed
}

// SameCallers reports whether both changes let in and keep out the same callers.
func (c Change) SameCallers(other Change) bool {
	same := func(a, b Caller) bool { return a.Anonymous == b.Anonymous && slices.Equal(a.Scopes, b.Scopes) }
	return slices.EqualFunc(c.GainedBy, other.GainedBy, same) && slices.EqualFunc(c.LostBy, other.LostBy, same)
}

func (r Requirement) needsToken() bool { return !r.open && !r.never }

// And returns the requirement of whoever meets both.
func (r Requirement) And(other Requirement) Requirement {
	switch {
	case r.never || other.never:
		return Never
	case r.open:
		return other
	case other.open:
		return r
	}
	return Requirement{groups: slices.Concat(r.groups, other.groups)}.simplified()
}

// CompareClients returns the clients whose reach differs.
func CompareClients(was, is map[string]oauth.ScopeSet) []ClientChange {
	changes := []ClientChange{}
	names := make(map[string]bool)
	for name := range was {
		names[name] = true
	}
	for name := range is {
		names[name] = true
	}
	for name := range names {
		before, had := was[name]
		now, has := is[name]
		if had == has && before.Equal(now) {
			continue
		}
		changes = append(changes, ClientChange{Client: name, Was: listed(before, had), Is: listed(now, has)})
	}
	slices.SortFunc(changes, func(a, b ClientChange) int { return strings.Compare(a.Client, b.Client) })
	return changes
}

func listed(scopes oauth.ScopeSet, there bool) []string {
	if !there {
		return nil
	}
	return append([]string{}, scopes...)
}

// WriteText writes the changes for people.
func (d *Diff) WriteText(to io.Writer) error {
	servers := make(map[string]bool)
	for _, c := range d.Changes {
		servers[c.Server] = true
	}
	for _, c := range d.Changes {
		if err := c.writeText(to, len(servers) > 1); err != nil {
			return err
		}
	}
	for _, b := range d.Bypasses {
		fmt.Fprintf(to, "~ gate %s: bypass %s, was %s\n", cmp.Or(b.GateIs, b.GateWas), cmp.Or(b.Is, "none"), cmp.Or(b.Was, "none"))
	}
	for _, c := range d.Clients {
		fmt.Fprintf(to, "~ client %s: %s, was %s\n", c.Client, scopesText(c.Is), scopesText(c.Was))
	}
	for _, r := range d.Rates {
		fmt.Fprintf(to, "~ %s: at %s, was %s\n", r.Rule, cmp.Or(strings.Join(r.Is, ", "), "any rate"), cmp.Or(strings.Join(r.Was, ", "), "any rate"))
	}
	for _, note := range d.Notes {
		fmt.Fprintf(to, "note: %s\n", note)
	}
	if d.Empty() {
		_, err := fmt.Fprintln(to, "nothing changes: the same callers can call the same operations")
		return err
	}
	return nil
}

func scopesText(scopes []string) string {
	switch {
	case scopes == nil:
		return "gets no token"
	case len(scopes) == 0:
		return "gets no scope"
	}
	return "gets at most " + strings.Join(scopes, " ")
}

// maxExcept bounds the exceptions that the text names; JSON has them all.
const maxExcept = 4

func (c *Change) writeText(to io.Writer, withServer bool) error {
	mark := "~"
	switch {
	case len(c.LostBy) == 0 && len(c.GainedBy) > 0:
		mark = "+"
	case len(c.GainedBy) == 0 && len(c.LostBy) > 0:
		mark = "-"
	}
	line := fmt.Sprintf("%s %s %s", mark, methodsText(c.Methods), c.Path)
	if c.Tool != "" {
		line += "  tool " + c.Tool
	}
	if except := c.Except; len(except) > 0 {
		more := ""
		if len(except) > maxExcept {
			except, more = except[:maxExcept], fmt.Sprintf(" and %d more", len(except)-maxExcept)
		}
		line += "  (except " + strings.Join(except, " ") + more + ")"
	}
	if hosts := strings.Join(c.Hosts, " "); hosts != "*" {
		line += "  on " + hosts
	}
	if withServer {
		line += "  at " + c.Server
	}
	fmt.Fprintln(to, line)
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	say := func(what, text string) {
		if text != "" {
			fmt.Fprintf(out, "    %s\t%s\n", what, text)
		}
	}
	say("callable now by", callersText(c.GainedBy))
	say("no more by", callersText(c.LostBy))
	say("was", c.Was.text())
	say("is", c.Is.text())
	if c.Was.Resource != c.Is.Resource && c.Was.Resource != "" && c.Is.Resource != "" {
		say("tokens for", c.Is.Resource+", was "+c.Was.Resource)
	}
	return out.Flush()
}

func callersText(callers []Caller) string {
	texts := make([]string, len(callers))
	for i, caller := range callers {
		texts[i] = caller.String()
	}
	return strings.Join(texts, ", ")
}

func (s *Side) text() string {
	switch s.Outcome {
	case "rule":
		return s.Rule + "  " + s.Source
	case "no_rule":
		return "no rule of the gate " + s.Gate + ": refused"
	case "observed":
		return strings.TrimSpace("open: only observed by the gate " + s.Gate + "  " + s.Rule + "  " + s.Source)
	case "open":
		return "open: no gate stands before it"
	case "bypass":
		return "bypasses the gate " + s.Gate
	case "unmatched":
		return "open: the gate " + s.Gate + " does not name it"
	case "authorization_server":
		return "answered by oauth_server"
	}
	return "nothing takes it"
}

// methodsText writes methods as a rule would.
func methodsText(methods []string) string {
	if len(methods) == 7 {
		return "*"
	}
	get := slices.Contains(methods, "GET")
	var texts []string
	for _, method := range methods {
		switch {
		case method == "HEAD" && get:
		case method == "GET" && !slices.Contains(methods, "HEAD"):
			texts = append(texts, "GET(not HEAD)")
		default:
			texts = append(texts, method)
		}
	}
	return strings.Join(texts, ",")
}
