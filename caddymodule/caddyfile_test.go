package caddymodule_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-scope/caddy-scope/caddymodule"
)

var update = flag.Bool("update", false, "write the golden files anew")

// separator stands between a Caddyfile and what must become of it, as in
// Caddy's own golden files.
const separator = "\n----------\n"

// TestCaddyfileAdaptsToDocumentedJSON holds every word of the Caddyfile to its
// field in JSON.
func TestCaddyfileAdaptsToDocumentedJSON(t *testing.T) {
	forEachGolden(t, "adapt", func(t *testing.T, input string) string {
		t.Setenv("FROM_ENVIRONMENT", "https://from.example")
		config, err := adapt(input)
		if err != nil {
			t.Fatal(err)
		}
		var tree any
		if err := json.Unmarshal(config, &tree); err != nil {
			t.Fatal(err)
		}
		pretty, err := json.MarshalIndent(tree, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		return string(pretty)
	})
}

// TestCaddyfileIsFormattedAsWritten: `caddy fmt` must not break the syntax.
func TestCaddyfileIsFormattedAsWritten(t *testing.T) {
	forEachGolden(t, "adapt", func(t *testing.T, input string) string {
		if formatted := caddyfile.Format([]byte(input)); strings.TrimSpace(string(formatted)) != strings.TrimSpace(input) {
			t.Errorf("caddy fmt changes it to\n%s", formatted)
		}
		return ""
	})
}

// TestCaddyfileMistakesAreRefusedByFileAndLine: what is wrong is an error when
// the configuration is loaded, and the error says where. The error may come
// from `caddy adapt` or from `caddy validate`. EVS-18: types of a webhook.
func TestCaddyfileMistakesAreRefusedByFileAndLine(t *testing.T) {
	forEachGolden(t, "refused", func(t *testing.T, input string) string {
		setSecrets(t)
		err := validate(t, input)
		if err == nil {
			t.Fatal("accepted")
		}
		text := withoutLoadPath(err.Error())
		if !strings.Contains(text, "Caddyfile:") {
			t.Errorf("the error names no line: %v", err)
		}
		return text
	})
}

// TestValidateNeedsNoDatabaseAndMakesNoKey: CADDY.md, `caddy validate`.
func TestValidateNeedsNoDatabaseAndMakesNoKey(t *testing.T) {
	setSecrets(t)
	input, err := os.ReadFile("testdata/valid.Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, string(input)); err != nil {
		t.Fatal(err)
	}
}

func setSecrets(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://nobody:hunter2hunter2@127.0.0.1:1/none")
	t.Setenv("OAUTH_SECRET", "0123456789abcdef0123456789abcdef")
	t.Setenv("CLIENT_SECRET", "a-client-secret-that-is-long-enough")
	t.Setenv("EMPTY", "")
	t.Setenv("XDG_DATA_HOME", t.TempDir())
}

func adapt(input string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// validate does what `caddy validate` does.
func validate(t *testing.T, input string) error {
	t.Helper()
	config, err := adapt(input)
	if err != nil {
		return err
	}
	if strings.Contains(string(config), "hunter2") {
		t.Error("adapted JSON holds a secret")
	}
	var parsed caddy.Config
	if err := json.Unmarshal(config, &parsed); err != nil {
		t.Fatal(err)
	}
	parsed.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		"default": {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output":"discard"}`)}},
	}}
	return caddy.Validate(&parsed)
}

// withoutLoadPath cuts off which module Caddy was loading: apps are loaded in
// any order.
func withoutLoadPath(text string) string {
	for _, mark := range []string{"provision oauth: ", "provision http.handlers.oauth_server: ", "provision http.handlers.oauth_protect: "} {
		if i := strings.LastIndex(text, mark); i >= 0 {
			return text[i+len(mark):]
		}
	}
	return text
}

func forEachGolden(t *testing.T, dir string, got func(t *testing.T, input string) string) {
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.caddyfiletest"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(content), separator)
			text := got(t, input+"\n")
			if text == "" || text == strings.TrimSpace(want) {
				return
			}
			if !*update {
				t.Fatalf("got\n%s\nwant\n%s", text, strings.TrimSpace(want))
			}
			if err := os.WriteFile(file, []byte(input+separator+text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}
