package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-scope/caddy-scope/postgres"
)

func exportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "Writes all state as a file, to move it to another database", Args: cobra.NoArgs,
		Long: `
Writes every table to standard output, as they are at one moment, as lines of
JSON. Secrets stay as they are kept: sealed under the root secret, or as digests.
With the root secret the file is worth what the database is worth: guard it.

What happens after that moment is not in the file, so stop the servers before. A
file that was interrupted is refused by caddy oauth import.`,
		Example: "  umask 077; caddy oauth export > state.jsonl\n  caddy oauth export --config Caddyfile.old | caddy oauth import - --config Caddyfile.new",
		RunE:    runWithApp(exportState),
	}
}

func importCommand() *cobra.Command {
	return &cobra.Command{
		Use: "import FILE", Short: "Reads what export wrote into an empty database", Args: cobra.ExactArgs(1),
		Long: `
Makes the tables and fills them, in one transaction: when it fails or is
interrupted, the database is as empty as before. The root secret must be the one of
the old server. Sessions, refresh tokens and logins go on; what was revoked stays
revoked. A file named - is standard input.`,
		Example: "  caddy oauth import state.jsonl",
		RunE:    runWithApp(importState),
	}
}

func (a *App) stateConfig(ctx context.Context) (postgres.StateConfig, error) {
	d, err := a.startServer(ctx)
	return postgres.StateConfig{DSN: d.migrateDSN, Schema: d.schema, Issuer: a.issuer}, err
}

func exportState(ctx context.Context, cmd *cobra.Command, app *App, _ []string) error {
	if file, ok := cmd.OutOrStdout().(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return errors.New("this is no place for all state: write it to a file, as in caddy oauth export > state.jsonl")
	}
	config, err := app.stateConfig(ctx)
	if err != nil {
		return err
	}
	progress := newProgress(cmd.ErrOrStderr(), "rows written")
	rows := 0
	config.Told = func(n int) { rows = n; progress.at(n) }
	err = untilDone(ctx, func() error {
		defer progress.done()
		return postgres.ExportState(ctx, cmd.OutOrStdout(), config)
	})
	if err != nil {
		return fmt.Errorf("%w; the file is incomplete, and caddy oauth import refuses it", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "wrote %d rows\n", rows)
	return nil
}

func importState(ctx context.Context, cmd *cobra.Command, app *App, args []string) error {
	from := cmd.InOrStdin()
	if args[0] != "-" {
		file, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		from = file
	}
	if err := app.openSecrets(ctx); err != nil {
		return err
	}
	config, err := app.stateConfig(ctx)
	if err != nil {
		return err
	}
	config.Fingerprints = app.secrets.Fingerprints()
	progress := newProgress(cmd.ErrOrStderr(), "rows read")
	config.Told = progress.at
	var header postgres.StateHeader
	var rows int
	err = untilDone(ctx, func() (err error) {
		defer progress.done()
		header, rows, err = postgres.ImportState(ctx, from, config)
		return err
	})
	switch {
	case ctx.Err() != nil && err != nil:
		return fmt.Errorf("%w; nothing was imported, or everything if it was at its end: run it again, and it says", err)
	case err != nil:
		return fmt.Errorf("%w; nothing was imported", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "imported %d rows, as they were at %s\n", rows, header.ExportedAt.UTC().Format(time.RFC3339))
	if header.Issuer != "" && header.Issuer != app.issuer {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: they are of the issuer %s, and the configuration says %s: tokens issued before are refused, and clients that were told the old name stop\n", header.Issuer, app.issuer)
	}
	return nil
}

// untilDone runs what may hang in a file that nobody reads or writes, and leaves it
// there soon after ctx has ended: the process ends, and its connection with it.
func untilDone(ctx context.Context, do func() error) error {
	const grace = 2 * time.Second
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(grace):
		return ctx.Err()
	}
}
