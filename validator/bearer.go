package validator

import (
	"net/http"
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
	if strings.Contains(r.URL.RawQuery, "access_token") && r.URL.Query().Has("access_token") {
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
