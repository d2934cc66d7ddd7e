package caddymodule

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

func exportUserCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export EMAIL|ID", Short: "Prints all that is held about a user, as JSON", Args: cobra.ExactArgs(1),
		Long: `
Writes one JSON document to standard output, with the rows of every table that
holds something about the user, as they are at one moment, but for secrets
(passwords, keys, digests). docs/commands.md describes it. Whoever reads it learns
all that: give it to the user in a way that nobody else reads.`,
		Example: "  caddy oauth user export ada@example.com > ada.json",
		RunE:    runWithApp(exportUser),
	}
}

func eraseUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "erase EMAIL|ID", Short: "Removes all that is held about a user", Args: cobra.ExactArgs(1),
		Long: `
Ends the user's sessions and logins at once and removes all that is held about the
user. The audit trail stays, under a pseudonym that nobody can compute, without
addresses. It cannot be undone. It may be interrupted: run it again, and it goes on.

A user who can still sign in (at a provider, or in your app) may come back, as
somebody new: disable them there first. Backups and logs are yours to clean.`,
		Example: "  caddy oauth user erase ada@example.com\n  caddy oauth user erase 6f9619ff-8b86-d011-b42d-00c04fc964ff --yes",
		RunE:    runWithApp(eraseUser),
	}
	cmd.Flags().Bool("yes", false, "Do not ask")
	return cmd
}

func exportUser(ctx context.Context, cmd *cobra.Command, app *App, args []string) error {
	db, err := app.openDatabase(ctx)
	if err != nil {
		return err
	}
	userID, _, err := findHeld(ctx, db.store, args[0])
	if errors.Is(err, issuer.ErrNotFound) {
		return fmt.Errorf("nothing is held about %s; to see who is known: caddy oauth user list", args[0])
	}
	if err != nil {
		return err
	}
	progress := newProgress(cmd.ErrOrStderr(), "rows written")
	defer progress.done()
	return db.store.ExportUser(ctx, cmd.OutOrStdout(), app.issuer, userID, progress.at)
}

// findHeld says what to do where a name does not tell who is meant.
func findHeld(ctx context.Context, store *postgres.Store, name string) (userID string, held []postgres.HeldRows, err error) {
	userID, held, err = store.FindHeld(ctx, name)
	if errors.Is(err, issuer.ErrExists) {
		err = fmt.Errorf("%w; name the user by an id that is nothing else's", err)
	}
	return userID, held, err
}

func eraseUser(ctx context.Context, cmd *cobra.Command, app *App, args []string) error {
	db, err := app.openDatabase(ctx)
	if err != nil {
		return err
	}
	userID, held, err := findHeld(ctx, db.store, args[0])
	if errors.Is(err, issuer.ErrNotFound) { // done before: who runs it again is right to
		fmt.Fprintf(cmd.OutOrStdout(), "nothing is held about %s\n", args[0])
		return nil
	}
	if err != nil {
		return err
	}
	if yes, _ := cmd.Flags().GetBool("yes"); !yes {
		if err := confirmErasure(ctx, cmd, userID, held); err != nil {
			return err
		}
	}
	progress := newProgress(cmd.ErrOrStderr(), "events rewritten")
	pseudonym, err := db.store.EraseUser(ctx, userID, progress.at)
	progress.done()
	switch {
	case errors.Is(err, issuer.ErrNotFound): // by somebody else, meanwhile
	case err != nil:
		return fmt.Errorf("%w; what is erased stays erased: run the command again to go on", err)
	default:
		fmt.Fprintf(cmd.OutOrStdout(), "erased %s; in the audit trail it is %s now\n", userID, pseudonym)
	}
	return nil
}

func confirmErasure(ctx context.Context, cmd *cobra.Command, userID string, held []postgres.HeldRows) error {
	out := cmd.ErrOrStderr()
	fmt.Fprintf(out, "This is held about %s:\n\n", userID)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, rows := range held {
		kept := ""
		if rows.Stays {
			kept = "\t(stays, without the user)"
		}
		fmt.Fprintf(table, "  %s\t%d%s\n", rows.Table, rows.Rows, kept)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) && cmd.InOrStdin() == os.Stdin {
		return errors.New("nothing was erased: there is no terminal to ask at. If this is what you want, say --yes")
	}
	fmt.Fprint(out, "\nIt cannot be undone. Type the id to erase it: ")
	typed, err := readAnswer(ctx, cmd.InOrStdin())
	if err != nil {
		return err
	}
	if typed != userID {
		return errors.New("nothing was erased: that was not the id")
	}
	return nil
}

// readAnswer reads a line, unless the command is interrupted before.
func readAnswer(ctx context.Context, from io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(from).ReadString('\n')
		if errors.Is(err, io.EOF) { // an answer all the same
			err = nil
		}
		read <- answer{strings.TrimSpace(line), err}
	}()
	select {
	case got := <-read:
		return got.line, got.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
