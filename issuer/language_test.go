package issuer

import (
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/text/language"
)

// OIDC-27: ui_locales decides, where a language of it is spoken.
func TestLanguageIsThatOfTheRequestThenOfTheBrowser(t *testing.T) {
	t.Parallel()
	var all []*words
	for _, tag := range []string{"en", "ar", "de", "he", "pt-BR"} {
		all = append(all, newWords(language.MustParse(tag), nil))
	}
	l := newLanguages(all)
	for _, c := range []struct{ uiLocales, accept, want string }{
		{"", "", "en"},
		{"", "de", "de"},
		{"", "de-CH,de;q=0.9,en;q=0.1", "de"},
		{"", "nl,ja;q=0.9", "en"},
		{"", "nl,ar-EG;q=0.5", "ar"},
		{"", "xx-what,,;;,de;q=0.5", "de"},
		{"", "iw", "he"}, // as it was called
		{"he", "de", "he"},
		{"nl", "de", "de"},
		{"nl ar", "de", "ar"},
		{"", "pt", "pt-BR"},
		{"", strings.Repeat("nl,", 10_000) + "de", "en"},
	} {
		if got := l.all[l.choose(c.uiLocales, c.accept)].tag.String(); got != c.want {
			t.Errorf("ui_locales %q, Accept-Language %.40q: %s, want %s", c.uiLocales, c.accept, got, c.want)
		}
	}
	for locales, want := range map[string]string{"de-CH fr": "de-CH fr", "": "", "<script>": "", strings.Repeat("de ", 40): ""} {
		if got := readUILocales(locales); got != want {
			t.Errorf("%.20q is read as %q", locales, got)
		}
	}
}

func TestOwnersSayThingsDifferentlyOrInAnotherLanguage(t *testing.T) {
	t.Parallel()
	english, err := pageSource{}.read("en.json")
	if err != nil {
		t.Fatal(err)
	}
	owners := fstest.MapFS{
		"en.json": {Data: []byte(`{"consent.allow": "Go ahead"}`)},
		"nl.json": {Data: []byte(strings.Replace(english, `"consent.deny": "Deny"`, `"consent.deny": "Weigeren"`, 1))},
	}
	l, err := readLanguages(owners, "nl")
	if err != nil {
		t.Fatal(err)
	}
	if l.all[0].tag.String() != "nl" || l.all[0].text("consent.deny") != "Weigeren" {
		t.Errorf("the first language is %s: %s", l.all[0].tag, l.all[0].text("consent.deny"))
	}
	for _, w := range l.all {
		if w.tag == language.English && (w.text("consent.allow") != "Go ahead" || w.text("consent.deny") != "Deny") {
			t.Errorf("English: %q, %q", w.text("consent.allow"), w.text("consent.deny"))
		}
	}
	for want, owners := range map[string]fstest.MapFS{
		`nl.json: "`:                     {"nl.json": {Data: []byte(`{"consent.allow": "Toestaan"}`)}},
		"en.json: invalid character":     {"en.json": {Data: []byte(`{]`)}},
		"not a language tag":             {"words.json": {Data: []byte(`{}`)}},
		`"consent.alow" is no phrase`:    {"en.json": {Data: []byte(`{"consent.alow": "x"}`)}},
		`"some" is not a plural form`:    {"en.json": {Data: []byte(`{"time.days": {"some": "x"}}`)}},
		"a phrase is a text, or an obje": {"en.json": {Data: []byte(`{"time.days": 1}`)}},
		`do not speak "pt"`:              nil,
	} {
		first := ""
		if owners == nil {
			first = "pt"
		}
		if _, err := readLanguages(owners, first); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
