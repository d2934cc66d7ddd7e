package caddymodule

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/doctor"
)

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Tells which products can connect, and what stands in the way of others", Args: cobra.NoArgs,
		Long: `
Plays what each product is known to do (ChatGPT, Claude, Claude Code, VS Code,
Cursor, Codex, MCP Inspector, Goose, Slack, Cline, Microsoft 365 Copilot, strict
OAuth libraries, a partner's server) against the configuration: from the first
401 to a call with a token and its refresh. For each product it tells what works,
what would fail and why, and what to write in the Caddyfile.

It works offline: the sites, the gates and the authorization server are those of
the configuration, with an empty store in memory, and everybody signs in. Nothing
is fetched; what products publish stands in their profiles.

With --live the running server is asked as well, by its public name or at
--address: for all that changes nothing there (addresses, TLS, challenge,
metadata, CORS).

Exit status: 0 all products work that the configuration is for (with --product:
all that are named); 2 some would not; 1 it is not known.`,
		Example: "  caddy oauth doctor --config Caddyfile\n  caddy oauth doctor --product claude --product chatgpt --verbose\n" +
			"  caddy oauth doctor --live --address https://127.0.0.1:8443\n  caddy oauth doctor --list",
		RunE: examineProducts,
	}
	flags := cmd.Flags()
	flags.StringSlice("product", nil, "Products to try (default: all)")
	flags.String("resource", "", "Resource to try (default: all that are for the product)")
	flags.Bool("live", false, "Ask the running server as well")
	flags.String("address", "", "Where the running server is reached, if not by its public name: http(s)://HOST:PORT")
	flags.Bool("list", false, "List the products, and end")
	flags.Bool("json", false, "Answer in JSON")
	flags.BoolP("verbose", "v", false, "Show every check, with the source of what it goes by")
	return cmd
}

func examineProducts(cmd *cobra.Command, _ []string) error {
	cmd.SilenceUsage = true
	flags := cmd.Flags()
	library, err := doctor.Known()
	if err != nil {
		return err
	}
	names, _ := flags.GetStringSlice("product")
	products, err := library.Select(names)
	if err != nil {
		return fmt.Errorf("--product: %w", err)
	}
	asJSON, _ := flags.GetBool("json")
	if list, _ := flags.GetBool("list"); list {
		return listProducts(cmd, library, products, asJSON)
	}
	report, err := diagnose(cmd, library, products)
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(cmd.OutOrStdout(), report)
	} else {
		long, _ := flags.GetBool("verbose")
		err = report.WriteText(cmd.OutOrStdout(), long)
	}
	if err == nil && !report.Fine(len(names) > 0) {
		return exitWith(cmd, exitNo)
	}
	return err
}

func listProducts(cmd *cobra.Command, library *doctor.Library, products []*doctor.Profile, asJSON bool) error {
	if asJSON {
		return writeJSON(cmd.OutOrStdout(), map[string]any{"products": products, "sources": library.Sources})
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, p := range products {
		fmt.Fprintf(table, "%s\t%s\n", p.Name, p.Title)
	}
	return table.Flush()
}

func diagnose(cmd *cobra.Command, library *doctor.Library, products []*doctor.Profile) (*doctor.Report, error) {
	flags := cmd.Flags()
	config, err := commandConfigJSON(cmd)
	if err != nil {
		return nil, err
	}
	h, err := newRehearsal(config)
	if err != nil {
		return nil, err
	}
	if h.app.Remote != nil {
		return nil, fmt.Errorf("this Caddy only gates (remote), and products are let in by the authorization server: run doctor where %s runs, with the configuration of that Caddy. Here: rules, explain and test tell what the gates decide, status how the node does", h.app.issuer)
	}
	stage, err := h.stage()
	if err != nil {
		return nil, err
	}
	report := &doctor.Report{Issuer: h.app.issuer, Sources: library.Sources, Notes: h.notes}
	address, _ := flags.GetString("address")
	live, _ := flags.GetBool("live")
	if live || address != "" {
		if stage.Live, err = doctor.At(address); err != nil {
			return nil, fmt.Errorf("--address: %w", err)
		}
		if report.Live = address; address == "" {
			report.Live = h.app.issuer
		}
	}
	resource, _ := flags.GetString("resource")
	if resource != "" && !stage.Has(resource) {
		return nil, fmt.Errorf("--resource: no gate has the resource %s", resource)
	}
	report.Products, err = stage.Examine(products, resource)
	return report, err
}
