package caddymodule

import (
	"os"
	"strings"
	"testing"
)

// UPS-18: TestCommandsSayThatTheAuthorizationServerIsElsewhere: where a Caddy only
// gates, its database, if it has one, is not its own to change.
func TestCommandsSayThatTheAuthorizationServerIsElsewhere(t *testing.T) {
	config := remoteConfig(t)
	for _, command := range []string{
		"user list", "user add ada@example.com", "user erase u --yes", "user export u", "key list", "key rotate", "client list", "client disable gpt",
		"session list", "session revoke --user u", "event list", "registration list", "migrate", "restored --yes", "export", "token issue --client gpt --user u --scope jobs:read",
	} {
		out, err := oauthCommand(t, config, "", strings.Fields(command)...)
		if err == nil || !strings.Contains(err.Error(), "administered where https://auth.example.com runs") {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

// UPS-18: TestExplainAndRulesWorkWhereACaddyOnlyGates: they ask the configuration,
// which has the rules.
func TestExplainAndRulesWorkWhereACaddyOnlyGates(t *testing.T) {
	config := remoteConfig(t)
	if out, err := oauthCommand(t, config, "", "rules"); err != nil || !strings.Contains(out, "jobs:read") || !strings.Contains(out, "/jobs") {
		t.Errorf("%v\n%s", err, out)
	}
	for scope, status := range map[string]string{"jobs:read": "200", "jobs:write": "403"} {
		out, err := oauthCommand(t, config, "", "explain", "--method", "GET", "--host", "jobs.example.com", "--path", "/jobs", "--scope", scope)
		if scope == "jobs:read" && (err != nil || !strings.Contains(out, "allow")) || scope == "jobs:write" && !strings.Contains(out, status) {
			t.Errorf("%s: %v\n%s", scope, err, out)
		}
	}
}

// remoteConfig is the Caddyfile of a Caddy that only gates.
func remoteConfig(t *testing.T) string {
	t.Helper()
	t.Setenv("CLIENT_SECRET", "a-secret-of-the-second-gate-that-is-long")
	content, err := os.ReadFile("testdata/adapt/remote.caddyfiletest")
	if err != nil {
		t.Fatal(err)
	}
	config, _, _ := strings.Cut(string(content), "----------")
	return config
}
