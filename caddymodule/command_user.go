package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

func userCommand() *cobra.Command {
	user := &cobra.Command{Use: "user", Short: "Manages the users of login password"}
	add := &cobra.Command{
		Use: "add EMAIL", Short: "Adds a user", Args: cobra.ExactArgs(1),
		Example: "  caddy oauth user add ada@example.com\n  printf '%s' \"$PASSWORD\" | caddy oauth user add ada@example.com --password-stdin",
		RunE: onUsers(func(ctx context.Context, cmd *cobra.Command, users issuer.UserStore, email string) error {
			hash, err := hashedPassword(ctx, cmd)
			if err != nil {
				return err
			}
			created, err := users.CreateUser(ctx, email, hash, issuer.Origin{})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "added %s as %s\n", created.Email, created.ID)
			return nil
		}),
	}
	passwd := &cobra.Command{
		Use: "passwd EMAIL", Short: "Sets the password of a user and ends their logins", Args: cobra.ExactArgs(1),
		Example: "  caddy oauth user passwd ada@example.com",
		RunE: onUsers(func(ctx context.Context, cmd *cobra.Command, users issuer.UserStore, email string) error {
			hash, err := hashedPassword(ctx, cmd)
			if err != nil {
				return err
			}
			return users.SetPassword(ctx, email, hash, issuer.Origin{})
		}),
	}
	disable := &cobra.Command{
		Use: "disable EMAIL|ID", Short: "Disables a user: ends their logins and revokes their sessions", Args: cobra.ExactArgs(1),
		Example: "  caddy oauth user disable ada@example.com",
		RunE: onNamed(func(ctx context.Context, _ *cobra.Command, users issuer.UserStore, name string) error {
			return users.DisableUser(ctx, name, issuer.Origin{})
		}),
	}
	enable := &cobra.Command{
		Use: "enable EMAIL|ID", Short: "Enables a disabled user; revoked sessions stay revoked", Args: cobra.ExactArgs(1),
		Example: "  caddy oauth user enable ada@example.com",
		RunE: onNamed(func(ctx context.Context, _ *cobra.Command, users issuer.UserStore, name string) error {
			return users.EnableUser(ctx, name, issuer.Origin{})
		}),
	}
	reset := &cobra.Command{
		Use: "reset EMAIL", Short: "Prints a link by which a user sets a new password, once", Args: cobra.ExactArgs(1),
		Long: `
The password stays as it is until the link is used; then every login of the user
ends. Give the link to the user in a way that nobody else reads: who has it can
take the account.`,
		Example: "  caddy oauth user reset ada@example.com\n  caddy oauth user reset ada@example.com --expires 10m --end-sessions --remove-factors",
		RunE:    runWithApp(resetPassword),
	}
	reset.Flags().Duration("expires", time.Hour, "How long the link works, at most 168h")
	reset.Flags().Bool("end-sessions", false, "When it is used, end the access of all apps too")
	reset.Flags().Bool("remove-factors", false, "When it is used, remove the user's passkeys and second factor too: for lost devices")
	list := &cobra.Command{
		Use: "list", Short: "Lists the users, by id, also those who sign in elsewhere", Args: cobra.NoArgs,
		Example: "  caddy oauth user list\n  caddy oauth user list --json | jq -r '.items[] | select(.disabled_at) | .email'",
		RunE:    onDesk(listUsers),
	}
	listFlags(list)
	for _, cmd := range []*cobra.Command{add, passwd} {
		cmd.Flags().Bool("password-stdin", false, "Read the password from standard input")
	}
	user.AddCommand(add, passwd, reset, list, disable, enable, exportUserCommand(), eraseUserCommand())
	return user
}

// onUsers makes the function of a command about one user of login password.
func onUsers(f func(ctx context.Context, cmd *cobra.Command, users issuer.UserStore, email string) error) func(*cobra.Command, []string) error {
	run := onNamed(f)
	return func(cmd *cobra.Command, args []string) error {
		email, err := issuer.NormalizeEmail(args[0])
		if err != nil {
			return fmt.Errorf("%q: %w", args[0], err)
		}
		return run(cmd, []string{email})
	}
}

// onNamed is onUsers for a user who may have no address, and then has an id.
func onNamed(f func(ctx context.Context, cmd *cobra.Command, users issuer.UserStore, name string) error) func(*cobra.Command, []string) error {
	return runWithApp(func(ctx context.Context, cmd *cobra.Command, app *App, args []string) error {
		return withUser(ctx, app, args[0], func(store *postgres.Store) error { return f(ctx, cmd, store, args[0]) })
	})
}

// withUser opens the database, and says in its errors what to do about the user.
func withUser(ctx context.Context, app *App, name string, do func(store *postgres.Store) error) error {
	db, err := app.openDatabase(ctx)
	if err != nil {
		return err
	}
	switch err := do(db.store); {
	case errors.Is(err, issuer.ErrExists):
		return fmt.Errorf("%s is a user already; to set another password: caddy oauth user passwd %[1]s", name)
	case errors.Is(err, issuer.ErrNotFound):
		return fmt.Errorf("%s is not a user, or is disabled; to see who is: caddy oauth user list", name)
	default:
		return err
	}
}

const longestReset = 7 * 24 * time.Hour

func resetPassword(ctx context.Context, cmd *cobra.Command, app *App, args []string) error {
	ttl, _ := cmd.Flags().GetDuration("expires")
	if ttl < time.Minute || ttl > longestReset {
		return fmt.Errorf("--expires %s: a link works for 1m at least and %s at most", ttl, longestReset)
	}
	email, err := issuer.NormalizeEmail(args[0])
	if err != nil {
		return fmt.Errorf("%q: %w", args[0], err)
	}
	made := issuer.Reset{Email: email}
	made.EndSessions, _ = cmd.Flags().GetBool("end-sessions")
	made.RemoveFactors, _ = cmd.Flags().GetBool("remove-factors")
	return withUser(ctx, app, email, func(store *postgres.Store) error {
		link, digest := issuer.NewResetLink(app.issuer)
		if err := store.CreateReset(ctx, digest, made, ttl, issuer.Origin{}); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), link)
		fmt.Fprintf(cmd.ErrOrStderr(), "The link works once, until %s.\n", time.Now().Add(ttl).UTC().Format(time.DateTime+" MST"))
		return nil
	})
}

func hashedPassword(ctx context.Context, cmd *cobra.Command) (string, error) {
	password, err := readPassword(cmd)
	if err != nil {
		return "", err
	}
	return issuer.HashPassword(ctx, password)
}

func listUsers(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, _ []string) error {
	page, err := desk.Users(ctx, pagingOf(cmd))
	if err != nil {
		return err
	}
	return printPage(cmd, page, "EMAIL ID STATE CREATED", func(u admin.User) []string {
		state := "enabled"
		if u.DisabledAt != nil {
			state = "disabled since " + moment(*u.DisabledAt)
		}
		return []string{u.Email, u.ID, state, moment(u.CreatedAt)}
	})
}
