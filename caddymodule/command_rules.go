package caddymodule

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/rules"
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

Exit status: 0 listed, 1 not.`,
		Example: "  caddy oauth rules\n  caddy oauth rules --json | jq '.tables[].rules[] | select(.access == \"public\")'",
		RunE:    listRules,
	}
	cmd.Flags().Bool("json", false, "Answer in JSON")
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
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return writeJSON(cmd.OutOrStdout(), report)
	}
	return report.WriteText(cmd.OutOrStdout())
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
		for _, rule := range set.resource.Rules() {
			table.Rules = append(table.Rules, ruleRow(rule, hierarchy.Of(rule), reaches))
		}
		report.Tables = append(report.Tables, table)
	}
	return report, nil
}

func ruleRow(rule *validator.Rule, requirement rules.Requirement, reaches []reach) rules.Row {
	row := rules.Row{
		Methods: slices.Clone(rule.Methods), Path: rule.Path, Access: string(rule.Access), Scopes: rule.Scopes, Source: rule.Source,
		Grants: requirement.Groups(), Clients: []string{},
	}
	if rule.Access == validator.AccessPublic {
		return row
	}
	for _, r := range reaches {
		if requirement.Admits(r.scopes) {
			row.Clients = append(row.Clients, r.client)
		}
	}
	return row
}
