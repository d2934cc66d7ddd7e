package validator

import (
	"net/http"
	"net/url"
	"strings"
)

// maxCredentials bounds the Authorization field, in bytes: an access token of
// ours has some 700; see maxToken.
const maxCredentials = maxToken + len("Bearer ")

// bearerToken returns the access token of the request. RFC 6750 section 2.1:
// one Authorization field, scheme Bearer in any case, one b64token.
//
// Tokens in the query, in a cookie or in a body are not credentials here
// (RFC 9700 section 4.3.2, MCP authorization): alone, they count as none. In a
// query or cookie beside a header they make a request with two credentials,
// refused so that nobody can argue which one counts. Bodies are not read.
func bearerToken(r *http.Request) (string, *Refusal) {
	fields := r.Header["Authorization"]
	if len(fields) > 1 {
		return "", badRequest("The request has more than one Authorization header.", nil)
	}
	if len(fields) == 0 || fields[0] == "" {
		return "", noCredentials()
	}
	if hasTokenParameter(r.URL.RawQuery) {
		return "", badRequest("The request has an access token in its header and in its query.", nil)
	}
	if hasTokenCookie(r.Header["Cookie"]) {
		return "", badRequest("The request has an access token in its header and in a cookie.", nil)
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer"):
		return "", noCredentials() // another scheme is not for us: show ours
	case token == "":
		return "", noCredentials()
	case len(fields[0]) > maxCredentials:
		return "", invalidToken(errMalformed("longer than the bound"))
	}
	return token, nil
}

// hasTokenParameter reads the query as the most generous upstream would: also
// parts that do not parse, and with `;` between them.
func hasTokenParameter(query string) bool {
	const name = "access_token"
	for query != "" {
		var part string
		if end := strings.IndexAny(query, "&;"); end >= 0 {
			part, query = query[:end], query[end+1:]
		} else {
			part, query = query, ""
		}
		part, _, _ = strings.Cut(part, "=")
		if len(part) < len(name) || !strings.HasPrefix(part, name) && strings.IndexByte(part, '%') < 0 {
			continue
		}
		if decoded, err := url.QueryUnescape(part); part == name || err == nil && decoded == name {
			return true
		}
	}
	return false
}

func hasTokenCookie(fields []string) bool {
	for _, field := range fields {
		if !strings.Contains(field, "access_token") {
			continue
		}
		for pair := range strings.SplitSeq(field, ";") {
			if name, _, _ := strings.Cut(pair, "="); strings.TrimSpace(name) == "access_token" {
				return true
			}
		}
	}
	return false
}
