package doctor

import (
	"strings"
	"testing"
	"time"
)

// DOC-03: TestProfilesRefuseWhatNobodyVouchesFor
func TestProfilesRefuseWhatNobodyVouchesFor(t *testing.T) {
	t.Parallel()
	const good = `name: x
title: X
kind: mcp
registration:
  - {by: registration, source: seen, body: {client_name: X}, redirect_uris: ["https://x.example/callback"]}
authentication: {source: seen, methods: [none]}
pkce: {source: seen, method: S256}
resource: {source: seen, form: metadata}
scope: {source: seen, from: [challenge]}
`
	for _, c := range []struct{ name, old, new, want string }{
		{"good", "", "", ""},
		{"unknown member", "title: X", "title: X\ncolour: red", "colour not found"},
		{"fact without a source", "pkce: {source: seen, ", "pkce: {", `pkce: source "" is not in sources.yaml`},
		{"unknown source", "authentication: {source: seen", "authentication: {source: heard", `source "heard"`},
		{"way without a source", "registration, source: seen", "registration", "registration 1"},
		{"unknown form", "form: metadata", "form: any", `form "any"`},
		{"unknown challenge method", "S256", "plain", `method "plain"`},
		{"unknown place of scopes", "[challenge]", "[sky]", `from "sky"`},
		{"unknown kind", "kind: mcp", "kind: rest", "kind is none"},
		{"way without a body", ", body: {client_name: X}", "", "needs a body"},
		{"way without a redirect", `, redirect_uris: ["https://x.example/callback"]`, "", "needs redirect_uris"},
		{"another's document", "by: registration, source: seen, body: {client_name: X}", "by: document, source: seen, client_id: 'https://x.example/c', document: {client_id: 'https://y.example/c'}", "whose client_id is its own"},
		{"unknown base", "kind: mcp", "kind: mcp\nlike: nothing", `like "nothing"`},
		{"name of another file", "name: x", "name: y", "not that of the file"},
	} {
		l := &Library{Sources: map[string]Source{"seen": {Title: "Somebody looked", Date: "2026-08"}}}
		err := l.Add("x.yaml", []byte(strings.Replace(good, c.old, c.new, 1)))
		if err == nil {
			err = l.complete()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	l := &Library{Sources: map[string]Source{"seen": {Title: "Somebody looked", Date: "lately"}}}
	if l.complete() == nil {
		t.Error("a source without a date is taken")
	}
}

// DOC-03: the profiles that come with the program are whole, each of their facts
// has a source that was looked at, and no source stands there for nothing.
func TestProfilesOfTheProgramAreWhole(t *testing.T) {
	t.Parallel()
	library, err := Known()
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[string]bool)
	for _, p := range library.Profiles {
		for about, fact := range p.facts() {
			used[fact.Source] = true
			if source := library.Sources[fact.Source]; source.Title == "" || source.Date < "2026" || source.Date > time.Now().Format("2006-01-02") {
				t.Errorf("%s: %s: source %q: %+v", p.Name, about, fact.Source, source)
			}
		}
		if p.Kind == KindMCP && (p.Challenge == nil || p.ExactIssuer == nil || p.ResponseIssuer == nil || p.Refresh == nil || p.StepUp == nil || len(p.Requires) < 5) {
			t.Errorf("%s has not what every MCP client does: %+v", p.Name, p)
		}
	}
	for name := range library.Sources {
		if !used[name] {
			t.Errorf("source %q is behind no fact", name)
		}
	}
}
