package validator

import (
	"net/http"
	"net/url"
	"strings"
)

// maxCredentials bounds the Authorization field, in bytes: an access token of
// ours has some 700; see maxToken.
const maxCredentials = maxToken + len("Bearer ")

// credentials are what a request shows.
type credentials struct {
	token string
	dpop  bool // by scheme DPoP: it is nothing without a proof
}

// readCredentials returns the access token of the request. RFC 6750 section 2.1,
// RFC 9449 section 7.1: one Authorization field, scheme Bearer or DPoP in any
// case, one token.
//
// Tokens in the query, in a cookie or in a body are not credentials here
// (RFC 9700 section 4.3.2, MCP authorization): alone, they count as none. In a
// query or cookie beside a header they make a request with two credentials,
// refused so that nobody can argue which one counts. Bodies are not read.
func readCredentials(r *http.Request) (credentials, *Refusal) {
	fields := r.Header["Authorization"]
	if len(fields) > 1 {
		return credentials{}, badRequest("The request has more than one Authorization header.", nil)
	}
	if len(fields) == 0 || fields[0] == "" {
		return credentials{}, noCredentials()
	}
	if hasTokenParameter(r.URL.RawQuery) {
		return credentials{}, badRequest("The request has an access token in its header and in its query.", nil)
	}
	if hasTokenCookie(r.Header["Cookie"]) {
		return credentials{}, badRequest("The request has an access token in its header and in a cookie.", nil)
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	bearer := strings.EqualFold(scheme, "Bearer")
	switch {
	case !bearer && !strings.EqualFold(scheme, "DPoP"):
		return credentials{}, noCredentials() // another scheme is not for us: show ours
	case token == "":
		return credentials{}, noCredentials()
	case len(fields[0]) > maxCredentials:
		return credentials{}, invalidToken(errMalformed("longer than the bound"))
	}
	return credentials{token, !bearer}, nil
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
