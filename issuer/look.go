package issuer

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"slices"
	"strings"
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
	connectedPage  pageName = "connected.html"
	appsPage       pageName = "apps.html"

	credentialsPage pageName = "credentials.html"
	resetPage       pageName = "reset.html"
	forgotPage      pageName = "forgot.html"
	codePage        pageName = "code.html"
	enrolPage       pageName = "enrol.html"
	recoveryPage    pageName = "recovery.html"
)

var pageNames = []pageName{signInPage, consentPage, limitPage, messagePage, refusedPage, devicePage, accountPage, endSessionPage, connectedPage, appsPage, credentialsPage, resetPage, forgotPage, codePage, enrolPage, recoveryPage}

// What all pages share.
const (
	layoutFile = "layout.html"
	partsFile  = "parts.html"
	styleFile  = "style.css"
)

// pageFiles are the pages as they are where nobody has changed them: templates,
// one style sheet, and the words of each language. They are plain HTML; the script
// of passkeys is not among them.
var pageFiles = below(embedded, "pages")

//go:embed pages
var embedded embed.FS

func below(files fs.FS, dir string) fs.FS {
	sub, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // dir is a valid path
	}
	return sub
}

// PageFiles are the files that a folder of templates may replace, one by one.
func PageFiles() fs.FS { return pageFiles }

// Look is what the pages look like and which languages they speak. Safe for
// concurrent use.
type Look struct {
	languages
	name           string        // empty: the issuer's host
	logo, logoDark *Logo         // nil: none
	templates      []*pagesOfOne // by language
	style          string
	policy         string
}

// LookConfig makes a Look. The zero value is ours.
type LookConfig struct {
	// Name is what pages call the service. Empty: the issuer's host.
	Name string
	// Logo stands in place of the name; LogoDark where the user prefers dark
	// colors. nil: none, and Logo.
	Logo, LogoDark *Logo
	// Light and Dark are colors. Empty: ours, and Light's action made lighter.
	Light, Dark Colors
	// Templates holds files that replace ours, and catalogues of words. nil: none.
	Templates fs.FS
	// Language is that of browsers that ask for none of ours. Empty: en.
	Language string
}

// defaultLook is the look where nothing is configured.
var defaultLook = sync.OnceValue(func() *Look {
	look, err := readLook(LookConfig{})
	if err != nil {
		panic(err) // our own files; tests read them
	}
	return look
})

// NewLook reads the pages. What a template must not lack, such as the field that
// tells our form from a stranger's, is looked for here, and not missed by a
// user; the error names the file.
func NewLook(cfg LookConfig) (*Look, error) {
	if cfg == (LookConfig{}) {
		return defaultLook(), nil // parsed once, however often a server reloads
	}
	look, err := readLook(cfg)
	if err == nil && cfg.Templates != nil {
		err = look.checkTemplates()
	}
	if err != nil {
		return nil, err
	}
	return look, nil
}

func readLook(cfg LookConfig) (*Look, error) {
	l := &Look{name: cleanText(cfg.Name), logo: cfg.Logo, logoDark: cfg.LogoDark}
	files := pageSource{cfg.Templates}
	if err := files.check(); err != nil {
		return nil, err
	}
	var err error
	if l.languages, err = readLanguages(cfg.Templates, cfg.Language); err != nil {
		return nil, err
	}
	theme, err := themeCSS(cfg.Light, cfg.Dark)
	if err != nil {
		return nil, err
	}
	if l.style, err = files.read(styleFile); err != nil {
		return nil, err
	}
	l.style += theme
	if strings.Contains(strings.ToLower(l.style), "</style") {
		return nil, fmt.Errorf("%s: holds the end of a style element", styleFile)
	}
	l.policy = contentSecurityPolicy(l.style)
	for _, words := range l.all {
		pages := &pagesOfOne{words: words, parsed: make(map[pageName]*template.Template)}
		if cfg.Templates != nil { // now: they may be wrong, and change later
			for _, page := range pageNames {
				if pages.parsed[page], err = files.parse(page, words); err != nil {
					return nil, err
				}
			}
		}
		l.templates = append(l.templates, pages)
	}
	return l, nil
}

// pagesOfOne are the pages in one language. Ours are parsed when they are first
// shown: together they would be the largest part of a node's heap, which garbage
// collection goes through over and over, and few are ever shown.
type pagesOfOne struct {
	words  *words
	mu     sync.Mutex
	parsed map[pageName]*template.Template
}

func (p *pagesOfOne) get(page pageName) (*template.Template, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.parsed[page]; known != nil {
		return known, nil
	}
	parsed, err := pageSource{}.parse(page, p.words)
	if err == nil {
		p.parsed[page] = parsed
	}
	return parsed, err
}

// Speaks reports whether the pages are in the language of this tag.
func (l *Look) Speaks(tag string) bool { return slices.Contains(l.tags(), tag) }

// pageSource reads files of the owner's folder, or ours in their place.
type pageSource struct{ owners fs.FS }

func (s pageSource) read(name string) (string, error) {
	if s.owners != nil {
		data, err := fs.ReadFile(s.owners, name)
		if !errors.Is(err, fs.ErrNotExist) {
			return string(data), err
		}
	}
	data, err := fs.ReadFile(pageFiles, name)
	return string(data), err
}

// check refuses templates that no page uses: most likely a name was misspelt.
func (s pageSource) check() error {
	if s.owners == nil {
		return nil
	}
	files, err := fs.ReadDir(s.owners, ".")
	if err != nil {
		return err
	}
	used := []string{layoutFile, partsFile, styleFile}
	for _, page := range pageNames {
		used = append(used, string(page))
	}
	for _, file := range files {
		name := file.Name()
		if (strings.HasSuffix(name, ".html") || strings.HasSuffix(name, ".css")) && !slices.Contains(used, name) {
			slices.Sort(used)
			return fmt.Errorf("%s: no page uses it; there are %s, and catalogues of words such as de.json", name, strings.Join(used, ", "))
		}
	}
	return nil
}

func (s pageSource) parse(page pageName, words *words) (*template.Template, error) {
	parsed := template.New("").Funcs(template.FuncMap{"text": words.text, "mark": words.mark})
	for _, file := range []string{layoutFile, partsFile, string(page)} {
		text, err := s.read(file)
		if err != nil {
			return nil, err
		}
		if _, err := parsed.New(file).Parse(text); err != nil {
			return nil, err // names the file
		}
	}
	return parsed, nil
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

// layoutView is what layout.html shows.
type layoutView struct {
	Language, Direction string
	Site                string
	Logo                template.URL
	LogoDark            template.Srcset
	Style               template.CSS
	Page                any
}

// render writes a page in the language at this place, for a server on this host.
func (l *Look) render(to io.Writer, page pageName, language int, host string, data any) error {
	parsed, err := l.templates[language].get(page)
	if err != nil {
		return err
	}
	words := l.all[language]
	view := layoutView{
		Language: words.tag.String(), Direction: words.direction(), Site: l.name,
		Logo: l.logo.source(), LogoDark: l.logoDark.sourceSet(), Style: template.CSS(l.style), Page: data,
	}
	if view.Site == "" {
		view.Site = host
	}
	return parsed.ExecuteTemplate(to, "layout", view)
}
