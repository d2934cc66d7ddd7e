package issuer

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// matchRedirectURI reports whether requested is the registered redirect URI:
// byte for byte (RFC 9700 section 4.1.3), but for the port of a loopback http
// redirect, which a native app learns only when it listens (RFC 8252 section
// 7.3). The exception covers localhost as well, because clients use it; it
// never maps one loopback host to another.
func matchRedirectURI(registered, requested string) bool {
	if registered == requested {
		return true
	}
	r, ok := splitLoopback(registered)
	if !ok {
		return false
	}
	q, ok := splitLoopback(requested)
	return ok && r == q
}

// loopbackURI is a loopback http redirect without its port.
type loopbackURI struct{ host, rest string }

// splitLoopback takes http://HOST[:PORT]REST apart by bytes, so that nothing a
// URL parser forgives is forgiven here.
func splitLoopback(uri string) (loopbackURI, bool) {
	after, ok := strings.CutPrefix(uri, "http://")
	if !ok {
		return loopbackURI{}, false
	}
	for _, host := range []string{"127.0.0.1", "[::1]", "localhost"} {
		rest, ok := strings.CutPrefix(after, host)
		if !ok {
			continue
		}
		if port, ok := strings.CutPrefix(rest, ":"); ok {
			rest = strings.TrimLeft(port, "0123456789")
			port = port[:len(port)-len(rest)]
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
				return loopbackURI{}, false
			}
		}
		return loopbackURI{host, rest}, true
	}
	return loopbackURI{}, false
}

// answerParameters are what the answer adds to a redirect URI. RFC 6749 section
// 4.1.2, RFC 9207 section 2.
var answerParameters = []string{"code", "error", "error_description", "error_uri", "iss", "state"}

// nativeCallbacks are the redirect URIs of native MCP clients whose scheme has no
// dot. They come beside others that would do, and a registration stands or falls
// as one. Whole addresses and not schemes: other links of the same apps install
// things, and no stranger shall have a user sent to those.
var nativeCallbacks = []string{
	"cursor://anysphere.cursor-mcp/oauth/callback",
	"warp://mcp/oauth2callback",
}

// CheckRedirectURI checks a redirect URI that a client wants to register: an
// absolute URI without fragment, userinfo or wildcard; https, http on loopback
// only, a private-use scheme of a native app with a dot in it (RFC 8252 section
// 7.1), or one of nativeCallbacks.
func CheckRedirectURI(uri string) error {
	for i := range len(uri) {
		if c := uri[i]; c <= ' ' || c > '~' || strings.IndexByte(`"<>\^`+"`{|}", c) >= 0 {
			return errors.New("has a character that must be escaped")
		}
	}
	u, err := url.Parse(uri)
	if err != nil {
		return errors.New("is not a URI")
	}
	switch {
	case strings.Contains(uri, "#"):
		return errors.New("must not have a fragment (RFC 6749 section 3.1.2)")
	case strings.Contains(uri, "*"):
		return errors.New("must not have a wildcard: it is compared byte for byte")
	case slices.ContainsFunc(answerParameters, u.Query().Has):
		return errors.New("must not have a parameter of the answer in its query (code, error, iss, state ...): there is one of each")
	case u.User != nil || strings.Contains(u.Host, "@"):
		return errors.New("must not hold a user name")
	case u.Scheme == "https" && u.Hostname() != "" && u.Host == strings.ToLower(u.Host):
		return nil
	case u.Scheme == "http" && oauth.IsLoopbackHost(u.Hostname()):
		return nil
	case u.Scheme == "http":
		return errors.New("plain http is for loopback hosts only")
	case strings.Contains(u.Scheme, ".") && uri[:len(u.Scheme)] == u.Scheme, slices.Contains(nativeCallbacks, uri):
		return nil
	}
	return errors.New("needs scheme https, http on a loopback host, or a private scheme with a dot such as com.example.app")
}
