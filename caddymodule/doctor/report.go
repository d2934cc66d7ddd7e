package doctor

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is what was found about each product.
type Report struct {
	Issuer   string            `json:"issuer"`
	Live     string            `json:"live,omitempty"` // where the running server was reached
	Products []Product         `json:"products"`
	Sources  map[string]Source `json:"sources"`
	Notes    []string          `json:"notes,omitempty"`
}

// Fine reports whether every product works. chosen: somebody named them, so that
// one that is not served is not fine. Otherwise one of them must be served.
func (r *Report) Fine(chosen bool) bool {
	works := false
	for _, p := range r.Products {
		if p.Verdict == Fails || p.Verdict == NotServed && chosen {
			return false
		}
		works = works || p.Verdict == Works
	}
	return works
}

// WriteText writes the report for people; long: with every check.
func (r *Report) WriteText(to io.Writer, long bool) error {
	fmt.Fprintf(to, "issuer  %s\n", r.Issuer)
	if r.Live != "" {
		fmt.Fprintf(to, "live    %s\n", r.Live)
	}
	fmt.Fprintln(to)
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PRODUCT\tRESOURCE\tCLIENT\tVERDICT")
	for _, p := range r.Products {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", p.Name, dash(p.Resource), dash(p.Client), p.Verdict)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, p := range r.Products {
		if err := r.writeProduct(to, p, long); err != nil {
			return err
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintln(to, "\nnote:", note)
	}
	return nil
}

func (r *Report) writeProduct(to io.Writer, p Product, long bool) error {
	fmt.Fprintf(to, "\n%s: %s", p.Title, p.Verdict)
	if p.Resource != "" {
		fmt.Fprintf(to, " at %s", p.Resource)
	}
	fmt.Fprintln(to)
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if p.Note != "" && p.Verdict != NotServed {
		fmt.Fprintf(table, "  note\t%s\n", p.Note)
	}
	if p.Reason != "" {
		fmt.Fprintf(table, "  why\t%s\n", p.Reason)
		write(table, p.Mend)
	}
	var passed []string
	for _, result := range p.Results {
		switch {
		case long:
			fmt.Fprintf(table, "  %s\t%s: %s\n", result.Outcome, result.Check, strings.TrimSpace(result.Extent+" "+result.Reason))
		case result.Outcome == Pass:
			if result.Extent != "" {
				result.Check += " (" + result.Extent + ")"
			}
			passed = append(passed, result.Check)
			continue
		case result.Outcome == Unused:
			continue
		default:
			fmt.Fprintf(table, "  %s\t%s: %s\n", result.Outcome, result.Check, result.Reason)
		}
		write(table, result.Mend)
		if fact := result.Fact; fact != nil && (long || result.Outcome == Fail || result.Outcome == Warn) {
			fmt.Fprintf(table, "  \tknown from %s, %s\n", r.Sources[fact.Source].Title, r.Sources[fact.Source].Date)
			if fact.Note != "" {
				fmt.Fprintf(table, "  \t(%s)\n", fact.Note)
			}
		}
	}
	if len(passed) > 0 {
		fmt.Fprintf(table, "  pass\t%s\n", strings.Join(passed, ", "))
	}
	return table.Flush()
}

// write shows what to write, a line for a line.
func write(table io.Writer, mend string) {
	for i, line := range slices.Collect(strings.SplitSeq(mend, "\n")) {
		if label := "  write"; line != "" {
			if i > 0 {
				label = "  "
			}
			fmt.Fprintf(table, "%s\t%s\n", label, strings.ReplaceAll(line, "\t", "    "))
		}
	}
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
