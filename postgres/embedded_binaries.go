//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// oldestServer is the oldest major version that is supported.
const oldestServer = 14

// serverBinaries returns the directory of postgres and initdb: the configured
// one, else the newest installed server (the one that made the data, where
// there is data), else a downloaded one.
func serverBinaries(ctx context.Context, cfg EmbeddedConfig, dir string) (string, error) {
	if cfg.BinDir != "" {
		if serverVersion(cfg.BinDir) < oldestServer {
			return "", fmt.Errorf("%s holds no postgres %d or newer", cfg.BinDir, oldestServer)
		}
		return cfg.BinDir, nil
	}
	needed := 0
	if text, err := os.ReadFile(filepath.Join(dir, "pgdata", "PG_VERSION")); err == nil {
		needed, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	candidates := append(installedServers(), downloadedBinDir(dir))
	if bin := newestServer(candidates, needed); bin != "" {
		return bin, nil
	}
	bin, err := downloadServer(ctx, cfg.Repository, dir, needed)
	if err != nil {
		return "", fmt.Errorf("no postgres server %s is installed here (looked in PATH, /usr/lib/postgresql and where package managers put it), and downloading one failed: %w", wanted(needed), err)
	}
	return bin, nil
}

func wanted(needed int) string {
	if needed > 0 {
		return fmt.Sprintf("of version %d, which made the data,", needed)
	}
	return fmt.Sprintf("of version %d or newer", oldestServer)
}

// installedServers lists the directories where servers are usually installed.
func installedServers() []string {
	var dirs []string
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/usr/libexec/postgresql*",
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin", "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	return dirs
}

// newestServer returns the directory with the newest supported server, or the
// one of exactly the needed major version; empty: none.
func newestServer(dirs []string, needed int) string {
	best, version := "", 0
	for _, dir := range dirs {
		v := serverVersion(dir)
		if v >= oldestServer && v > version && (needed == 0 || v == needed) {
			best, version = dir, v
		}
	}
	return best
}

// serverVersion returns the major version of the server in dir; 0: none.
func serverVersion(dir string) int {
	if info, err := os.Stat(filepath.Join(dir, "initdb")); err != nil || info.IsDir() {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	return parseServerVersion(string(out))
}

// parseServerVersion reads the major version out of "postgres (PostgreSQL) 15.18".
func parseServerVersion(text string) int {
	_, version, found := strings.Cut(text, "(PostgreSQL) ")
	if !found {
		return 0
	}
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		version = version[:end]
	}
	major, err := strconv.Atoi(version)
	if err != nil {
		return 0
	}
	return major
}

var errUnsupportedVersion = errors.New("no download for this version")
