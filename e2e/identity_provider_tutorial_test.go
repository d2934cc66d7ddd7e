//go:build linux

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TUT-07: examples/identity-provider/README.md, followed to the letter: the provider is
// started as it says, the person signs in there in Chromium, and their account ends.
func TestTutorialIdentityProvider(t *testing.T) {
	m := onReadersMachine(t)
	if m == nil {
		return
	}
	api := startAPI(t)
	m.bringProvider(t)
	f := follow(t, m, "../examples/identity-provider/README.md")
	f.section("1. Build")
	provider := f.section("2. Start the provider")
	eventually(t, "the provider is ready", func() bool {
		_, err := f.shell("curl -sf http://localhost:9100/.well-known/openid-configuration", false)
		return err == nil
	})
	program, err := os.ReadFile(filepath.Join(m.dir, "caddy-scope", "examples", "identity-provider", "provider.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range provider.table() {
		address := strings.NewReplacer("http://localhost:8080/oauth/login/oidc", "${gateway}").Replace(row[1])
		if address != "`${gateway}`" && !strings.Contains(string(program), address) {
			t.Errorf("provider.mjs does not show the %s %s", row[0], row[1])
		}
	}
	f.section("3. Let its users in")

	tab := newChromium(t)
	var pages []string
	f.line = func(line string) {
		if link, ok := strings.CutPrefix(line, "Open "); ok {
			pages = connectByProvider(t, tab, link)
		}
	}
	f.section("4. Sign in").mentions(t, "`X-User-Id: ada`")
	f.line = nil
	if last := strings.Join(pages, "\n"); !strings.Contains(last, "jobs, on the command line") || !strings.Contains(last, "Your device is connected") {
		t.Errorf("the pages say %s", last)
	}
	if seen := api.Last(t); seen.RequestURI != "/jobs" || seen.Header.Get("X-User-Id") != "ada" {
		t.Errorf("the API saw %v", seen)
	}
	f.section("5. End the account")
	if enabled := f.print(`psql -At "$DATABASE_URL" -c "SELECT count(*) FROM gpt_users WHERE id = 'ada' AND disabled_at IS NULL"`); enabled != "1" {
		t.Errorf("enabled again: %s", enabled)
	}
	f.end()
}

// connectByProvider does what the page at the link asks for, as ada.
func connectByProvider(t *testing.T, tab context.Context, link string) (pages []string) {
	t.Helper()
	do(t, tab, chromedp.Navigate(link), chromedp.WaitVisible(button("Continue")), chromedp.Click(button("Continue")))
	signInThere(t, tab, "ada")
	do(t, tab, chromedp.WaitVisible(button("Allow")))
	pages = append(pages, pageText(t, tab))
	do(t, tab, chromedp.Click(button("Allow")), chromedp.WaitVisible(`//h1[contains(., "connected")]`))
	return append(pages, pageText(t, tab))
}

// bringProvider puts on the machine what the network would bring: the repository, of
// which the folder matters, and node-oidc-provider, of the version that the folder
// asks for.
func (m *machine) bringProvider(t *testing.T) {
	t.Helper()
	sameProvider(t)
	example, err := filepath.Abs(providerExample)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := filepath.Abs("clients/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	m.program(t, "git", `[ "$*" = "clone --quiet --depth 1 https://github.com/caddy-scope/caddy-scope" ]
mkdir -p caddy-scope/examples
cp -R "`+example+`" caddy-scope/examples/
rm -rf caddy-scope/examples/identity-provider/node_modules
`)
	m.program(t, "npm", `[ "$*" = "ci --silent" ] && [ -e package-lock.json ]
ln -s "`+modules+`" node_modules
`)
	m.program(t, "node", `exec "`+nodeBinary(t)+`" "$@"
`)
}
