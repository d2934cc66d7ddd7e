package caddymodule

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

// ADM-11: TestWhatNoRowCanHoldIsTheMistakeOfWhoAsks: in any filter, cursor, name and
// body of the admin API, and said in words of ours.
func TestWhatNoRowCanHoldIsTheMistakeOfWhoAsks(t *testing.T) {
	s := newAdministered(t, "registration {\ndynamic\n}")
	wrong := func(want int, method, path string, body any) {
		t.Helper()
		if status, text := s.api(method, path, body); status != want || strings.Contains(text, "SQLSTATE") || strings.Contains(text, "invalid byte sequence") {
			t.Errorf("%s %s %v: %d %s, want %d", method, path, body, status, text, want)
		}
	}
	for list, filters := range map[string][]string{
		"sessions": {"user", "client", "scope", "address", "older_than", "idle_for", "after", "limit", "%00"},
		"events":   {"user", "client", "session", "type", "since", "after", "limit"},
		"clients":  {"after"}, "users": {"after"}, "registrations": {"after"},
	} {
		for _, filter := range filters {
			for _, bad := range []string{"%00", "a%00b", "%ff", "a%00@b.example", "%c5%bc%c3"} {
				wrong(http.StatusBadRequest, "GET", "/oauth/"+list+"?"+filter+"="+bad, nil)
			}
		}
	}
	for _, list := range []string{"sessions", "events", "clients", "users", "registrations"} {
		for _, cursor := range []string{"op_\x00", "\xff", "1\x00 x"} {
			wrong(http.StatusBadRequest, "GET", "/oauth/"+list+"?after="+base64.RawURLEncoding.EncodeToString([]byte(cursor)), nil)
		}
	}
	for _, bad := range []string{"op_%00", "%ff", "dcr_%00"} {
		for _, route := range []string{"GET clients/*", "DELETE clients/*", "POST clients/*/disable", "POST clients/*/enable", "POST clients/*/rotate",
			"GET sessions/*", "DELETE sessions/*", "GET registrations/*", "DELETE registrations/*"} {
			method, path, _ := strings.Cut(strings.Replace(route, "*", bad, 1), " ")
			var body any
			if method == "POST" {
				body = struct{}{}
			}
			wrong(http.StatusNotFound, method, "/oauth/"+path, body)
		}
	}
	for _, member := range []string{"user", "client", "scope", "address", "older_than", "idle_for", "after"} {
		wrong(http.StatusBadRequest, "POST", "/oauth/sessions/revoke", map[string]any{member: "a\x00@b", "dry_run": true})
	}
	for member, value := range map[string]any{"client_id": "op_\x00", "name": "a\x00b", "redirect_uris": []string{"https://a.example/\x00"}, "scopes": []string{"\x00"},
		"resource": "\x00", "jwks": map[string]any{"keys": []any{map[string]any{"kid": "\x00"}}}, "a\x00": "b"} {
		wrong(http.StatusBadRequest, "POST", "/oauth/clients", map[string]any{"public": true, member: value})
	}
	if status, text := s.api("POST", "/oauth/clients", map[string]any{"public": true, "redirect_uris": []string{"http://127.0.0.1/"}, "name": `a\u0000b, żółw`}); status != http.StatusOK {
		t.Errorf("what only looks like NUL: %d %s", status, text)
	}
}
