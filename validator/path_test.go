package validator_test

import (
	"bufio"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// everythingOpen is a gate on which only the target decides.
func everythingOpen(t testing.TB) *scene {
	return newScene(t, func(c *validator.Config) {
		c.Rules = []validator.Rule{accessRule("*", validator.Everything, validator.AccessPublic)}
	})
}

// raw parses a request as it came over the wire, as net/http does.
func raw(t testing.TB, head string) (*http.Request, bool) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n\r\n")))
	return r, err == nil
}

// The rows of M2, U-02 to U-08, N-02: what two parsers read differently is
// refused, not normalised.
func TestTargetsWithTwoReadingsAreRefused(t *testing.T) {
	t.Parallel()
	s := everythingOpen(t)
	for _, target := range []string{
		"/jobs%2f1", "/jobs%2F1", "/jobs/..%2fadmin", "/jobs/%2e%2e/admin", "/jobs/.%2e/admin", "/jobs/%2E./admin",
		"/jobs/../admin", "/jobs/./1", "/jobs/..", "/.", "/jobs/%252e%252e/admin", "/jobs%252f1", "/jobs%255c1",
		"//jobs/1", "/jobs//1", "///", "/jobs/1//",
		"/jobs/..;/admin", "/jobs;x=1/1", "/admin;/x", "/jobs%3bx", "/jobs\\..\\admin", "/jobs%5c..%5cadmin", "/jobs%5C1",
		"/jobs/1%00", "/jobs/1%0d%0a", "/jobs/1%09", "/jobs/1%7f", "/jobs/1%0a", "/jobs/1%23/admin", "/jobs/1%3f",
		"/jobs/%c0%ae%c0%ae/admin", "/jobs/%e0%80%af", "/jobs/%80", "/jobs/%ff", "/jobs/%c2%85",
		"/jobs/cafe%cc%81",               // not NFC
		"/jobs/%ef%bc%8fadmin",           // fullwidth slash
		"/jobs/%ef%bc%8e%ef%bc%8e/admin", // fullwidth dots
		"/jobs/%e2%88%95admin",           // division slash
		"/jobs/%e2%80%a5/admin",          // two dot leader
		"/jobs/%e2%84%aaelvin",           // Kelvin sign
		"/jobs/100%25", "/jobs/%25u002e%25u002e/admin", "/jobs/%25",
		"/jobs/caf\xc3\xa9", "/jobs/a|b", "/jobs/a^b", "/jobs/\x80", "/a%2fb|c", // raw bytes that are forwarded otherwise
	} {
		r, ok := raw(t, "GET "+target+" HTTP/1.1\r\nHost: a.test")
		if !ok {
			continue // the server refuses it before us
		}
		_, refusal := s.decide(r)
		if refusal == nil || refusal.Status != 400 || refusal.Code != oauth.CodeInvalidRequest {
			t.Errorf("%s: %v", target, refusal)
		}
	}
}

func TestOrdinaryTargetsPass(t *testing.T) {
	t.Parallel()
	s := everythingOpen(t)
	for _, target := range []string{
		"/", "/jobs", "/jobs/", "/jobs/1", "/jobs/a.b", "/jobs/...", "/jobs/.hidden", "/jobs/~me", "/jobs/a%20b", "/jobs/caf%C3%A9",
		"/jobs/@x:y", "/jobs/a,b", "/jobs/%41", "/jobs/a%2Bb", "/jobs/%7Bx%7D", "/jobs/a%7cb", "/jobs?x=/../y;z&%zz", "/jobs/(1)",
	} {
		r, ok := raw(t, "GET "+target+" HTTP/1.1\r\nHost: a.test")
		if !ok {
			t.Errorf("%s is not a request", target)
			continue
		}
		if _, refusal := s.decide(r); refusal != nil {
			t.Errorf("%s: %v", target, refusal)
		}
	}
}

// N-02, M2: exact upper-case known methods only.
func TestUnknownMethodsAreRefusedBeforeAnyRule(t *testing.T) {
	t.Parallel()
	s := everythingOpen(t)
	for _, method := range []string{"CONNECT", "TRACE", "TRACK", "PRI", "FOO", "get", "GeT", "GET /admin", "PROPFIND", ""} {
		_, refusal := s.decide(request(method, "/jobs"))
		wantRefusal(t, refusal, 405, oauth.CodeInvalidRequest)
	}
}

func TestTargetsWithoutOneHostAreRefused(t *testing.T) {
	t.Parallel()
	s := everythingOpen(t)
	noHost := request("GET", "/jobs")
	noHost.Host = ""
	opaque := request("GET", "/jobs")
	opaque.URL.Opaque = "//a.test/admin"
	other := request("GET", "/jobs")
	other.URL.Host = "b.test"
	star := request("GET", "/jobs")
	star.URL.Path = "*"
	scheme := request("GET", "/jobs")
	scheme.URL.Scheme, scheme.URL.Host = "file", scheme.Host
	userinfo := request("GET", "/jobs")
	userinfo.URL.Scheme, userinfo.URL.Host, userinfo.URL.User = "http", userinfo.Host, url.User("alice")
	for name, r := range map[string]*http.Request{"no host": noHost, "opaque": opaque, "other authority": other, "asterisk": star,
		"other scheme": scheme, "userinfo": userinfo} {
		t.Run(name, func(t *testing.T) {
			_, refusal := s.decide(r)
			wantRefusal(t, refusal, 400, oauth.CodeInvalidRequest)
		})
	}
}

// M2, W: only WebSocket handshakes may switch protocols.
func TestOnlyWebSocketUpgradesPass(t *testing.T) {
	t.Parallel()
	s := everythingOpen(t)
	for _, c := range []struct {
		method string
		fields []string
		ok     bool
	}{
		{"GET", []string{"websocket"}, true},
		{"GET", []string{"WebSocket"}, true},
		{"GET", []string{"h2c"}, false},
		{"GET", []string{"websocket, h2c"}, false},
		{"GET", []string{"websocket", "h2c"}, false},
		{"GET", []string{""}, false},
		{"POST", []string{"websocket"}, false},
	} {
		r := request(c.method, "/jobs")
		r.Header["Upgrade"] = c.fields
		if _, refusal := s.decide(r); (refusal == nil) != c.ok {
			t.Errorf("%s Upgrade %q: %v", c.method, c.fields, refusal)
		}
	}
}

// The property behind 2.3: whatever passes, four kinds of upstream read the
// forwarded bytes as the path that the rule was found for.
func FuzzPathHasOneReading(f *testing.F) {
	for _, seed := range []string{
		"/jobs/1", "/jobs%2f1", "/jobs/../admin", "/jobs/..;/admin", "//admin", "/jobs/%252e", "/a%5cb", "/caf%C3%A9", "/%41", "/jobs/%2e%2e/x",
		"/jobs/1%00", "/a;b/c", "/jobs/ /x", "/jobs/100%", "/%u002e", "/a/./b", "/jobs/",
	} {
		f.Add(seed)
	}
	s := everythingOpen(f)
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" {
			return
		}
		r := request("GET", "/")
		r.URL.Path, r.URL.RawPath, r.URL.RawQuery = u.Path, u.RawPath, u.RawQuery
		if _, refusal := s.decide(r); refusal != nil {
			return
		}
		forwarded := r.URL.EscapedPath()
		for reader, read := range map[string]func(string) string{
			"Go": goReading, "WSGI": wsgiReading, "merging": mergingReading, "servlet": servletReading,
		} {
			if got := read(forwarded); got != r.URL.Path {
				t.Errorf("%s reads %q as %q, the rule was found for %q", reader, forwarded, got, r.URL.Path)
			}
		}
	})
}

// An upstream may route on the bytes it receives instead of decoding them. An
// escape that nobody needs must not choose the rule.
func TestNeedlessEscapesDoNotChooseTheRule(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(c *validator.Config) {
		c.Rules = []validator.Rule{
			accessRule("GET", "/jobs/public", validator.AccessPublic),
			accessRule("GET", "/jobs/{id}", validator.AccessAuthenticated),
			accessRule("GET", "/open/*", validator.AccessPublic),
		}
	})
	for target, want := range map[string]int{
		"/jobs/public": 200, "/jobs/%70ublic": 400, "/jobs/publi%63": 400, "/jobs/1": 401, "/jobs/%31": 401,
		"/open/%70": 200, "/%6fpen/x": 400, "/jobs%2epublic": 403, "/jobs/public%20": 401,
	} {
		r, ok := raw(t, "GET "+target+" HTTP/1.1\r\nHost: a.test")
		if !ok {
			t.Fatal(target)
		}
		got := 200
		if _, refusal := s.decide(r); refusal != nil {
			got = refusal.Status
		}
		if got != want {
			t.Errorf("%s: %d, want %d", target, got, want)
		}
	}
}

// U-10, U-14: what no rule covers passes only if no reader, however generous,
// would find a rule for it.
func TestUnmatchedPathsThatOthersMatchStay(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(c *validator.Config) {
		c.PassUnmatched = true
		c.Rules = []validator.Rule{
			accessRule("GET", "/admin/*", validator.AccessAuthenticated),
			accessRule("GET", "/Kids", validator.AccessAuthenticated),
			accessRule("POST", "/write", validator.AccessAuthenticated),
			accessRule("GET", "/files/", validator.AccessAuthenticated),
		}
	})
	for target, passes := range map[string]bool{
		"/": true, "/other": true, "/other/": true, "/write": true, "/adminx": true, "/admin": true,
		"/ADMIN/x": false, "/Admin/x": false, "/admin/": false, "/ADMIN/": false, "/kids": false, "/KIDS/": false, "/kid%C5%BF": false,
		"/k%C4%B1ds": false, "/k%C4%B0ds": false, "/files": false, "/%41dmin/x": false,
	} {
		r, ok := raw(t, "GET "+target+" HTTP/1.1\r\nHost: a.test")
		if !ok {
			t.Fatal(target)
		}
		if _, refusal := s.decide(r); (refusal == nil) != passes {
			t.Errorf("%s: %v", target, refusal)
		}
	}
	preflight := request("OPTIONS", "/WRITE")
	preflight.Header.Set("Origin", "https://app.example")
	for method, passes := range map[string]bool{"GET": true, "POST": false, "PROPFIND": false} {
		preflight.Header.Set("Access-Control-Request-Method", method)
		if _, refusal := s.decide(preflight); (refusal == nil) != passes {
			t.Errorf("preflight for %s: %v", method, refusal)
		}
	}
}

func goReading(raw string) string {
	path, err := url.PathUnescape(raw)
	if err != nil {
		return "unreadable"
	}
	return path
}

// wsgiReading splits before it decodes, and decodes twice.
func wsgiReading(raw string) string {
	segments := strings.Split(raw, "/")
	for i, segment := range segments {
		once := goReading(segment)
		if twice, err := url.PathUnescape(once); err == nil && twice != once {
			return "decoded twice: " + twice
		}
		if strings.Contains(once, "/") {
			return "slash in a segment"
		}
		segments[i] = once
	}
	return strings.Join(segments, "/")
}

// mergingReading decodes, merges slashes and resolves dots, as nginx does.
func mergingReading(raw string) string {
	path := goReading(strings.ReplaceAll(raw, "\\", "/"))
	var kept []string
	segments := strings.Split(strings.ReplaceAll(path, "\\", "/"), "/")
	for i, segment := range segments {
		switch {
		case segment == "." || segment == "" && i != len(segments)-1:
		case segment == "..":
			kept = kept[:max(0, len(kept)-1)]
		default:
			kept = append(kept, segment)
		}
	}
	return "/" + strings.Join(kept, "/")
}

// servletReading cuts path parameters, fragments and NUL, as some do.
func servletReading(raw string) string {
	path := goReading(raw)
	for _, cut := range []string{"#", "?", "\x00"} {
		path, _, _ = strings.Cut(path, cut)
	}
	segments := strings.Split(path, "/")
	for i := range segments {
		segments[i], _, _ = strings.Cut(segments[i], ";")
	}
	path = strings.Join(segments, "/")
	if !utf8.ValidString(path) {
		return "not UTF-8"
	}
	return path
}
