package dpop

import (
	"net/url"
	"strings"
)

// sameURI reports whether htu names the URI of the request. Query and fragment
// play no part; scheme, host, default port, dot segments and percent-encoding
// are normalised (RFC 9449 section 4.3, RFC 3986 sections 6.2.2 and 6.2.3).
func sameURI(htu, request string) bool {
	a, ok := normaliseURI(htu)
	b, ok2 := normaliseURI(request)
	return ok && ok2 && a == b
}

func normaliseURI(uri string) (string, bool) {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || u.User != nil {
		return "", false
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	default:
		return "", false
	}
	path := normaliseEscapes(u.EscapedPath())
	if path == "" {
		path = "/"
	}
	// With the escapes of letters and dots undone, so that %2e%2e is seen.
	absolute, err := url.Parse(scheme + "://" + host + path)
	if err != nil {
		return "", false
	}
	return scheme + "://" + host + absolute.ResolveReference(absolute).EscapedPath(), true
}

// normaliseEscapes undoes the escapes of unreserved characters and spells the
// others in upper case.
func normaliseEscapes(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' || i+2 >= len(path) { // of escaped paths the escapes are whole
			b.WriteByte(path[i])
			continue
		}
		c := unhex(path[i+1])<<4 | unhex(path[i+2])
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString(strings.ToUpper(path[i : i+3]))
		}
		i += 2
	}
	return b.String()
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}
