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

// target is the path of a request, as what stands behind the gate may read it.
type target struct {
	path string // decoded
	// literal is the path with its needless escapes (%41 for A) left as they are:
	// what an upstream sees that routes on the bytes. Empty: it has none.
	literal string
}

// checkTarget refuses a request whose target two parsers could read
// differently. What is checked is what is forwarded: Caddy's reverse_proxy
// sends r.URL.EscapedPath(), whatever the request line said before a rewrite.
// The rule is then looked for on r.URL.Path, which is the one decoding of
// those bytes.
//
// The class of attack: a gate that matches one path while the upstream serves
// another (dot segments, encoded slashes, path parameters, double encoding).
// Nothing is normalised; there is one reading, or there is 400.
func checkTarget(r *http.Request) (target, *Refusal) {
	if methodIndex(r.Method) < 0 {
		return target{}, methodNotAllowed()
	}
	u := r.URL
	if r.Host == "" || u.Opaque != "" || (u.Host != "" && !strings.EqualFold(u.Host, r.Host)) {
		return target{}, badRequest("The request does not name one host.", nil)
	}
	if u.User != nil || (u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https") {
		return target{}, badRequest("The request target is no http or https address.", nil)
	}
	if u.Path == "*" && r.Method == http.MethodOptions {
		return target{path: u.Path}, nil // asks about the server as a whole; no rule can name it
	}
	if problem := pathProblem(u.Path); problem != "" {
		return target{}, badPath(problem)
	}
	if u.RawPath == "" { // written the only way that Go writes it
		return target{path: u.Path}, nil
	}
	return spelledTarget(u)
}

// spelledTarget checks what only the bytes show: a path that is not written as
// Go would write it.
func spelledTarget(u *url.URL) (target, *Refusal) {
	raw := u.RawPath
	if raw != u.EscapedPath() { // the upstream would be sent another spelling
		return target{}, badPath("bytes that must be percent-encoded")
	}
	needless := false
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			continue
		}
		c := unhex(raw[i+1])<<4 | unhex(raw[i+2]) // whole, or EscapedPath had changed it
		if c == '/' {
			return target{}, badPath("escaped slash") // one segment to some, two to others
		}
		needless = needless || isPlain(c)
		i += 2
	}
	t := target{path: u.Path}
	if needless {
		t.literal = unescapeNeedful(raw)
	}
	return t, nil
}

// unescapeNeedful decodes a path but for escapes of plain characters.
func unescapeNeedful(raw string) string {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] == '%' {
			if c := unhex(raw[i+1])<<4 | unhex(raw[i+2]); !isPlain(c) {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(raw[i])
	}
	return b.String()
}

func isPlain(c byte) bool { return plain[c] || c == '.' }

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	default:
		return c - '0'
	}
}

func badPath(problem string) *Refusal {
	return badRequest("The path can be read in two ways: "+problem+".", nil)
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
			return "escaped percent sign" // a second decoder may find an escape here
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
	if !ascii && (!utf8.ValidString(path) || !norm.NFKC.IsNormalString(path) || strings.ContainsFunc(path, isDelimiterLike)) {
		return "not plain UTF-8"
	}
	return ""
}

// isDelimiterLike reports C1 controls, and look-alikes of the slash that NFKC
// leaves alone and a best-fit conversion to a smaller character set does not.
// NFKC takes the others: fullwidth forms, dot leaders, the Kelvin sign.
func isDelimiterLike(r rune) bool {
	return r == 0x2215 || r == 0x2044 || r == 0x29F8 || r >= 0x80 && r < 0xa0
}
