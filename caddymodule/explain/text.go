package explain

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText writes the explanation for people.
func (e *Explanation) WriteText(to io.Writer) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", name, value)
		}
	}
	line("request", fmt.Sprintf("%s %s  (host %s)", e.Method, e.Path, e.Host))
	line("id", e.ID)
	if !e.Time.IsZero() {
		line("time", e.Time.UTC().Format(time.RFC3339))
	}
	line("outcome", string(e.Outcome))
	line("gate", e.Gate)
	line("resource", e.Resource)
	if e.Rule != nil {
		line("rule", strings.TrimSpace(e.Rule.Text+"  "+e.Rule.Source))
		line("needed", e.Rule.needed())
		line("rates", strings.Join(e.Rule.Rates, ", "))
	}
	for _, tool := range e.Tools {
		line("tool rule", strings.TrimSpace(tool.Text+"  "+tool.Source))
		line("needed too", tool.needed())
		line("rates", strings.Join(tool.Rates, ", "))
	}
	if e.Caller != nil {
		line("client", e.Caller.ClientID)
		line("held", strings.Join(e.Caller.Scopes, " "))
	}
	line("missing", strings.Join(e.Missed, " "))
	line("user lacks", strings.Join(e.MissedOfUser, " "))
	line("cause", e.Cause)
	line("goes to", e.Handler)
	for _, name := range slices.Sorted(maps.Keys(e.Forwarded)) {
		line("  "+name, strings.Join(e.Forwarded[name], ", "))
	}
	for _, note := range e.Notes {
		line("note", note)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if e.Withheld != nil {
		fmt.Fprintf(to, "\nIn earnest it would be answered:\n")
		return e.Withheld.writeText(to)
	}
	if e.Answer == nil {
		return nil
	}
	return e.Answer.writeText(to)
}

func (r *Rule) needed() string {
	text := strings.Join(r.Scopes, " ")
	switch r.Access {
	case "any":
		text = "one of " + text
	case "authenticated":
		text = "any live session"
	case "public":
		text = "nothing"
	}
	if len(r.User) > 0 {
		text += ", of a user with " + strings.Join(r.User, " and ")
	}
	return text
}

// writeText writes the answer as it stands on the wire.
func (a *Answer) writeText(to io.Writer) error {
	fmt.Fprintf(to, "\n%d %s\n", a.Status, http.StatusText(a.Status))
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		for _, value := range a.Header[name] {
			fmt.Fprintf(to, "%s: %s\n", name, value)
		}
	}
	_, err := fmt.Fprintf(to, "\n%s\n", a.Body)
	return err
}
