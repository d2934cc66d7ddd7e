package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

func tokenCommand() *cobra.Command {
	token := &cobra.Command{Use: "token", Short: "Issues access tokens, to try something out or to mend it"}
	issue := &cobra.Command{
		Use: "issue", Short: "Prints an access token of a client for a user, who is not asked", Args: cobra.NoArgs,
		Long: `
Makes a session and its only token, as the token endpoint would: the client may
have the scopes, the gates take it, and it can be revoked (session revoke). The
audit trail says that an operator made it, and the user sees it among their
connected apps. There is no refresh token.

The token alone is on standard output; its session is on standard error.`,
		Example: "  caddy oauth token issue --client partner --user ada@example.com --scope jobs:read\n  curl -H \"Authorization: Bearer $(caddy oauth token issue --client partner --user 42 --scope jobs:read --for 1m 2>/dev/null)\" https://api.example.com/jobs",
		RunE:    runWithApp(issueToken),
	}
	flags := issue.Flags()
	flags.String("client", "", "Whose token it is")
	flags.String("user", "", "In whose name, by id or email address")
	flags.StringSlice("scope", nil, "Scopes; what the client asks for by default unless given")
	flags.String("resource", "", "What it is for; as for a request that names none unless given")
	flags.Duration("for", 10*time.Minute, "How long it lives; at most access_token_ttl")
	_, _ = issue.MarkFlagRequired("client"), issue.MarkFlagRequired("user")
	token.AddCommand(issue)
	return token
}

func issueToken(ctx context.Context, cmd *cobra.Command, app *App, _ []string) error {
	flags := cmd.Flags()
	var o issuer.OperatorToken
	o.ClientID, _ = flags.GetString("client")
	o.Resource, _ = flags.GetString("resource")
	o.For, _ = flags.GetDuration("for")
	scopes, _ := flags.GetStringSlice("scope")
	o.Scope = strings.Join(scopes, " ")
	user, _ := flags.GetString("user")

	// What tokens can be for stands with the gates.
	config, err := commandConfigJSON(cmd)
	if err != nil {
		return err
	}
	sites, err := newRehearsal(config)
	if err != nil {
		return err
	}
	app.survey = sites.app.survey
	rt, err := app.open(ctx)
	if err != nil {
		return err
	}
	app.runtime = rt
	if o.UserID, err = app.administration(rt).UserID(ctx, user); err != nil {
		return err
	}
	token, session, err := rt.server.IssueOperatorToken(ctx, o)
	if err != nil {
		return tokenRefused(err, o)
	}
	fmt.Fprintln(cmd.OutOrStdout(), token)
	fmt.Fprintf(cmd.ErrOrStderr(), "session %s, until %s\n", session.ID, time.Now().Add(o.For).UTC().Format(time.DateTime+" MST"))
	return nil
}

// tokenRefused says what to do instead.
func tokenRefused(err error, o issuer.OperatorToken) error {
	var refused *oauth.Error
	switch {
	case errors.Is(err, issuer.ErrOperatorClient):
		return fmt.Errorf("--client %s: %w; to see who is: caddy oauth client list", o.ClientID, err)
	case errors.Is(err, issuer.ErrOperatorUser):
		return fmt.Errorf("--user %s: %w; to see who is: caddy oauth user list", o.UserID, err)
	case errors.Is(err, issuer.ErrOperatorTTL):
		return fmt.Errorf("--for %s: %w: name at least 1s, and no more than access_token_ttl", o.For, err)
	case errors.As(err, &refused):
		return fmt.Errorf("%s: %s", refused.Code, refused.Description)
	}
	return err
}
