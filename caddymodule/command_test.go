package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// oauthCommand runs `caddy oauth …` on the configuration.
func oauthCommand(t *testing.T, config, stdin string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return runCommandWith(t, stdin, append(args, "--config", file, "--adapter", "caddyfile")...)
}

// runCommand runs `caddy oauth …` with these arguments.
func runCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return runCommandWith(t, "", args...)
}

func runCommandWith(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := &cobra.Command{Use: "oauth", SilenceErrors: true}
	addOAuthCommands(root)
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func commandConfig(dsn string) string {
	return fmt.Sprintf(`{
	oauth {
		issuer https://api.example.com
		postgres "%s"
		secret 0123456789abcdef0123456789abcdef
		scope jobs:read "Search jobs"
		client old {
			secret a-client-secret-that-is-long-enough
			redirect_uri https://chatgpt.com/cb
		}
		client public {
			redirect_uri http://127.0.0.1/cb
		}
		login password
	}
}
`, dsn)
}

// TestUserCommandsManageUsers
func TestUserCommandsManageUsers(t *testing.T) {
	config := commandConfig(postgrestest.New(t))
	const email = "ada@example.com"
	for _, step := range []struct {
		name, stdin string
		args        []string
		want, fails string
	}{
		{"add", "correct horse battery\n", []string{"user", "add", "Ada@Example.com", "--password-stdin"}, "added", ""},
		{"add again", "correct horse battery\n", []string{"user", "add", email, "--password-stdin"}, "", "is a user already"},
		{"add without a terminal", "", []string{"user", "add", "bob@example.com"}, "", "--password-stdin"},
		{"add without a password", "", []string{"user", "add", "bob@example.com", "--password-stdin"}, "", "holds no password"},
		{"add no address", "correct horse battery", []string{"user", "add", "bob", "--password-stdin"}, "", `"bob"`},
		{"list", "", []string{"user", "list"}, "enabled", ""},
		{"passwd", "another horse battery", []string{"user", "passwd", email, "--password-stdin"}, "", ""},
		{"passwd of nobody", "another horse battery", []string{"user", "passwd", "no@example.com", "--password-stdin"}, "", "is not a user"},
		{"reset", "", []string{"user", "reset", email, "--end-sessions"}, "https://api.example.com/oauth/reset?token=", ""},
		{"reset of nobody", "", []string{"user", "reset", "no@example.com"}, "", "is not a user"},
		{"reset for ever", "", []string{"user", "reset", email, "--expires", "200h"}, "", "at most"},
		{"disable", "", []string{"user", "disable", email}, "", ""},
		{"reset of a disabled one", "", []string{"user", "reset", email}, "", "is disabled"},
		{"list after disable", "", []string{"user", "list"}, "disabled", ""},
		{"enable", "", []string{"user", "enable", email}, "", ""},
		{"disable nobody", "", []string{"user", "disable", "no@example.com"}, "", "is not a user"},
	} {
		out, err := oauthCommand(t, config, step.stdin, step.args...)
		switch {
		case step.fails == "" && err != nil:
			t.Errorf("%s: %v", step.name, err)
		case step.fails != "" && (err == nil || !strings.Contains(err.Error(), step.fails)):
			t.Errorf("%s: error %v, want %q", step.name, err, step.fails)
		case !strings.Contains(out, step.want):
			t.Errorf("%s: printed %q, want %q", step.name, out, step.want)
		}
		if strings.Contains(out, "horse") || strings.Contains(out, "argon2") {
			t.Errorf("%s: printed a password: %q", step.name, out)
		}
	}
}

// TestKeyCommandsRotate
func TestKeyCommandsRotate(t *testing.T) {
	config := commandConfig(postgrestest.New(t))
	keys := func(args ...string) (signs string, all []string) {
		t.Helper()
		out, err := oauthCommand(t, config, "", append([]string{"key"}, append(args, "--json")...)...)
		var page admin.Page[admin.Key]
		if err != nil || json.Unmarshal([]byte(out), &page) != nil {
			t.Fatalf("key %s: %q %v", args, out, err)
		}
		for _, key := range page.Items {
			if key.Use == "signs" {
				signs = key.KID
			}
			if key.Phase == "" || key.Since == nil {
				t.Errorf("key %s: %+v", args, key)
			}
			all = append(all, key.KID)
		}
		return signs, all
	}
	first, all := keys("list")
	if first == "" || len(all) != 1 {
		t.Fatalf("%q of %q", first, all)
	}
	if signs, all := keys("rotate"); signs != first || len(all) != 2 {
		t.Errorf("rotate: %q of %q", signs, all)
	}
	if signs, all := keys("rotate", "--now"); signs == first || slices.Contains(all, first) {
		t.Errorf("rotate --now: %q of %q", signs, all)
	}
	if out, err := oauthCommand(t, config, "", "key", "list"); err != nil || strings.Count(out, "signs") != 1 {
		t.Errorf("%q %v", out, err)
	}
	var err error
	_, err = oauthCommand(t, strings.Replace(config, "0123456789abcdef0123456789abcdef", "another-secret-of-another-node-000", 1), "", "key", "list")
	if err == nil || !strings.Contains(err.Error(), "secret") {
		t.Errorf("another root secret: %v", err) // K-05
	}
}

// TestMigrateCommand
func TestMigrateCommand(t *testing.T) {
	config := commandConfig(postgrestest.New(t))
	if out, err := oauthCommand(t, config, "", "migrate", "--status"); err != nil || !strings.Contains(out, "version 0 of") {
		t.Errorf("%q %v", out, err)
	}
	if _, err := oauthCommand(t, config, "", "migrate"); err != nil {
		t.Error(err)
	}
	if out, err := oauthCommand(t, config, "", "migrate", "--status"); err != nil || strings.Contains(out, "version 0 of") {
		t.Errorf("%q %v", out, err)
	}
	if _, err := oauthCommand(t, config, "", "migrate", "--adopt", "public"); err == nil || !strings.Contains(err.Error(), "with a secret") {
		t.Errorf("adopt for a public client: %v", err)
	}
	if _, err := oauthCommand(t, config, "", "migrate", "--down", "0"); err != nil {
		t.Error(err)
	}
	if out, err := oauthCommand(t, config, "", "migrate", "--status"); err != nil || !strings.Contains(out, "version 0 of") {
		t.Errorf("after down: %q %v", out, err)
	}
}

// TestCommandsSayWhatIsMissing
func TestCommandsSayWhatIsMissing(t *testing.T) {
	if _, err := oauthCommand(t, ":8080 {\n}\n", "", "user", "list"); err == nil || !strings.Contains(err.Error(), "no global option oauth") {
		t.Errorf("%v", err)
	}
	_, err := oauthCommand(t, commandConfig("postgres://someone:hunter2hunter2@127.0.0.1:1/none"), "", "migrate", "--status")
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
