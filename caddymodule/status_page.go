package caddymodule

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// statusPath is where the admin API tells how the node does, statusPagePath the
// same for a browser.
const (
	statusPath     = "/oauth/status"
	statusPagePath = "/oauth/"
)

var (
	//go:embed status_page.html
	statusPageText string
	//go:embed status_page.css
	statusPageStyle string

	statusPage = template.Must(template.New("status").Funcs(template.FuncMap{
		"style": func() template.CSS { return template.CSS(statusPageStyle) },
	}).Parse(statusPageText))

	// statusPagePolicy allows the one style sheet and nothing else.
	statusPagePolicy = "default-src 'none'; style-src 'sha256-" + digestOf(statusPageStyle) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func digestOf(text string) string {
	digest := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(digest[:])
}

// nodeStatus is a node on the page.
type nodeStatus struct {
	Address string // of its admin API
	status
}

// Lines are what the page tells of the node.
func (n *nodeStatus) Lines() []statusLine {
	if n.Issuer == "" { // nobody answered
		return nil
	}
	return n.lines(time.Now())
}

// Log are its last warnings and errors.
func (n *nodeStatus) Log() (lines []statusLine) {
	for _, e := range n.Errors {
		lines = append(lines, statusLine{e.Level, e.text(time.Now())})
	}
	return lines
}

// serveStatusPage answers GET /oauth/ of the admin API.
func serveStatusPage(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Message: "method not allowed"}
	}
	app := running.Load()
	if app == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Message: "the oauth app is not running"}
	}
	writeStatusPage(w, []nodeStatus{{Address: r.Host, status: app.status(r)}})
	return nil
}

func writeStatusPage(w http.ResponseWriter, nodes []nodeStatus) {
	var page bytes.Buffer
	if err := statusPage.Execute(&page, nodes); err != nil { // text only: cannot fail
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", statusPagePolicy)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	_, _ = w.Write(page.Bytes())
}
