package issuer

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"golang.org/x/text/language"
)

// defaultLanguage is that of a browser that asks for none of ours.
const defaultLanguage = "en"

// languages are the languages that the pages are in, the default first.
type languages struct {
	all     []*words
	matcher language.Matcher
}

func newLanguages(all []*words) languages {
	tags := make([]language.Tag, len(all))
	for i, w := range all {
		tags[i] = w.tag
	}
	return languages{all, language.NewMatcher(tags)}
}

// choose returns the place in all of what suits best: uiLocales, language tags
// between spaces (OpenID Connect Core section 3.1.2.1), before the browser's
// Accept-Language.
func (l languages) choose(uiLocales, acceptLanguage string) int {
	_, index := language.MatchStrings(l.matcher, knownTags(strings.ReplaceAll(uiLocales, " ", ",")), knownTags(acceptLanguage))
	return index
}

// maxAcceptLanguage bounds the work of reading Accept-Language, in bytes.
const maxAcceptLanguage = 200

// knownTags leaves out what is no language: one such would spoil the whole list.
func knownTags(list string) string {
	var known []string
	for tag := range strings.SplitSeq(list[:min(len(list), maxAcceptLanguage)], ",") {
		if _, _, err := language.ParseAcceptLanguage(tag); err == nil {
			known = append(known, tag)
		}
	}
	return strings.Join(known, ",")
}

func (l languages) tags() []string {
	var tags []string
	for _, w := range l.all {
		tags = append(tags, w.tag.String())
	}
	return tags
}

// direction is the value of the attribute `dir`.
func (w *words) direction() string {
	switch script, _ := w.tag.Script(); script.String() {
	case "Arab", "Hebr", "Thaa", "Syrc", "Nkoo", "Adlm", "Rohg":
		return "rtl"
	}
	return "ltr"
}

// readLanguages reads our catalogues, and over them those of the owner, who may
// say some things differently, or all of it in another language. The one named
// first comes first.
func readLanguages(owners fs.FS, first string) (languages, error) {
	catalogues := map[language.Tag]catalogue{}
	if err := readCatalogues(pageFiles, catalogues); err != nil {
		return languages{}, err
	}
	english := maps.Clone(catalogues[language.English])
	for _, phrases := range catalogues { // a test holds that none of ours lacks one
		for key, phrase := range english {
			if phrases[key] == nil {
				phrases[key] = phrase
			}
		}
	}
	if err := readCatalogues(owners, catalogues); err != nil {
		return languages{}, err
	}
	var all []*words
	for tag, phrases := range catalogues {
		if err := phrases.check(tag, english); err != nil {
			return languages{}, fmt.Errorf("%s.json: %w", tag, err)
		}
		all = append(all, newWords(tag, phrases))
	}
	slices.SortFunc(all, func(a, b *words) int { return strings.Compare(a.tag.String(), b.tag.String()) })
	if first == "" {
		first = defaultLanguage
	}
	i := slices.IndexFunc(all, func(w *words) bool { return w.tag.String() == first })
	if i < 0 {
		return languages{}, fmt.Errorf("the pages do not speak %q; they speak %s", first, strings.Join(newLanguages(all).tags(), ", "))
	}
	preferred := all[i]
	return newLanguages(slices.Insert(slices.Delete(all, i, i+1), 0, preferred)), nil
}

func readCatalogues(from fs.FS, into map[language.Tag]catalogue) error {
	if from == nil {
		return nil
	}
	files, err := fs.Glob(from, "*.json")
	if err != nil {
		return err
	}
	for _, file := range files {
		tag, err := language.Parse(strings.TrimSuffix(path.Base(file), ".json"))
		if err != nil || tag.String()+".json" != file {
			return fmt.Errorf("%s: its name is not a language tag such as de or pt-BR", file)
		}
		data, err := fs.ReadFile(from, file)
		if err != nil {
			return err
		}
		if into[tag] == nil {
			into[tag] = catalogue{}
		}
		phrases := into[tag] // a key that is there already is said differently from now on
		if err := json.Unmarshal(data, &phrases); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// words are those of the language that the person at the browser reads: that of
// the authorization request, or of the address, or of the browser.
func (s *Server) words(r *http.Request) *words {
	return s.pages.all[s.language(r)]
}

func (s *Server) language(r *http.Request) int {
	return s.pages.choose(uiLocalesOf(r), r.Header.Get("Accept-Language"))
}

// uiLocalesOf is the ui_locales that the request came with or led to.
func uiLocalesOf(r *http.Request) string {
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok && v.uiLocales != "" {
		return v.uiLocales
	}
	return readUILocales(r.URL.Query().Get("ui_locales"))
}

// pageAddress is the address of a page of ours in the language that was asked
// for, if one was.
func (s *Server) pageAddress(r *http.Request, path string, query url.Values) string {
	if locales := uiLocalesOf(r); locales != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("ui_locales", locales)
	}
	address := s.endpoint(path)
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	return address
}

// speak has the rest of the request answered in one of these languages.
func speak(r *http.Request, uiLocales string) {
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok && uiLocales != "" {
		v.uiLocales = uiLocales
	}
}

// maxUILocales bounds ui_locales, in bytes: a dozen languages. A longer list is
// ignored, as one in none of our languages is.
const maxUILocales = 100

// readUILocales returns what is a list of language tags, and nothing otherwise.
// RFC 5646 section 2.1.
func readUILocales(text string) string {
	if len(text) > maxUILocales || strings.IndexFunc(text, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != ' '
	}) >= 0 {
		return ""
	}
	return text
}
