package caddymodule

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// OPS-05: TestUserDataCommands: export and erase say whom they mean, and erase asks.
func TestUserDataCommands(t *testing.T) {
	config := commandConfig(postgrestest.New(t))
	added, err := oauthCommand(t, config, "correct horse battery\n", "user", "add", "ada@example.com", "--password-stdin")
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(added[strings.LastIndex(added, " as ")+4:])
	text, err := oauthCommand(t, config, "", "user", "export", "Ada@Example.com")
	var document struct {
		Format string           `json:"format"`
		Issuer string           `json:"issuer"`
		UserID string           `json:"user_id"`
		Users  []map[string]any `json:"users"`
	}
	if err != nil || json.Unmarshal([]byte(text), &document) != nil || document.UserID != id || document.Issuer != "https://api.example.com" ||
		len(document.Users) != 1 || document.Users[0]["email"] != "ada@example.com" || strings.Contains(text, "argon2") {
		t.Errorf("%v %s", err, text)
	}
	for _, step := range []struct {
		name, stdin string
		args        []string
		want, fails string
	}{
		{"export nobody", "", []string{"user", "export", "bob@example.com"}, "", "caddy oauth user list"},
		{"erase without an answer", "", []string{"user", "erase", id}, "gpt_users", "nothing was erased"},
		{"erase with another answer", "yes\n", []string{"user", "erase", id}, "gpt_oauth_events", "nothing was erased"},
		{"still there", "", []string{"user", "list"}, "ada@example.com", ""},
		{"erase", id + "\n", []string{"user", "erase", "ada@example.com"}, "erased " + id + "; in the audit trail it is erased-", ""},
		{"erase again", "", []string{"user", "erase", id}, "nothing is held about " + id, ""},
		{"erase nobody", "", []string{"user", "erase", "bob@example.com", "--yes"}, "nothing is held about bob@example.com", ""},
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
	}
}
