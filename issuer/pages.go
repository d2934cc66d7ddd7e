package issuer

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// pageHeaders sets what every page of ours carries, redirects from them too.
// Cross-Origin-Opener-Policy is missing on purpose: any value but the default
// cuts off the window that opened us, and clients that sign in through a popup
// wait there for the answer.
func (s *Server) pageHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", s.pages.policy)
	h.Set("Referrer-Policy", "no-referrer") // the address holds the sealed request
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// writePage renders a page completely before the first byte leaves.
func (s *Server) writePage(w http.ResponseWriter, r *http.Request, status int, page pageName, data any) {
	var body bytes.Buffer
	language := s.language(r)
	err := s.pages.render(&body, page, language, s.host, data)
	s.pageHeaders(w.Header())
	if script := scriptOf(data); script != "" {
		w.Header().Set("Content-Security-Policy", s.pages.policy+"; script-src "+script)
	}
	if err != nil {
		s.logPageError(r, fmt.Errorf("render page: %w", err))
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", s.pages.all[language].tag.String())
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	w.Write(body.Bytes()) // the reader went away: nobody to tell
}

// scripted is what a page shows that may need the script of passkeys. No other
// page needs any, and the policy of no other page lets any run.
type scripted interface {
	script() string // its address; empty: this time it needs none
}

func scriptOf(data any) string {
	if page, ok := data.(scripted); ok {
		return page.script()
	}
	return ""
}

func (p signIn) script() string          { return p.Passkey.script() }
func (v credentialsView) script() string { return v.New.script() }

// seeOther answers a form with a GET of one of our pages: 303, never 307, which
// would send the password there again. RFC 9700 section 4.12.
func (s *Server) seeOther(w http.ResponseWriter, path string, query url.Values) {
	s.leave(w, s.endpoint(path)+"?"+query.Encode())
}

// leave sends the browser to an address: 303, so that no form goes along.
func (s *Server) leave(w http.ResponseWriter, location string) {
	s.pageHeaders(w.Header())
	w.Header().Set("Location", location)
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

// showMessage tells a person what has happened.
func (s *Server) showMessage(w http.ResponseWriter, r *http.Request, key string) {
	words := s.words(r)
	s.writePage(w, r, http.StatusOK, messagePage, message{Title: words.text(key + ".title"), Explanation: words.text(key + ".explanation")})
}

// errorPage tells a person what went wrong and what to do now, in the words found
// under key; explanation is the key of other words in between, or empty. Nothing
// that the request brought stands in them. Its reference finds a line of the log.
func (s *Server) errorPage(w http.ResponseWriter, r *http.Request, status int, key, explanation string, values ...any) {
	if explanation == "" {
		explanation = key + ".explanation"
	}
	s.audit(r, "error page shown", zap.String("page", key), zap.String("explanation", explanation), zap.Int("status", status))
	s.tallyRefusal(r, key)
	s.writeErrorPage(w, r, status, key, explanation, values...)
}

// errorWords is errorPage with nothing special.
func (s *Server) errorWords(w http.ResponseWriter, r *http.Request, status int, key string) {
	s.errorPage(w, r, status, key, "")
}

// unavailablePage answers when the store could not say: 503, and the cause goes to
// the log.
func (s *Server) unavailablePage(w http.ResponseWriter, r *http.Request, step string, err error) {
	s.logPageError(r, fmt.Errorf("%s: %w", step, err))
	s.tallyRefusal(r, oauth.CodeTemporarilyUnavailable)
	w.Header().Set("Retry-After", "5")
	s.writeErrorPage(w, r, http.StatusServiceUnavailable, "unavailable", "unavailable.explanation")
}

func (s *Server) writeErrorPage(w http.ResponseWriter, r *http.Request, status int, key, explanation string, values ...any) {
	words := s.words(r)
	s.writePage(w, r, status, messagePage, message{
		Title: words.text(key+".title", values...), Explanation: words.text(explanation, values...), Advice: words.text(key+".advice", values...),
		Reference: s.requestID(r),
	})
}
