package caddymodule

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func restoredCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restored", Short: "Ends all access that a restored backup brought back", Args: cobra.NoArgs,
		Long: `
A backup brings back what was revoked, used or signed out after it was made, and
nothing tells it from the rest. This command ends every session, login, code
and link of the database, and replaces the signing key: users sign in again and
clients ask again. Run it before a server is started on the database. docs/operations.md has the
whole procedure.

It cannot know what else has changed since the backup: users and clients that were
disabled or erased, passwords and secrets that were replaced. Do that again.`,
		Example: "  caddy oauth restored\n  caddy oauth restored --yes",
		RunE:    runWithApp(endRestored),
	}
	cmd.Flags().Bool("yes", false, "Do not ask")
	return cmd
}

func endRestored(ctx context.Context, cmd *cobra.Command, app *App, _ []string) error {
	const word = "end everything"
	if yes, _ := cmd.Flags().GetBool("yes"); !yes {
		fmt.Fprintf(cmd.ErrOrStderr(), "This ends the access of every user and client of %s. Type %q to go on: ", app.issuer, word)
		typed, err := readAnswer(ctx, cmd.InOrStdin())
		if err != nil {
			return err
		}
		if typed != word {
			return errors.New("nothing was ended: it takes these two words, or --yes")
		}
	}
	db, err := app.openDatabase(ctx)
	if err != nil {
		return err
	}
	ended, err := db.store.EndRestored(ctx)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "ended %d sessions, %d logins, %d codes and requests\n", ended.Sessions, ended.Logins, ended.Requests)
	if len(app.keys) > 0 {
		fmt.Fprintln(out, "the signing keys stand in the configuration: if one was replaced since the backup, the configuration must not have it any more")
	} else {
		desk, err := keyDesk(ctx, app)
		if err == nil {
			_, err = desk.RotateKeys(ctx, true)
		}
		if err != nil {
			return fmt.Errorf("access has ended; replace the signing key: %w (again: caddy oauth restored --yes)", err)
		}
		fmt.Fprintln(out, "replaced the signing key")
	}
	fmt.Fprintln(out, `Do again what was done since the backup: users and clients that were disabled, users that were erased, passwords and
client secrets that were replaced (caddy oauth user, caddy oauth client). Lists: caddy oauth user list, client list.`)
	return nil
}
