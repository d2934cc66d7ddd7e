package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-scope/caddy-scope/postgres"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "oauth",
		Short: "Explains scope rules; manages the clients, users, sessions and keys of the oauth app",
		Long: `
Works on the configuration, and on the database that it names, whether the
server runs or not. The configuration is the Caddyfile in the current directory unless
--config says otherwise; secrets come from the same environment as the server's.

Exit status: 0 done, 1 not done; a command that answers a question documents more.`,
		CobraFunc: addOAuthCommands,
	})
}

func addOAuthCommands(cmd *cobra.Command) {
	cmd.PersistentFlags().StringP("config", "c", "", "Configuration file (default: Caddyfile)")
	cmd.PersistentFlags().StringP("adapter", "a", "", "Name of the config adapter to apply (default: caddyfile)")
	cmd.AddCommand(userCommand(), migrateCommand(), keyCommand(), explainCommand(), rulesCommand(), diffCommand(), testCommand(), reportCommand(), statusCommand(), openAPICommand())
	cmd.AddCommand(pagesCommand(), doctorCommand(), clientCommand(), sessionCommand(), registrationCommand(), eventCommand(), tokenCommand(), exportCommand(), importCommand(), restoredCommand())
	documentExit(cmd)
}

// documentExit says in the help of every command what its exit status means.
func documentExit(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		documentExit(sub)
	}
	if !cmd.Runnable() || strings.Contains(cmd.Long, "Exit status") {
		return
	}
	text := strings.TrimSpace(cmd.Long)
	if text == "" {
		text = cmd.Short + "."
	}
	cmd.Long = "\n" + text + "\n\nExit status: 0 done, 1 not done, and the last line says why and what to do."
}

// runWithApp makes the function of a command that works on the authorization server:
// it loads the configuration, hands the app over and gives back what the app took.
func runWithApp(f func(ctx context.Context, cmd *cobra.Command, app *App, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) (err error) {
		cmd.SilenceUsage = true
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		app, err := commandApp(cmd)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, app.Cleanup()) }()
		if app.Remote != nil {
			return errors.New(app.onlyGates() + "; run the command there, with the configuration of that Caddy")
		}
		return f(ctx, cmd, app, args)
	}
}

// errNoOption: there is nothing for a command to work on.
var errNoOption = errors.New("the configuration has no global option oauth")

// commandConfigJSON reads the configuration of a command, as JSON.
func commandConfigJSON(cmd *cobra.Command) ([]byte, error) {
	file, _ := cmd.Flags().GetString("config")
	adapter, _ := cmd.Flags().GetString("adapter")
	return configJSON(file, adapter)
}

func configJSON(file, adapter string) ([]byte, error) {
	if file == "" && adapter == "" {
		if _, err := os.Stat("Caddyfile"); err != nil {
			return nil, errors.New("there is no Caddyfile in the current directory: name the configuration with --config FILE")
		}
	}
	content, _, _, err := caddycmd.LoadConfig(file, adapter)
	if err != nil {
		return nil, fmt.Errorf("load the configuration: %w", err)
	}
	return content, nil
}

// commandApp provisions the oauth app of the configuration, and nothing else.
func commandApp(cmd *cobra.Command) (*App, error) {
	content, err := commandConfigJSON(cmd)
	if err != nil {
		return nil, err
	}
	var config struct {
		Storage json.RawMessage            `json:"storage"`
		Apps    map[string]json.RawMessage `json:"apps"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if config.Apps[appName] == nil {
		return nil, errNoOption
	}
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		StorageRaw: config.Storage,
		AppsRaw:    caddy.ModuleMap{appName: config.Apps[appName]},
		Logging:    quietLogging("WARN"),
	})
	if err != nil {
		return nil, err
	}
	app, err := ctx.App(appName)
	if err != nil {
		return nil, err
	}
	app.(*App).command = true
	return app.(*App), nil
}

// useRunningServer makes a command work on the embedded server that another
// process runs; without one, it is started until the command ends.
func (a *App) useRunningServer(ctx context.Context) {
	if !a.command || !a.database.embedded {
		return
	}
	if dsn, running := postgres.RunningEmbeddedDSN(ctx, a.database.dataDir); running {
		a.database.embedded = false
		a.database.dsn, a.database.migrateDSN = dsn, dsn
	}
}

// readPassword reads a new password: a line of standard input, or what is
// typed at the terminal, twice.
func readPassword(cmd *cobra.Command) (string, error) {
	if stdin, _ := cmd.Flags().GetBool("password-stdin"); stdin {
		const longest = 4096
		text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), longest))
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		line, _, _ := strings.Cut(string(text), "\n")
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			return "", errors.New("standard input holds no password")
		}
		return line, nil
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return "", errors.New("there is no terminal to ask for the password: pipe it in with --password-stdin")
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		text, err := term.ReadPassword(fd)
		fmt.Fprintln(cmd.ErrOrStderr())
		return string(text), err
	}
	first, err := ask("Password: ")
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	second, err := ask("The same again: ")
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	if first != second {
		return "", errors.New("the two passwords differ")
	}
	return first, nil
}
