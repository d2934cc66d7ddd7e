package caddymodule

import (
	goflag "flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// places are those of the configuration, wherever the test keeps it.
var places = regexp.MustCompile(`\S*/Caddyfile`)

// DOC-05: the report on Caddyfile.example, and on it at a public address, as
// people read it.
func TestGoldenReportsOfTheDoctorOnTheExample(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("DEMO_CLIENT_SECRET", "demo-secret-demo-secret-demo-secret-0001")
	for address, golden := range map[string]string{"http://localhost:8080": "example", "https://api.example.com": "example-public"} {
		t.Setenv("GATEWAY_ADDRESS", address)
		got, _ := runCommand(t, "doctor", "--config", "../Caddyfile.example", "--adapter", "caddyfile")
		got = places.ReplaceAllString(got, "Caddyfile")
		name := filepath.Join("testdata", "doctor", golden+".txt")
		if goflag.Lookup("update").Value.String() == "true" { // of caddyfile_test.go
			if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil || got != string(want) {
			t.Errorf("%s: run go test ./caddymodule -run Golden -update if this is meant: %v\n%s", name, err, got)
		}
	}
}

// DOC-05: what docs/commands.md shows is what is printed.
func TestDoctorPrintsWhatTheDocumentationShows(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	text, err := os.ReadFile("../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## `doctor`\n")
	blocks := regexp.MustCompile("(?ms)^```\n(.*?)^```$").FindAllStringSubmatch(section, 2)
	if len(blocks) < 2 {
		t.Fatal("the section shows no command with what it prints")
	}
	config := strings.NewReplacer("\t\t\tcors                    *\n", "", "login password", "login password\n\t\taccess_token_ttl 5m").Replace(healthy)
	arguments := strings.Fields(strings.TrimPrefix(strings.TrimSpace(blocks[0][1]), "caddy oauth"))
	got, _ := oauthCommand(t, config, "", arguments...)
	if got = places.ReplaceAllString(got, "Caddyfile"); got != blocks[1][1] {
		t.Errorf("docs/commands.md shows\n%s\nand printed is\n%s", blocks[1][1], got)
	}
}

// DOC-05: whatever reads the report in JSON finds the same, and the exit status
// tells the rest: 1 is what cannot be known.
func TestDoctorTellsWhatItCannotKnow(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for _, c := range []struct {
		name, config, says string
		arguments          []string
	}{
		{"unknown product", healthy, `product "gopher" is not known; known are chatgpt, `, []string{"--product", "gopher"}},
		{"unknown resource", healthy, "no gate has the resource https://api.example.com/other", []string{"--resource", "https://api.example.com/other"}},
		{"no address", healthy, "--address: it must be http", []string{"--address", "api.example.com"}},
		{"no option", "api.example.com {\nrespond 200\n}", "has no global option oauth", nil},
		{"broken configuration", strings.Replace(healthy, "jobs:read          ", "jobs:read jobs ", 1), "Caddyfile:", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := oauthCommand(t, c.config, "", append([]string{"doctor"}, c.arguments...)...)
			if err == nil || strings.Contains(err.Error(), "status 2") || !strings.Contains(err.Error(), c.says) || strings.Contains(out, "PRODUCT") {
				t.Errorf("%v, want %q\n%s", err, c.says, out)
			}
		})
	}
}

// DOC-06: the doctor asks nobody, not even the app whose users sign in here.
func TestDoctorAsksNobody(t *testing.T) {
	asked := make(chan string, 100)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	t.Cleanup(app.Close)
	login := "login forward " + app.URL + "/whoami {\nuser_header X-User-Id\ncopy_headers User-Agent\nsign_in https://jobs.example.com/login\n}"
	config := strings.NewReplacer("login password", login, "127.0.0.1:1", strings.TrimPrefix(app.URL, "http://")).Replace(healthy)
	report, err := diagnosed(t, config)
	if err != nil {
		t.Errorf("%v: %+v", err, report.Products)
	}
	if len(asked) > 0 {
		t.Errorf("it asked %d times, first for %s", len(asked), <-asked)
	}
}
