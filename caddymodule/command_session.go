package caddymodule

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
)

func sessionCommand() *cobra.Command {
	session := &cobra.Command{Use: "session", Short: "Lists and ends sessions: what clients may do for users"}
	list := &cobra.Command{
		Use: "list", Short: "Lists live sessions, newest first", Args: cobra.NoArgs,
		Example: "  caddy oauth session list --user ada@example.com\n  caddy oauth session list --client partner --idle-for 30d --limit 20\n  caddy oauth session list --address 203.0.113.0/24 --json",
		RunE:    onDesk(listSessions),
	}
	sessionFilters(list)
	listFlags(list)
	show := &cobra.Command{
		Use: "show SESSION_ID", Short: "Shows a session, also one that has ended", Args: cobra.ExactArgs(1),
		Example: "  caddy oauth session show 11111111-1111-4111-8111-111111111111",
		RunE: onDesk(func(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, args []string) error {
			s, err := desk.Session(ctx, args[0])
			if err != nil {
				return err
			}
			return printSession(cmd, s)
		}),
	}
	jsonFlag(show)
	revoke := &cobra.Command{
		Use: "revoke [SESSION_ID...]", Short: "Ends sessions: by id, or those that match",
		Long: `
With ids it ends those. With filters it ends every live session that matches all
of them and was there when it began; without --yes it only counts them. Every
node refuses them at once, and they do not come back. Who is to stay out: user
disable, client disable.

It goes in batches. Interrupted, those that have ended stay so, and the same
command goes on with the rest.

Exit status: 0 done, or counted with --dry-run; 1 not done, or not everything; 2
with filters and neither --yes nor --dry-run: the sessions were only counted.`,
		Example: "  caddy oauth session revoke 11111111-1111-4111-8111-111111111111\n  caddy oauth session revoke --client partner --scope jobs:write --dry-run\n  caddy oauth session revoke --user ada@example.com --yes\n  caddy oauth session revoke --idle-for 90d --yes",
		RunE:    onDesk(revokeSessions),
	}
	sessionFilters(revoke)
	revoke.Flags().Bool("all", false, "Every session of everybody")
	revoke.Flags().Bool("yes", false, "End them; without it they are counted")
	revoke.Flags().Bool("dry-run", false, "Only count them")
	revoke.MarkFlagsMutuallyExclusive("yes", "dry-run")
	jsonFlag(revoke)
	session.AddCommand(list, show, revoke)
	return session
}

func sessionFilters(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("user", "", "Of this user, by id or email address")
	flags.String("client", "", "Of this client")
	flags.String("scope", "", "That hold this scope")
	flags.String("address", "", "Allowed from, or last used by the client from, this address or network")
	flags.String("older-than", "", "Made so long ago, such as 30d")
	flags.String("idle-for", "", "Not used for so long, such as 90d")
}

func sessionQuery(cmd *cobra.Command) (q admin.SessionQuery) {
	flags := cmd.Flags()
	q.User, _ = flags.GetString("user")
	q.Client, _ = flags.GetString("client")
	q.Scope, _ = flags.GetString("scope")
	q.Address, _ = flags.GetString("address")
	q.OlderThan, _ = flags.GetString("older-than")
	q.IdleFor, _ = flags.GetString("idle-for")
	return q
}

func listSessions(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, _ []string) error {
	page, err := desk.Sessions(ctx, sessionQuery(cmd), pagingOf(cmd))
	if err != nil {
		return err
	}
	return printPage(cmd, page, "SESSION USER CLIENT SCOPES CREATED LAST-ACTIVE ADDRESS", func(s admin.Session) []string {
		return []string{s.ID, s.UserID, s.ClientID, strings.Join(s.Scopes, " "), moment(s.CreatedAt), moment(s.LastActive), s.ClientAddress}
	})
}

func printSession(cmd *cobra.Command, s admin.Session) error {
	return printRecord(cmd, s, [][2]string{
		{"session_id", s.ID}, {"user_id", s.UserID}, {"client_id", s.ClientID}, {"resource", s.Resource}, {"redirect_uri", s.RedirectURI},
		{"scopes", strings.Join(s.Scopes, " ")}, {"ever granted", strings.Join(s.GrantedScopes, " ")}, {"created", moment(s.CreatedAt)},
		{"last active", moment(s.LastActive)}, {"expires", moment(s.ExpiresAt)}, {"revoked", momentOf(s.RevokedAt)}, {"reason", s.RevokeReason},
		{"signed in by", s.LoginMethod}, {"asserted by", s.AssertedBy}, {"allowed from", s.ConsentAddress}, {"with", s.ConsentAgent},
		{"client at", s.ClientAddress}, {"client is", s.ClientAgent},
	}...)
}

func revokeSessions(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, ids []string) error {
	query := sessionQuery(cmd)
	all, _ := cmd.Flags().GetBool("all")
	yes, _ := cmd.Flags().GetBool("yes")
	dryRun, _ := cmd.Flags().GetBool("dry-run")
	if len(ids) > 0 {
		if query != (admin.SessionQuery{}) || all || dryRun {
			return fmt.Errorf("name sessions by id, or by filters, not both")
		}
		return revokeByID(ctx, cmd, desk, ids)
	}
	done := counting(cmd, desk, "sessions")
	ended, err := desk.RevokeSessions(ctx, query, all, !yes, "")
	done()
	if err != nil {
		return err
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		if err := writeJSON(cmd.OutOrStdout(), ended); err != nil {
			return err
		}
	} else if ended.DryRun {
		fmt.Fprintf(cmd.OutOrStdout(), "%d sessions match, none has ended\n", ended.Sessions)
	} else {
		fmt.Fprintf(cmd.OutOrStdout(), "%d sessions have ended\n", ended.Sessions)
	}
	if !yes && !dryRun {
		fmt.Fprintln(cmd.ErrOrStderr(), "To end them: the same again with --yes")
		return exitWith(cmd, exitNo)
	}
	return nil
}

func revokeByID(ctx context.Context, cmd *cobra.Command, desk *admin.Admin, ids []string) error {
	var ended admin.Ended
	for _, id := range ids {
		one, err := desk.RevokeSession(ctx, id)
		if err != nil {
			return err
		}
		ended.Sessions += one.Sessions
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return writeJSON(cmd.OutOrStdout(), ended)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d sessions have ended\n", ended.Sessions)
	return err
}
