package issuer

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
)

// resumeRequest is resumeSignIn for what a client has asked for.
func (s *Server) resumeRequest(w http.ResponseWriter, r *http.Request, sealed string) (*AuthorizationRequest, *Client, bool) {
	req, client, ok := s.resumeSignIn(w, r, sealed)
	if ok && client == nil {
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return nil, nil, false
	}
	return req, client, ok
}

// resumeSignIn opens the sealed authorization request that a page of ours gave
// out, or shows why that is not possible. It holds only in the browser it began
// in: a link or form of one that runs in an attacker's browser is worth nothing
// here. SECURITY-CASES. The client is nil where a page of ours is what
// the user wants.
func (s *Server) resumeSignIn(w http.ResponseWriter, r *http.Request, sealed string) (*AuthorizationRequest, *Client, bool) {
	req, err := s.openRequest(sealed)
	switch {
	case errors.Is(err, ErrRequestExpired):
		s.errorWords(w, r, http.StatusBadRequest, "expired")
		return nil, nil, false
	case err != nil:
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return nil, nil, false
	}
	speak(r, req.UILocales)
	if same, kept := s.sameBrowser(r, req); !same {
		if kept {
			s.errorWords(w, r, http.StatusForbidden, "browser")
		} else { // say so instead of asking again and again
			s.errorWords(w, r, http.StatusBadRequest, "cookies")
		}
		return nil, nil, false
	}
	if req.OwnPage != "" {
		return req, nil, true
	}
	client, err := s.cfg.Clients.Client(r.Context(), req.ClientID)
	switch {
	case errors.Is(err, ErrNotFound):
		s.errorWords(w, r, http.StatusBadRequest, "gone")
		return nil, nil, false
	case err != nil:
		s.unavailablePage(w, r, "find client", err)
		return nil, nil, false
	case req.UserCode != "" && slices.Contains(client.Grants, grantDeviceCode):
	case !slices.ContainsFunc(client.RedirectURIs, func(registered string) bool { return matchRedirectURI(registered, req.RedirectURI) }):
		s.errorWords(w, r, http.StatusBadRequest, "gone") // taken out while the user was here
		return nil, nil, false
	}
	return req, client, true
}

// maxPageForm bounds the forms of our pages, in bytes.
const maxPageForm = 64 << 10

// readPageForm reads the post of a form of ours. Only the body counts, and each
// field comes once.
func (s *Server) readPageForm(w http.ResponseWriter, r *http.Request) (url.Values, bool) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		s.errorWords(w, r, http.StatusMethodNotAllowed, "broken")
		return nil, false
	}
	if !s.fromOurPage(r) {
		s.errorWords(w, r, http.StatusForbidden, "foreign")
		return nil, false
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxPageForm)
	status := 0
	if err := r.ParseForm(); err != nil { // of another media type nothing is read
		status = unreadStatus(err)
	}
	for _, values := range r.PostForm {
		if len(values) > 1 {
			status = http.StatusBadRequest
		}
	}
	if status != 0 {
		s.errorWords(w, r, status, "broken")
		return nil, false
	}
	return r.PostForm, true
}
