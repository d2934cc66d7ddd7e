package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Tells whether a running server is healthy", Args: cobra.NoArgs,
		Long: `
Tells on one screen how a running server does: whether the database answers and
its tables are up to date, how old the view of sessions is, the signing keys and
their phases, how many clients and sessions there are (estimated where there are
many), and the last warnings and errors of the log. With several nodes name the
admin API of each.

With --browse it shows the same as a page at an address of this machine, for
browsers: Caddy's admin API answers none that does not come from a page of its
own. The page is read-only, and made anew each time it is loaded.

Exit status: 0 healthy, 2 not, 1 it is not known.`,
		Example: "  caddy oauth status\n  caddy oauth status --address 10.0.0.1:2019,10.0.0.2:2019\n  caddy oauth status --json | jq -e .healthy\n  caddy oauth status --browse 127.0.0.1:2080",
		RunE:    tellStatus,
	}
	flags := cmd.Flags()
	flags.StringSlice("address", []string{caddy.DefaultAdminListen}, "Addresses of the nodes' admin APIs")
	flags.Bool("json", false, "Answer in JSON, an object for each node")
	flags.String("browse", "", "Show the page at this address of this machine until interrupted")
	return cmd
}

func tellStatus(cmd *cobra.Command, _ []string) error {
	cmd.SilenceUsage = true
	addresses, _ := cmd.Flags().GetStringSlice("address")
	if listen, _ := cmd.Flags().GetString("browse"); listen != "" {
		return browseStatus(cmd, listen, addresses)
	}
	asJSON, _ := cmd.Flags().GetBool("json")
	healthy := true
	var errs []error
	for i, address := range addresses {
		var s status
		if err := askAdmin(cmd.Context(), address, statusPath, &s); err != nil {
			errs = append(errs, err)
			continue
		}
		healthy = healthy && s.Healthy
		var err error
		if asJSON {
			err = writeJSON(cmd.OutOrStdout(), s)
		} else {
			if i > 0 {
				fmt.Fprintln(cmd.OutOrStdout())
			}
			err = s.writeText(cmd.OutOrStdout(), address, time.Now())
		}
		if err != nil {
			return err
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if !healthy {
		return exitWith(cmd, exitNo)
	}
	return nil
}

func (s *status) writeText(w io.Writer, address string, now time.Time) error {
	var b strings.Builder
	verdict := "healthy"
	if !s.Healthy {
		verdict = "NOT HEALTHY"
	}
	line := func(name, value string) { fmt.Fprintf(&b, "%-9s %s\n", name, value) }
	line("node", address+"  "+verdict)
	for _, problem := range s.Problems {
		line("problem", problem)
	}
	for _, l := range s.lines(now) {
		line(l.Name, l.Value)
	}
	if len(s.Errors) == 0 {
		line("log", "no warnings and no errors")
	}
	for _, e := range s.Errors {
		line(e.Level, e.text(now))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (e *loggedError) text(now time.Time) string {
	text := ago(now, e.Time) + " ago: " + e.Message
	if e.Cause != "" {
		text += ": " + e.Cause
	}
	return onScreen(strings.Join(strings.Fields(text), " ")) // on one line
}

// browseStatus serves the page until interrupted. It asks the admin API itself,
// so that no browser has to.
func browseStatus(cmd *cobra.Command, listen string, addresses []string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("--browse: %q is not HOST:PORT", listen)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--browse: %s is not an address of this machine alone; use 127.0.0.1", host)
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("--browse: %w", err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	own := net.JoinHostPort(host, port)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host != own: // a page elsewhere whose name leads here (DNS rebinding)
			http.Error(w, "this is "+own, http.StatusMisdirectedRequest)
		case r.URL.Path != "/" || r.Method != http.MethodGet:
			http.NotFound(w, r)
		default:
			pages := make([]nodeStatus, len(addresses))
			for i, address := range addresses {
				pages[i].Address = address
				if err := askAdmin(r.Context(), address, statusPath, &pages[i].status); err != nil {
					pages[i].Problems = []string{err.Error()}
				}
			}
			writeStatusPage(w, pages)
		}
	})}
	fmt.Fprintf(cmd.OutOrStdout(), "http://%s/\n", own)
	stop := make(chan struct{})
	go func() {
		<-cmd.Context().Done()
		_ = server.Close()
		close(stop)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stop
	return nil
}
