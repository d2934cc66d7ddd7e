//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

const (
	embeddedUser = "caddy_scope"
	// socketPathMax is the room a unix socket address has on the tightest
	// system (macOS), less the name of the socket file.
	socketPathMax = 103 - len("/.s.PGSQL.5432")
)

// EmbeddedConfig describes the server of `postgres embedded`.
type EmbeddedConfig struct {
	// DataDir keeps the server's data, password and socket. Required.
	DataDir string
	// BinDir holds postgres and initdb. Empty: an installed server is looked
	// for, and downloaded where there is none.
	BinDir string
	// Repository is where a server is downloaded from; empty: Maven Central.
	Repository string
	// Settings are added to the server's command line.
	Settings map[string]string
	// Ephemeral is for tests: nothing is synced to disk, and when this process
	// ends, however it ends, the server and its directory go too.
	Ephemeral bool
	// Logger; nil: none.
	Logger *zap.Logger
}

// Embedded is a running server.
type Embedded struct {
	cfg      EmbeddedConfig
	dir      string // DataDir, or the place chosen in its stead
	run      string // of the unix socket
	bin      string
	password string
	account  account
	lock     *os.File
	watchdog *os.File // kept open; its end tells the watchdog that we died

	mu       sync.Mutex
	process  *exec.Cmd
	exited   chan struct{} // closed when process has ended
	stopping bool
	stderr   *tail
	done     chan struct{} // closed when supervision has ended
}

// StartEmbedded makes the data directory if need be and starts the server on a
// unix socket. It survives kill -9 of this process and of the server: a server
// left behind is shut down and started anew, one that dies is restarted. A
// second process on the same directory is refused.
func StartEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("embedded postgres: no data directory given")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	e := &Embedded{cfg: cfg, stderr: &tail{log: cfg.Logger}}
	if err := e.start(ctx); err != nil {
		e.release()
		return nil, fmt.Errorf("embedded postgres in %s: %w", cfg.DataDir, err)
	}
	return e, nil
}

func (e *Embedded) start(ctx context.Context) error {
	dir, err := filepath.Abs(e.cfg.DataDir)
	if err != nil {
		return err
	}
	// 1. Who runs it, from where.
	if e.account, err = serverAccount(filepath.Join(dir, "pgdata")); err != nil {
		return err
	}
	if e.bin, err = serverBinaries(ctx, e.cfg, dir); err != nil {
		return err
	}
	if e.dir, err = e.chooseDirectory(dir); err != nil {
		return err
	}
	// 2. Ours alone.
	if e.lock, err = lockDirectory(e.dir); err != nil {
		return err
	}
	if e.run, err = e.socketDirectory(); err != nil {
		return err
	}
	if err := e.stopOrphan(ctx); err != nil {
		return err
	}
	// 3. A cluster, once.
	if e.password, err = e.loadPassword(); err != nil {
		return err
	}
	if err := e.initdb(ctx); err != nil {
		return err
	}
	// 4. The server.
	if err := e.launch(); err != nil {
		return err
	}
	e.done = make(chan struct{})
	go e.supervise()
	if err := e.waitReady(ctx); err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = e.Stop(stopCtx)
		return err
	}
	return nil
}

// DSN is the connection string of the server, with its password.
func (e *Embedded) DSN() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(embeddedUser, e.password), Path: "/postgres",
		RawQuery: url.Values{"host": {e.run}, "port": {"5432"}, "sslmode": {"disable"}}.Encode()}
	return u.String()
}

// DataDir is where the data really is: the configured directory, or the place
// chosen when the server's user could not enter that one.
func (e *Embedded) DataDir() string { return e.dir }

// Stop shuts the server down (fast: clients are disconnected, nothing is lost)
// and returns when it has ended.
func (e *Embedded) Stop(ctx context.Context) error {
	e.mu.Lock()
	e.stopping = true
	process, exited := e.process, e.exited
	e.mu.Unlock()
	defer e.release()
	if process == nil {
		return nil
	}
	_ = process.Process.Signal(syscall.SIGINT)
	select {
	case <-exited:
	case <-ctx.Done():
		_ = process.Process.Signal(syscall.SIGQUIT)
		return fmt.Errorf("stop embedded postgres: %w", ctx.Err())
	}
	<-e.done
	return nil
}

func (e *Embedded) release() {
	if e.watchdog != nil {
		_ = e.watchdog.Close()
	}
	if e.lock != nil {
		_ = e.lock.Close()
	}
	e.watchdog, e.lock = nil, nil
}

// launch starts the server once.
func (e *Embedded) launch() error {
	settings := map[string]string{"listen_addresses": "", "unix_socket_directories": e.run,
		"unix_socket_permissions": "0700", "port": "5432", "logging_collector": "off", "log_destination": "stderr"}
	if e.cfg.Ephemeral {
		settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"] = "off", "off", "off"
		settings["max_connections"], settings["shared_buffers"] = "200", "32MB"
	}
	for name, value := range e.cfg.Settings {
		settings[name] = value
	}
	args := []string{"-D", e.pgdata()}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	cmd := e.Command(context.Background(), "postgres", e.pgdata(), args...)
	cmd.Cancel = nil
	cmd.Stderr, cmd.Stdout = e.stderr, e.stderr

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping {
		return errors.New("the server is being stopped")
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	if e.cfg.Ephemeral {
		if err := e.watch(cmd.Process.Pid); err != nil {
			_ = cmd.Process.Kill()
			return err
		}
	}
	exited := make(chan struct{})
	e.process, e.exited = cmd, exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	return nil
}

// supervise restarts a server that died without being told to.
func (e *Embedded) supervise() {
	defer close(e.done)
	pause := 100 * time.Millisecond
	for {
		e.mu.Lock()
		exited := e.exited
		e.mu.Unlock()
		started := time.Now()
		<-exited
		e.mu.Lock()
		stopping := e.stopping
		e.mu.Unlock()
		if stopping {
			return
		}
		if time.Since(started) > time.Minute {
			pause = 100 * time.Millisecond
		}
		e.cfg.Logger.Error("the embedded postgres server died; starting it again", zap.String("data_dir", e.dir), zap.String("said", e.stderr.last()))
		time.Sleep(pause)
		pause = min(2*pause, 10*time.Second)
		if err := e.launch(); err != nil {
			e.cfg.Logger.Error("restart embedded postgres", zap.Error(err))
			e.mu.Lock()
			closed := make(chan struct{})
			close(closed)
			e.exited = closed // try again
			e.mu.Unlock()
		}
	}
}

// watch starts a process that outlives us just long enough to stop an
// ephemeral server: it waits for the end of a pipe that only we hold open.
func (e *Embedded) watch(pid int) error {
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("watch the test process: %w", err)
	}
	defer read.Close()
	cmd := exec.Command("/bin/sh", "-c", `cat >/dev/null; kill -QUIT "$1" 2>/dev/null; sleep 0.2; rm -rf "$2"`, "sh", strconv.Itoa(pid), e.dir)
	cmd.Stdin = read
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		write.Close()
		return fmt.Errorf("watch the test process: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	if e.watchdog != nil {
		_ = e.watchdog.Close()
	}
	e.watchdog = write
	return nil
}

// waitReady returns when the server accepts connections.
func (e *Embedded) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		probe, stop := context.WithTimeout(ctx, 2*time.Second)
		conn, err := pgx.Connect(probe, e.DSN())
		if err == nil {
			err = conn.Ping(probe)
			_ = conn.Close(probe)
		}
		stop()
		if err == nil {
			return nil
		}
		e.mu.Lock()
		exited := e.exited
		e.mu.Unlock()
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server does not accept connections: %w; it said: %s", err, e.stderr.last())
		case <-exited:
			return fmt.Errorf("the server ended at once; it said: %s", e.stderr.last())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stopOrphan shuts down a server that an earlier process of ours left behind,
// and removes a pid file that names a stranger (process ids are used again, in
// containers within seconds), for which the server would refuse to start.
func (e *Embedded) stopOrphan(ctx context.Context) error {
	pidfile := filepath.Join(e.pgdata(), "postmaster.pid")
	text, err := os.ReadFile(pidfile)
	if err != nil {
		return nil
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 1 || !runsIn(pid, e.pgdata()) {
		return os.Remove(pidfile)
	}
	e.cfg.Logger.Warn("a server left behind by an earlier process is shut down", zap.Int("pid", pid))
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
		return fmt.Errorf("shut down the server left behind (process %d): %w", pid, err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for syscall.Kill(pid, 0) == nil && runsIn(pid, e.pgdata()) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("the server left behind (process %d) does not end", pid)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// Command runs one of the server's programs as the unprivileged user, with an
// environment that holds none of the gateway's secrets, in a process group of
// its own: Ctrl-C on the terminal is for the gateway, which stops the server last.
func (e *Embedded) Command(ctx context.Context, program, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(e.bin, program), args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + e.bin + ":/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "LANG=C", "TZ=UTC", "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: e.account.credential()}
	return cmd
}

// tail logs what the server writes and remembers the end of it.
type tail struct {
	log *zap.Logger

	mu    sync.Mutex
	lines []string
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		t.lines = append(t.lines, line)
		t.lines = slices.Clone(t.lines[max(0, len(t.lines)-8):])
		if strings.Contains(line, "FATAL:") || strings.Contains(line, "PANIC:") {
			t.log.Warn("postgres: " + line)
		} else {
			t.log.Debug("postgres: " + line)
		}
	}
	return len(p), nil
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, " | ")
}
