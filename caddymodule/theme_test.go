package caddymodule

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the command writes is a folder that the word templates takes, and it never
// writes over what somebody changed.
func TestPagesCommandWritesAFolderOfTemplates(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "pages")
	config := commandConfig("postgres://nobody@127.0.0.1:1/none")
	if _, err := oauthCommand(t, config, "", "pages", folder); err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(folder, "consent.html")
	text, err := os.ReadFile(changed)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(changed, append(text, "<!-- ours -->"...), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := oauthCommand(t, config, "", "pages", folder)
	if err != nil || !strings.Contains(out, "left alone: "+changed) {
		t.Errorf("%v: %s", err, out)
	}
	if text, _ := os.ReadFile(changed); !strings.HasSuffix(string(text), "<!-- ours -->") {
		t.Error("written over")
	}
	if err := validateTheme(t, "templates "+folder+"\nname Acme\ncolor 0a7d3c"); err != nil {
		t.Error(err)
	}
}

// validateTheme loads a configuration with this theme, as `caddy validate` does.
func validateTheme(t *testing.T, words string) error {
	t.Helper()
	s := newGateScene(t, "respond 404")
	s.words = "theme {\n" + words + "\n}"
	return s.tryLoad("", "respond 404")
}

// PAG-05: the consent page is told what the rules open: of gates of all forms, and tools.
func TestRoutesOfAResourceComeFromItsRules(t *testing.T) {
	newGateScene(t, `oauth_server
	handle /short/* {
		oauth_protect jobs:write
		reverse_proxy UPSTREAM
	}
	handle {
		oauth_protect {
			GET,POST /jobs/{id} any jobs:read jobs:write
			* /any jobs:write
			GET /health public
			* /me authenticated
			POST /mcp jobs:read
			tool search jobs:read
			tool whoami authenticated
		}
		reverse_proxy UPSTREAM
	}`)
	var got []string
	for _, route := range running.Load().routesOf(testIssuer) {
		text := route.Name + ": " + route.Scopes.String()
		if route.Any {
			text += " any"
		}
		if route.Tool {
			text = "tool " + text
		}
		got = append(got, text)
	}
	want := []string{testIssuer + ": jobs:write", "GET,POST /jobs/{id}: jobs:read jobs:write any", "/any: jobs:write", "POST /mcp: jobs:read", "tool search: jobs:read"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if routes := running.Load().routesOf("https://other.example"); len(routes) != 0 {
		t.Errorf("of another resource: %v", routes)
	}
}
