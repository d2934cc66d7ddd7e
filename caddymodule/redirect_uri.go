package caddymodule

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// checkRedirectURI refuses what no client may be registered with: a redirect
// that could lead a code to somebody else. RFC 9700 section 4.1, RFC 8252
// sections 7.1 and 7.3.
func checkRedirectURI(s string) error {
	u, err := url.Parse(s)
	problem := ""
	switch {
	case err != nil || u.Scheme == "":
		problem = "is not an absolute URL"
	case strings.ContainsAny(s, "*\\ \t\r\n"):
		problem = "must be exact: no wildcard, space or backslash"
	case strings.Contains(s, "#"):
		problem = "must not have a fragment"
	case u.User != nil:
		problem = "must not hold a user name or password"
	case u.Scheme == "https" || u.Scheme == "http":
		if u.Hostname() == "" {
			problem = "has no host"
		} else if u.Scheme == "http" && !oauth.IsLoopbackHost(u.Hostname()) {
			problem = "is plain http, which is for loopback hosts only"
		}
	case !strings.Contains(u.Scheme, "."):
		problem = "must begin with https://, or with a scheme of the app's own domain such as com.example.app:"
	}
	if problem != "" {
		return fmt.Errorf("redirect_uri %q %w", s, errors.New(problem))
	}
	return nil
}
