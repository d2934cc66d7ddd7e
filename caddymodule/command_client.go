package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
)

func clientCommand() *cobra.Command {
	client := &cobra.Command{Use: "client", Short: "Manages the clients in the database, and shows those of the configuration"}
	list := &cobra.Command{
		Use: "list", Short: "Lists the clients of the configuration and those that were added", Args: cobra.NoArgs,
		Long: `
Lists the clients of the configuration, then those that were added to the
database, each by id. Those that registered themselves: registration list.`,
		Example: "  caddy oauth client list\n  caddy oauth client list --json | jq -r '.items[] | select(.disabled_at) | .client_id'",
		RunE: onDesk(func(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, _ []string) error {
			page, err := desk.Clients(ctx, pagingOf(cmd))
			if err != nil {
				return err
			}
			return printPage(cmd, page, "CLIENT NAME KIND STATE GRANTS SCOPES", func(c admin.Client) []string {
				return []string{c.ID, c.Name, c.Kind, clientState(c), strings.Join(c.Grants, " "), strings.Join(c.Scopes, " ")}
			})
		}),
	}
	listFlags(list)
	show := &cobra.Command{
		Use: "show CLIENT_ID", Short: "Shows a client", Args: cobra.ExactArgs(1),
		Example: "  caddy oauth client show op_partner",
		RunE: onDesk(func(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, args []string) error {
			client, err := desk.Client(ctx, args[0])
			if err != nil {
				return err
			}
			return printClient(cmd, client)
		}),
	}
	jsonFlag(show)
	rotate := &cobra.Command{
		Use: "rotate CLIENT_ID", Short: "Gives a client another secret, and prints it, once", Args: cobra.ExactArgs(1),
		Long: `
The secret before goes on for --overlap, so that the client can change over
without a gap; one before that ends at once. Where a secret has leaked:
--overlap 0s. A client of the configuration has its secrets there.`,
		Example: "  caddy oauth client rotate op_partner\n  caddy oauth client rotate op_partner --overlap 0s   # the secret has leaked",
		RunE: onDesk(func(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, args []string) error {
			overlap, _ := cmd.Flags().GetDuration("overlap")
			client, err := desk.RotateSecret(ctx, args[0], overlap)
			if err != nil {
				return err
			}
			return printSecret(cmd, client)
		}),
	}
	rotate.Flags().Duration("overlap", admin.DefaultOverlap, "How long the secret before goes on, 0s to 720h")
	jsonFlag(rotate)
	disable := switchCommand("disable", "Ends the sessions of a client, of any kind, and keeps it out", (*admin.Admin).DisableClient)
	disable.Long = `
Works on clients of the configuration and on those that registered themselves
too. The sessions end in batches and every node refuses them at once; interrupted,
those that have ended stay so, and the same command goes on.`
	enable := switchCommand("enable", "Lets a disabled client in again; no session comes back", (*admin.Admin).EnableClient)
	remove := switchCommand("remove", "Removes a client that was added, with all that belongs to it", (*admin.Admin).RemoveClient)
	client.AddCommand(list, show, addClientCommand(), rotate, disable, enable, remove)
	return client
}

// switchCommand is a command that does one thing to one client.
func switchCommand(use, short string, do func(*admin.Admin, context.Context, string) (admin.Switched, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: use + " CLIENT_ID", Short: short, Args: cobra.ExactArgs(1),
		Example: "  caddy oauth client " + use + " op_partner",
		RunE: onDesk(func(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, args []string) error {
			done := counting(cmd, desk, "sessions have ended")
			switched, err := do(desk, ctx, args[0])
			done()
			if err != nil {
				return err
			}
			return printSwitched(cmd, switched)
		}),
	}
	jsonFlag(cmd)
	return cmd
}

func printSwitched(cmd *cobra.Command, s admin.Switched) error {
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return writeJSON(cmd.OutOrStdout(), s)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s; %d sessions ended\n", s.State, s.ID, s.Sessions)
	return err
}

func addClientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add [CLIENT_ID]", Short: "Adds a client to the database, and prints its secret, once", Args: cobra.MaximumNArgs(1),
		Long: `
The client is known to every node at once, with no reload. Its id begins with op_
and is made unless it is given. What may be said is what the block client of the
configuration may say, and is checked as there; lifetimes are the server's. A
grant that no client of the configuration uses is turned on with the word grants
of the oauth block.

The secret is kept as a hash: what is printed here is the only time it is shown.`,
		Example: `  caddy oauth client add --name "Partner" --redirect-uri https://partner.example/cb --scope jobs:read
  caddy oauth client add op_cli --public --redirect-uri http://127.0.0.1/cb
  caddy oauth client add op_robot --grant client_credentials --scope jobs:read --json | jq -r .client_secret`,
		RunE: onDesk(addClient),
	}
	flags := cmd.Flags()
	flags.String("name", "", "What users read on the consent page; the id unless given")
	flags.StringSlice("redirect-uri", nil, "Where the client wants its codes; may be repeated")
	flags.StringSlice("post-logout-redirect-uri", nil, "Where it may have users sent who have signed out; may be repeated")
	flags.StringSlice("grant", nil, "Grant types: authorization_code, refresh_token (these two unless given), client_credentials, device_code, jwt_bearer")
	flags.StringSlice("scope", nil, "Scopes that it may ask for; every one unless given")
	flags.String("resource", "", "What its tokens are for when a request names no resource")
	flags.StringSlice("introspect", nil, "Resources whose tokens it may ask about, because it serves them")
	flags.StringSlice("auth-method", nil, "client_secret_basic, client_secret_post (these two unless given), private_key_jwt, none")
	flags.Bool("public", false, "It gets no secret: an app on the user's own device")
	flags.String("jwks", "", "File with the public keys of private_key_jwt, in place of a secret")
	flags.Bool("pkce-optional", false, "It has a secret and cannot send a code_challenge, as a custom GPT")
	flags.Bool("require-pushed", false, "Its authorization requests must be pushed")
	flags.Bool("require-dpop", false, "Its token requests must prove possession of a key")
	jsonFlag(cmd)
	return cmd
}

func addClient(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, args []string) error {
	flags := cmd.Flags()
	var n admin.NewClient
	if len(args) > 0 {
		n.ID = args[0]
	}
	n.Name, _ = flags.GetString("name")
	n.Public, _ = flags.GetBool("public")
	n.RedirectURIs, _ = flags.GetStringSlice("redirect-uri")
	n.PostLogoutRedirectURIs, _ = flags.GetStringSlice("post-logout-redirect-uri")
	n.Grants, _ = flags.GetStringSlice("grant")
	n.Scopes, _ = flags.GetStringSlice("scope")
	n.Resource, _ = flags.GetString("resource")
	n.Introspect, _ = flags.GetStringSlice("introspect")
	n.AuthMethods, _ = flags.GetStringSlice("auth-method")
	n.RequirePushed, _ = flags.GetBool("require-pushed")
	n.RequireDPoP, _ = flags.GetBool("require-dpop")
	if optional, _ := flags.GetBool("pkce-optional"); optional {
		n.PKCE = "optional"
	}
	if file, _ := flags.GetString("jwks"); file != "" {
		keys, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("--jwks: %w", err)
		}
		if n.JWKS = json.RawMessage(keys); !json.Valid(keys) {
			return fmt.Errorf("--jwks: %s is not JSON", file)
		}
	}
	client, err := desk.AddClient(ctx, n)
	if err != nil {
		return err
	}
	return printSecret(cmd, client)
}

// printSecret prints what a client needs to know of itself.
func printSecret(cmd *cobra.Command, c admin.Client) error {
	err := printRecord(cmd, c, [2]string{"client_id", c.ID}, [2]string{"client_secret", c.Secret}, [2]string{"old secret until", momentOf(c.PreviousUntil)})
	if c.Secret != "" && err == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "The secret is shown this once.")
	}
	return err
}

func printClient(cmd *cobra.Command, c admin.Client) error {
	flag := func(set bool) string {
		if set {
			return "yes"
		}
		return ""
	}
	return printRecord(cmd, c, [][2]string{
		{"client_id", c.ID}, {"name", c.Name}, {"kind", c.Kind}, {"source", c.Source}, {"state", clientState(c)}, {"problem", c.Problem},
		{"redirect_uris", strings.Join(c.RedirectURIs, " ")}, {"post_logout_redirect_uris", strings.Join(c.PostLogoutRedirectURIs, " ")},
		{"grants", strings.Join(c.Grants, " ")}, {"scopes", strings.Join(c.Scopes, " ")}, {"resource", c.Resource}, {"introspect", strings.Join(c.Introspect, " ")},
		{"auth_methods", strings.Join(c.AuthMethods, " ")}, {"pkce", c.PKCE}, {"pushed requests only", flag(c.RequirePushed)}, {"dpop only", flag(c.RequireDPoP)},
		{"created", momentOf(c.CreatedAt)}, {"secret since", momentOf(c.SecretSince)}, {"old secret until", momentOf(c.PreviousUntil)},
	}...)
}

func clientState(c admin.Client) string {
	switch {
	case c.DisabledAt != nil:
		return "disabled since " + c.DisabledAt.UTC().Format(time.DateTime)
	case c.Problem != "":
		return "refused, see client show"
	}
	return "enabled"
}
