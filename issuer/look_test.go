package issuer

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/net/html"
	"pgregory.net/rapid"
)

// with returns a folder with one of our files changed: the last replacement is
// made in what the ones before made.
func with(t *testing.T, file string, replacements ...string) fstest.MapFS {
	t.Helper()
	text, err := pageSource{}.read(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(replacements); i += 2 {
		if !strings.Contains(text, replacements[i]) {
			t.Fatalf("%s does not hold %q", file, replacements[i])
		}
		text = strings.ReplaceAll(text, replacements[i], replacements[i+1])
	}
	return fstest.MapFS{file: {Data: []byte(text)}}
}

// PAG-10: a template that does not parse, or that lacks what its page is for,
// is an error that names the file, before any user meets it.
func TestTemplatesAreCheckedWhenTheyAreRead(t *testing.T) {
	t.Parallel()
	for want, files := range map[string]fstest.MapFS{
		`consent.html:4: unexpected "}"`: with(t, "consent.html", "<h1>", "<h1>{{ } }}"),
		"consent.html: lacks the hidden field csrf in a form with method post and action /sample": with(t, "consent.html", `<input type="hidden" name="csrf" value="{{.Token}}">`, ""),
		"consent.html: lacks the hidden field request":                                            with(t, "consent.html", `value="{{.Request}}"`, ""),
		"consent.html: lacks the button decision=deny":                                            with(t, "consent.html", `value="deny"`, `value="allow"`),
		"consent.html: lacks the field scope.sample":                                              with(t, "consent.html", `type="checkbox" name="{{.Field}}"`, `type="checkbox"`),
		`consent.html: lacks the hidden field request in a form with method post`:                 with(t, "consent.html", `method="post"`, `method="get"`),
		`consent.html: does not show what ours shows where it says "sample-target"`:               with(t, "consent.html", `{{template "target" .}}`, ""),
		`consent.html: does not show what ours shows where it says "sample-route"`:                with(t, "consent.html", `<code dir="ltr">{{.Name}}</code>`, ""),
		`signin.html: lacks the field password`:                                                   with(t, "signin.html", `name="password"`, `name="pass"`),
		`limit.html: has a form that lacks the hidden field csrf`:                                 with(t, "limit.html", `<input type="hidden" name="csrf" value="{{$page.Token}}">`, ""),
		`message.html: does not show what ours shows where it says "sample-reference"`:            with(t, "message.html", `{{template "reference" .Reference}}`, ""),
		`message.html: does not show what ours shows where it says "sample-back"`:                 with(t, "message.html", `href="{{.Back}}"`, `href="/"`),
		`apps.html: lacks the button drop=sample-session`:                                         with(t, "apps.html", `name="drop"`, `name="keep"`),
		`lacks the hidden field csrf in a form with method post and action /sample/out`:           with(t, "parts.html", `name="csrf"`, `name="token"`),
		`lacks lang="{{.Language}}"`:                                                              with(t, "layout.html", `dir="{{.Direction}}"`, ""),
		"holds a script":                                                                          with(t, "layout.html", "</body>", "<script>1</script></body>"),
		"holds a style element of its own":                                                        with(t, "layout.html", "</head>", "<style>b{}</style></head>"),
		"holds a link to another file":                                                            with(t, "layout.html", "</head>", `<link rel="stylesheet" href="https://cdn.example/x.css"></head>`),
		`holds src="https://cdn.example/logo.png"`:                                                with(t, "layout.html", "<main>", `<img src="https://cdn.example/logo.png" alt=""><main>`),
		"holds the attribute onclick":                                                             with(t, "layout.html", "<main>", `<main onclick="x()">`),
		"holds the attribute style":                                                               with(t, "layout.html", "<main>", `<main style="color:red">`),
		"can't evaluate field Nobody":                                                             with(t, "device.html", "{{.Action}}", "{{.Nobody}}"),
		`function "now" not defined`:                                                              with(t, "device.html", "{{.Action}}", "{{now}}"),
		"consnt.html: no page uses it":                                                            {"consnt.html": {Data: []byte("x")}},
		"theme.css: no page uses it":                                                              {"theme.css": {Data: []byte("x")}},
		"holds the end of a style element":                                                        with(t, "style.css", "main {", "</style> main {"),
	} {
		if _, err := NewLook(LookConfig{Templates: files}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestTemplatesOfTheOwnerAreUsed(t *testing.T) {
	t.Parallel()
	files := with(t, "layout.html", "<main>", "<header>Our own house</header><main>")
	files["style.css"] = &fstest.MapFile{Data: []byte("main { color: green }")}
	files["README.md"] = &fstest.MapFile{Data: []byte("how we made it")}
	look, err := NewLook(LookConfig{Templates: files, Name: "Acme Jobs", Light: Colors{Action: "#0a7d3c"}})
	if err != nil {
		t.Fatal(err)
	}
	scene := newPageScene(t, func(cfg *Config) { cfg.Look = look })
	p := scene.consent(scene.browser())
	if !strings.Contains(p.text(), "Our own house") || !strings.Contains(p.body, "main { color: green }") || !strings.Contains(p.body, "--action: #0a7d3c") ||
		!strings.Contains(p.text(), "Acme Jobs") || p.header.Get("Content-Security-Policy") != look.policy {
		t.Errorf("page: %s", p.body)
	}
	p.submit("Allow").wantCode()
}

// PAG-09: what any of our files says passes the check, and the pages of a look carry what
// was configured.
func TestLookOfTheOwner(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{}
	ours, _ := fs.Glob(PageFiles(), "*")
	for _, name := range ours {
		data, _ := fs.ReadFile(PageFiles(), name)
		files[name] = &fstest.MapFile{Data: data}
	}
	logo, err := NewLogo([]byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`))
	if err != nil {
		t.Fatal(err)
	}
	look, err := NewLook(LookConfig{Name: "Acme\u202e Jobs", Logo: logo, LogoDark: logo, Templates: files, Light: Colors{Background: "#eee"}})
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := look.render(&page, signInPage, 0, "host", signIn{Client: "x"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`<img src="data:image/svg&#43;xml;base64,PHN2`, `alt="Acme Jobs"`, `<source srcset="data:image/svg+xml;base64,PHN2`, "– Acme Jobs</title>", "--page: #eeeeee", `lang="en" dir="ltr"`} {
		if !strings.Contains(strings.ReplaceAll(page.String(), "&#43;", "+"), strings.ReplaceAll(want, "&#43;", "+")) {
			t.Errorf("%s is not in the page: %s", want, page.String())
		}
	}
}

func TestLogoIsAPictureAndSmall(t *testing.T) {
	t.Parallel()
	for want, data := range map[string]string{
		"":                   "\x89PNG\r\n\x1a\n....",
		"is not a PNG":       "<html></html>",
		"is larger than 64 ": "\x89PNG\r\n\x1a\n" + strings.Repeat("x", maxLogo),
		" is not a PNG":      "<svg><g></svg>",
		"is not a PNG, ":     "",
		"not a PNG, JPEG":    `<?xml version="1.0"?><x><svg/></x>`,
	} {
		_, err := NewLogo([]byte(data))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(" "+err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%.20q: %v, want %q", data, err, want)
		}
	}
	if _, err := NewLogo([]byte("<?xml version='1.0'?><!-- made by -->\n<svg xmlns='http://www.w3.org/2000/svg'></svg>")); err != nil {
		t.Error(err)
	}
}

// variables reads what the style sheet sets, for day or night.
func variables(t *rapid.T, css string, dark bool) map[string]rgb {
	found := map[string]rgb{}
	night := false
	for line := range strings.SplitSeq(css, "\n") {
		if strings.HasPrefix(line, "@media") {
			night = strings.Contains(line, "dark")
		}
		if !night || dark {
			for piece := range strings.SplitSeq(line, "--") {
				if name, value, ok := strings.Cut(piece, ": "); ok && strings.HasPrefix(value, "#") {
					color, err := parseColor(value[:7])
					if err != nil {
						t.Fatal(err)
					}
					found[name] = color
				}
			}
		}
		if line == "}" {
			night = false
		}
	}
	return found
}

// PAG-09, WCAG 2.2 AA, 1.4.3 and 1.4.11: whatever colors an owner likes, text and controls
// can be told from what they stand on, by day and by night.
func TestAnyColorsCanBeRead(t *testing.T) {
	t.Parallel()
	hex := rapid.StringMatching(`#([0-9a-f]{3}|[0-9a-f]{6})`)
	orNone := rapid.OneOf(rapid.Just(""), hex)
	ours, err := pageSource{}.read(styleFile)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		light, dark := Colors{orNone.Draw(t, "action"), orNone.Draw(t, "background")}, Colors{orNone.Draw(t, "action in the dark"), orNone.Draw(t, "background in the dark")}
		theme, err := themeCSS(light, dark)
		if err != nil {
			t.Fatal(err)
		}
		for _, night := range []bool{false, true} {
			v := variables(t, ours+theme, night)
			for _, pair := range []struct {
				on, what string
				ratio    float64
			}{
				{"card", "text", textContrast}, {"card", "quiet", textContrast}, {"card", "link", textContrast},
				{"action", "on-action", textContrast}, {"action-over", "on-action", textContrast},
				{"alert", "alert-text", textContrast}, {"done", "done-text", textContrast}, {"card", "alert-text", textContrast},
				{"card", "action", controlContrast}, {"card", "field", controlContrast}, {"card", "alert-line", controlContrast},
			} {
				if got := contrast(v[pair.what], v[pair.on]); got < pair.ratio {
					t.Errorf("night %v: %s on %s has %.2f, want %.1f (%v on %v)", night, pair.what, pair.on, got, pair.ratio, v[pair.what], v[pair.on])
				}
			}
		}
	})
	for card, want := range map[bool]string{false: lightCard, true: darkCard} {
		rapid.Check(t, func(t *rapid.T) {
			if got := variables(t, ours, card)["card"].String(); got != want {
				t.Fatalf("the card of style.css is %s, the palette takes it for %s", got, want)
			}
		})
	}
}

func TestOwnColorIsKeptWhereItCanBeRead(t *testing.T) {
	t.Parallel()
	css, err := themeCSS(Colors{Action: "#0a7d3c"}, Colors{Action: "#5fd08f", Background: "#000"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--link: #0a7d3c; --action: #0a7d3c; --on-action: #ffffff", "--page: #000000; --link: #5fd08f; --action: #5fd08f; --on-action: #000000"} {
		if !strings.Contains(css, want) {
			t.Errorf("%q is not in %s", want, css)
		}
	}
	for _, bad := range []string{"green", "#12", "#12345g", "rgb(1,2,3)", "#1234567", "##fff", "+fffff", "#fff; } body { display: none"} {
		if _, err := NewLook(LookConfig{Light: Colors{Action: bad}}); err == nil {
			t.Errorf("%q is a color", bad)
		}
		if _, err := NewLook(LookConfig{Dark: Colors{Background: bad}}); err == nil {
			t.Errorf("%q is a color", bad)
		}
	}
}

// The check's samples show every field of every page: what they lack, no template
// would be missed for.
func TestSamplesUseEveryForm(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, sample := range pageSamples() {
		root, err := defaultLook().parsed(sample, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range controlsOf(root) {
			seen[string(sample.page)+" "+c.name] = true
		}
	}
	for _, page := range pageNames {
		text, err := pageSource{}.read(string(page))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := html.Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for n := range doc.Descendants() {
			if name := attributeOf(n, "name"); n.Type == html.ElementNode && (n.Data == "input" || n.Data == "button") && !strings.Contains(name, "{{") && !seen[string(page)+" "+name] {
				t.Errorf("%s: no sample shows %q", page, name)
			}
		}
	}
}
