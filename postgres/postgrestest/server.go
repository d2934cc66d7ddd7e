//go:build linux

package postgrestest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/postgres"
)

const (
	serverUser = "caddy_scope"
	// readyLimit leaves room for crash recovery on a busy machine.
	readyLimit = 60 * time.Second
)

// ServerConfig describes a Server.
type ServerConfig struct {
	// Settings of the server, over the ones of NewServer.
	Settings map[string]string
	// Environment of the server, such as one that loads a clock.
	Environment []string
}

// Server is a Postgres server of the test's own, to be killed, stopped, failed
// over and moved in time: unlike the one behind New, nothing restarts it. It
// commits as a server in production does, and ends with the test process.
type Server struct {
	cfg      ServerConfig
	account  *postgres.Embedded // whose programs and user it runs with
	dir      string
	password string

	process *exec.Cmd
	exited  chan struct{}
	log     serverLog
}

// serverLog keeps what the server said, for a test that failed.
type serverLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *serverLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// NewServer makes a cluster and starts it. It is stopped and removed when the
// test ends.
func NewServer(t testing.TB, cfg ServerConfig) *Server {
	t.Helper()
	s := newServer(t, cfg)
	s.password = rand.Text()
	file := filepath.Join(s.dir, "password")
	s.own(t, file, os.WriteFile(file, []byte(s.password), 0o600))
	s.run(t, "initdb", "-D", s.pgdata(), "-U", serverUser, "-A", "scram-sha-256", "--pwfile="+file, "-E", "UTF8", "--locale=C", "--no-sync")
	s.Start(t)
	return s
}

// newServer makes the directories, and removes them when the test ends.
func newServer(t testing.TB, cfg ServerConfig) *Server {
	t.Helper()
	account, err := server()
	if err != nil {
		t.Fatalf("find a server: %v", err)
	}
	dir, err := os.MkdirTemp("", "pgserver-") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{cfg: cfg, account: account, dir: dir}
	t.Cleanup(func() {
		s.Kill(t)
		_ = os.RemoveAll(dir)
		if t.Failed() {
			text := s.log.String()
			t.Logf("postgres in %s said:\n%s", dir, text[max(0, len(text)-8<<10):])
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pgdata", "run"} {
		name = filepath.Join(dir, name)
		s.own(t, name, os.Mkdir(name, 0o700))
	}
	return s
}

// own gives a file that was just made to the user who runs the server.
func (s *Server) own(t testing.TB, name string, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(s.account.DataDir(), "pgdata"))
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(name, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) pgdata() string { return filepath.Join(s.dir, "pgdata") }
func (s *Server) socket() string { return filepath.Join(s.dir, "run") }

// run runs one of the server's programs to its end.
func (s *Server) run(t testing.TB, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	command := s.account.Command(ctx, program, s.dir, args...)
	command.Env = append(command.Env, "PGPASSWORD="+s.password)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// DSN leads to the server directly.
func (s *Server) DSN() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(serverUser, s.password), Path: "/postgres",
		RawQuery: url.Values{"host": {s.socket()}, "port": {"5432"}, "sslmode": {"disable"}}.Encode()}
	return u.String()
}

// Start starts the server, after Kill, Stop or a crash, and returns when it
// accepts connections.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.Launch(t)
	s.AwaitReady(t)
}

// Launch is Start without the wait.
func (s *Server) Launch(t testing.TB) {
	t.Helper()
	settings := map[string]string{
		"listen_addresses": "", "unix_socket_directories": s.socket(), "unix_socket_permissions": "0700", "port": "5432",
		"logging_collector": "off", "log_destination": "stderr", "max_connections": "100", "shared_buffers": "32MB",
		// For pg_rewind.
		"wal_log_hints": "on",
		// Only the machine can lose what is not synced, and it does not fail here.
		"fsync": "off",
	}
	maps.Copy(settings, s.cfg.Settings)
	args := []string{"-D", s.pgdata()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	command := s.account.Command(context.Background(), "postgres", s.pgdata(), args...)
	command.Cancel = nil
	command.Env = append(command.Env, s.cfg.Environment...)
	command.Stdout, command.Stderr = &s.log, &s.log
	command.SysProcAttr.Pdeathsig = syscall.SIGQUIT // it ends with us
	if err := command.Start(); err != nil {
		t.Fatalf("start postgres: %v", err)
	}
	exited := make(chan struct{})
	s.process, s.exited = command, exited
	go func() {
		_ = command.Wait()
		close(exited)
	}()
}

// AwaitReady returns when the server accepts connections.
func (s *Server) AwaitReady(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(readyLimit); ; time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		conn, err := pgx.Connect(ctx, s.DSN())
		if err == nil {
			err = conn.Ping(ctx)
			_ = conn.Close(ctx)
		}
		cancel()
		if err == nil {
			return
		}
		select {
		case <-s.exited:
			t.Fatalf("postgres ended at start:\n%s", s.log.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("postgres is not ready: %v\n%s", err, s.log.String())
		}
	}
}

// Pid is the postmaster's.
func (s *Server) Pid() int { return s.process.Process.Pid }

// Kill is kill -9 of the postmaster, and returns when nobody holds the data any
// more. Its backends notice and end.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill()
	<-s.exited
	for deadline := time.Now().Add(readyLimit); len(s.backends()) > 0; time.Sleep(5 * time.Millisecond) {
		for _, pid := range s.backends() {
			_ = syscall.Kill(pid, syscall.SIGCONT)
			if time.Until(deadline) < readyLimit-5*time.Second {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("backends outlive the postmaster")
		}
	}
}

// backends are the processes whose working directory is the data.
func (s *Server) backends() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range all {
		if cwd, err := os.Readlink(link); err == nil && cwd == s.pgdata() {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// Stop shuts the server down in order: clients are disconnected, nothing is
// lost.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	_ = s.process.Process.Signal(syscall.SIGINT)
	select {
	case <-s.exited:
	case <-time.After(readyLimit):
		t.Fatal("postgres does not stop")
	}
}

// Pause stops the postmaster and every backend where they are.
func (s *Server) Pause() {
	_ = s.process.Process.Signal(syscall.SIGSTOP) // first: it makes no more
	for range 2 {                                 // one may have been on its way
		for _, pid := range s.backends() {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
	}
}

// Continue ends Pause.
func (s *Server) Continue() {
	for _, pid := range s.backends() {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// Exec runs one statement as an operator in psql would, with a bound: the wait
// for a synchronous standby never ends by itself.
func (s *Server) Exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if err := s.Try(statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// Try is Exec for a statement that may fail.
func (s *Server) Try(statement string, args ...any) error {
	return s.connected(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, statement, args...)
		return err
	})
}

// Query reads one value.
func Query[T any](t testing.TB, s *Server, query string, args ...any) (value T) {
	t.Helper()
	err := s.connected(func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, query, args...).Scan(&value)
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}

func (s *Server) connected(do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return do(ctx, conn)
}

// Standby makes a standby that follows s under the name and starts it. It is
// synchronous once synchronous_standby_names of s holds the name.
func (s *Server) Standby(t testing.TB, name string) *Server {
	t.Helper()
	standby := newServer(t, s.cfg)
	standby.password = s.password
	s.run(t, "pg_basebackup", "-d", s.DSN(), "-D", standby.pgdata(), "-R", "-X", "stream", "-C", "-S", name, "-c", "fast", "--no-sync")
	standby.follow(t, s, name)
	standby.Start(t)
	return standby
}

func (s *Server) follow(t testing.TB, primary *Server, name string) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(s.pgdata(), "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	_, err = fmt.Fprintf(file, "\nprimary_conninfo = 'host=%s port=5432 user=%s password=%s application_name=%s'\nprimary_slot_name = '%s'\n",
		primary.socket(), serverUser, primary.password, name, name)
	if err != nil {
		t.Fatal(err)
	}
}

// AwaitSynchronous makes s wait for the standby of that name at each commit,
// and returns when it does.
func (s *Server) AwaitSynchronous(t testing.TB, name string) {
	t.Helper()
	s.SetSynchronous(t, name)
	for deadline := time.Now().Add(readyLimit); ; time.Sleep(20 * time.Millisecond) {
		if Query[int](t, s, `SELECT count(*) FROM pg_stat_replication WHERE application_name = $1 AND sync_state = 'sync'`, name) == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("standby %s is not synchronous", name)
		}
	}
}

// SetSynchronous sets synchronous_standby_names and waits until it holds.
func (s *Server) SetSynchronous(t testing.TB, names string) {
	t.Helper()
	s.Exec(t, `ALTER SYSTEM SET synchronous_standby_names = '`+names+`'`)
	s.Exec(t, `SELECT pg_reload_conf()`)
	for deadline := time.Now().Add(readyLimit); Query[string](t, s, `SHOW synchronous_standby_names`) != names; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server does not read its configuration")
		}
	}
}

// Promote makes a standby the primary, and returns when it takes writes.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, `SELECT pg_promote(true, 60)`)
}

// ReturnAsStandby brings a primary that was killed or stopped back as a standby
// of the server that was promoted in its place, as operators do: pg_rewind.
func (s *Server) ReturnAsStandby(t testing.TB, primary *Server, name string) {
	t.Helper()
	s.Start(t) // crash recovery, which pg_rewind wants
	s.Stop(t)
	primary.Exec(t, `CHECKPOINT`) // else its control file is of the old timeline, and nothing seems to differ
	s.run(t, "pg_rewind", "--target-pgdata="+s.pgdata(), "--source-server="+primary.DSN(), "--no-sync")
	primary.Exec(t, `SELECT pg_create_physical_replication_slot($1) WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, name)
	file := filepath.Join(s.pgdata(), "standby.signal")
	s.own(t, file, os.WriteFile(file, nil, 0o600))
	s.follow(t, primary, name)
	s.Start(t)
}
