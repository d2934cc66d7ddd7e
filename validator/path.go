package validator

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// plain marks the bytes that every parser of a path reads alike: the
// characters of RFC 3986 section 3.3 without `;`, `%` and the slash.
var plain = func() (table [256]bool) {
	for c := byte('a'); c <= 'z'; c++ {
		table[c], table[c-'a'+'A'] = true, true
	}
	for c := byte('0'); c <= '9'; c++ {
		table[c] = true
	}
	for _, c := range []byte("-_~!$&'()*+,=:@") {
		table[c] = true
	}
	return table
}()

// checkTarget refuses a request whose target two parsers could read
// differently. What is checked is what is forwarded: Caddy's reverse_proxy
// sends r.URL.EscapedPath(), whatever the request line said before a rewrite.
// The rule is then looked for on r.URL.Path, which is the one decoding of
// those bytes.
//
// The class of attack: a gate that matches one path while the upstream serves
// another (dot segments, encoded slashes, path parameters, double encoding).
// Nothing is normalised; there is one reading, or there is 400.
func checkTarget(r *http.Request) *Refusal {
	if methodIndex(r.Method) < 0 {
		return methodNotAllowed()
	}
	u := r.URL
	if r.Host == "" || u.Opaque != "" || (u.Host != "" && !strings.EqualFold(u.Host, r.Host)) {
		return badRequest("The request does not name one host.", nil)
	}
	if u.Path == "*" && r.Method == http.MethodOptions {
		return nil // asks about the server as a whole; no rule can name it
	}
	if problem := pathProblem(u.Path); problem != "" {
		return badRequest("The path can be read in two ways.", nil)
	}
	// An escaped slash is one segment to some and two to others. The decoded
	// path cannot show it; the bytes that are forwarded can.
	if u.RawPath != "" && hasEscapedSlash(u) {
		return badRequest("The path can be read in two ways.", nil)
	}
	return nil
}

func hasEscapedSlash(u *url.URL) bool {
	escaped := u.EscapedPath()
	return strings.Contains(escaped, "%2f") || strings.Contains(escaped, "%2F")
}

// pathProblem says why a decoded path has more than one reading, or "".
func pathProblem(path string) string {
	if path == "" || path[0] != '/' {
		return "a path begins with /"
	}
	ascii := true
	start := 1 // of the current segment
	for i := 1; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			switch segment := path[start:i]; {
			case segment == "" && i < len(path):
				return "empty segment"
			case segment == "." || segment == "..":
				return "dot segment"
			}
			start = i + 1
			continue
		}
		switch c := path[i]; {
		case plain[c] || c == '.' || c == ' ':
		case c >= utf8.RuneSelf:
			ascii = false
		case c == '%':
			// A second decoder would find an escape here.
			if i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]) {
				return "double encoding"
			}
		case c == '\\':
			return "backslash"
		case c == ';':
			return "path parameter"
		case c == '#' || c == '?':
			return "delimiter"
		case c < ' ' || c == 0x7f:
			return "control byte"
		}
	}
	if !ascii && (!utf8.ValidString(path) || !norm.NFC.IsNormalString(path) || hasControlRune(path)) {
		return "not normal UTF-8"
	}
	return ""
}

// hasControlRune reports C1 controls, and the look-alikes of delimiters that a
// best-fit conversion to a smaller character set turns into them.
func hasControlRune(path string) bool {
	return strings.ContainsFunc(path, func(r rune) bool {
		switch r {
		case 0xFF0F, 0xFF3C, 0xFF0E, 0xFF05, 0xFF1B, 0xFF03, 0xFF1F, // fullwidth / \ . % ; # ?
			0x2215, 0x2044, 0x2024: // division slash, fraction slash, one dot leader
			return true
		}
		return r >= 0x80 && r < 0xa0
	})
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
