package issuer

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/text/language"
)

// checkTemplates holds the owner's templates against ours: rendered with the
// same sample, each page must have the same fields and buttons in forms that go
// to the same place, show the same data, and hold nothing that the policy blocks.
func (l *Look) checkTemplates() error {
	english := slices.IndexFunc(l.all, func(w *words) bool { return w.tag == language.English })
	for _, sample := range pageSamples() {
		want, err := defaultLook().parsed(sample, 0)
		if err != nil {
			return fmt.Errorf("ours: %w", err)
		}
		got, err := l.parsed(sample, english)
		if err != nil {
			return err
		}
		if err := errors.Join(lacking(want, got), l.blocked(got, scriptOf(sample.data))); err != nil {
			return fmt.Errorf("%s: %w", sample.page, err)
		}
	}
	return nil
}

// parsed is the page as a browser reads it.
func (l *Look) parsed(sample pageSample, language int) (*html.Node, error) {
	var page bytes.Buffer
	if err := l.render(&page, sample.page, language, "host", sample.data); err != nil {
		return nil, err
	}
	return html.Parse(&page)
}

// control is a field or button of a form.
type control struct{ action, kind, name, value string }

func (c control) String() string {
	what := "the field " + c.name
	switch {
	case c.kind == "submit" && c.name == "":
		what = "the button"
	case c.kind == "submit":
		what = fmt.Sprintf("the button %s=%s", c.name, c.value)
	case c.kind == "hidden":
		what = "the hidden field " + c.name
	}
	return fmt.Sprintf("%s in a form with method post and action %s", what, c.action)
}

// sampleText is text of a sample that the page shows.
var sampleText = regexp.MustCompile(`sample-[a-z]+`)

// lacking reports what a page lacks that ours has.
func lacking(want, got *html.Node) error {
	var wrong []error
	wanted, has := controlsOf(want), controlsOf(got)
	for _, c := range wanted {
		if !slices.Contains(has, c) {
			wrong = append(wrong, fmt.Errorf("lacks %s", c))
		}
	}
	for _, form := range formsWithin(got) {
		for _, c := range wanted {
			// Hidden fields tell our form from a stranger's: each form needs its own.
			if c.kind == "hidden" && (c.name == "csrf" || c.name == "request") && c.action == attributeOf(form, "action") && !slices.Contains(controlsOf(form), c) {
				wrong = append(wrong, fmt.Errorf("has a form that lacks %s", c))
			}
		}
	}
	for n := range want.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if src := attributeOf(n, "src"); n.Data == "script" && !hasElement(got, "script", "src", src) {
			wrong = append(wrong, fmt.Errorf(`lacks the script of passkeys, <script src="{{.Script}}" defer></script>`))
		}
		for _, name := range []string{"data-passkey", "data-options"} {
			if value := attributeOf(n, name); value != "" && !hasElement(got, n.Data, name, value) {
				wrong = append(wrong, fmt.Errorf("lacks a %s with %s=%q, for the script of passkeys", n.Data, name, value))
			}
		}
	}
	shown := textWithin(got)
	for _, text := range sampleText.FindAllString(textWithin(want), -1) {
		if !strings.Contains(shown, text) {
			wrong = append(wrong, fmt.Errorf("does not show what ours shows where it says %q", text))
		}
	}
	for n := range got.Descendants() {
		if n.Type == html.ElementNode && n.Data == "html" && (attributeOf(n, "lang") == "" || attributeOf(n, "dir") == "") {
			wrong = append(wrong, errors.New(`the element html lacks lang="{{.Language}}" or dir="{{.Direction}}"`))
		}
	}
	return firstOf(wrong)
}

// firstOf keeps the message short: one mistake often makes many.
func firstOf(all []error) error {
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// blocked reports what the policy of the pages would block. script is the address
// of the only script that this page may have.
func (l *Look) blocked(page *html.Node, script string) error {
	for n := range page.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if n.Data == "script" && script != "" && attributeOf(n, "src") == script && n.FirstChild == nil {
			continue
		}
		switch n.Data {
		case "script", "iframe", "object", "embed", "frame", "base", "audio", "video":
			return fmt.Errorf("holds a %s, which the policy of the pages blocks", n.Data)
		case "link":
			if rel := attributeOf(n, "rel"); rel != "icon" || !strings.HasPrefix(attributeOf(n, "href"), "data:") {
				return errors.New("holds a link to another file, which the policy of the pages blocks: put styles into style.css")
			}
		case "style":
			if n.FirstChild == nil || n.FirstChild.Data != l.style {
				return errors.New("holds a style element of its own, which the policy of the pages blocks: put styles into style.css, and {{.Style}} alone into the element")
			}
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "style" || strings.HasPrefix(a.Key, "on"):
				return fmt.Errorf("holds the attribute %s, which the policy of the pages blocks", a.Key)
			case (a.Key == "src" || a.Key == "srcset" || a.Key == "poster") && !strings.HasPrefix(a.Val, "data:"):
				return fmt.Errorf("holds %s=%q: pages load nothing from elsewhere; use the word logo, or a data: URL", a.Key, a.Val)
			}
		}
	}
	return nil
}

// controlsOf are the fields and buttons below a node that a form would send.
func controlsOf(root *html.Node) []control {
	var controls []control
	for n := range root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "input" && n.Data != "button" {
			continue
		}
		form := formOf(n)
		if form == nil {
			continue
		}
		c := control{action: attributeOf(form, "action"), kind: attributeOf(n, "type"), name: attributeOf(n, "name"), value: attributeOf(n, "value")}
		if n.Data == "button" && c.kind == "" {
			c.kind = "submit"
		}
		if !slices.Contains(controls, c) {
			controls = append(controls, c)
		}
	}
	return controls
}

// formOf is the form that a control belongs to; nil: none that posts.
func formOf(n *html.Node) *html.Node {
	for ; n != nil; n = n.Parent {
		if n.Type == html.ElementNode && n.Data == "form" {
			if strings.EqualFold(attributeOf(n, "method"), "post") {
				return n
			}
			return nil
		}
	}
	return nil
}

func hasElement(root *html.Node, element, attribute, value string) bool {
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == element && attributeOf(n, attribute) == value {
			return true
		}
	}
	return false
}

func formsWithin(root *html.Node) (forms []*html.Node) {
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "form" {
			forms = append(forms, n)
		}
	}
	return forms
}

func attributeOf(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// textWithin is what can be read, and where links lead.
func textWithin(root *html.Node) string {
	var text strings.Builder
	for n := range root.Descendants() {
		switch {
		case n.Type == html.TextNode && (n.Parent == nil || n.Parent.Data != "style" && n.Parent.Data != "title"):
			text.WriteString(n.Data + " ")
		case n.Type == html.ElementNode && n.Data == "a":
			text.WriteString(attributeOf(n, "href") + " ")
		}
	}
	return text.String()
}
