package issuer

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"sync"
)

// pageName is a page, and the file that its template is in.
type pageName string

const (
	signInPage     pageName = "signin.html"
	consentPage    pageName = "consent.html"
	limitPage      pageName = "limit.html"
	messagePage    pageName = "message.html"
	refusedPage    pageName = "refused.html"
	devicePage     pageName = "device.html"
	accountPage    pageName = "account.html"
	endSessionPage pageName = "end_session.html"
	appsPage       pageName = "apps.html"
)

var pageNames = []pageName{signInPage, consentPage, limitPage, messagePage, refusedPage, devicePage, accountPage, endSessionPage, appsPage}

// pageFiles are the pages as they are where nobody has changed them: templates,
// one style sheet, and the words of each language. They are plain HTML without
// script.
var pageFiles = sub(embedded, "pages")

//go:embed pages
var embedded embed.FS

func sub(files embed.FS, dir string) fs.FS {
	below, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // dir is a valid path
	}
	return below
}

// Look is what the pages look like and which languages they speak. Safe for
// concurrent use.
type Look struct {
	languages
	templates []map[pageName]*template.Template // by language
	style     string
	policy    string
}

// LookConfig makes a Look.
type LookConfig struct {
	// Language is that of browsers that ask for none of ours. Empty: en.
	Language string
}

// defaultLook is the look where nothing is configured.
var defaultLook = sync.OnceValue(func() *Look {
	look, err := NewLook(LookConfig{})
	if err != nil {
		panic(err) // our own files; tests read them
	}
	return look
})

// NewLook reads the pages.
func NewLook(cfg LookConfig) (*Look, error) {
	l := &Look{}
	var err error
	if l.languages, err = readLanguages(nil, cfg.Language); err != nil {
		return nil, err
	}
	if l.style, err = readFile("style.css"); err != nil {
		return nil, err
	}
	l.policy = contentSecurityPolicy(l.style)
	for _, words := range l.all {
		l.templates = append(l.templates, map[pageName]*template.Template{})
		for _, page := range pageNames {
			parsed, err := template.New(string(page)).Funcs(template.FuncMap{"text": words.text, "mark": words.mark}).
				ParseFS(pageFiles, "layout.html", "parts.html", string(page))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", page, err)
			}
			l.templates[len(l.templates)-1][page] = parsed
		}
	}
	return l, nil
}

func readFile(name string) (string, error) {
	data, err := fs.ReadFile(pageFiles, name)
	return string(data), err
}

// contentSecurityPolicy allows our style sheet by its hash and nothing else.
// There is no form-action: Chrome and Safari apply it to the redirect that
// answers the consent form too, and to what the client redirects to from there,
// such as an app's own scheme (PROTOCOL 6, trap 5).
func contentSecurityPolicy(style string) string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
}

// render writes a page in the language at this place.
func (l *Look) render(to io.Writer, page pageName, language int, site string, data any) error {
	words := l.all[language]
	return l.templates[language][page].ExecuteTemplate(to, "layout", struct {
		Language, Direction string
		Site                string
		Style               template.CSS
		Page                any
	}{words.tag.String(), words.direction(), site, template.CSS(l.style), data})
}
