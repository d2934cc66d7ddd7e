package issuer

import (
	"net/url"
	"strings"
	"testing"
)

// T-34: the oracle takes the addresses apart with another parser
// and puts the one it expects together again.
func FuzzRedirectURIMatches(f *testing.F) {
	for _, registered := range []string{"https://e.example/cb", "http://127.0.0.1/cb", "http://127.0.0.1:80/cb", "http://[::1]/cb?x=1", "http://localhost", "http://localhost?x", "com.example.app:/cb"} {
		for _, requested := range []string{registered, "http://127.0.0.1:4711/cb", "http://[::1]:1/cb?x=1", "http://localhost:65536", "http://localhost:1?x", "http://127.0.0.1:1@evil.example/cb", "http://127.0.0.1:/cb", "https://e.example@evil.example/cb", "http://127.0.0.1:1#/cb"} {
			f.Add(registered, requested)
		}
	}
	f.Fuzz(func(t *testing.T, registered, requested string) {
		if CheckRedirectURI(registered) != nil {
			return // cannot be registered
		}
		if got, want := matchRedirectURI(registered, requested), naiveMatch(registered, requested); got != want {
			t.Errorf("registered %q, requested %q: %v, the oracle says %v", registered, requested, got, want)
		}
	})
}

func naiveMatch(registered, requested string) bool {
	if registered == requested {
		return true
	}
	r, err := url.Parse(registered)
	if err != nil || r.Scheme != "http" {
		return false
	}
	q, err := url.Parse(requested)
	if err != nil || (q.Hostname() != "127.0.0.1" && q.Hostname() != "::1" && q.Hostname() != "localhost") {
		return false
	}
	host := q.Hostname()
	if host == "::1" {
		host = "[::1]"
	}
	for _, u := range []*url.URL{r, q} {
		if port := u.Port(); port != "" && (strings.TrimLeft(port, "0") > "65535" && len(strings.TrimLeft(port, "0")) == 5 || len(strings.TrimLeft(port, "0")) > 5) {
			return false
		}
	}
	// Without its port, each must begin alike and go on alike.
	without := func(raw string, u *url.URL) string {
		prefix := "http://" + host
		if u.Port() != "" {
			prefix += ":" + u.Port()
		}
		if !strings.HasPrefix(raw, prefix) {
			return raw
		}
		rest := raw[len(prefix):]
		if rest != "" && rest[0] != '/' && rest[0] != '?' {
			return raw
		}
		return "loopback " + rest
	}
	return strings.HasPrefix(without(requested, q), "loopback ") && without(registered, r) == without(requested, q)
}

// what could match more than one address cannot be registered, nor what no
// browser must be sent to.
func TestRedirectURIsThatMustNotBeRegistered(t *testing.T) {
	t.Parallel()
	for _, uri := range []string{
		"https://*.e.example/cb", "https://e.example/*", "https://e.example/cb*", "*", "https://e.example/cb#", "https://e.example/cb#x",
		"https://u@e.example/cb", "https://u:p@e.example/cb", "https://@e.example/cb", "http://e.example/cb", "http://10.0.0.1/cb", "http://127.0.0.1.evil.example/cb",
		"javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:https://e.example/", "about:blank", "app:/cb", "Com.Example.App:/cb",
		"/cb", "//e.example/cb", "e.example/cb", "", "https:///cb", "https:e.example", "https://E.example/cb",
		" https://e.example/cb", "https://e.example/cb\t", "https://e.example/\ncb", "https://é.example/cb", `https://e.example\cb`, "https://e.example/<x>", "https://e.example/%zz",
		"https://e.example/cb?iss=https://evil.example", "https://e.example/cb?x=1&state=2", "https://e.example/cb?code=3", "https://e.example/cb?error=4",
	} {
		if CheckRedirectURI(uri) == nil {
			t.Errorf("%q passes", uri)
		}
	}
	for _, uri := range []string{"https://e.example", "https://e.example/cb", "https://e.example:8443/cb?x=1", "http://127.0.0.1/cb", "http://[::1]:4711", "http://localhost/cb", "com.example.app:/cb", "com.example.app://cb"} {
		if err := CheckRedirectURI(uri); err != nil {
			t.Errorf("%q: %v", uri, err)
		}
	}
}
