package caddymodule

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// ADM-10: TestAdminAPITakesOnlyWhatNoPageCanSend: a page that the operator's
// browser opens must not change anything.
func TestAdminAPITakesOnlyWhatNoPageCanSend(t *testing.T) {
	s := newAdministered(t)
	form := func(path, mediaType string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+s.admin+path, strings.NewReader(`{"all":true}`))
		if err != nil {
			t.Fatal(err)
		}
		if mediaType != "" {
			r.Header.Set("Content-Type", mediaType)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	for _, mediaType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
		for _, path := range []string{"/oauth/sessions/revoke", "/oauth/clients/gpt/disable", "/oauth/keys/rotate", "/oauth/clients"} {
			if status, text := form(path, mediaType); status != http.StatusUnsupportedMediaType {
				t.Errorf("POST %s as %q: %d %s", path, mediaType, status, text)
			}
		}
	}
	for name, c := range map[string]struct {
		method, path string
		body         any
		header       []string
		want         int
	}{
		"another origin":         {"POST", "/oauth/sessions/revoke", map[string]any{"all": true}, []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		"another host":           {"POST", "/oauth/sessions/revoke", map[string]any{"all": true}, []string{"Host", "evil.example"}, http.StatusForbidden},
		"a filter misspelt":      {"POST", "/oauth/sessions/revoke", map[string]any{"user": "user-1", "scop": "none"}, nil, http.StatusBadRequest},
		"no filter":              {"POST", "/oauth/sessions/revoke", map[string]any{}, nil, http.StatusBadRequest},
		"revoke by GET":          {"GET", "/oauth/sessions/revoke?all=true", nil, nil, http.StatusNotFound},
		"disable by GET":         {"GET", "/oauth/clients/gpt/disable", nil, nil, http.StatusMethodNotAllowed},
		"delete all":             {"DELETE", "/oauth/sessions", nil, nil, http.StatusMethodNotAllowed},
		"delete with a filter":   {"DELETE", "/oauth/sessions/" + testSession + "?dry_run=true", nil, nil, http.StatusBadRequest},
		"a list filter misspelt": {"GET", "/oauth/sessions?userid=x", nil, nil, http.StatusBadRequest},
		"a limit too large":      {"GET", "/oauth/sessions?limit=1001", nil, nil, http.StatusBadRequest},
		"a limit of none":        {"GET", "/oauth/events?limit=0", nil, nil, http.StatusBadRequest},
		"no such path":           {"GET", "/oauth/clients/gpt/secret", nil, nil, http.StatusNotFound},
		"a method of others":     {"PUT", "/oauth/clients/gpt", map[string]any{}, nil, http.StatusMethodNotAllowed},
	} {
		if status, text := s.api(c.method, c.path, c.body, c.header...); status != c.want {
			t.Errorf("%s: %d %s, want %d", name, status, text, c.want)
		}
	}
	if s.count(`SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NULL`) != 1 {
		t.Error("the session has ended")
	}
	// The API is the admin listener's alone: SECURITY-CASES X-05.
	for _, host := range []string{"api.example.com", s.admin, "localhost:2019"} {
		if got := s.exact("GET /oauth/clients HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"); got.status != http.StatusNotFound {
			t.Errorf("at the public listener, Host %s: %d", host, got.status)
		}
	}
}
