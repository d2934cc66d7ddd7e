package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// binary builds cmd/caddy once for the test process.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "caddy-scope-binary")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	built := filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-o", built, "github.com/caddy-scope/caddy-scope/cmd/caddy")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build caddy: %w\n%s", err, out)
	}
	return built, nil
})

var binaryDir string // to be removed

// Binary is the path of Caddy with this module linked in.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Main is the TestMain of a package that uses this one.
func Main(m *testing.M) {
	status := m.Run()
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
	os.Exit(status)
}
