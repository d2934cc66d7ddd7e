package oauth

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// WellKnownProtectedResource is the path prefix of RFC 9728 section 3.
const WellKnownProtectedResource = "/.well-known/oauth-protected-resource"

// WellKnownAuthorizationServer is the path prefix of RFC 8414 section 3.
const WellKnownAuthorizationServer = "/.well-known/oauth-authorization-server"

// WellKnownOpenIDConfiguration is the path of OpenID Connect Discovery section 4.
const WellKnownOpenIDConfiguration = "/.well-known/openid-configuration"

// ParseIdentifier checks an issuer or resource identifier as the owner of the
// server configures it: an absolute URL with scheme https (http only on a
// loopback host), a lower-case host, no userinfo, query, fragment, default
// port, dot segment or trailing slash. What passes is used byte for byte
// everywhere: metadata, `iss`, `aud`. RFC 8414 section 2, RFC 9728 section 1.2.
func ParseIdentifier(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("must begin with https://")
	case u.Host == "" || u.Hostname() == "":
		return nil, errors.New("has no host")
	case u.Scheme == "http" && !IsLoopbackHost(u.Hostname()):
		return nil, errors.New("plain http is for loopback hosts only; use https")
	case u.User != nil:
		return nil, errors.New("must not hold a user name or password")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "?"):
		return nil, errors.New("must not have a query")
	case u.Fragment != "" || strings.Contains(s, "#"):
		return nil, errors.New("must not have a fragment")
	case strings.HasSuffix(s, "/"):
		return nil, errors.New("must not end with a slash")
	case u.Host != strings.ToLower(u.Host):
		return nil, errors.New("the host must be lower case")
	case isDefaultPort(u):
		return nil, errors.New("must not name the default port")
	case u.RawPath != "" || strings.ContainsAny(u.Path, ";\\%") || u.String() != s:
		return nil, errors.New("the path must be plain: no escapes")
	}
	for _, segment := range strings.Split(strings.TrimPrefix(u.Path, "/"), "/") {
		if u.Path != "" && (segment == "" || segment == "." || segment == "..") {
			return nil, errors.New("the path must not have empty or dot segments")
		}
	}
	return u, nil
}

// IsLoopbackHost reports whether host, without port and brackets, is
// localhost or a loopback address literal.
func IsLoopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// SameResource reports whether requested, as a client sent it, names the
// configured identifier. Clients differ in the case of scheme and host, in the
// default port and in one trailing slash; nothing else is forgiven.
// RFC 8707 section 2, RFC 3986 section 6.2.3.
func SameResource(configured, requested string) bool {
	if configured == requested {
		return true
	}
	u, err := ParseRequestedResource(requested)
	if err != nil {
		return false
	}
	u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if isDefaultPort(u) {
		host := u.Hostname()
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		u.Host = host
	}
	return strings.TrimSuffix(u.String(), "/") == configured
}

// ParseRequestedResource checks the syntax of a `resource` parameter: an
// absolute http(s) URI without fragment or userinfo. RFC 8707 section 2.
func ParseRequestedResource(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || strings.Contains(s, "#") {
		return nil, InvalidTarget("The resource parameter is not an absolute URI.")
	}
	if scheme := strings.ToLower(u.Scheme); scheme != "https" && scheme != "http" {
		return nil, InvalidTarget("The resource parameter is not an https URI.")
	}
	return u, nil
}

// ResourceMetadataURL returns where the metadata of the resource is found: the
// well-known segment goes between host and path. RFC 9728 section 3.1.
func ResourceMetadataURL(resource string) string {
	return insertWellKnown(resource, WellKnownProtectedResource)
}

// IssuerMetadataURL returns where the metadata of the issuer is found.
// RFC 8414 section 3.1.
func IssuerMetadataURL(issuer string) string {
	return insertWellKnown(issuer, WellKnownAuthorizationServer)
}

// OpenIDConfigurationURLs returns where the OpenID metadata of the issuer are
// found: below the issuer, as OpenID Connect Discovery section 4.1 has it, and
// with the well-known segment between host and path, as RFC 8414 section 5 does.
// For an issuer without a path both are the same.
func OpenIDConfigurationURLs(issuer string) [2]string {
	return [2]string{issuer + WellKnownOpenIDConfiguration, insertWellKnown(issuer, WellKnownOpenIDConfiguration)}
}

func insertWellKnown(identifier, wellKnown string) string {
	schemeEnd := strings.Index(identifier, "://") + len("://")
	host, path, _ := strings.Cut(identifier[schemeEnd:], "/")
	if path != "" {
		path = "/" + path
	}
	return identifier[:schemeEnd] + host + wellKnown + path
}

// Origin returns scheme://host[:port] of an identifier that ParseIdentifier
// accepted.
func Origin(identifier string) string {
	schemeEnd := strings.Index(identifier, "://") + len("://")
	host, _, _ := strings.Cut(identifier[schemeEnd:], "/")
	return identifier[:schemeEnd] + host
}

// isDefaultPort reports whether u names the default port of its scheme.
func isDefaultPort(u *url.URL) bool {
	_, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		return false
	}
	return (strings.EqualFold(u.Scheme, "https") && port == "443") || (strings.EqualFold(u.Scheme, "http") && port == "80")
}

// CheckIdentifier is ParseIdentifier with an error that names the word of the
// configuration and its value.
func CheckIdentifier(word, value string) error {
	if _, err := ParseIdentifier(value); err != nil {
		return fmt.Errorf("%s %q: %w", word, value, err)
	}
	return nil
}
