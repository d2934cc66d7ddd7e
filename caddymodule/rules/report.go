package rules

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is every table of a configuration.
type Report struct {
	Issuer string  `json:"issuer"`
	Tables []Table `json:"tables"`
	// OpenAPI compares the tables with a document; nil: none was given.
	OpenAPI *Coverage `json:"openapi,omitempty"`
}

// Table is the rules that some gates decide by.
type Table struct {
	Resource string   `json:"resource"` // what tokens must be for
	Gates    []string `json:"gates"`    // where they are configured
	// PassUnmatched: what no rule covers passes (the short form with a matcher);
	// else it is refused.
	PassUnmatched bool `json:"pass_unmatched,omitempty"`
	// Observed are the gates that refuse nobody, or not all callers that they
	// should: those with the word mode.
	Observed []string `json:"observed,omitempty"`
	Rules    []Row    `json:"rules"`
}

// Row is one rule.
type Row struct {
	Methods []string `json:"methods,omitempty"` // GET includes HEAD; none: any
	Path    string   `json:"path"`
	Access  string   `json:"access"` // scopes, any, authenticated, public
	Scopes  []string `json:"scopes,omitempty"`
	// User is what is asked of the user besides, as CLAIM=VALUE,VALUE: all of it.
	User    []string `json:"user,omitempty"`
	Observe bool     `json:"observe,omitempty"` // what it refuses passes
	// Rates bound how often callers may come, as 30/m per user.
	Rates  []string `json:"rates,omitempty"`
	Source string   `json:"source,omitempty"`
	// Grants lists scopes that users may grant; one of each list is needed. It is
	// Scopes with the hierarchy worked out.
	Grants [][]string `json:"grants,omitempty"`
	// Clients that can get a token which passes, if their user grants it. Of a
	// public rule: none, as no token is looked at.
	Clients []string `json:"clients"`
}

// WriteText writes the report for people.
func (r *Report) WriteText(to io.Writer) error {
	for i, table := range r.Tables {
		if i > 0 {
			fmt.Fprintln(to)
		}
		rest := "refused: 403"
		if table.PassUnmatched {
			rest = "let through"
		}
		fmt.Fprintf(to, "resource %s  (gate %s; what no rule covers is %s)\n", table.Resource, strings.Join(table.Gates, ", "), rest)
		if len(table.Observed) > 0 {
			fmt.Fprintf(to, "NOT IN EARNEST: mode of gate %s lets refused requests pass\n", strings.Join(table.Observed, ", "))
		}
		fmt.Fprintln(to)
		out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
		fmt.Fprintln(out, "METHODS\tPATH\tNEEDS\tUSERS GRANT\tCLIENTS\tAT")
		for _, row := range table.Rules {
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\n", row.methods(), row.Path, row.needs(), row.grants(), row.clients(), row.Source)
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	if r.OpenAPI == nil {
		return nil
	}
	return r.OpenAPI.writeText(to)
}

func (r *Row) methods() string {
	if r.Methods == nil {
		return "*"
	}
	return strings.Join(r.Methods, ",")
}

func (r *Row) needs() string {
	if r.Observe {
		earnest := *r
		earnest.Observe = false
		return "observe: " + earnest.needs()
	}
	var words []string
	switch r.Access {
	case "scopes":
		words = r.Scopes
	case "any":
		words = append([]string{"any"}, r.Scopes...)
	default:
		words = []string{r.Access}
	}
	needs := strings.Join(slices.Concat(words, r.User), " ")
	if len(r.Rates) > 0 {
		needs += " at " + strings.Join(r.Rates, ", ")
	}
	return needs
}

func (r *Row) grants() string {
	switch r.Access {
	case "public":
		return "-"
	case "authenticated":
		return "anything"
	}
	groups := make([]string, len(r.Grants))
	for i, group := range r.Grants {
		if groups[i] = strings.Join(group, "|"); len(r.Grants) > 1 && len(group) > 1 {
			groups[i] = "(" + groups[i] + ")"
		}
	}
	return strings.Join(groups, " ")
}

func (r *Row) clients() string {
	switch {
	case r.Access == "public":
		return "anyone"
	case len(r.Clients) == 0:
		return "NONE"
	}
	return strings.Join(r.Clients, " ")
}

// Coverage is what a document and the tables say of each other.
type Coverage struct {
	Document   string `json:"document"`
	Operations int    `json:"operations"`
	// Unruled are documented operations without a rule: they are refused.
	Unruled []Operation `json:"without_rule"`
	// Undocumented are rules that no operation of the document comes under.
	Undocumented []Row `json:"without_operation"`
	// Odd are operations that no rule can name.
	Odd []Operation `json:"not_comparable"`
}

// Operation is one operation of a document.
type Operation struct {
	Method  string `json:"method"`
	Path    string `json:"path"` // with the prefix of the server
	ID      string `json:"operation_id,omitempty"`
	Source  string `json:"source"`
	Problem string `json:"problem,omitempty"`
}

// Complete reports whether document and rules cover each other.
func (c *Coverage) Complete() bool { return len(c.Unruled)+len(c.Undocumented)+len(c.Odd) == 0 }

func (c *Coverage) writeText(to io.Writer) error {
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "\n%s: %d operations, %d without a rule, %d that cannot be compared; %d rules without an operation\n",
		c.Document, c.Operations, len(c.Unruled), len(c.Odd), len(c.Undocumented))
	for _, op := range slices.Concat(c.Unruled, c.Odd) {
		problem := "no rule"
		if op.Problem != "" {
			problem = op.Problem
		}
		fmt.Fprintf(out, "%s\t%s %s\t%s\t%s\n", problem, op.Method, op.Path, op.ID, op.Source)
	}
	for _, row := range c.Undocumented {
		fmt.Fprintf(out, "no operation\t%s %s\t%s\t%s\n", row.methods(), row.Path, row.needs(), row.Source)
	}
	return out.Flush()
}
