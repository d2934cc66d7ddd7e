package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
)

const demoEmail = "demo@example.com"

// demo is the user and the client secret of the try-out. What was made is kept
// in a file, so that the next run has the same.
type demo struct {
	file                   string
	password, clientSecret string
	database               string // digest of DATABASE_URL
	// passwordKept: the password is the one that was set in this database before.
	passwordKept bool
}

func loadDemo(file string) (*demo, error) {
	saved := make(map[string]string)
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if name, value, ok := strings.Cut(line, "="); ok {
			saved[name] = value
		}
	}
	digest := sha256.Sum256([]byte(os.Getenv("DATABASE_URL")))
	d := &demo{file: file, database: hex.EncodeToString(digest[:8])}
	d.password = firstOf(os.Getenv("DEMO_PASSWORD"), saved["DEMO_PASSWORD"], rand.Text())
	d.clientSecret = firstOf(os.Getenv("DEMO_CLIENT_SECRET"), saved["DEMO_CLIENT_SECRET"], strings.ToLower(rand.Text()+rand.Text()))
	d.passwordKept = saved["DATABASE"] == d.database && saved["DEMO_PASSWORD"] == d.password
	return d, nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// ensureUser makes the demo user, or gives an existing one the password.
func (d *demo) ensureUser(ctx context.Context, caddy *caddyProcess) error {
	added, addErr := caddy.run(ctx, d.password+"\n", "oauth", "user", "add", demoEmail, "--password-stdin", "--config", caddyfile)
	if addErr != nil && !d.passwordKept {
		set, err := caddy.run(ctx, d.password+"\n", "oauth", "user", "passwd", demoEmail, "--password-stdin", "--config", caddyfile)
		if err != nil {
			return fmt.Errorf("make the user %s: %w\n%s%s", demoEmail, addErr, added, set)
		}
	}
	text := fmt.Sprintf("DATABASE=%s\nDEMO_PASSWORD=%s\nDEMO_CLIENT_SECRET=%s\n", d.database, d.password, d.clientSecret)
	return os.WriteFile(d.file, []byte(text), 0o600)
}
