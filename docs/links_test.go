package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	fenced  = regexp.MustCompile("(?ms)^\\s*```.*?^\\s*```")
	inline  = regexp.MustCompile("`[^`\n]*`")
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	noSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	// goFile is a source file as package comments and documents name it.
	goFile = regexp.MustCompile(`(?:[\w.-]+/)*\w+\.go\b`)
)

// Every relative link of a document leads to a file, and to a heading in it.
func TestLinksOfTheDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	texts := make(map[string]string)
	for _, path := range filesOfTheProject(t, ".md") {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = fenced.ReplaceAllString(string(content), "")
	}
	links := 0
	for path, text := range texts {
		for _, found := range link.FindAllStringSubmatch(inline.ReplaceAllString(text, ""), -1) {
			if strings.Contains(found[1], ":") { // leads out
				continue
			}
			links++
			file, anchor, _ := strings.Cut(found[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s is not there", path, found[1])
			} else if other, ok := texts[target]; anchor != "" && ok && !slices.Contains(slugs(other), anchor) {
				t.Errorf("%s: %s has no heading for #%s", path, target, anchor)
			}
		}
	}
	if links < 100 {
		t.Errorf("%d links were found; they are not read right", links)
	}
}

// slugs are the names by which headings are linked to.
func slugs(text string) (names []string) {
	for _, h := range heading.FindAllStringSubmatch(text, -1) {
		names = append(names, strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(h[1])), ""), " ", "-"))
	}
	return names
}

// A source file that a package comment or how-it-works.md names is where it says:
// they are the maps by which readers find their way.
func TestSourceFilesThatAreNamedExist(t *testing.T) {
	t.Parallel()
	named := 0
	check := func(path, base, text string) {
		for _, name := range goFile.FindAllString(text, -1) {
			named++
			if _, err := os.Stat(filepath.Join(base, name)); err != nil {
				t.Errorf("%s names %s, which is not in %s", path, name, base)
			}
		}
	}
	for _, path := range filesOfTheProject(t, "doc.go") {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		check(path, filepath.Dir(path), string(content))
	}
	content, err := os.ReadFile("how-it-works.md")
	if err != nil {
		t.Fatal(err)
	}
	check("how-it-works.md", "..", string(content))
	if named < 30 {
		t.Errorf("%d files are named; they are not read right", named)
	}
}

// filesOfTheProject are the files whose names end so, but for what tools put
// there.
func filesOfTheProject(t *testing.T, end string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "artifacts"):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, end):
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
