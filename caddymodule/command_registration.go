package caddymodule

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
	"github.com/caddy-scope/caddy-scope/issuer"
)

func registrationCommand() *cobra.Command {
	registration := &cobra.Command{Use: "registration", Short: "Lists and removes clients that registered themselves"}
	list := &cobra.Command{
		Use: "list", Short: "Lists clients that registered themselves, by id", Args: cobra.NoArgs,
		Example: "  caddy oauth registration list\n  caddy oauth registration list --json | jq -r '.items[] | select(.used_at == null) | .client_id'",
		RunE: onDesk(func(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, _ []string) error {
			page, err := desk.Registrations(ctx, pagingOf(cmd))
			if err != nil {
				return err
			}
			return printPage(cmd, page, "CLIENT NAME KIND FIRST-SEEN LAST-ALLOWED DISABLED", func(r admin.Registration) []string {
				return []string{r.ClientID, r.Name, string(r.Kind), moment(r.IssuedAt), momentOf(r.UsedAt), momentOf(r.DisabledAt)}
			})
		}),
	}
	listFlags(list)
	show := &cobra.Command{
		Use: "show CLIENT_ID", Short: "Shows a client that registered itself, with what it says of itself", Args: cobra.ExactArgs(1),
		Example: "  caddy oauth registration show dcr_Vq3…\n  caddy oauth registration show https://app.example/client.json --json",
		RunE: onDesk(func(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, args []string) error {
			r, err := desk.Registration(ctx, args[0])
			if err != nil {
				return err
			}
			return printRecord(cmd, r, [][2]string{
				{"client_id", r.ClientID}, {"name", r.Name}, {"kind", string(r.Kind)}, {"first seen", moment(r.IssuedAt)}, {"last allowed", momentOf(r.UsedAt)},
				{"disabled", momentOf(r.DisabledAt)}, {"metadata", string(r.Metadata)},
			}...)
		}),
	}
	jsonFlag(show)
	remove := &cobra.Command{
		Use: "remove CLIENT_ID", Short: "Removes a client that registered itself, with its sessions", Args: cobra.ExactArgs(1),
		Long: `
Its sessions end at once. A client that is known by the document at its URL comes
back when it is used again: to keep it out, disable it (client disable).`,
		Example: "  caddy oauth registration remove dcr_Vq3…",
		RunE: onDesk(func(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, args []string) error {
			done := counting(cmd, desk, "sessions have ended")
			switched, err := desk.RemoveRegistration(ctx, args[0])
			done()
			if err != nil {
				return err
			}
			if issuer.IsMetadataDocument(args[0]) {
				fmt.Fprintf(cmd.ErrOrStderr(), "It comes back when it is used again; to keep it out: caddy oauth client disable %s\n", args[0])
			}
			return printSwitched(cmd, switched)
		}),
	}
	jsonFlag(remove)
	registration.AddCommand(list, show, remove)
	return registration
}
