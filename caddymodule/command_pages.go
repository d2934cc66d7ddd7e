package caddymodule

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/issuer"
)

func pagesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pages FOLDER",
		Short: "Writes the templates, the style sheet and the words of the pages into a folder, to be changed",
		Long: `
Keep only the files that you change, and name the folder with the word templates
of the theme: every other page then goes on with what a newer version brings.
Files that are there already are left alone.`,
		Example: "caddy oauth pages /etc/caddy/pages",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			return writePages(cmd, args[0])
		},
	}
}

func writePages(cmd *cobra.Command, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	ours, err := fs.ReadDir(issuer.PageFiles(), ".")
	if err != nil {
		return err
	}
	for _, file := range ours {
		data, err := fs.ReadFile(issuer.PageFiles(), file.Name())
		if err != nil {
			return err
		}
		path := filepath.Join(folder, file.Name())
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			fmt.Fprintln(cmd.OutOrStdout(), "left alone:", path)
			continue
		}
		if err != nil {
			return err
		}
		_, err = out.Write(data)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), "written:", path)
	}
	return nil
}
