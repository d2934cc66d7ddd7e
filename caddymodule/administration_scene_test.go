package caddymodule

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// administered is a gate on real Postgres, with the admin API and the commands of
// its operator.
type administered struct {
	*gateScene
	db *pgx.Conn
}

func newAdministered(t *testing.T, words ...string) *administered {
	t.Helper()
	s, db := newRealScene(t, words...)
	s.admin = freeAddress(t)
	s.load("", realSite)
	return &administered{s, db}
}

// command runs `caddy oauth …` on the configuration that is served.
func (s *administered) command(args ...string) (string, error) {
	s.t.Helper()
	return oauthCommand(s.t.(*testing.T), s.caddyfile("", realSite), "", args...)
}

func (s *administered) must(args ...string) string {
	s.t.Helper()
	out, err := s.command(args...)
	if err != nil {
		s.t.Fatalf("caddy oauth %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// api asks the admin API, with JSON where there is a body.
func (s *administered) api(method, path string, body any, header ...string) (status int, text string) {
	s.t.Helper()
	var sent io.Reader
	if body != nil {
		content, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		sent = bytes.NewReader(content)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.admin+path, sent)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(content)
}

// ask is api for what must succeed.
func ask[T any](s *administered, method, path string, body any) (answer T) {
	s.t.Helper()
	status, text := s.api(method, path, body)
	if status != http.StatusOK {
		s.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		s.t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
	return answer
}

// parsed reads the JSON that the text begins with; what follows is standard error.
func parsed[T any](t testing.TB, text string) (answer T) {
	t.Helper()
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&answer); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return answer
}

// fetch gets a token by client_credentials; empty: refused with 401.
func (s *administered) fetch(clientID, secret string) string {
	s.t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_secret": {secret}, "scope": {"jobs:read"}}
	resp, err := http.PostForm("http://"+s.address+"/oauth/token", form)
	if err != nil { // a reload has closed the connection; see dial
		resp, err = http.PostForm("http://"+s.address+"/oauth/token", form)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	content, _ := io.ReadAll(resp.Body)
	if resp.StatusCode == http.StatusUnauthorized && strings.Contains(string(content), "invalid_client") {
		return ""
	}
	token := parsed[struct {
		AccessToken string `json:"access_token"`
	}](s.t, string(content)).AccessToken
	if resp.StatusCode != http.StatusOK || token == "" {
		s.t.Fatalf("token endpoint: %d %s", resp.StatusCode, content)
	}
	return token
}

// call makes a request to the gate with this token and returns the status.
func (s *administered) call(token string) int {
	s.t.Helper()
	return s.exact("GET /jobs HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nAuthorization: Bearer " + token + "\r\n\r\n").status
}

// awaitRefusal waits until the gate answers the token with 401.
func (s *administered) awaitRefusal(token string) {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); s.call(token) != http.StatusUnauthorized; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("the token still passes")
		}
	}
}

func (s *administered) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *administered) count(sql string, args ...any) (n int) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), sql, args...).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}
