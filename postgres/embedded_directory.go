//go:build unix

package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"
)

// chooseDirectory returns dir if the server's user can enter it; else a place
// that it can, the same one each time.
func (e *Embedded) chooseDirectory(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fmt.Errorf("make the data directory: %w", err)
	}
	if e.account.canEnter(dir) {
		return dir, nil
	}
	other := filepath.Join("/var/lib/caddy-scope", "postgres-"+shortHash(dir))
	if err := os.MkdirAll(other, 0o711); err != nil {
		return "", fmt.Errorf("user %s cannot enter %s, and no other place could be made: %w", e.account.name, dir, err)
	}
	if !e.account.canEnter(other) {
		return "", fmt.Errorf("user %s, who runs the server, can enter neither %s nor %s", e.account.name, dir, other)
	}
	e.cfg.Logger.Warn("the user who runs postgres cannot enter the data directory; the data is kept in another place",
		zap.String("user", e.account.name), zap.String("data_dir", dir), zap.String("used_instead", other))
	return other, nil
}

func (e *Embedded) socketDirectory() (string, error) {
	run := filepath.Join(e.dir, "run")
	if len(run) > socketPathMax {
		run = filepath.Join("/tmp", "caddy-scope-"+shortHash(e.dir))
	}
	if err := os.Mkdir(run, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make the socket directory: %w", err)
	}
	// A directory that somebody else planted in /tmp, or a link, is not used.
	info, err := os.Lstat(run)
	if err != nil || !info.IsDir() || !e.account.mayOwn(info) {
		return "", fmt.Errorf("the socket directory %s belongs to somebody else", run)
	}
	return run, e.account.own(run)
}

// loadPassword reads the database password, or makes it.
func (e *Embedded) loadPassword() (string, error) {
	path := filepath.Join(e.dir, "password")
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	random := make([]byte, 24)
	_, _ = rand.Read(random) // never fails since Go 1.24
	password := hex.EncodeToString(random)
	if err := os.WriteFile(path+".new", []byte(password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the password: %w", err)
	}
	return password, os.Rename(path+".new", path)
}

// initdb makes the cluster beside its final place, so that one interrupted
// half-way is never taken for a whole one.
func (e *Embedded) initdb(ctx context.Context) error {
	if _, err := os.Stat(e.pgdata()); err == nil {
		return nil
	}
	fresh := e.pgdata() + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("clear an interrupted initdb: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("make the cluster: %w", err)
	}
	if err := e.account.own(fresh); err != nil {
		return err
	}
	pwfile := filepath.Join(e.run, "pwfile")
	defer os.Remove(pwfile)
	_ = os.Remove(pwfile)
	if err := os.WriteFile(pwfile, []byte(e.password), 0o600); err != nil {
		return fmt.Errorf("make the cluster: %w", err)
	}
	if err := e.account.own(pwfile); err != nil {
		return err
	}
	args := []string{"-D", fresh, "-U", embeddedUser, "-A", "scram-sha-256", "--pwfile=" + pwfile, "-E", "UTF8", "--locale=C"}
	if e.cfg.Ephemeral {
		args = append(args, "--no-sync")
	}
	cmd := e.Command(ctx, "initdb", fresh, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return os.Rename(fresh, e.pgdata())
}

func (e *Embedded) pgdata() string { return filepath.Join(e.dir, "pgdata") }
