package caddymodule

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
	"github.com/caddy-scope/caddy-scope/postgres"
)

func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "migrate", Short: "Brings the tables up to date, as the start of the server does", Args: cobra.NoArgs,
		Example: "  caddy oauth migrate\n  caddy oauth migrate --status\n  caddy oauth migrate --adopt career-copilot   # take over the database of the replaced system\n  caddy oauth migrate --down 0                # remove every table",
		RunE:    runWithApp(migrate),
	}
	cmd.Flags().String("adopt", "", "Take over a database of the replaced system; its sessions then belong to this confidential client")
	cmd.Flags().Int("down", 0, "Go down to this version; 0 removes every table")
	cmd.Flags().Bool("status", false, "Only tell the version")
	cmd.MarkFlagsMutuallyExclusive("adopt", "down", "status")
	return cmd
}

func migrate(ctx context.Context, cmd *cobra.Command, app *App, _ []string) error {
	adopt, _ := cmd.Flags().GetString("adopt")
	if adopt != "" {
		if client := app.clients[adopt]; client == nil || !client.Confidential() {
			return fmt.Errorf("--adopt %s: the configuration has no client of this name with a secret", adopt)
		}
		app.database.adoptFor = adopt
	}
	d, err := app.startServer(ctx)
	if err != nil {
		return err
	}
	config := app.migration(d)
	if status, _ := cmd.Flags().GetBool("status"); status {
		s, err := postgres.MigrationStatus(ctx, config)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "version %d of %d\n", s.Version, s.Latest)
		if s.Adoptable {
			fmt.Fprintln(cmd.OutOrStdout(), "the tables of the replaced system are there: take them over with --adopt CLIENT")
		}
		return nil
	}
	if cmd.Flags().Changed("down") {
		version, _ := cmd.Flags().GetInt("down")
		return postgres.MigrateDown(ctx, config, version)
	}
	return postgres.Migrate(ctx, config)
}

func keyCommand() *cobra.Command {
	key := &cobra.Command{Use: "key", Short: "Manages the signing keys"}
	list := &cobra.Command{
		Use: "list", Short: "Lists the signing keys by kid", Args: cobra.NoArgs,
		Example: "  caddy oauth key list\n  caddy oauth key list --json",
		RunE:    runWithApp(listKeys),
	}
	rotate := &cobra.Command{
		Use: "rotate", Short: "Publishes a new signing key, which signs after an hour", Args: cobra.NoArgs,
		Example: "  caddy oauth key rotate\n  caddy oauth key rotate --now   # a key was stolen",
		RunE:    runWithApp(rotateKey),
	}
	jsonFlag(list)
	jsonFlag(rotate)
	rotate.Flags().Bool("now", false, "The new key signs in two seconds, and every token of the old one is refused from then on")
	key.AddCommand(list, rotate)
	return key
}

// keyDesk opens the key ring as the server does.
func keyDesk(ctx context.Context, app *App) (*admin.Admin, error) {
	db, err := app.openDatabase(ctx)
	if err != nil {
		return nil, err
	}
	if err := app.openSecrets(ctx); err != nil {
		return nil, err
	}
	if err := db.store.CheckRootSecret(ctx, app.secrets.Fingerprints()); err != nil {
		return nil, err
	}
	keys, err := app.openKeys(ctx, db.store)
	if err != nil {
		return nil, err
	}
	return app.administration(&runtime{db: db.store, keys: keys}), nil
}

func listKeys(ctx context.Context, cmd *cobra.Command, app *App, _ []string) error {
	desk, err := keyDesk(ctx, app)
	if err != nil {
		return err
	}
	page, err := desk.SigningKeys(ctx)
	if err != nil {
		return err
	}
	return printKeys(cmd, page)
}

func rotateKey(ctx context.Context, cmd *cobra.Command, app *App, _ []string) error {
	desk, err := keyDesk(ctx, app)
	if err != nil {
		return err
	}
	now, _ := cmd.Flags().GetBool("now")
	page, err := desk.RotateKeys(ctx, now)
	if err != nil {
		return err
	}
	return printKeys(cmd, page)
}

func printKeys(cmd *cobra.Command, page admin.Page[admin.Key]) error {
	return printPage(cmd, page, "KID USE PHASE SINCE", func(k admin.Key) []string { return []string{k.KID, k.Use, k.Phase, momentOf(k.Since)} })
}
