package caddymodule

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
	"github.com/caddy-scope/caddy-scope/issuer"
)

func eventCommand() *cobra.Command {
	event := &cobra.Command{Use: "event", Short: "Lists the audit trail"}
	list := &cobra.Command{
		Use: "list", Short: "Lists events, newest first", Args: cobra.NoArgs,
		Example: "  caddy oauth event list --user ada@example.com --since 24h\n  caddy oauth event list --type session_revoked --json\n  caddy oauth event list --session 11111111-1111-4111-8111-111111111111",
		RunE: onDesk(func(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, _ []string) error {
			page, err := desk.Events(ctx, eventQuery(cmd), pagingOf(cmd))
			if err != nil {
				return err
			}
			return printPage(cmd, page, "AT TYPE USER CLIENT SESSION ADDRESS", func(e admin.Event) []string {
				return []string{moment(e.At), strings.TrimPrefix(e.Type, issuer.EventTypePrefix), e.UserID, e.ClientID, e.SessionID, e.Address}
			})
		}),
	}
	flags := list.Flags()
	flags.String("user", "", "Of this user, by id or email address")
	flags.String("client", "", "Of this client")
	flags.String("session", "", "Of this session")
	flags.String("type", "", "Of this type, such as session_revoked")
	flags.String("since", "", "Since then: a time ago, such as 24h, or a moment, such as 2026-11-25T21:00:00Z")
	listFlags(list)
	event.AddCommand(list)
	return event
}

func eventQuery(cmd *cobra.Command) (q admin.EventQuery) {
	flags := cmd.Flags()
	q.User, _ = flags.GetString("user")
	q.Client, _ = flags.GetString("client")
	q.Session, _ = flags.GetString("session")
	q.Type, _ = flags.GetString("type")
	q.Since, _ = flags.GetString("since")
	return q
}
