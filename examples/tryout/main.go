// Command tryout is what `make run` runs in the foreground: the sample job
// board and, in front of it, bin/caddy with Caddyfile.example. It makes a demo
// user and the secrets, waits until the gateway is ready and says what to try.
//
// Environment: GATEWAY_ADDRESS, DATABASE_URL, DEMO_PASSWORD, DEMO_CLIENT_SECRET;
// where those ports are taken, also GATEWAY_ADMIN, JOBS_API, PEOPLE_API and
// TOOLS_API.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/caddy-scope/caddy-scope/examples/jobboard"
)

const (
	dataDir   = ".data"
	caddyfile = "Caddyfile.example"
	// startLimit leaves room for the download of a Postgres server.
	startLimit = 5 * time.Minute
	// stopLimit is how long Caddy may take to finish requests and stop Postgres.
	stopLimit = 20 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "\nmake run:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	// 1. Where it will be, and that nobody else is there.
	gateway, err := gatewayFromEnvironment()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return fmt.Errorf("make the folder for the data: %w", err)
	}
	unlock, err := lockData(filepath.Join(dataDir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if err := gateway.checkPorts(ctx); err != nil {
		return err
	}
	if err := checkDatabase(ctx); err != nil {
		return err
	}
	demo, err := loadDemo(filepath.Join(dataDir, "demo.env"))
	if err != nil {
		return err
	}

	// 2. The sample APIs. They end last.
	apis, stopAPIs := context.WithCancel(context.WithoutCancel(ctx))
	listening, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- jobboard.New().ListenAndServe(apis, gateway.jobs, gateway.people, gateway.tools, func() { close(listening) })
	}()
	defer func() { stopAPIs(); <-ended }()
	select {
	case <-listening:
	case err := <-ended:
		ended <- nil
		return fmt.Errorf("sample APIs: %w", err)
	}

	// 3. The gateway.
	fmt.Fprintf(out, "Starting the gateway of %s on %s ...\n", caddyfile, gateway.address)
	runtime.LockOSThread() // Caddy ends with the thread that started it
	caddy, err := startCaddy(append(gateway.environment(), "DEMO_CLIENT_SECRET="+demo.clientSecret))
	if err != nil {
		return err
	}
	defer caddy.stop()
	if err := caddy.waitReady(ctx, gateway.address+"/oauth/healthz/ready"); err != nil {
		return err
	}

	// 4. The user.
	if err := demo.ensureUser(ctx, caddy); err != nil {
		return err
	}
	welcome(out, gateway, demo, caddy, findDatabase(ctx))
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nStopping.")
		return nil
	case <-caddy.exited:
		return caddy.failure("Caddy ended")
	}
}
