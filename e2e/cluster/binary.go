package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"testing"
)

// programs are built once for the test process.
var programs struct {
	sync.Mutex
	dir   string // to be removed
	built map[string]func() (string, error)
}

// Binary is the path of Caddy with this module linked in.
func Binary(t testing.TB) string {
	t.Helper()
	return Program(t, "github.com/caddy-scope/caddy-scope/cmd/caddy")
}

// Program builds a main package and returns the file.
func Program(t testing.TB, pkg string) string {
	t.Helper()
	file, err := builder(t, pkg)()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func builder(t testing.TB, pkg string) func() (string, error) {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	if programs.built == nil {
		dir, err := os.MkdirTemp("", "caddy-scope-programs")
		if err != nil {
			t.Fatal(err)
		}
		programs.built, programs.dir = make(map[string]func() (string, error)), dir
	}
	if programs.built[pkg] == nil {
		file := filepath.Join(programs.dir, path.Base(pkg))
		programs.built[pkg] = sync.OnceValues(func() (string, error) {
			if out, err := exec.Command("go", "build", "-o", file, pkg).CombinedOutput(); err != nil {
				return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
			}
			return file, nil
		})
	}
	return programs.built[pkg]
}

// Main is the TestMain of a package that uses this one.
func Main(m *testing.M) {
	status := m.Run()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
	os.Exit(status)
}
