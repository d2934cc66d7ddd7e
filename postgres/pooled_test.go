//go:build unix

package postgres_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// pgbouncer starts the pooler in transaction mode before dsn, with fewer server
// connections than clients, so that sessions really mix.
func pgbouncer(t *testing.T, dsn string) string {
	t.Helper()
	binary, err := exec.LookPath("pgbouncer")
	if err != nil {
		binary = "/usr/sbin/pgbouncer"
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir := dataDir(t)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	users := file("users.txt", fmt.Sprintf("%q %q\n", u.User.Username(), password))
	ini := file("pgbouncer.ini", fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = plain
auth_file = %s
pool_mode = transaction
default_pool_size = 3
server_reset_query =
`, u.Query().Get("host"), u.Query().Get("port"), port, users))
	cmd := exec.Command(binary, ini)
	if os.Geteuid() == 0 { // it refuses root, and must be able to reach the socket
		if account, err := user.Lookup("postgres"); err == nil {
			uid, _ := strconv.ParseUint(account.Uid, 10, 32)
			gid, _ := strconv.ParseUint(account.Gid, 10, 32)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	query := url.Values{"sslmode": {"disable"}}
	u.Host, u.RawQuery = fmt.Sprintf("127.0.0.1:%d", port), query.Encode()
	return u.String()
}

// DESIGN 5: through a transaction pooler everything works, without named
// statements and session locks.
func TestEverythingWorksThroughATransactionPooler(t *testing.T) {
	t.Parallel()
	dsn := pgbouncer(t, postgrestest.New(t))
	parallel(3, func(int) {
		if err := postgres.Migrate(context.Background(), postgres.MigrateConfig{DSN: dsn, Pooled: true}); err != nil {
			t.Error(err)
		}
	})
	s := &scene{T: t, ctx: context.Background(), dsn: dsn}
	var err error
	s.db, err = postgres.Open(s.ctx, postgres.Config{DSN: dsn, Pooled: true, Timeout: 10 * time.Second})
	s.must(err)
	t.Cleanup(s.db.Close)
	s.store = postgres.NewStore(s.db)
	s.must(s.store.EnsureClients(s.ctx, []postgres.ClientRow{{ID: "app"}}))
	s.user, err = s.store.CreateUser(s.ctx, "a@b.c", "h", issuer.Origin{})
	s.must(err)
	s.login, err = s.store.CreateLogin(s.ctx, digest(), s.user.ID, time.Hour, issuer.Origin{})
	s.must(err)
	reader := postgres.NewSessionReader(s.db)
	parallel(30, func(int) {
		session := s.session("jobs:read")
		if _, err := s.rotate(session.ID, 0, time.Minute); err != nil {
			t.Error(err)
		}
		if _, err := reader.ReadSession(s.ctx, session.ID); err != nil {
			t.Error(err)
		}
		if err := s.store.RevokeSession(s.ctx, session.ID, "app", "x", issuer.Origin{}); err != nil {
			t.Error(err)
		}
	})
}
