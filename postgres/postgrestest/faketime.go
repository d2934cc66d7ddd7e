//go:build linux

package postgrestest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// NewServerWithClock is NewServer, and a function that sets the server's clock,
// while it runs, to so much before or after the true time. It needs libfaketime.
func NewServerWithClock(t testing.TB, cfg ServerConfig) (s *Server, set func(ahead time.Duration)) {
	t.Helper()
	libraries, _ := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if len(libraries) == 0 {
		t.Fatal("libfaketime is not installed: scripts/deps faketime")
	}
	dir, err := os.MkdirTemp("", "pgclock-") // where the server's user may read
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "offset")
	set = func(ahead time.Duration) {
		// Replaced as a whole: the server reads it at any moment.
		if err := os.WriteFile(file+".new", []byte(offset(ahead)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	cfg.Environment = append(cfg.Environment, "LD_PRELOAD="+libraries[0], "FAKETIME_TIMESTAMP_FILE="+file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1")
	return NewServer(t, cfg), set
}

// offset in libfaketime's notation.
func offset(ahead time.Duration) string { return fmt.Sprintf("%+ds\n", int(ahead.Seconds())) }
