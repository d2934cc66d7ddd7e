package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/issuer"
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
	list := &cobra.Command{
		Use: "list", Short: "Lists the users", Args: cobra.NoArgs,
		Example: "  caddy oauth user list",
		RunE:    runWithApp(listUsers),
	}
	for _, cmd := range []*cobra.Command{add, passwd} {
		cmd.Flags().Bool("password-stdin", false, "Read the password from standard input")
	}
	user.AddCommand(add, passwd, list, disable, enable)
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
		db, err := app.openDatabase(ctx)
		if err != nil {
			return err
		}
		switch err := f(ctx, cmd, db.store, args[0]); {
		case errors.Is(err, issuer.ErrExists):
			return fmt.Errorf("%s is a user already; to set another password: caddy oauth user passwd %[1]s", args[0])
		case errors.Is(err, issuer.ErrNotFound):
			return fmt.Errorf("%s is not a user; to see who is: caddy oauth user list", args[0])
		default:
			return err
		}
	})
}

func hashedPassword(ctx context.Context, cmd *cobra.Command) (string, error) {
	password, err := readPassword(cmd)
	if err != nil {
		return "", err
	}
	return issuer.HashPassword(ctx, password)
}

func listUsers(ctx context.Context, cmd *cobra.Command, app *App, _ []string) error {
	db, err := app.openDatabase(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "EMAIL\tID\tSTATE\tCREATED")
	const page = 500
	for after := ""; ; {
		users, err := db.store.ListUsers(ctx, after, page)
		if err != nil {
			return err
		}
		for _, u := range users {
			state := "enabled"
			if u.Disabled {
				state = "disabled"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", u.Email, u.ID, state, u.CreatedAt.UTC().Format(time.DateTime))
			after = u.Email
		}
		if len(users) < page {
			return table.Flush()
		}
	}
}
