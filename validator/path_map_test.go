package validator

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// RULE-05: TestPathMapIsRightAboutEveryPath: random tables and paths; the range that a
// path is in has the value that the tables give the path itself.
func TestPathMapIsRightAboutEveryPath(t *testing.T) {
	t.Parallel()
	c := testCatalog(t)
	ends := rapid.SampledFrom([]string{"", "", "", "/", "/*"})
	segments := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "{x}"}), 1, 3)
	checked := 0
	rapid.Check(t, func(t *rapid.T) {
		// Two tables: within one, patterns of a method do not cross.
		var tables []*ruleTable
		var patterns []string
		for range 2 {
			var rules []Rule
			for range rapid.IntRange(1, 5).Draw(t, "rules") {
				path := "/" + strings.Join(segments.Draw(t, "segments"), "/") + ends.Draw(t, "end")
				rules = append(rules, rule("GET", path))
				patterns = append(patterns, path)
			}
			table, err := newRuleTable(rules, c)
			if err != nil {
				return
			}
			tables = append(tables, table)
		}
		type decided struct{ a, b *Rule }
		decide := func(path string) decided { return decided{tables[0].match(0, path), tables[1].match(0, path)} }
		m, err := MapPaths(patterns, decide)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 1, 5).Draw(t, "path"), "/")
			path += rapid.SampledFrom([]string{"", "", "/"}).Draw(t, "slash")
			if rapid.IntRange(0, 20).Draw(t, "root") == 0 {
				path = "/"
			}
			var of []string
			for _, r := range m.Ranges() {
				if !contains(t, r.Pattern, path) || containsAny(t, m.Except(r), path) {
					continue
				}
				if of = append(of, r.Pattern); r.Value != decide(path) {
					t.Fatalf("%s is in %s except %q: %v, and is decided by %v", path, r.Pattern, m.Except(r), r.Value, decide(path))
				}
			}
			if len(of) == 0 {
				t.Fatalf("%s is in no range of %v", path, m.Ranges())
			}
			checked++
		}
		for _, r := range m.Ranges() {
			if r.Value != decide(r.Example) {
				t.Fatalf("%s is no example of %s", r.Example, r.Pattern)
			}
		}
	})
	if checked < 200 {
		t.Errorf("%d paths show too little", checked)
	}
}

// contains matches by a table of the one pattern.
func contains(t *rapid.T, pattern, path string) bool {
	p, err := parsePattern(pattern)
	if err != nil {
		t.Fatal(err)
	}
	table := &ruleTable{}
	table.slotsOf(p).put(&Rule{}, allMethods)
	return table.match(0, path) != nil
}

func containsAny(t *rapid.T, patterns []string, path string) bool {
	for _, p := range patterns {
		if contains(t, p, path) {
			return true
		}
	}
	return false
}

// TestPathMapIsShort: what is the same is said once.
func TestPathMapIsShort(t *testing.T) {
	t.Parallel()
	public := func(path string) bool { return path == "/jobs/search" || !strings.HasPrefix(path, "/jobs/") }
	m, err := MapPaths([]string{"/jobs", "/jobs/*", "/jobs/search", "/jobs/{id}/notes", "/health"}, public)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range m.Ranges() {
		got = append(got, r.Pattern+" except "+strings.Join(m.Except(r), " "))
	}
	want := "/ except |/* except /jobs/ /jobs/*|/jobs/ except |/jobs/* except /jobs/search|/jobs/search except "
	if strings.Join(got, "|") != want {
		t.Errorf("%s", strings.Join(got, "|"))
	}
}
