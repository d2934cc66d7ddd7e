package issuer

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// The pages are templates, one style sheet and one file of words. They are
// plain HTML without script. Another look is another style.css, another
// language another file of words with the same keys.
//
//go:embed pages
var pageFiles embed.FS

var (
	words          = loadWords("pages/en.json")
	style          = readPageFile("pages/style.css")
	signInPage     = parsePage("signin.html")
	consentPage    = parsePage("consent.html")
	limitPage      = parsePage("limit.html")
	messagePage    = parsePage("message.html")
	refusedPage    = parsePage("refused.html")
	devicePage     = parsePage("device.html")
	accountPage    = parsePage("account.html")
	endSessionPage = parsePage("end_session.html")
	pagePolicy     = contentSecurityPolicy(style)
	htmlMimeType   = "text/html; charset=utf-8"
)

func parsePage(file string) *template.Template {
	funcs := template.FuncMap{"text": words.text, "mark": words.mark}
	return template.Must(template.New(file).Funcs(funcs).ParseFS(pageFiles, "pages/layout.html", "pages/parts.html", "pages/"+file))
}

func readPageFile(name string) string {
	data, err := pageFiles.ReadFile(name)
	if err != nil {
		panic(err) // not embedded: does not happen in a binary that was built
	}
	return string(data)
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

// pageHeaders sets what every page of ours carries, redirects from them too.
// Cross-Origin-Opener-Policy is missing on purpose: any value but the default
// cuts off the window that opened us, and clients that sign in through a popup
// wait there for the answer.
func pageHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer") // the address holds the sealed request
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// writePage renders a page completely before the first byte leaves.
func (s *Server) writePage(w http.ResponseWriter, r *http.Request, status int, page *template.Template, data any) {
	var body bytes.Buffer
	site, _ := url.Parse(s.cfg.Issuer) // checked by New
	err := page.ExecuteTemplate(&body, "layout", struct {
		Site  string
		Style template.CSS
		Page  any
	}{site.Host, template.CSS(style), data})
	pageHeaders(w.Header())
	if err != nil {
		s.logPageError(r, fmt.Errorf("render page: %w", err))
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", htmlMimeType)
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	w.Write(body.Bytes()) // the reader went away: nobody to tell
}

// seeOther answers a form with a GET of one of our pages: 303, never 307, which
// would send the password there again. RFC 9700 section 4.12.
func (s *Server) seeOther(w http.ResponseWriter, path string, query url.Values) {
	pageHeaders(w.Header())
	w.Header().Set("Location", s.endpoint(path)+"?"+query.Encode())
	w.WriteHeader(http.StatusSeeOther)
}

// message is a page with something to say and nothing to fill in.
type message struct {
	Title, Explanation, Advice string
	// Reference finds the log line of the request; empty: none is shown.
	Reference string
	// Back leads to BackTo, as a host or scheme; empty: no link. It is an address
	// that CheckRedirectURI accepts.
	Back   template.URL
	BackTo string
}

// errorPage tells a person what happened and what to do now. All three texts
// are fixed; nothing that the request brought stands in them.
func (s *Server) errorPage(w http.ResponseWriter, r *http.Request, status int, title, explanation, advice string) {
	s.writePage(w, r, status, messagePage, message{Title: title, Explanation: explanation, Advice: advice, Reference: s.requestID(r)})
}

// errorWords is errorPage with the words found under key.
func (s *Server) errorWords(w http.ResponseWriter, r *http.Request, status int, key string) {
	s.errorPage(w, r, status, words.text(key+".title"), words.text(key+".explanation"), words.text(key+".advice"))
}

// unavailablePage answers when the store could not say: 503, and the cause goes to
// the log.
func (s *Server) unavailablePage(w http.ResponseWriter, r *http.Request, step string, err error) {
	s.logPageError(r, fmt.Errorf("%s: %w", step, err))
	w.Header().Set("Retry-After", "5")
	s.errorWords(w, r, http.StatusServiceUnavailable, "unavailable")
}

// phrases are the words of the pages by key. "{0}" and "{1}" stand for what is
// put into them.
type phrases map[string]string

func loadWords(file string) phrases {
	var p phrases
	if err := json.Unmarshal([]byte(readPageFile(file)), &p); err != nil {
		panic(fmt.Errorf("%s: %w", file, err))
	}
	return p
}

// text returns the phrase with plain text put in. A missing key is a mistake of
// ours that a test finds; the reader sees the key.
func (p phrases) text(key string, values ...any) string {
	phrase, ok := p[key]
	if !ok {
		phrase = key
	}
	return replace(phrase, values, func(text string) string { return text })
}

// mark returns the phrase as HTML with the values escaped, set off in bold and
// isolated from the direction of the text around them, so that a name cannot
// pass for our own words.
func (p phrases) mark(key string, values ...any) template.HTML {
	bold := func(text string) string { return "<b><bdi>" + template.HTMLEscapeString(text) + "</bdi></b>" }
	return template.HTML(replace(template.HTMLEscapeString(p.text(key)), values, bold))
}

// replace puts the values in, in one pass: a value that spells "{1}" is left
// alone.
func replace(phrase string, values []any, as func(string) string) string {
	var pairs []string
	for i, value := range values {
		pairs = append(pairs, "{"+strconv.Itoa(i)+"}", as(fmt.Sprint(value)))
	}
	return strings.NewReplacer(pairs...).Replace(phrase)
}

// moment is a time as a page shows it.
type moment struct{ Human, Machine string }

func momentAt(t, now time.Time) moment {
	m := moment{Machine: t.UTC().Format(time.RFC3339)}
	switch age := now.Sub(t); {
	case age < time.Minute: // clocks of node and database differ a little
		m.Human = words.text("time.now")
	case age < time.Hour:
		m.Human = counted("time.minute", int(age/time.Minute))
	case age < 24*time.Hour:
		m.Human = counted("time.hour", int(age/time.Hour))
	case age < 30*24*time.Hour:
		m.Human = counted("time.day", int(age/(24*time.Hour)))
	default:
		m.Human = t.UTC().Format(words.text("time.date"))
	}
	return m
}

// counted returns the phrase key for one, key+"s" for more.
func counted(key string, n int) string {
	if n == 1 {
		return words.text(key)
	}
	return words.text(key+"s", n)
}

// maxNameRunes is what the name of a client may take up on a page.
const maxNameRunes = 60

// displayName returns the name of a client as pages show it. Names come from
// whoever registered the client, so that they may try to pass for our own
// words: control and formatting characters (line breaks, reversed text, what is
// invisible) go, marks do not pile up, and the length is cut. SECURITY-CASES D-03.
func displayName(client *Client) string {
	if name := cleanText(client.Name); name != "" {
		return name
	}
	return cleanText(client.ID)
}

func cleanText(text string) string { return cleanLongText(text, maxNameRunes) }

// cleanLongText is cleanText with another bound.
func cleanLongText(text string, maxRunes int) string {
	if len(text) > 32*maxRunes { // enough for any name; bounds the work
		text = text[:32*maxRunes]
	}
	var clean strings.Builder
	kept, marks, space := 0, 0, false
	for _, c := range norm.NFC.String(strings.ToValidUTF8(text, "")) {
		switch {
		case unicode.IsSpace(c) || c == '\u2800': // a space in Braille
			space = true
			continue
		case !unicode.IsGraphic(c) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, c) || unicode.Is(unicode.Variation_Selector, c):
			continue
		case unicode.IsMark(c):
			if marks++; marks > 2 || kept == 0 {
				continue
			}
		default:
			marks = 0
		}
		if kept >= maxRunes {
			return clean.String() + "…"
		}
		if space && kept > 0 {
			clean.WriteByte(' ')
		}
		space = false
		clean.WriteRune(c)
		kept++
	}
	return clean.String()
}

// redirectTarget tells a user where the answer will be sent.
type redirectTarget struct {
	Kind string // one of the target constants
	Name string // host, scheme of a private one, or user code
}

const (
	targetSite     = "site"     // https: whoever holds the domain receives the code
	targetLoopback = "loopback" // any program on this computer may listen there
	targetPrivate  = "private"  // any app on this device may have claimed the scheme
	targetDevice   = "device"   // whoever holds the device that shows the code
)

func targetOf(redirectURI string) redirectTarget {
	u, err := url.Parse(redirectURI)
	switch {
	case err != nil: // was accepted before; say what can be said, trust nothing
		return redirectTarget{targetPrivate, cleanText(redirectURI)}
	case u.Scheme == "https" && u.Host != "":
		return redirectTarget{targetSite, u.Host}
	case u.Scheme == "http" && oauth.IsLoopbackHost(u.Hostname()):
		return redirectTarget{targetLoopback, u.Hostname()}
	}
	return redirectTarget{targetPrivate, u.Scheme + ":"}
}

// loginHint returns what a client sent as login_hint if it may stand in the
// email field.
func loginHint(hint string) string {
	if len(hint) > maxEmailBytes || !utf8.ValidString(hint) {
		return ""
	}
	email, err := NormalizeEmail(hint)
	if err != nil {
		return ""
	}
	return email
}
