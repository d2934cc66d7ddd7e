package observe

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// Report lists who would break if the gates were in earnest.
type Report struct {
	Since time.Time `json:"since"` // zero: no such request came by
	Rows  []Row     `json:"rows"`  // the most frequent first
	// Others counts requests of kinds that are not listed, as there are too many.
	Others uint64 `json:"others,omitempty"`
}

// Empty reports whether nobody would break.
func (r *Report) Empty() bool { return len(r.Rows) == 0 && r.Others == 0 }

func (r *Report) sort() {
	slices.SortFunc(r.Rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Rule+a.Operation, b.Rule+b.Operation), strings.Compare(a.Client+a.Agent, b.Client+b.Agent), a.First.Compare(b.First))
	})
}

// WriteText writes the report for people.
func (r *Report) WriteText(to io.Writer) error {
	if r.Empty() {
		_, err := fmt.Fprintln(to, "no request passed that would have been refused")
		return err
	}
	total := r.Others
	for _, row := range r.Rows {
		total += row.Count
	}
	fmt.Fprintf(to, "%d requests passed since %s that would have been refused\n\n", total, r.Since.UTC().Format(time.RFC3339))
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "COUNT\tWHO\tREQUEST\tANSWER\tTO DO\tLAST, FOR EXAMPLE")
	for _, row := range r.Rows {
		fmt.Fprintf(out, "%d\t%s\t%s\t%s\t%s\t%s %s %s\n", row.Count, row.who(), row.what(),
			strings.TrimSpace(fmt.Sprintf("%d %s", row.Status, row.Code)), row.remedy(), row.Last.UTC().Format(time.RFC3339), row.ExamplePath, row.Example)
	}
	if r.Others > 0 {
		fmt.Fprintf(out, "%d\tothers, of kinds beyond the first %d\t\t\t\t\n", r.Others, maxRows)
	}
	return out.Flush()
}

func (k *Kind) who() string {
	switch {
	case k.Client != "":
		return "client " + k.Client
	case k.Agent != "":
		return "agent " + k.Agent
	}
	return "unnamed"
}

func (k *Kind) what() string {
	switch {
	case k.Rule != "":
		return k.Rule + "  " + k.Source
	case k.Tool != "":
		return "tool " + k.Tool + "  " + k.Gate
	}
	return k.Operation + "  " + k.Gate
}

// remedy is what has to change for such requests to pass in earnest.
func (k *Kind) remedy() string {
	switch {
	case k.Code == oauth.CodeInsufficientScope:
		return "the client asks its users for " + k.Missing
	case k.Code == oauth.CodeInvalidToken:
		return "the client refreshes its token, or gets one of this server"
	case k.Status == http.StatusUnauthorized:
		return "the client gets a token; for the owner's own traffic a bypass"
	case k.Tool != "":
		return "a line for the gate: tool " + k.Tool + " SCOPE"
	case k.Code == oauth.CodeAccessDenied:
		return "a rule for the gate: " + k.Operation + " SCOPE"
	case k.Status >= http.StatusInternalServerError:
		return "nothing: it could not be decided at that moment"
	}
	return "the request is malformed for a gate: caddy oauth explain --id says how"
}
