package issuer

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// The cookies are random values; only their digests reach the database, the
// sealed authorization request and nothing else. With https they carry the
// __Host- prefix, so that no sibling subdomain and no plain-http page can plant
// one (RFC 6265bis section 4.1.3.2). A browser refuses the prefix without
// Secure, so that an issuer on http loopback does without.
const (
	loginCookie   = "oauth_login"   // a Login
	browserCookie = "oauth_browser" // binds an authorization request to the browser it began in
)

// cookieName returns the name of the cookie under this issuer.
func (s *Server) cookieName(name string) string {
	if s.secureCookies() {
		return "__Host-" + name
	}
	return name
}

func (s *Server) secureCookies() bool { return strings.HasPrefix(s.cfg.Issuer, "https://") }

// readCookie returns the value of a cookie of ours. One that is broken, or that
// came twice with different values (then somebody else planted one), counts as
// none. SECURITY-CASES.
func (s *Server) readCookie(r *http.Request, name string) (value string, ok bool) {
	for _, c := range r.CookiesNamed(s.cookieName(name)) {
		if value != "" && c.Value != value {
			return "", false
		}
		value = c.Value
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(value)
	return value, err == nil && len(raw) == sha256.Size
}

// setCookie sets a cookie of ours. lifetime zero: until the browser closes.
func (s *Server) setCookie(w http.ResponseWriter, name, value string, lifetime time.Duration) {
	s.writeCookie(w, name, value, int(lifetime/time.Second))
}

// clearCookie makes the browser forget a cookie of ours.
func (s *Server) clearCookie(w http.ResponseWriter, name string) {
	s.writeCookie(w, name, "", -1)
}

func (s *Server) writeCookie(w http.ResponseWriter, name, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name:     s.cookieName(name),
		Value:    value,
		Path:     "/",
		MaxAge:   maxAge,
		Secure:   s.secureCookies(),
		HttpOnly: true,
		// Lax, because the browser comes to authorize from the client's site
		// and must bring its login; a cross-site POST does not.
		SameSite: http.SameSiteLaxMode,
	})
}

// browserDigest returns the digest of the browser cookie, after setting a new
// one where there was none.
func (s *Server) browserDigest(w http.ResponseWriter, r *http.Request) Digest {
	value, ok := s.readCookie(r, browserCookie)
	if !ok {
		value = newCookieValue()
		s.setCookie(w, browserCookie, value, 0)
	}
	return sha256.Sum256([]byte(value))
}

// sameBrowser reports whether r comes from the browser that the authorization
// request began in. kept tells whether the browser returned our cookie at all.
func (s *Server) sameBrowser(r *http.Request, req *AuthorizationRequest) (same, kept bool) {
	value, kept := s.readCookie(r, browserCookie)
	digest := sha256.Sum256([]byte(value))
	return kept && hmac.Equal(digest[:], req.BrowserDigest[:]), kept
}

// newCookieValue returns 32 random bytes in base64url.
func newCookieValue() string {
	value := make([]byte, 32)
	rand.Read(value)
	return base64.RawURLEncoding.EncodeToString(value)
}

// formToken returns what a form must bring back to be taken as sent from our
// page, under this login, for this authorization request (empty: for none). Its
// key is the cookie itself: who can compute it has the login already, and
// nothing needs to be stored. SECURITY-CASES.
func formToken(cookie, purpose, requestID string) string {
	mac := hmac.New(sha256.New, []byte(cookie))
	mac.Write([]byte(purpose + "\x00" + requestID))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// validFormToken compares in constant time.
func validFormToken(got, cookie, purpose, requestID string) bool {
	return hmac.Equal([]byte(got), []byte(formToken(cookie, purpose, requestID)))
}

// fromOurPage reports whether a form post began on a page of this origin, as far
// as the browser tells. Old browsers send neither header; and because our pages
// ask for no referrer, new ones send "Origin: null" with their own forms (Fetch
// standard, "serializing a request origin"), which Sec-Fetch-Site tells from a
// stranger's. What is bound to cookie and login is checked besides.
func (s *Server) fromOurPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	switch r.Header.Get("Origin") {
	case "", "null", oauth.Origin(s.cfg.Issuer):
		return true
	}
	return false
}
