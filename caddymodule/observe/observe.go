// Package observe counts what gates in a rehearsal would have refused, and says
// who would have to change what. It decides nothing.
package observe

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// maxRows bounds the memory: some 500 bytes each. What does not fit is counted in
// Report.Others.
const maxRows = 2000

// Kind is what requests of a row have in common.
type Kind struct {
	Gate   string `json:"gate"`             // where it is configured
	Rule   string `json:"rule,omitempty"`   // empty: no rule names the request, or it was not looked for
	Source string `json:"source,omitempty"` // of the rule
	Tool   string `json:"tool,omitempty"`   // of an MCP server, without a rule
	// Operation is method and path of requests that no rule names. Segments that
	// look like identifiers stand as *.
	Operation string `json:"operation,omitempty"`

	Status int    `json:"status"` // they would be answered with
	Code   string `json:"code,omitempty"`
	// Client is the client_id of a good token that lacks a scope, Agent how the
	// others call themselves, by User-Agent.
	Client  string `json:"client_id,omitempty"`
	Agent   string `json:"agent,omitempty"`
	Missing string `json:"missing_scopes,omitempty"` // separated by spaces
}

// Row counts requests of one kind.
type Row struct {
	Kind
	Count uint64    `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Example is the id of one of them, for caddy oauth explain --id, and its path.
	Example     string `json:"example"`
	ExamplePath string `json:"example_path"`
}

// Log counts requests by their kind. The zero value is ready for use, by many at
// once.
type Log struct {
	mu     sync.Mutex
	since  time.Time
	rows   map[Kind]*Row
	others uint64
}

// Add counts a request, and returns how many of its kind there were with it; 0:
// it is one of too many kinds.
func (l *Log) Add(kind Kind, id, path string, now time.Time) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rows == nil {
		l.rows, l.since = make(map[Kind]*Row), now
	}
	row := l.rows[kind]
	if row == nil {
		if len(l.rows) == maxRows {
			l.others++
			return 0
		}
		row = &Row{Kind: kind, First: now}
		l.rows[kind] = row
	}
	row.Count++
	row.Last, row.Example, row.ExamplePath = now, id, path
	return row.Count
}

// Report returns what was counted so far.
func (l *Log) Report() *Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	report := &Report{Since: l.since, Others: l.others, Rows: []Row{}}
	for _, row := range l.rows {
		report.Rows = append(report.Rows, *row)
	}
	report.sort()
	return report
}

// KindOf returns the kind of a refused request.
func KindOf(gate string, r *http.Request, refusal *validator.Refusal) Kind {
	kind := Kind{Gate: gate, Tool: refusal.Tool, Status: refusal.Status, Code: refusal.Code}
	switch {
	case refusal.Rule != nil:
		kind.Rule, kind.Source = refusal.Rule.String(), refusal.Rule.Source
	case refusal.Tool == "":
		kind.Operation = r.Method + " " + generalized(r.URL.EscapedPath())
	}
	if kind.Client = refusal.Identity.ClientID; kind.Client == "" {
		kind.Agent = agent(r.UserAgent())
		return kind
	}
	held, _ := oauth.ParseScope(refusal.Identity.Scopes) // ours, well-formed
	if refusal.Rule != nil {
		kind.Missing = refusal.Rule.Missing(held).String()
	}
	return kind
}

// maxText bounds what a client puts into a kind, in bytes.
const maxText = 128

// generalized replaces the segments of a path that differ from request to request:
// those with a digit or an escape, and long ones.
func generalized(path string) string {
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		if strings.ContainsAny(segment, "0123456789%") || len(segment) > 32 {
			segments[i] = "*"
		}
	}
	path = strings.Join(segments, "/")
	return path[:min(len(path), maxText)]
}

// agent is the first word of a User-Agent, without its version.
func agent(userAgent string) string {
	name, _, _ := strings.Cut(userAgent, " ")
	name, _, _ = strings.Cut(name, "/")
	if strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return ""
	}
	return name[:min(len(name), maxText/2)]
}

// Merge adds the counts of another node.
func (r *Report) Merge(other *Report) {
	if r.Since.IsZero() || !other.Since.IsZero() && other.Since.Before(r.Since) {
		r.Since = other.Since
	}
	r.Others += other.Others
	for _, row := range other.Rows {
		i := slices.IndexFunc(r.Rows, func(known Row) bool { return known.Kind == row.Kind })
		if i < 0 {
			r.Rows = append(r.Rows, row)
			continue
		}
		known := &r.Rows[i]
		known.Count += row.Count
		if row.First.Before(known.First) {
			known.First = row.First
		}
		if row.Last.After(known.Last) {
			known.Last, known.Example, known.ExamplePath = row.Last, row.Example, row.ExamplePath
		}
	}
	r.sort()
}
