package caddymodule

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/rules"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/openapi"
	"github.com/caddy-scope/caddy-scope/validator"
)

func rulesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rules", Short: "Lists the scope rules, and who can get past each", Args: cobra.NoArgs,
		Long: `
Lists every scope rule of every gate: methods and path, what is needed, which
scopes a user has to grant for that (another scope may include the needed one),
the clients that can get such a token, and the line of the configuration. Of the
rules that match a request the most specific one decides.

It works offline; no database is asked. Clients that registered themselves stand
as (registered), with the most that any of them can get.

With --openapi it also says which operations of the document have no rule, so
that they are refused, and which rules no operation comes under.

Exit status: 0 listed, 2 document and rules do not cover each other, 1 neither is
known.`,
		Example: "  caddy oauth rules\n  caddy oauth rules --openapi api.yaml\n  caddy oauth rules --json | jq '.tables[].rules[] | select(.access == \"public\")'",
		RunE:    listRules,
	}
	flags := cmd.Flags()
	flags.Bool("json", false, "Answer in JSON")
	flags.String("openapi", "", "OpenAPI document to compare the rules with")
	flags.String("prefix", "", "Stands before the paths of the document (default: the path of its servers)")
	return cmd
}

func listRules(cmd *cobra.Command, _ []string) error {
	cmd.SilenceUsage = true
	config, err := commandConfigJSON(cmd)
	if err != nil {
		return err
	}
	h, err := newRehearsal(config)
	if err != nil {
		return err
	}
	report, err := h.app.rulesReport()
	if err != nil {
		return err
	}
	if file, _ := cmd.Flags().GetString("openapi"); file != "" {
		prefix, _ := cmd.Flags().GetString("prefix")
		if report.OpenAPI, err = h.app.coverage(report, file, prefix); err != nil {
			return err
		}
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		err = writeJSON(cmd.OutOrStdout(), report)
	} else {
		err = report.WriteText(cmd.OutOrStdout())
	}
	if err == nil && report.OpenAPI != nil && !report.OpenAPI.Complete() {
		return exitWith(cmd, exitNo)
	}
	return err
}

// errNoGate: there is no table to tell about.
var errNoGate = errors.New("the configuration has no oauth_protect, so it has no rules")

func (a *App) rulesReport() (*rules.Report, error) {
	if len(a.gates) == 0 {
		return nil, errNoGate
	}
	report := &rules.Report{Issuer: a.issuer}
	hierarchy, reaches := rules.NewHierarchy(a.catalog), a.clientReaches()
	for _, set := range a.ruleSets() {
		table := rules.Table{Resource: set.resource.Identifier(), Gates: set.sources(), PassUnmatched: set.gates[0].PassUnmatched}
		for _, gate := range set.gates {
			if gate.Mode != nil {
				table.Observed = append(table.Observed, place(gate.Source))
			}
		}
		for _, rule := range set.resource.Rules() {
			table.Rules = append(table.Rules, ruleRow(rule, hierarchy.Of(rule), reaches))
		}
		report.Tables = append(report.Tables, table)
	}
	return report, nil
}

func ruleRow(rule *validator.Rule, requirement rules.Requirement, reaches []reach) rules.Row {
	row := rules.Row{
		Methods: slices.Clone(rule.Methods), Path: rule.Path, Access: string(rule.Access), Scopes: rule.Scopes, User: userTexts(rule.User), Observe: rule.Observe, Source: rule.Source,
		Grants: requirement.Groups(), Clients: []string{}, Rates: rule.RateTexts(),
	}
	if rule.Access == validator.AccessPublic {
		return row
	}
	for _, r := range reaches {
		if requirement.OfScopes().Admits(r.scopes) {
			row.Clients = append(row.Clients, r.client)
		}
	}
	return row
}

func userTexts(required []oauth.UserRequirement) []string {
	var texts []string
	for _, r := range required {
		texts = append(texts, r.String())
	}
	return texts
}

// coverage compares the rules with the operations of a document.
func (a *App) coverage(report *rules.Report, file, prefix string) (*rules.Coverage, error) {
	document, err := a.document("--openapi", file)
	if err != nil {
		return nil, err
	}
	operations, err := document.Operations(prefix)
	if err != nil {
		return nil, fmt.Errorf("--openapi: %w", err)
	}
	c := &rules.Coverage{Document: file, Operations: len(operations), Unruled: []rules.Operation{}, Undocumented: []rules.Row{}, Odd: []rules.Operation{}}
	var rows []rules.Row
	for _, table := range report.Tables {
		rows = append(rows, table.Rules...)
	}
	documented, ruled := make([]bool, len(rows)), make([]bool, len(operations))
	validator.Compare(operationRules(operations), rowRules(rows), func(i, j int, within bool) {
		documented[j] = true
		ruled[i] = ruled[i] || within
	})
	for i, o := range operations {
		operation := rules.Operation{Method: o.Method, Path: o.Path, ID: o.ID, Source: o.Source}
		switch {
		case o.Problem != nil:
			operation.Path = o.Template
			var problem *openapi.Error
			if errors.As(o.Problem, &problem) {
				operation.Problem = problem.Problem
			}
			c.Odd = append(c.Odd, operation)
		case !ruled[i]:
			c.Unruled = append(c.Unruled, operation)
		}
	}
	for j, row := range rows {
		if !documented[j] {
			c.Undocumented = append(c.Undocumented, row)
		}
	}
	return c, nil
}

// operationRules returns the requests of each operation as a rule has them.
func operationRules(operations []*openapi.Operation) []validator.Rule {
	list := make([]validator.Rule, len(operations))
	for i, o := range operations {
		list[i] = validator.Rule{Methods: []string{o.Method}, Path: o.Path}
	}
	return list
}

func rowRules(rows []rules.Row) []validator.Rule {
	list := make([]validator.Rule, len(rows))
	for i, row := range rows {
		list[i] = validator.Rule{Methods: row.Methods, Path: row.Path}
	}
	return list
}
