package issuer

import (
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	printer "golang.org/x/text/message"
	"golang.org/x/text/number"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// words are what the pages say in one language. Safe for concurrent use.
type words struct {
	tag     language.Tag
	phrases catalogue
	numbers *printer.Printer
}

// catalogue are phrases by key.
type catalogue map[string]phrase

// phrase is a text in which "{0}" and "{1}" stand for what is put in. One that
// counts {0} has a text for each plural form of its language; the others have
// plural.Other alone.
type phrase map[plural.Form]string

var pluralForms = map[string]plural.Form{
	"zero": plural.Zero, "one": plural.One, "two": plural.Two, "few": plural.Few, "many": plural.Many, "other": plural.Other,
}

// UnmarshalJSON reads a text, or an object of texts by plural form.
func (p *phrase) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err == nil {
		*p = phrase{plural.Other: text}
		return nil
	}
	var forms map[string]string
	if err := json.Unmarshal(data, &forms); err != nil {
		return errors.New("a phrase is a text, or an object of texts by plural form")
	}
	*p = phrase{}
	for name, text := range forms {
		form, ok := pluralForms[name]
		if !ok {
			return fmt.Errorf("%q is not a plural form: zero, one, two, few, many, other", name)
		}
		(*p)[form] = text
	}
	return nil
}

func (p phrase) counts() bool { return len(p) > 1 }

func newWords(tag language.Tag, phrases catalogue) *words {
	return &words{tag: tag, phrases: phrases, numbers: printer.NewPrinter(tag)}
}

// text returns the phrase with plain text put in. A missing key is a mistake of
// ours that a test finds; the reader sees the key.
func (w *words) text(key string, values ...any) string {
	return replace(w.phrase(key, values), values, w.show)
}

// mark returns the phrase as HTML with the values escaped, set off in bold and
// isolated from the direction of the text around them, so that a name cannot
// pass for our own words.
func (w *words) mark(key string, values ...any) template.HTML {
	bold := func(value any) string {
		return "<b><bdi>" + template.HTMLEscapeString(w.show(value)) + "</bdi></b>"
	}
	return template.HTML(replace(template.HTMLEscapeString(w.phrase(key, values)), values, bold))
}

// phrase returns the text of the key, in the plural form of the first value.
func (w *words) phrase(key string, values []any) string {
	forms, ok := w.phrases[key]
	if !ok {
		return key
	}
	if forms.counts() && len(values) > 0 {
		if n, ok := values[0].(int); ok {
			if text, ok := forms[pluralForm(w.tag, n)]; ok {
				return text
			}
		}
	}
	return forms[plural.Other]
}

func pluralForm(tag language.Tag, n int) plural.Form {
	return plural.Cardinal.MatchPlural(tag, n, 0, 0, 0, 0)
}

// scope is what the scope allows, in its declared words, or in ours where it is
// not declared but belongs to OpenID Connect.
func (w *words) scope(scope oauth.Scope) string {
	if scope.Description == "" {
		return w.text("identity." + scope.Name)
	}
	if translated := scope.In[w.tag.String()]; translated != "" {
		return translated
	}
	return scope.Description
}

// show is a value as the language writes it.
func (w *words) show(value any) string {
	if n, ok := value.(int); ok {
		return w.numbers.Sprint(number.Decimal(n))
	}
	return fmt.Sprint(value)
}

// replace puts the values in, in one pass: a value that spells "{1}" is left
// alone.
func replace(phrase string, values []any, as func(any) string) string {
	var pairs []string
	for i, value := range values {
		pairs = append(pairs, placeholder(i), as(value))
	}
	return strings.NewReplacer(pairs...).Replace(phrase)
}

func placeholder(i int) string { return "{" + strconv.Itoa(i) + "}" }

// moment is a time as a page shows it.
type moment struct{ Human, Machine string }

func (w *words) moment(t, now time.Time) moment {
	m := moment{Machine: t.UTC().Format(time.RFC3339)}
	switch age := now.Sub(t); {
	case age < time.Minute: // clocks of node and database differ a little
		m.Human = w.text("time.now")
	case age < time.Hour:
		m.Human = w.text("time.minutes", int(age/time.Minute))
	case age < 24*time.Hour:
		m.Human = w.text("time.hours", int(age/time.Hour))
	case age < 30*24*time.Hour:
		m.Human = w.text("time.days", int(age/(24*time.Hour)))
	default:
		m.Human = w.text("time.on", w.date(t))
	}
	return m
}

// wait is how long it is until something may be tried again.
func (w *words) wait(d time.Duration) string {
	if minutes := int((d + time.Minute - 1) / time.Minute); minutes <= 60 {
		return w.text("wait.minutes", minutes)
	}
	return w.text("wait.hours", int((d+time.Hour-1)/time.Hour))
}

// date is day, month and year.
func (w *words) date(t time.Time) string {
	year, month, day := t.UTC().Date()
	months := strings.Split(w.text("time.months"), "|")
	return w.text("time.date", day, months[month-1], w.numbers.Sprint(number.Decimal(year, number.NoSeparator())))
}

// check reports what a catalogue lacks beside the English one, which has every
// key: a key, a plural form of the language, or something that is to be put in.
func (c catalogue) check(tag language.Tag, english catalogue) error {
	var wrong []error
	for _, key := range sortedKeys(english) {
		if c[key] == nil {
			wrong = append(wrong, fmt.Errorf("%q is missing", key))
			continue
		}
		wrong = append(wrong, c[key].check(tag, key, english[key]))
	}
	for _, key := range sortedKeys(c) {
		if english[key] == nil {
			wrong = append(wrong, fmt.Errorf("%q is no phrase of the pages", key))
		}
	}
	return someOf(slices.DeleteFunc(wrong, func(err error) bool { return err == nil }))
}

// someOf keeps a message to one line.
func someOf(all []error) error {
	const most = 5
	var texts []string
	for _, err := range all[:min(len(all), most)] {
		texts = append(texts, err.Error())
	}
	if more := len(all) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}

func sortedKeys(c catalogue) []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func (p phrase) check(tag language.Tag, key string, english phrase) error {
	needed := []plural.Form{plural.Other}
	if english.counts() {
		needed = formsOf(tag)
	}
	for _, form := range needed {
		if strings.TrimSpace(p[form]) == "" {
			return fmt.Errorf("%q has no text for the plural form %q", key, nameOf(form))
		}
	}
	for form, text := range p {
		if !slices.Contains(needed, form) {
			return fmt.Errorf("%q has the plural form %q, which is not needed", key, nameOf(form))
		}
		for i := range 4 {
			has, wants := strings.Contains(text, placeholder(i)), strings.Contains(english[plural.Other], placeholder(i))
			// "1 minute" need not say {0}.
			if has && !wants || wants && !has && (form == plural.Other || i > 0) {
				return fmt.Errorf("%q: %s stands in one of English and this language only", key, placeholder(i))
			}
		}
	}
	if key == "time.months" && strings.Count(p[plural.Other], "|") != 11 {
		return fmt.Errorf("%q is not twelve names with | between them", key)
	}
	return nil
}

// formsOf returns the plural forms that the whole numbers of a language have.
func formsOf(tag language.Tag) []plural.Form {
	forms := []plural.Form{plural.Other}
	for n := range 200 {
		if form := pluralForm(tag, n); !slices.Contains(forms, form) {
			forms = append(forms, form)
		}
	}
	return forms
}

func nameOf(form plural.Form) string {
	for name, f := range pluralForms {
		if f == form {
			return name
		}
	}
	return ""
}
