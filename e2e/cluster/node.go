//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

const (
	startLimit = 60 * time.Second
	// stopLimit is Caddy's grace for requests in flight and then some.
	stopLimit = 30 * time.Second
)

// Node is one gateway: a process, its configuration and its wire to Postgres.
type Node struct {
	Name string
	// Address, host:port, is where it listens; Admin its admin API.
	Address, Admin string
	// Wire leads from the node to Postgres, in place of the network.
	Wire *postgrestest.Wire
	// Second leads to Config.Standby; nil without.
	Second *postgrestest.Wire

	cluster   *Cluster
	dir       string
	dsn       string
	options   string
	global    string
	proxy     string
	namespace *namespace // nil: the machine's own
	client    *http.Client

	process *exec.Cmd
	exited  chan error
	logFile string
}

func newNode(t testing.TB, c *Cluster, cfg Config, i int, dir string) *Node {
	t.Helper()
	n := &Node{Name: fmt.Sprintf("node%d", i+1), cluster: c, dir: dir, options: cfg.Options, global: cfg.Global, proxy: cfg.Proxy, logFile: filepath.Join(dir, "log")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	host, wire := loopback(), "127.0.0.1:0"
	if cfg.Namespaces {
		n.namespace = newNamespace(t, i)
		host, wire = n.namespace.inside, n.namespace.outside+":0"
	}
	n.Address, n.Admin = host+":8080", host+":2019"
	n.Wire, n.dsn = postgrestest.NewWireAt(t, cfg.DSN, wire)
	if cfg.Standby != nil {
		n.Second, _ = postgrestest.NewWireAt(t, cfg.Standby.DSN(), wire)
		n.dsn = strings.Replace(n.dsn, n.Wire.Address(), n.Wire.Address()+","+n.Second.Address(), 1) + "&target_session_attrs=read-write"
	}
	n.dsn += "&application_name=" + n.Name
	n.client = newClient(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, n.Address)
	})
	t.Cleanup(func() {
		n.client.CloseIdleConnections()
		n.stop(t)
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", n.Name, n.LogTail())
		}
	})
	n.Configure(t, "")
	return n
}

// Configure writes the Caddyfile, with more lines for the block of the global
// option oauth. It holds from the next Start or Reload on.
func (n *Node) Configure(t testing.TB, options string) {
	t.Helper()
	if err := os.WriteFile(n.caddyfile(), []byte(n.configuration(options)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n *Node) caddyfile() string { return filepath.Join(n.dir, "Caddyfile") }

func (n *Node) configuration(options string) string {
	host, _, _ := net.SplitHostPort(n.Address)
	upstream := n.cluster.upstream.Listener.Addr().(*net.TCPAddr)
	from := "127.0.0.1"
	if n.namespace != nil {
		from = n.namespace.outside
	}
	return fmt.Sprintf(`{
	admin %s {
		origins localhost
	}
	auto_https off
	persist_config off
	storage file_system %s
	grace_period 10s
	%s
	servers {
		protocols h1 h2c
	}
	oauth {
		issuer   %s
		postgres {env.DATABASE_URL}
		secret   {env.OAUTH_SECRET}

		scope jobs:read          "Search jobs and view job details"
		scope applications:write "Submit applications for you"

		client %s {
			name         "Partner"
			secret       {env.CLIENT_SECRET}
			redirect_uri %s
		}
		login password
		%s
		%s
	}
}

http://:8080 {
	bind %s
	oauth_server
	oauth_protect {
		GET  /jobs           jobs:read
		GET  /jobs/*         jobs:read
		POST /applications   applications:write
		GET  /events         jobs:read
		GET  /health         public
	}
	reverse_proxy %s:%d {
		%s
		transport http {
			keepalive_idle_conns_per_host 256
		}
	}
}
`, n.Admin, filepath.Join(n.dir, "storage"), n.global, n.cluster.Issuer, ClientID, redirectURI, n.options, options, host, from, upstream.Port, n.proxy)
}

// Start runs the gateway. It does not wait; see AwaitReady.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(n.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	command := n.command(t, "run", "--config", n.caddyfile(), "--adapter", "caddyfile")
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // it ends with us
	if err := command.Start(); err != nil {
		t.Fatalf("start %s: %v", n.Name, err)
	}
	n.process, n.exited = command, make(chan error, 1)
	go func(exited chan<- error) { exited <- command.Wait() }(n.exited)
}

// command is Caddy with the node's environment, in its namespace.
func (n *Node) command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	args = append([]string{Binary(t)}, args...)
	if n.namespace != nil {
		args = append([]string{"ip", "netns", "exec", n.namespace.name}, args...)
	}
	command := exec.Command(args[0], args[1:]...)
	command.Env = append(os.Environ(), "DATABASE_URL="+n.dsn, "OAUTH_SECRET="+rootSecret, "CLIENT_SECRET="+ClientSecret)
	return command
}

// Command runs `caddy …` as an operator would on the node's machine, against
// its configuration, and returns what it printed.
func (n *Node) Command(t testing.TB, args ...string) string {
	t.Helper()
	out, err := n.Program(t, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("caddy %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Program is Command, for the test to run.
func (n *Node) Program(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return n.command(t, append(args, "--config", n.caddyfile())...)
}

// AwaitReady returns when the node says that it is ready.
func (n *Node) AwaitReady(t testing.TB) {
	t.Helper()
	if err := n.TryReady(startLimit); err != nil {
		t.Fatalf("%s: %v\n%s", n.Name, err, n.LogTail())
	}
}

// TryReady is AwaitReady with a limit and an error, also when the process has
// ended.
func (n *Node) TryReady(limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		answer := n.Get(context.Background(), "/oauth/healthz/ready", "")
		if answer.Status == http.StatusOK {
			return nil
		}
		select {
		case err := <-n.exited:
			n.exited <- err
			return fmt.Errorf("the gateway ended: %w", errors.Join(err, errors.New("at start")))
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %s: %s", limit, answer)
		}
	}
}

// Kill is kill -9.
func (n *Node) Kill() {
	_ = n.process.Process.Kill()
	n.await(stopLimit)
}

// Terminate sends SIGTERM; Ended returns how it went.
func (n *Node) Terminate() { _ = n.process.Process.Signal(syscall.SIGTERM) }

// Ended waits until the process has ended.
func (n *Node) Ended(t testing.TB) error {
	t.Helper()
	err, ended := n.await(stopLimit)
	if !ended {
		t.Fatalf("%s does not end", n.Name)
	}
	return err
}

// Pause is SIGSTOP, Continue is SIGCONT.
func (n *Node) Pause() { _ = n.process.Process.Signal(syscall.SIGSTOP) }

// Continue ends Pause.
func (n *Node) Continue() { _ = n.process.Process.Signal(syscall.SIGCONT) }

// Running reports whether the process has not ended.
func (n *Node) Running() bool {
	if n.process == nil {
		return false
	}
	_, ended := n.await(0)
	return !ended
}

func (n *Node) await(limit time.Duration) (err error, ended bool) {
	select {
	case err = <-n.exited:
		n.exited <- err
		return err, true
	case <-time.After(limit):
		return nil, false
	}
}

func (n *Node) stop(t testing.TB) {
	t.Helper()
	if !n.Running() {
		return
	}
	n.Continue()
	n.Terminate()
	if _, ended := n.await(stopLimit); !ended {
		n.Kill()
		t.Errorf("%s did not stop within %s", n.Name, stopLimit)
	}
}

// Log is all that the node has logged.
func (n *Node) Log() string {
	text, _ := os.ReadFile(n.logFile)
	return string(text)
}

// LogTail is the end of what the node has logged besides its ordinary work.
func (n *Node) LogTail() string {
	lines := slices.DeleteFunc(strings.Split(n.Log(), "\n"), func(line string) bool { return strings.HasPrefix(line, `{"level":"info"`) })
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
