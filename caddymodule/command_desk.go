package caddymodule

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
)

// onDesk makes the function of a command that does what the admin API does, on
// the database of the configuration.
func onDesk(f func(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, args []string) error) func(*cobra.Command, []string) error {
	return runWithApp(func(ctx context.Context, cmd *cobra.Command, app *App, args []string) error {
		db, err := app.openDatabase(ctx)
		if err != nil {
			return err
		}
		return f(ctx, cmd, app.administration(&runtime{db: db.store}), args)
	})
}

// listFlags are those of every list.
func listFlags(cmd *cobra.Command) {
	cmd.Flags().Int("limit", admin.DefaultLimit, fmt.Sprintf("How many at most, 1 to %d", admin.MaxLimit))
	cmd.Flags().String("after", "", "Go on after the cursor that the list before ended with")
	cmd.Flags().Bool("json", false, "Answer in JSON: an object with items and, when there is more, next")
}

func jsonFlag(cmd *cobra.Command) { cmd.Flags().Bool("json", false, "Answer in JSON") }

func pagingOf(cmd *cobra.Command) (p admin.Paging) {
	p.Limit, _ = cmd.Flags().GetInt("limit")
	p.After, _ = cmd.Flags().GetString("after")
	if p.Limit == 0 { // which would be the default
		p.Limit = -1
	}
	return p
}

// printPage prints a list: in JSON as the API has it, else as a table, and on
// standard error how to go on.
func printPage[T any](cmd *cobra.Command, page admin.Page[T], header string, row func(T) []string) error {
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return writeJSON(cmd.OutOrStdout(), page)
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.ReplaceAll(header, " ", "\t"))
	for _, item := range page.Items {
		cells := row(item)
		for i := range cells {
			cells[i] = cmp.Or(onScreen(cells[i]), "-")
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if page.Next != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "There may be more: the same again with --after %s\n", page.Next)
	}
	return nil
}

// printRecord prints one thing: in JSON, else each member on a line, lists with
// spaces between.
func printRecord(cmd *cobra.Command, record any, lines ...[2]string) error {
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return writeJSON(cmd.OutOrStdout(), record)
	}
	return printLines(cmd.OutOrStdout(), lines)
}

func printLines(to io.Writer, lines [][2]string) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		if line[1] != "" {
			fmt.Fprintf(table, "%s\t%s\n", line[0], onScreen(line[1]))
		}
	}
	return table.Flush()
}

// onScreen leaves of a text what can be seen: names and documents come from
// strangers, and must neither begin a line nor speak to the terminal.
func onScreen(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c):
			return ' '
		case unicode.IsGraphic(c):
			return c
		}
		return unicode.ReplacementChar
	}, text)
}

func moment(t time.Time) string { return t.UTC().Format(time.DateTime) }

func momentOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return moment(*t)
}

// counting shows at standard error how far a call has come.
func counting(cmd *cobra.Command, desk *admin.Admin, what string) (done func()) {
	p := newProgress(cmd.ErrOrStderr(), what)
	desk.Progress = p.at
	return p.done
}
