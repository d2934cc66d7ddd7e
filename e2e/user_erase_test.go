//go:build linux

package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

// OPS-06: TestErasedUserLosesAccessAtOnce: on every node, with the token in hand and
// with the refresh token; others go on.
func TestErasedUserLosesAccessAtOnce(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Config{Nodes: 2})
	first, second := c.Nodes[0], c.Nodes[1]
	browser := c.SignIn(t, "ada@example.com")
	ada, bob := browser.Connect(t, first, "jobs:read"), c.SignIn(t, "bob@example.com").Connect(t, first, "jobs:read")
	for _, n := range c.Nodes {
		if answer := n.Get(t.Context(), "/jobs", ada.Access); !answer.OK() {
			t.Fatalf("%s: %s", n.Name, answer)
		}
	}
	var held struct {
		UserID   string           `json:"user_id"`
		Sessions []map[string]any `json:"sessions"`
		Events   []map[string]any `json:"oauth_events"`
	}
	_, document, _ := strings.Cut(first.Command(t, "oauth", "user", "export", "ada@example.com"), "\n{\n") // after what Caddy logs
	document = "{" + document
	if err := json.Unmarshal([]byte(document), &held); err != nil || len(held.Sessions) != 1 || len(held.Events) == 0 {
		t.Fatalf("%v\n%s", err, document)
	}
	if out := first.Command(t, "oauth", "user", "erase", held.UserID, "--yes"); !strings.Contains(out, "erased "+held.UserID) {
		t.Fatal(out)
	}
	for _, n := range c.Nodes {
		var last cluster.Answer
		for deadline := time.Now().Add(20 * time.Second); ; { // max_staleness, and a machine at its limit
			if last = n.Get(t.Context(), "/jobs", ada.Access); last.Status == http.StatusUnauthorized {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s still admits her: %s", n.Name, last)
			}
		}
		if answer := n.Get(t.Context(), "/jobs", bob.Access); !answer.OK() {
			t.Errorf("%s refuses somebody else: %s", n.Name, answer)
		}
	}
	if _, answer := cluster.Refresh(t.Context(), second, ada.Refresh); answer.Status != http.StatusBadRequest || !strings.Contains(string(answer.Body), "invalid_grant") {
		t.Errorf("refresh: %s", answer)
	}
	if _, err := browser.Authorize(t.Context(), second, "jobs:read"); err == nil {
		t.Error("her browser is still signed in")
	}
	if _, answer := cluster.Refresh(t.Context(), second, bob.Refresh); !answer.OK() {
		t.Errorf("refresh of somebody else: %s", answer)
	}
}
