//go:build unix

package postgres

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The repository serves a jar with an archive of three scripts in the place of
// a server (testdata/server.txz).
func TestServerIsDownloadedWhereNoneIsInstalled(t *testing.T) {
	t.Parallel()
	archive, err := os.ReadFile("testdata/server.txz")
	if err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	w := zip.NewWriter(&jar)
	file, err := w.Create("postgres.txz")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = file.Write(archive)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		sum  [32]byte
		good bool
	}{"right digest": {sha256.Sum256(jar.Bytes()), true}, "wrong digest": {sha256.Sum256(nil), false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ".sha256") {
					_, _ = w.Write([]byte(hex.EncodeToString(c.sum[:])))
					return
				}
				_, _ = w.Write(jar.Bytes())
			}))
			defer repository.Close()
			dir := t.TempDir()
			bin, err := downloadServer(context.Background(), repository.URL, dir, 17)
			if (err == nil) != c.good {
				t.Fatalf("%q, %v", bin, err)
			}
			if c.good && (serverVersion(bin) != 17 || newestServer([]string{bin}, 17) != bin) {
				t.Fatalf("no server in %s", bin)
			}
			if _, err := os.Stat(filepath.Join(dir, "server.lock")); !os.IsNotExist(err) {
				t.Error("the helper file is left behind")
			}
		})
	}
	if _, err := downloadServer(context.Background(), "http://127.0.0.1:1", t.TempDir(), 9); err == nil {
		t.Error("an unsupported version was downloaded")
	}
}

func TestServerVersionsAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 15, "postgres (PostgreSQL) 18beta1": 18,
		"postgres (PostgreSQL) 9.6.24": 9, "psql 15": 0, "": 0,
	} {
		if got := parseServerVersion(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if newestServer([]string{"/nowhere"}, 0) != "" {
		t.Error("a server in a directory that does not exist")
	}
}
