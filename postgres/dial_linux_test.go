package postgres

import (
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"
)

// TestLostPacketsEndAConnection: a partition that swallows packets must not keep
// a connection's place in the pool. R-06.
func TestLostPacketsEndAConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	config, err := pgxpool.ParseConfig("postgres://user@host/database")
	if err != nil {
		t.Fatal(err)
	}
	new(DB).configure(config, Config{MaxConns: 1})
	conn, err := config.ConnConfig.DialFunc(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var limit int
	var optionErr error
	if err := raw.Control(func(fd uintptr) {
		limit, optionErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	}); err != nil {
		t.Fatal(err)
	}
	if optionErr != nil || limit != 4000 {
		t.Errorf("TCP_USER_TIMEOUT is %d ms (%v), want 4000", limit, optionErr)
	}
}

func TestSettingsThatLoseCommitsAreTold(t *testing.T) {
	for settings, want := range map[[2]string]string{
		{"on", "on"}: "", {"remote_apply", "on"}: "", {"remote_write", "on"}: "",
		{"off", "on"}: "in a crash", {"on", "off"}: "in a crash", {"local", "on"}: "in a failover",
	} {
		if got := lossyCommits(settings[0], settings[1]); got == "" != (want == "") || !strings.Contains(got, want) {
			t.Errorf("synchronous_commit=%s fsync=%s: %q", settings[0], settings[1], got)
		}
	}
}
