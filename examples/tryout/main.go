// Command tryout is what `make run` runs in the foreground: the sample job
// board and, in front of it, bin/caddy with Caddyfile.example. It makes a demo
// user and the secrets, waits until the gateway is ready and says what to try.
//
// Environment: GATEWAY_ADDRESS, DATABASE_URL, DEMO_PASSWORD, DEMO_CLIENT_SECRET.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
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
	if err := gateway.checkPorts(jobboard.JobsAddress, jobboard.PeopleAddress); err != nil {
		return err
	}
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return err
	}
	demo, err := loadDemo(filepath.Join(dataDir, "demo.env"))
	if err != nil {
		return err
	}

	// 2. The sample APIs. They end last.
	apis, stopAPIs := context.WithCancel(context.WithoutCancel(ctx))
	listening, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- jobboard.New().ListenAndServe(apis, func() { close(listening) }) }()
	defer func() { stopAPIs(); <-ended }()
	select {
	case <-listening:
	case err := <-ended:
		ended <- nil
		return fmt.Errorf("sample APIs: %w", err)
	}

	// 3. The gateway.
	fmt.Fprintf(out, "Starting the gateway of %s on %s ...\n", caddyfile, gateway.address)
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
	welcome(out, gateway, demo, caddy)
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nStopping.")
		return nil
	case <-caddy.exited:
		return caddy.failure("Caddy ended")
	}
}

// gateway is where the try-out listens.
type gateway struct {
	address string // http://localhost:8080, the issuer
	host    string // localhost:8080
	bind    string // for the Caddyfile
	hosts   []string
	admin   string
}

func gatewayFromEnvironment() (*gateway, error) {
	g := &gateway{address: os.Getenv("GATEWAY_ADDRESS"), admin: os.Getenv("GATEWAY_ADMIN")}
	if g.address == "" {
		g.address = "http://localhost:8080"
	}
	if g.admin == "" {
		g.admin = "localhost:2019"
	}
	u, err := url.Parse(g.address)
	if err != nil || u.Scheme != "http" || u.Port() == "" || u.Path != "" {
		return nil, fmt.Errorf("GATEWAY_ADDRESS %q: an address such as http://localhost:8080 is expected", g.address)
	}
	g.host = u.Host
	g.hosts = []string{"127.0.0.1"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil { // this machine speaks IPv6
		_ = l.Close()
		g.hosts = append(g.hosts, "::1")
	}
	g.bind = "127.0.0.1"
	if len(g.hosts) > 1 {
		g.bind = "127.0.0.1 [::1]"
	}
	return g, nil
}

// environment is what Caddyfile.example reads.
func (g *gateway) environment() []string {
	return append(os.Environ(), "GATEWAY_ADDRESS="+g.address, "GATEWAY_BIND="+g.bind, "GATEWAY_ADMIN="+g.admin)
}

func (g *gateway) checkPorts(others ...string) error {
	_, port, err := net.SplitHostPort(g.host)
	if err != nil {
		return err
	}
	for _, host := range g.hosts {
		others = append(others, net.JoinHostPort(host, port))
	}
	for _, address := range append(others, g.admin) {
		l, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("port in use: something listens on %s already. Stop it%s", address, portHint(address, port))
		}
		if err != nil {
			return fmt.Errorf("cannot listen on %s: %w", address, err)
		}
		_ = l.Close()
	}
	return nil
}

func portHint(address, port string) string {
	if strings.HasSuffix(address, ":"+port) {
		return ", or choose another port: GATEWAY_ADDRESS=http://localhost:8090 make run"
	}
	return "."
}

// caddyProcess is bin/caddy run, with its log in a file.
type caddyProcess struct {
	command     *exec.Cmd
	environment []string
	logFile     string
	exited      chan struct{}
}

func startCaddy(environment []string) (*caddyProcess, error) {
	c := &caddyProcess{environment: environment, logFile: filepath.Join(dataDir, "caddy.log"), exited: make(chan struct{})}
	log, err := os.OpenFile(c.logFile, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.command = exec.Command(filepath.Join("bin", "caddy"), "run", "--config", caddyfile)
	c.command.Env, c.command.Stdout, c.command.Stderr = environment, log, log
	ownGroup(c.command) // Ctrl-C is for us: we stop it in order
	if err := c.command.Start(); err != nil {
		return nil, fmt.Errorf("start bin/caddy (made by make build): %w", err)
	}
	go func() {
		_ = c.command.Wait()
		close(c.exited)
	}()
	return c, nil
}

func (c *caddyProcess) waitReady(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	client := &http.Client{Timeout: 2 * time.Second}
	for {
		if r, err := client.Get(address); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-c.exited:
			return c.failure("Caddy did not start")
		case <-ctx.Done():
			return c.failure("the gateway did not become ready")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// run runs a caddy command against the running configuration.
func (c *caddyProcess) run(ctx context.Context, input string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, filepath.Join("bin", "caddy"), args...)
	command.Env, command.Stdin = c.environment, strings.NewReader(input)
	out, err := command.CombinedOutput()
	return string(out), err
}

// stop ends Caddy, which ends Postgres.
func (c *caddyProcess) stop() {
	_ = c.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(stopLimit):
		_ = c.command.Process.Kill()
		<-c.exited
	}
}

// failure is what happened, with the end of the log.
func (c *caddyProcess) failure(what string) error {
	text, _ := os.ReadFile(c.logFile)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("%s. The end of %s:\n%s", what, c.logFile, strings.Join(lines[max(0, len(lines)-10):], "\n"))
}
