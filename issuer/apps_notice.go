package issuer

import (
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"time"
)

// notice is what was just done, for the page that the browser is sent to next. It
// travels sealed in the address: nobody can have our page say something else,
// or to somebody else.
type notice struct {
	Key    string // of what is said
	Client string // cleaned; empty: it is about none, or about several
	Count  int
	At     time.Time
}

// noticeLifetime bounds how long it is said again when the page is loaded again.
const noticeLifetime = time.Minute

func (s *Server) sealNotice(login signedIn, n notice) string {
	n.At = s.cfg.Now()
	plain, err := json.Marshal(n)
	if err != nil { // strings and numbers only: cannot happen
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(s.cfg.Secrets.seal(requestAEAD, plain, []byte("notice "+login.ID)))
}

// openNotice returns what the notice in the address says; empty: there is none
// for this login.
func (s *Server) openNotice(r *http.Request, login signedIn) template.HTML {
	raw, err := base64.RawURLEncoding.DecodeString(r.URL.Query().Get("done"))
	if err != nil || len(raw) == 0 {
		return ""
	}
	plain, _, err := s.cfg.Secrets.open(requestAEAD, raw, []byte("notice "+login.ID))
	if err != nil {
		return ""
	}
	var n notice
	if err := json.Unmarshal(plain, &n); err != nil || s.cfg.Now().Sub(n.At) > noticeLifetime {
		return ""
	}
	return s.words(r).mark(n.Key, n.Count, n.Client)
}
