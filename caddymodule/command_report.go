package caddymodule

import (
	"github.com/spf13/cobra"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-scope/caddy-scope/caddymodule/observe"
)

func reportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "report", Short: "Lists who would break if gates that only observe were in earnest", Args: cobra.NoArgs,
		Long: `
Lists the requests that passed a gate in mode observe (or under a rule with
observe, or of callers that mode enforce N% spares), although the gate would
have refused them: how many, of which client, under which rule, which scopes
were missing, and what has to change. With several nodes name the admin API of
each; the counts are added up. A node counts from its start, also over reloads.

Exit status: 0 nobody would break, 2 somebody would, 1 it is not known.`,
		Example: "  caddy oauth report\n  caddy oauth report --address 10.0.0.1:2019,10.0.0.2:2019\n  caddy oauth report --json | jq '.rows[] | {client_id, missing_scopes, count}'",
		RunE:    listObserved,
	}
	flags := cmd.Flags()
	flags.StringSlice("address", []string{caddy.DefaultAdminListen}, "Addresses of the nodes' admin APIs")
	flags.Bool("json", false, "Answer in JSON")
	return cmd
}

func listObserved(cmd *cobra.Command, _ []string) error {
	cmd.SilenceUsage = true
	addresses, _ := cmd.Flags().GetStringSlice("address")
	all := &observe.Report{Rows: []observe.Row{}}
	for _, address := range addresses {
		var report observe.Report
		if err := askAdmin(cmd.Context(), address, observedPath, &report); err != nil {
			return err
		}
		all.Merge(&report)
	}
	var err error
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		err = writeJSON(cmd.OutOrStdout(), all)
	} else {
		err = all.WriteText(cmd.OutOrStdout())
	}
	if err == nil && !all.Empty() {
		return exitWith(cmd, exitNo)
	}
	return err
}
