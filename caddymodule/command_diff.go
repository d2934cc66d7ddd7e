package caddymodule

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff OLD NEW", Short: "Tells what another configuration lets callers do", Args: cobra.ExactArgs(2),
		Long: `
Compares two configurations: which operations become callable, which stop being
callable, and by which scopes; also what a gate no longer stands before, bypasses,
resources and clients. It asks both configurations, as they would serve, about one
request of each class that their rules and routes tell apart, and so misses none.

It works offline; no database is asked. What it cannot tell apart (such as a
matcher on headers) stands in a note.

Exit status: 0 nothing changes, 2 something does, 1 it is not known.`,
		Example: "  caddy oauth diff Caddyfile Caddyfile.new\n  git show HEAD:Caddyfile > /tmp/old && caddy oauth diff /tmp/old Caddyfile --adapter caddyfile --json",
		RunE:    diffConfigurations,
	}
	cmd.Flags().Bool("json", false, "Answer in JSON")
	return cmd
}

func diffConfigurations(cmd *cobra.Command, args []string) error {
	cmd.SilenceUsage = true
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var sides [2]*rehearsal
	for i, file := range args {
		adapter, _ := cmd.Flags().GetString("adapter")
		config, err := configJSON(file, adapter)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if sides[i], err = newRehearsal(config); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	progress := newProgress(cmd.ErrOrStderr(), "requests compared")
	diff, err := compareConfigurations(ctx, sides[0], sides[1], progress.at)
	progress.done()
	if err != nil {
		return err
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		err = writeJSON(cmd.OutOrStdout(), diff)
	} else {
		err = diff.WriteText(cmd.OutOrStdout())
	}
	if err == nil && !diff.Empty() {
		return exitWith(cmd, exitNo)
	}
	return err
}
