package issuer

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
)

// inLanguage are the words of one language.
func inLanguage(t *testing.T, tag string) *words {
	t.Helper()
	for _, w := range defaultLook().all {
		if w.tag.String() == tag {
			return w
		}
	}
	t.Fatalf("the pages do not speak %s", tag)
	return nil
}

// Every word that a template or the code asks for exists, and none is left over.
func TestEveryWordIsUsedAndExists(t *testing.T) {
	t.Parallel()
	english := inLanguage(t, "en").phrases
	var sources strings.Builder
	templates, err := fs.Glob(pageFiles, "*.html")
	if err != nil || len(templates) == 0 {
		t.Fatal(err)
	}
	for _, name := range templates {
		text, err := pageSource{}.read(name)
		if err != nil {
			t.Fatal(err)
		}
		sources.WriteString(text)
	}
	code, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range code {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.go") {
			sources.Write(text)
		}
	}
	for _, match := range regexp.MustCompile(`(?:\bwords\.|words\(r\)\.|{)(?:text|mark)[ (]"([^"]+)"[ ,)}]`).FindAllStringSubmatch(sources.String(), -1) {
		if english[match[1]] == nil {
			t.Errorf("%q has no words", match[1])
		}
	}
	literals := map[string]bool{}
	for _, match := range regexp.MustCompile(`"([a-z.]+)"`).FindAllStringSubmatch(sources.String(), -1) {
		literals[match[1]] = true
	}
	for key := range english {
		first, rest, _ := strings.Cut(key, ".")
		last := strings.LastIndex(key, ".")
		switch key[last:] {
		case ".title", ".explanation", ".advice":
			if literals[key[:last]] {
				continue
			}
		}
		if !literals[key] && !(literals[first+"."] && (literals[rest] || first == "identity")) {
			t.Errorf("nothing says %q", key)
		}
	}
}

// PAG-11: every language says everything, puts in what is to be put in, and
// counts as it counts.
func TestEveryLanguageSaysEverything(t *testing.T) {
	t.Parallel()
	catalogues := map[language.Tag]catalogue{}
	if err := readCatalogues(pageFiles, catalogues); err != nil {
		t.Fatal(err)
	}
	if len(catalogues) < 5 {
		t.Errorf("the pages speak %d languages", len(catalogues))
	}
	english := catalogues[language.English]
	for tag, phrases := range catalogues {
		if err := phrases.check(tag, english); err != nil {
			t.Errorf("%s.json: %v", tag, err)
		}
		// A language that copies a sentence has not been translated.
		same := 0
		for key, phrase := range phrases {
			if text := phrase[plural.Other]; text == english[key][plural.Other] && strings.Count(text, " ") > 2 && tag != language.English {
				t.Logf("%s says %q as English does", tag, key)
				same++
			}
		}
		if same > 0 {
			t.Errorf("%s: %d sentences are English", tag, same)
		}
	}
}

func TestCatalogueIsCheckedAgainstEnglish(t *testing.T) {
	t.Parallel()
	english := catalogue{"a": {plural.Other: "of {0} and {1}"}, "n": {plural.One: "1 app", plural.Other: "{0} apps"}}
	arabic := phrase{plural.Zero: "0", plural.One: "1", plural.Two: "2", plural.Few: "{0}", plural.Many: "{0}", plural.Other: "{0}"}
	for want, c := range map[string]catalogue{
		"":                          {"a": {plural.Other: "{1} {0}"}, "n": arabic},
		`"a" is missing`:            {"n": arabic},
		`"b" is no phrase`:          {"a": {plural.Other: "{1} {0}"}, "n": arabic, "b": {plural.Other: "b"}},
		`"a": {1} stands in one of`: {"a": {plural.Other: "{0}"}, "n": arabic},
		`"a": {2} stands in one of`: {"a": {plural.Other: "{0}{1}{2}"}, "n": arabic},
		`the plural form "`:         {"a": {plural.Other: "{1} {0}"}, "n": {plural.Other: "{0}"}},
		`"n": {0} stands in one of`: {"a": {plural.Other: "{1} {0}"}, "n": {plural.Zero: "0", plural.One: "1", plural.Two: "2", plural.Few: "3", plural.Many: "4", plural.Other: "5"}},
		`"a" has no text`:           {"a": {plural.Other: " "}, "n": arabic},
	} {
		err := c.check(language.Arabic, english)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestMomentsReadLikeSpeech(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)
	for want, age := range map[string]time.Duration{
		"just now": -time.Second, "1 minute ago": time.Minute, "59 minutes ago": 59*time.Minute + 59*time.Second,
		"1 hour ago": time.Hour, "23 hours ago": 23 * time.Hour, "1 day ago": 24 * time.Hour, "29 days ago": 29 * 24 * time.Hour,
		"on 20 April 2026": 30 * 24 * time.Hour,
	} {
		if got := inLanguage(t, "en").moment(now.Add(-age), now); got.Human != want || got.Machine == "" {
			t.Errorf("%s: %+v, want %q", age, got, want)
		}
	}
}
