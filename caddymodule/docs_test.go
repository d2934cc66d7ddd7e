package caddymodule

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/spf13/cobra"
)

var (
	caddyfileBlock = regexp.MustCompile("(?s)```caddyfile\n(.*?)```")
	wordOfBlock    = regexp.MustCompile(`(?m)^\t+"([a-z_]+)":\s+\S`)
)

// TestCaddyfilesOfTheDocumentationAdapt: what a reader copies works.
func TestCaddyfilesOfTheDocumentationAdapt(t *testing.T) {
	names, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, name := range append(names, "../README.md", "../xcaddy.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range caddyfileBlock.FindAllStringSubmatch(string(text), -1) {
			blocks++
			caddyfile := block[1]
			if word := strings.Fields(caddyfile)[0]; word == "secret" || word == "postgres" || word == "client_policy" || word == "login" { // a part of the option
				caddyfile = "{\n\toauth {\n" + caddyfile + "\t}\n}\n"
			}
			if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"}); err != nil {
				t.Errorf("%s: %v\n%s", name, err, caddyfile)
			}
		}
	}
	if blocks < 3 {
		t.Errorf("only %d blocks found", blocks)
	}
}

// TestReferenceExplainsEveryWord that the Caddyfile may hold.
func TestReferenceExplainsEveryWord(t *testing.T) {
	reference, err := os.ReadFile("../docs/caddyfile.md")
	if err != nil {
		t.Fatal(err)
	}
	words := 0
	for _, name := range []string{"caddyfile_oauth.go", "caddyfile_protect.go", "registration.go", "identity_provider.go"} {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range wordOfBlock.FindAllStringSubmatch(string(source), -1) {
			words++
			if word := match[1]; !strings.Contains(string(reference), "\t"+word+" ") && !strings.Contains(string(reference), "\t"+word+"\n") {
				t.Errorf("the syntax in docs/caddyfile.md lacks %s", word)
			}
		}
	}
	if words < 30 {
		t.Errorf("only %d words found: the source is not read right", words)
	}
}

// ADM-09: TestCommandsAreDocumentedWithExamples: each in docs/commands.md, and each
// with an example, and what its exit status means, in its help.
func TestCommandsAreDocumentedWithExamples(t *testing.T) {
	reference, err := os.ReadFile("../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	root := &cobra.Command{Use: "oauth"}
	addOAuthCommands(root)
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		if name := strings.TrimPrefix(cmd.CommandPath(), "oauth "); !strings.Contains(string(reference), "`"+name) {
			t.Errorf("docs/commands.md has no `%s`", name)
		}
		if cmd.Runnable() && !strings.Contains(cmd.Example, "caddy oauth ") {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		if cmd.Runnable() && !strings.Contains(cmd.Long, "Exit status: 0 ") {
			t.Errorf("%s does not say what its exit status means", cmd.CommandPath())
		}
		if cmd.Short == "" {
			t.Errorf("%s does not say what it does", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	for _, cmd := range root.Commands() {
		check(cmd)
	}
}
