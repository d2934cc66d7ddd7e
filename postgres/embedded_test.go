//go:build unix

package postgres_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/postgres"
)

var fast = map[string]string{"fsync": "off", "shared_buffers": "16MB"}

// embeddedProcess stands in for a gateway: it starts the server, says so, and
// waits to be killed.
func embeddedProcess(dir string) {
	e, err := postgres.StartEmbedded(context.Background(), postgres.EmbeddedConfig{DataDir: dir, Settings: fast})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("ready", e.DSN())
	select {}
}

func startProcess(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "EMBEDDED_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, _ := bufio.NewReader(out).ReadString('\n')
	return cmd, strings.TrimSpace(line)
}

// dataDir is a directory that an unprivileged user can reach.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgemb-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func postmaster(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "pgdata", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.SplitN(string(text), "\n", 2)[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// R-01, issue 2.8: data survives kill -9 of the gateway and of the server, a
// second process is refused, and the server is on no network.
func TestEmbeddedServerSurvivesKills(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := dataDir(t)
	gateway, said := startProcess(t, dir)
	dsn, ok := strings.CutPrefix(said, "ready ")
	if !ok {
		t.Fatal(said)
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	var listen string
	if err := conn.QueryRow(ctx, `SHOW listen_addresses`).Scan(&listen); err != nil || listen != "" {
		t.Errorf("listens on %q, %v", listen, err)
	}
	if _, err := conn.Exec(ctx, `CREATE TABLE kept (n int)`); err != nil {
		t.Fatal(err)
	}
	conn.Close(ctx)

	if _, err := postgres.StartEmbedded(ctx, postgres.EmbeddedConfig{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "in use by another process ("+strconv.Itoa(gateway.Process.Pid)) {
		t.Fatalf("a second process on the directory: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "password"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("password file: %v, %v", info, err)
	}

	// The gateway dies; its server is left behind, and taken down by the next.
	_ = gateway.Process.Kill()
	_ = gateway.Wait()
	orphan := postmaster(t, dir)
	e, err := postgres.StartEmbedded(ctx, postgres.EmbeddedConfig{DataDir: dir, Settings: fast})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Stop(ctx)
	if now := postmaster(t, dir); now == orphan {
		t.Error("the server left behind still runs")
	}

	// The server dies; it is started again.
	dead := postmaster(t, dir)
	_ = syscall.Kill(dead, syscall.SIGKILL)
	deadline := time.Now().Add(20 * time.Second)
	for {
		conn, err := pgx.Connect(ctx, e.DSN())
		if err == nil {
			_, err = conn.Exec(ctx, `SELECT FROM kept`)
			conn.Close(ctx)
			if err == nil {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("does not come back:", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if pgid, err := syscall.Getpgid(postmaster(t, dir)); err != nil || pgid == syscall.Getpgrp() {
		t.Errorf("the server is in our process group: Ctrl-C would kill it first (%d, %v)", pgid, err)
	}
	if err := e.Stop(ctx); err != nil {
		t.Fatal(err)
	}

	// A pid file that names a stranger does not keep the server down.
	stale := filepath.Join(dir, "pgdata", "postmaster.pid")
	if err := os.WriteFile(stale, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	e, err = postgres.StartEmbedded(ctx, postgres.EmbeddedConfig{DataDir: dir, Settings: fast})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

// Under root's home the unprivileged user cannot enter.
func TestEmbeddedServerMovesWhereItsUserCanEnter(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	parent := dataDir(t)
	closed := filepath.Join(parent, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "data")
	e, err := postgres.StartEmbedded(ctx, postgres.EmbeddedConfig{DataDir: dir, Settings: fast})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Stop(ctx)
	if os.Geteuid() == 0 {
		if e.DataDir() == dir {
			t.Fatal("the server runs in a directory that its user cannot enter")
		}
		t.Cleanup(func() { os.RemoveAll(e.DataDir()) })
	} else if e.DataDir() != dir {
		t.Fatalf("moved to %s for no reason", e.DataDir())
	}
}
