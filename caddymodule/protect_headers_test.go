package caddymodule

import (
	"net/http"
	"strings"
	"testing"
)

const standardSite = `
	oauth_server
	@own header X-Own-Cookie yes
	oauth_protect {
		GET,POST /jobs jobs:read
		GET /jobs/* jobs:read
		DELETE /jobs/{id} jobs:write
		GET /open public
		* /me authenticated
		bypass @own
	}
	reverse_proxy UPSTREAM
`

var identityNames = []string{"X-User-Id", "X-Client-Id", "X-Session-Id", "X-Scopes"}

// TestGateTellsUpstreamWhoIsCalling and hides what authenticated the caller.
// H-06.
func TestGateTellsUpstreamWhoIsCalling(t *testing.T) {
	s := newGateScene(t, standardSite)
	got := s.get("/jobs?q=go", "Cookie: site=1; __Host-oauth_login=secret; theme=dark")
	if got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	r := s.upstream.one(t)
	for name, want := range map[string]string{
		"X-User-Id": "user-1", "X-Client-Id": "gpt", "X-Session-Id": testSession, "X-Scopes": "jobs:read jobs:write",
		"Authorization": "", "Cookie": "site=1; theme=dark",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if r.uri != "/jobs?q=go" {
		t.Errorf("forwarded %q", r.uri)
	}
}

// TestClientCannotRemoveIdentityByConnectionHeader: `Connection: X-User-Id`
// makes reverse proxies delete the field that the gate has set, and an upstream
// that takes "no user" for "internal" is open. SECURITY-CASES M1, H-01, H-03.
func TestClientCannotRemoveIdentityByConnectionHeader(t *testing.T) {
	s := newGateScene(t, standardSite)
	for _, connection := range []string{
		"close, X-User-Id", "X-User-Id", "x-user-id,close", "keep-alive, X-Client-Id, X-Session-Id, X-Scopes",
		"close\nConnection: X-User-Id", "upgrade, X-User-Id", "close, X_User_Id",
	} {
		got := s.raw("GET /jobs HTTP/1.1\nHost: api.example.com\nAuthorization: Bearer TOKEN\nConnection: " + connection + "\n\n")
		if got.status != http.StatusOK {
			t.Fatalf("%q: %+v", connection, got)
		}
		r := s.upstream.one(t)
		for _, name := range identityNames {
			if r.header.Get(name) == "" {
				t.Errorf("Connection: %q removed %s", connection, name)
			}
		}
	}
}

// TestClientCannotSayWhoItIs, in any spelling, on any kind of rule. H-02,
// PROTOCOL 1.6.1, PROTOCOL 8.19.
func TestClientCannotSayWhoItIs(t *testing.T) {
	// The server is told to let through what it drops by itself.
	s := newGateSceneWith(t, "servers {\n\t\ttrusted_proxies static 127.0.0.0/8\n\t\texpected_underscore_headers X_*\n\t\texpected_dot_headers X.*\n\t}", standardSite)
	spellings := []string{
		"X-User-Id: admin", "x-user-id: admin", "X-USER-ID: admin", "X_User_Id: admin", "X-User_Id: admin",
		"X.User.Id: admin", "X-User-Id: admin\nX-User-Id: root", "X-User-Id:\tadmin", "X-Scopes: jobs:delete",
		"X-Client-Id: other", "X-Session-Id: other",
	}
	for _, target := range []string{"/jobs", "/open", "/jobs own"} {
		path, own, _ := strings.Cut(target, " ")
		for _, spelling := range spellings {
			extra := []string{spelling}
			if own != "" {
				extra = append(extra, "X-Own-Cookie: yes")
			}
			if got := s.get(path, extra...); got.status != http.StatusOK {
				t.Fatalf("%s %s: %+v", target, spelling, got)
			}
			for name, values := range s.upstream.one(t).header {
				for _, value := range values {
					if value == "admin" || value == "root" || value == "jobs:delete" || value == "other" {
						t.Errorf("%s %s: upstream received %s: %s", target, spelling, name, value)
					}
				}
			}
		}
	}
}

// TestTrailersCannotCarryIdentity. H-04.
func TestTrailersCannotCarryIdentity(t *testing.T) {
	s := newGateScene(t, standardSite)
	for _, announced := range []string{"X-User-Id", "X-Checksum, X-User-Id", "x_user_id", ""} {
		trailer := ""
		if announced != "" {
			trailer = "Trailer: " + announced + "\n"
		}
		got := s.raw("POST /jobs HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: Bearer TOKEN\nTransfer-Encoding: chunked\n" + trailer +
			"\n2\nhi\n0\nX-User-Id: admin\nx_user_id: admin\nX-Checksum: 1\n\n")
		if got.status != http.StatusOK {
			t.Fatalf("%q: %+v", announced, got)
		}
		r := s.upstream.one(t)
		for name, values := range r.trailer {
			if strings.Contains(strings.Join(values, ","), "admin") {
				t.Errorf("announced %q: upstream received trailer %s: %v", announced, name, values)
			}
		}
		if r.header.Get("X-User-Id") != "user-1" {
			t.Errorf("announced %q: X-User-Id is %q", announced, r.header.Get("X-User-Id"))
		}
	}
}

// TestForwardedHeadersDecideNothing: neither the rule, nor the challenge, nor
// the address that counts. H-07, H-08, X-02.
func TestForwardedHeadersDecideNothing(t *testing.T) {
	for name, global := range map[string]string{"no proxy": "", "trusted proxy": "servers {\n\t\ttrusted_proxies static 127.0.0.0/8\n\t}"} {
		t.Run(name, func(t *testing.T) {
			s := newGateSceneWith(t, global, standardSite)
			plain := s.raw("GET /jobs HTTP/1.1\nHost: a\nConnection: close\n\n")
			for _, field := range []string{
				"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /open", "X-Forwarded-Uri: /open",
				"Forwarded: for=127.0.0.1;host=evil.example;proto=https", "X-Real-IP: 127.0.0.1", "X-Original-URL: /open", "X-Rewrite-URL: /open", "X-Envoy-Original-Path: /open",
				"User-Agent: kube-probe/1.30", "X-Internal: 1", "X-HTTP-Method-Override: OPTIONS",
			} {
				got := s.raw("GET /jobs HTTP/1.1\nHost: a\nConnection: close\n" + field + "\n\n")
				if got.status != 401 || got.header.Get("WWW-Authenticate") != plain.header.Get("WWW-Authenticate") || got.body != plain.body {
					t.Errorf("%s: %+v", field, got)
				}
			}
			if len(s.upstream.take()) != 0 {
				t.Error("a request reached the upstream")
			}
		})
	}
}

// TestOverridesDoNotReachUpstream: an upstream that honours them would serve
// another method or path than was decided on. N-01, H-07.
func TestOverridesDoNotReachUpstream(t *testing.T) {
	s := newGateScene(t, standardSite)
	s.get("/jobs", "X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Original-URL: /admin", "X-Rewrite-URL: /admin", "x-envoy-original-path: /admin")
	r := s.upstream.one(t)
	for name, values := range r.header {
		if v := values[0]; v == "DELETE" || v == "/admin" {
			t.Errorf("upstream received %s: %s", name, v)
		}
	}
}

// TestPlaceholdersInRequestsStayLiteral: nothing a caller sends goes through
// Caddy's replacer. H-09.
func TestPlaceholdersInRequestsStayLiteral(t *testing.T) {
	t.Setenv("CANARY", "expanded-canary")
	s := newGateScene(t, standardSite+"\nheader +X-Rule {http.auth.rule}\nheader +X-Who {http.auth.user.id}")
	const evil = "{env.CANARY}"
	token := s.token(func(c map[string]any) { c["sub"] = evil })
	s.sessions.mu.Lock()
	session := s.sessions.live[testSession]
	session.UserID = evil
	s.sessions.live[testSession] = session
	s.sessions.mu.Unlock()
	got := s.rawBytes("GET /jobs/"+evil+"?"+evil+" HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nX-Test: "+evil+"\r\nAuthorization: Bearer "+token+"\r\n\r\n", 1)
	if len(got) != 1 {
		t.Fatal("no answer")
	}
	for name, values := range got[0].header {
		if strings.Contains(strings.Join(values, ","), "expanded") {
			t.Errorf("answer: %s: %v", name, values)
		}
	}
	for _, r := range s.upstream.take() {
		for name, values := range r.header {
			if strings.Contains(strings.Join(values, ","), "expanded") {
				t.Errorf("upstream: %s: %v", name, values)
			}
		}
	}
}

// TestRenamedIdentityHeadersAndForwardedToken
func TestRenamedIdentityHeadersAndForwardedToken(t *testing.T) {
	s := newGateScene(t, `
	oauth_protect {
		GET /jobs jobs:read
		identity_headers {
			user X-Clerk-User-Id
		}
		forward_token
	}
	reverse_proxy UPSTREAM
`)
	s.get("/jobs", "X-Clerk-User-Id: admin", "X_Clerk_User_Id: admin", "X-User-Id: kept")
	r := s.upstream.one(t)
	if got := r.header["X-Clerk-User-Id"]; len(got) != 1 || got[0] != "user-1" {
		t.Errorf("X-Clerk-User-Id: %q", got)
	}
	if !strings.HasPrefix(r.header.Get("Authorization"), "Bearer ey") {
		t.Errorf("Authorization: %q", r.header.Get("Authorization"))
	}
}
