package caddymodule

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

const fuzzSite = `
	oauth_protect {
		GET /jobs jobs:read
		GET /jobs/{id} jobs:read
		GET /jobs/{id}/notes/* jobs:write
		GET /open public
		GET /open/* public
	}
	reverse_proxy UPSTREAM
`

// hostileTargets are spellings of which two parsers could make two paths.
// SECURITY-CASES M2, U-02 to U-09.
var hostileTargets = []string{
	"/jobs%2f1", "/jobs%2F1", "/jobs/..%2fadmin", "/jobs/%2e%2e/admin", "/jobs/.%2e/admin", "//jobs/1", "/jobs//1", "/open/../admin",
	"/jobs/./1", "/jobs/..;/admin", "/jobs;x=1/1", "/open/..;/jobs", "/jobs\\..\\admin", "/jobs%5c1", "/jobs/1#/admin", "/jobs/1%00", "/jobs/1%0d%0a",
	"/jobs/1%09", "/jobs/%7f", "/open%252f..%252fjobs", "/jobs/%252e%252e", "/jobs/%c0%ae", "/jobs/%ff", "/open/.", "/open/..", "/jobs/%3b",
	"///", "/open/%2e", "/jobs/%25", "/%6fpen/x", "/jobs/caf\xc3\xa9", "/open|x",
}

// TestAmbiguousTargetsNeverReachUpstream, with a token that could do anything.
func TestAmbiguousTargetsNeverReachUpstream(t *testing.T) {
	s := newGateScene(t, fuzzSite)
	for _, target := range hostileTargets {
		answers := s.rawAll("GET "+target+" HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: Bearer TOKEN\n\n", 1)
		if len(answers) == 1 && answers[0].status != http.StatusBadRequest && answers[0].status != http.StatusForbidden {
			t.Errorf("%s: status %d", target, answers[0].status)
		}
		if got := s.upstream.take(); len(got) != 0 {
			t.Errorf("%s reached the upstream as %s", target, got[0].uri)
		}
	}
}

// TestOddMethodsNeverReachUpstream. N-02, SECURITY-CASES M2.
func TestOddMethodsNeverReachUpstream(t *testing.T) {
	s := newGateScene(t, "oauth_protect public\nreverse_proxy UPSTREAM")
	for _, line := range []string{
		"CONNECT b.test:443", "CONNECT /jobs", "TRACE /jobs", "PRI /jobs", "FOO /jobs", "get /jobs", "GeT /jobs", "TRACK /jobs", "GET *",
	} {
		answers := s.rawAll(line+" HTTP/1.1\nHost: api.example.com\nConnection: close\n\n", 1)
		if len(answers) == 1 && answers[0].status < 400 {
			t.Errorf("%s: status %d", line, answers[0].status)
		}
		if got := s.upstream.take(); len(got) != 0 {
			t.Errorf("%s reached the upstream as %s %s", line, got[0].method, got[0].uri)
		}
	}
	if got := s.raw("GET /jobs HTTP/1.0\nConnection: close\n\n"); got.status != http.StatusBadRequest || len(s.upstream.take()) != 0 {
		t.Errorf("without Host: %d", got.status)
	}
}

// TestDecisionIsOnThePathThatIsForwarded, whatever Caddy rewrites before the
// gate (it resolves dots as it strips a prefix); a rewrite behind the gate is
// refused at load. U-12.
func TestDecisionIsOnThePathThatIsForwarded(t *testing.T) {
	const gate = "oauth_protect {\n GET /jobs/{id} jobs:read\n GET /open/* public\n}\nreverse_proxy UPSTREAM\n"
	for site, targets := range map[string]map[string]string{
		"handle_path /api/* {\n" + gate + "}": {"/api/jobs/1": "/jobs/1", "/api/jobs/a%20b": "/jobs/a%20b", "/api/jobs%2f1": "", "/api/open%2f..%2fjobs/1": "/jobs/1", "/api/open/%2e%2e/jobs/1": "/jobs/1", "/api//open/1": "/open/1", "/%61pi/jobs/1": "/jobs/1"},
		"uri strip_prefix /api\n" + gate:      {"/api/jobs/1": "/jobs/1", "/api/jobs%2f1": "", "/api/admin": "", "/api/jobs/%2e%2e/open/x": "/open/x"},
		"rewrite /old/* /jobs/1\n" + gate:     {"/old/x": "/jobs/1", "/old/%2f": "/jobs/1", "/jobs/2": "/jobs/2"},
		"uri replace /v1/ /\n" + gate:         {"/v1/jobs/1": "/jobs/1", "/v1/jobs%2f1": "", "/v1/open/..%2fjobs/1": ""},
	} {
		s := newGateScene(t, site)
		for target, want := range targets {
			s.get(target)
			forwarded := ""
			if got := s.upstream.take(); len(got) == 1 {
				forwarded = got[0].uri
			}
			if forwarded != want {
				t.Errorf("%s, %s: forwarded %q, want %q", strings.SplitN(site, "\n", 2)[0], target, forwarded, want)
			}
			s.raw("GET " + target + " HTTP/1.1\nHost: a\nConnection: close\n\n")
			for _, got := range s.upstream.take() {
				if !strings.HasPrefix(got.uri, "/open/") {
					t.Errorf("%s without a token: forwarded %q", target, got.uri)
				}
			}
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	s := prepareGateScene(t)
	for _, behind := range []string{"rewrite * /admin", "uri strip_prefix /jobs", "method DELETE"} {
		site := "route {\noauth_protect {\n GET /jobs/* jobs:read\n}\n" + behind + "\nreverse_proxy UPSTREAM\n}"
		if err := s.tryLoad("", site); err == nil || !strings.Contains(err.Error(), "Caddyfile:") {
			t.Errorf("%s behind the gate: %v", behind, err)
		}
	}
}

// TestQueryDecidesNothing, however long or broken. Q-03, U-07.
func TestQueryDecidesNothing(t *testing.T) {
	s := newGateScene(t, fuzzSite)
	for query, status := range map[string]int{
		"?" + strings.Repeat("&", 10_001): 200, "?%zz&;;=&a=%": 200, "?x=/open/a": 200, "?access_token=x;%zz": 400, "?_method=DELETE": 200,
	} {
		got := s.get("/jobs" + query)
		if got.status != status {
			t.Errorf("%.40s: %d", query, got.status)
		}
		if got := s.raw("GET /jobs" + query + " HTTP/1.1\nHost: a\nConnection: close\n\n"); got.status != 401 {
			t.Errorf("%.40s without a token: %d", query, got.status)
		}
		for _, r := range s.upstream.take() {
			if r.uri != "/jobs"+query || r.method != "GET" {
				t.Errorf("forwarded %s %.40s", r.method, r.uri)
			}
		}
	}
}

// FuzzForwardedPathIsUnderItsOwnRule: no spelling of a path reaches the upstream
// under a rule other than the one its forwarded bytes name. The oracle reads
// the bytes that the upstream received by itself.
func FuzzForwardedPathIsUnderItsOwnRule(f *testing.F) {
	for _, target := range hostileTargets {
		f.Add(target)
	}
	for _, target := range []string{"/jobs", "/jobs/1", "/jobs/1/notes/2", "/open", "/open/a/b", "/OPEN/a", "/jobs/1/notes", "/jobs/", "/jobs/a%20b", "/open/a?b=/jobs", "/jobs/%41", "/open/%6a"} {
		f.Add(target)
	}
	s := newGateScene(f, fuzzSite)
	f.Fuzz(func(t *testing.T, target string) {
		s.t = t
		if strings.ContainsAny(target, " \r\n") || target == "" {
			return
		}
		// Without a token only what is public may pass.
		s.rawBytes("GET "+target+" HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n", 1)
		for _, got := range s.upstream.take() {
			if access := readingOf(got.uri); access != "public" {
				t.Errorf("%q reached the upstream without a token as %q, which is %q", target, got.uri, access)
			}
		}
		// A token that only reads never reaches what needs jobs:write.
		token := s.token(func(c map[string]any) { c["scope"] = "jobs:read" })
		s.rawBytes("GET "+target+" HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nAuthorization: Bearer "+token+"\r\n\r\n", 1)
		for _, got := range s.upstream.take() {
			if access := readingOf(got.uri); access != "public" && access != "jobs:read" {
				t.Errorf("%q reached the upstream with jobs:read as %q, which is %q", target, got.uri, access)
			}
		}
	})
}

// readingOf is what several upstreams would take the bytes for; it answers
// "many" when they disagree. It shares no code with the matcher.
func readingOf(uri string) string {
	path, _, _ := strings.Cut(uri, "?")
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return "many"
	}
	again, err := url.PathUnescape(decoded)
	if err != nil {
		again = decoded
	}
	readings := []string{path, decoded, again, strings.ReplaceAll(decoded, "\\", "/")}
	if params, _, cut := strings.Cut(decoded, ";"); cut {
		readings = append(readings, params)
	}
	for _, r := range readings {
		for strings.Contains(r, "//") {
			r = strings.ReplaceAll(r, "//", "/")
		}
		readings = append(readings, r)
		if u, err := url.Parse("http://h/"); err == nil {
			readings = append(readings, u.JoinPath(r).Path)
		}
	}
	first := accessOf(readings[0])
	for _, r := range readings[1:] {
		if accessOf(r) != first {
			return "many"
		}
	}
	return first
}

func accessOf(path string) string {
	segments := strings.Split(path, "/")
	switch {
	case path == "/open", strings.HasPrefix(path, "/open/") && len(path) > len("/open/"):
		return "public"
	case path == "/jobs", len(segments) == 3 && segments[1] == "jobs" && segments[2] != "":
		return "jobs:read"
	case len(segments) > 4 && segments[1] == "jobs" && segments[2] != "" && segments[3] == "notes" && strings.Join(segments[4:], "/") != "":
		return "jobs:write"
	}
	return "none"
}

// TestEverySmuggledRequestIsDecided: the upstream sees no request that the gate
// did not decide. Q-01.
func TestEverySmuggledRequestIsDecided(t *testing.T) {
	s := newGateScene(t, `
	oauth_protect {
		POST /open public
		GET /jobs jobs:read
	}
	reverse_proxy UPSTREAM
`)
	const inner = "GET /jobs HTTP/1.1\nHost: api.example.com\nX-Inner: 1\n\n"
	head := "POST /open HTTP/1.1\nHost: api.example.com\n"
	for name, request := range map[string]string{
		"CL.TE":            head + "Content-Length: 6\nTransfer-Encoding: chunked\n\n0\n\n" + inner,
		"TE.TE":            head + "Transfer-Encoding: chunked\nTransfer-Encoding: identity\n\n0\n\n" + inner,
		"TE xchunked":      head + "Transfer-Encoding: xchunked\nContent-Length: 4\n\n0\n\n" + inner,
		"TE tab":           head + "Transfer-Encoding:\tchunked\n\n0\n\n" + inner,
		"two CL":           head + "Content-Length: 0\nContent-Length: 60\n\n" + inner,
		"negative CL":      head + "Content-Length: -1\n\n" + inner,
		"plus CL":          head + "Content-Length: +0\n\n" + inner,
		"CL 0 then more":   head + "Content-Length: 0\n\n" + inner,
		"chunk extension":  head + "Transfer-Encoding: chunked\n\n0;a=b\n\n" + inner,
		"space after name": head + "Content-Length : 60\n\n" + inner,
		"two Host":         "POST /open HTTP/1.1\nHost: api.example.com\nHost: evil.example\nContent-Length: 0\n\n" + inner,
	} {
		s.rawAll(request, 3)
		for _, got := range s.upstream.take() {
			if got.uri != "/open" || strings.Contains(got.body, "X-Inner") && got.header.Get("X-Inner") != "" {
				t.Errorf("%s: upstream received %s %s", name, got.method, got.uri)
			}
		}
	}
	bareLF := "POST /open HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\n0\n\nGET /jobs HTTP/1.1\r\nHost: x\r\n\r\n"
	s.rawBytes(bareLF, 2)
	for _, got := range s.upstream.take() {
		if got.uri != "/open" {
			t.Errorf("bare LF: upstream received %s", got.uri)
		}
	}
}

// TestOnlyWebSocketUpgradesPass: after `Upgrade: h2c` the upstream would take
// requests that the gate never sees. SECURITY-CASES M2, W-01.
func TestOnlyWebSocketUpgradesPass(t *testing.T) {
	s := newGateScene(t, "oauth_protect public\nreverse_proxy UPSTREAM")
	for _, upgrade := range []string{"h2c", "h2c, websocket", "websocket, h2c", "TLS/1.0", "foo"} {
		got := s.raw("GET /jobs HTTP/1.1\nHost: api.example.com\nConnection: Upgrade, HTTP2-Settings\nUpgrade: " + upgrade + "\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n")
		if got.status != http.StatusBadRequest {
			t.Errorf("%s: status %d", upgrade, got.status)
		}
		if len(s.upstream.take()) != 0 {
			t.Errorf("%s reached the upstream", upgrade)
		}
	}
}

// TestUnaskedSwitchOfProtocolsIsNoTunnel: an upstream that answers 101 to an
// ordinary request gets no connection past the gate. W-04.
func TestUnaskedSwitchOfProtocolsIsNoTunnel(t *testing.T) {
	s := newGateScene(t, "oauth_protect public\nreverse_proxy UPSTREAM")
	s.upstream.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "h2c")
		w.WriteHeader(http.StatusSwitchingProtocols)
	})
	answers := s.rawAll("GET /jobs HTTP/1.1\nHost: api.example.com\n\nGET /admin HTTP/1.1\nHost: api.example.com\n\n", 1)
	if len(answers) == 1 && answers[0].status == http.StatusSwitchingProtocols {
		t.Error("the client got a tunnel")
	}
}
