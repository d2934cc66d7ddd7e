// Package docs holds the documentation to the code.
package docs

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "fill the tests of conformance.md from the ids in the tests")

var (
	// row is | id | requirement | section | tests |
	row = regexp.MustCompile(`(?m)^\| ((?:[A-Z]\S*|trap)(?: [0-9.]+)?) \| (.*) \| (.*) \| (.*) \|$`)
	// named is a test as conformance.md writes it: `package.TestName`.
	named = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)\\w+)`")
	// identifiers are the ids of requirements in comments and case names.
	identifiers = regexp.MustCompile(`\b(?:[A-Z]-\d{2}|M[1-4](?:\.\d)?|PROTOCOL \d(?:\.\d+)+|[A-Z]{3,4}-\d{2}|[Tt]rap \d{1,2})\b`)
	// spans are ids such as "J-01 to J-06".
	spans = regexp.MustCompile(`\b([A-Z])-(\d{2})(?:\s*(?:to|…|\.\.\.?|–|-)\s*)(?:[A-Z]-)?(\d{2})\b`)
)

// A row of conformance.md names tests that exist.
func TestConformanceNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	tests := testsByID(t)
	if *update {
		fill(t, tests)
	}
	text, err := os.ReadFile("conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := row.FindAllStringSubmatch(string(text), -1)
	if len(rows) < 50 {
		t.Fatalf("conformance.md has %d rows; the table is not read right", len(rows))
	}
	for _, r := range rows {
		for _, name := range named.FindAllStringSubmatch(r[4], -1) {
			if !slices.Contains(tests[""], name[1]+"."+name[2]) {
				t.Errorf("%s names %s.%s, which does not exist", r[1], name[1], name[2])
			}
		}
	}
}

// must is | section | requirement | shown by |, of the list of every MUST.
var must = regexp.MustCompile(`(?m)^\| ((?:[A-Z]\w+: )?\d[^|]*) \| ([^|]+) \| ([^|]+) \|$`)

// Each MUST of a standard names a row that has tests, a test that exists, or says
// why it is not met.
func TestEveryMustIsShownOrExplained(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, found := strings.Cut(string(text), "\n## Every MUST")
	if !found {
		t.Fatal("conformance.md has no list of every MUST")
	}
	list, _, _ = strings.Cut(list, "\n## ")
	shown := make(map[string]bool)
	for _, r := range row.FindAllStringSubmatch(string(text), -1) {
		shown[r[1]] = named.MatchString(r[4])
	}
	tests, standard, n := testsByID(t)[""], "", 0
	for line := range strings.Lines(list) {
		if name, ok := strings.CutPrefix(line, "### "); ok {
			standard = strings.TrimSpace(name)
		}
		r := must.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if r == nil {
			if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| section ") {
				t.Errorf("%s: not a row: %s", standard, line)
			}
			continue
		}
		n++
		ids, names := idsIn(r[3]), named.FindAllStringSubmatch(r[3], -1)
		if len(ids)+len(names) == 0 && !strings.HasPrefix(r[3], "not: ") {
			t.Errorf("%s, %s: neither shown nor explained", standard, r[1])
		}
		for _, id := range ids {
			if !shown[id] {
				t.Errorf("%s, %s: %s has no test", standard, r[1], id)
			}
		}
		for _, name := range names {
			if !slices.Contains(tests, name[1]+"."+name[2]) {
				t.Errorf("%s, %s: %s.%s does not exist", standard, r[1], name[1], name[2])
			}
		}
	}
	if n < 150 {
		t.Errorf("%d rows; the list is not read right", n)
	}
}

// fill rewrites the last column of every row.
func fill(t *testing.T, tests map[string][]string) {
	t.Helper()
	text, err := os.ReadFile("conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	filled := row.ReplaceAllStringFunc(string(text), func(line string) string {
		r := row.FindStringSubmatch(line)
		names := tests[r[1]]
		if len(names) == 0 {
			return fmt.Sprintf("| %s | %s | %s | - |", r[1], r[2], r[3])
		}
		return fmt.Sprintf("| %s | %s | %s | `%s` |", r[1], r[2], r[3], strings.Join(names, "` `"))
	})
	if err := os.WriteFile("conformance.md", []byte(filled), 0o644); err != nil {
		t.Fatal(err)
	}
}

// testsByID finds the tests of the module by the ids that their comments and
// case names hold; under "" are all of them.
func testsByID(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != ".." && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		return readTests(path, found)
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := range found {
		slices.Sort(found[id])
		found[id] = slices.Compact(found[id])
	}
	return found
}

func readTests(path string, found map[string][]string) error {
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, parser.ParseComments)
	if err != nil {
		return err
	}
	folder, err := filepath.Rel("..", filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, declaration := range file.Decls {
		f, ok := declaration.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !(strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")) {
			continue
		}
		name := filepath.ToSlash(folder) + "." + f.Name.Name
		text := string(source[files.Position(f.Pos()).Offset:files.Position(f.End()).Offset])
		if f.Doc != nil {
			text = f.Doc.Text() + text
		}
		found[""] = append(found[""], name)
		for _, id := range idsIn(text) {
			found[id] = append(found[id], name)
		}
	}
	return nil
}

func idsIn(text string) []string {
	var ids []string
	for _, id := range identifiers.FindAllString(text, -1) {
		ids = append(ids, strings.Replace(id, "Trap", "trap", 1))
	}
	for _, span := range spans.FindAllStringSubmatch(text, -1) {
		var from, to int
		_, _ = fmt.Sscan(strings.TrimLeft(span[2], "0"), &from)
		_, _ = fmt.Sscan(strings.TrimLeft(span[3], "0"), &to)
		for n := from; n <= to; n++ {
			ids = append(ids, fmt.Sprintf("%s-%02d", span[1], n))
		}
	}
	return ids
}

// clientVersion is a client in the table of real clients: `name` and version.
var clientVersion = regexp.MustCompile("(?m)^\\| CLI-\\d{2} \\| `([^`]+)` (\\d[^,| ]*)")

// The versions in conformance.md are those that ran: the lock files', and each
// package that is installed is named.
func TestConformanceNamesTheClientsThatRan(t *testing.T) {
	t.Parallel()
	packages, err := os.ReadFile("../e2e/clients/package.json")
	if err != nil {
		t.Fatal(err)
	}
	var pinned struct {
		Dependencies map[string]string
	}
	if err := json.Unmarshal(packages, &pinned); err != nil {
		t.Fatal(err)
	}
	modules, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, c := range clientVersion.FindAllStringSubmatch(string(text), -1) {
		name, version := c[1], c[2]
		named[name] = true
		if pinned.Dependencies[name] != version && !strings.Contains(string(modules), "\t"+name+" v"+version+"\n") {
			t.Errorf("`%s` %s is not what the lock files pin", name, version)
		}
	}
	for name := range pinned.Dependencies {
		if !named[name] {
			t.Errorf("conformance.md does not name `%s`", name)
		}
	}
}
