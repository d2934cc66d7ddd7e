package caddymodule

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
)

// ADM-07: TestWhatStrangersSayStaysOnItsLine: a document that a client wrote begins no
// line at the operator's terminal, and moves no cursor.
func TestWhatStrangersSayStaysOnItsLine(t *testing.T) {
	s := newAdministered(t)
	const id = "https://app.example/client.json"
	s.exec(`INSERT INTO gpt_clients (client_id, name) VALUES ($1, $2)`, id, "App\x1b[2J\nkind  \u202eoperator")
	s.exec(`INSERT INTO gpt_client_documents (client_id, document, fetched_at, fresh_until, unused_ttl) VALUES ($1, $2, now(), now(), '1 day')`,
		id, "{\n\"client_name\":\"\u009b2J\u202e\"}")
	for _, args := range [][]string{{"registration", "list"}, {"registration", "show", id}} {
		out := s.must(args...)
		if strings.ContainsAny(out, "\x1b\u009b\u202e") || strings.Contains(out, "\nkind  \ufffdoperator") || strings.Contains(out, "\n\"client_name") {
			t.Errorf("%v: %q", args, out)
		}
	}
}

// ADM-06: TestListsAreCompleteWhileRowsAreAdded: page by page, whatever comes in
// between, nothing that was there is missing or comes twice.
func TestListsAreCompleteWhileRowsAreAdded(t *testing.T) {
	s := newAdministered(t)
	const rows = 60
	for n := range rows {
		at := fmt.Sprintf("2026-01-01 00:00:%02dZ", n/7) // several at a time
		s.exec(`INSERT INTO gpt_sessions (user_id, client_id, scopes, created_at, expires_at) VALUES ('listed', 'gpt', '{jobs:read}', $1::text::timestamptz, now() + interval '1 day')`, at)
		s.exec(`INSERT INTO gpt_oauth_events (event_type, user_id, created_at) VALUES ('gpt.oauth.listed', 'listed', $1::text::timestamptz)`, at)
		s.exec(`INSERT INTO gpt_users (id, email, password_hash) VALUES ('u-' || $1::int, CASE WHEN $1::int % 2 = 0 THEN 'u' || $1::int || '@example.com' END, CASE WHEN $1::int % 2 = 0 THEN 'hash-of-a-password' END)`, n)
		s.exec(`INSERT INTO gpt_clients (client_id) VALUES ('op_' || $1::int), ('dcr_' || $1::int), ('https://a.example/' || $1::int)`, n)
		s.exec(`INSERT INTO gpt_operator_clients (client_id, settings) VALUES ('op_' || $1::int, '{"redirect_uris":["https://a.example/cb"]}')`, n)
		s.exec(`INSERT INTO gpt_client_registrations (client_id, metadata, token_hash, unused_ttl) VALUES ('dcr_' || $1::int, '{}', sha256(''), interval '1 day')`, n)
		s.exec(`INSERT INTO gpt_client_documents (client_id, document, fetched_at, fresh_until, unused_ttl) VALUES ('https://a.example/' || $1::int, '{}', now(), now(), interval '1 day')`, n)
	}
	for path, want := range map[string]int{
		"/oauth/sessions?user=listed&scope=jobs:read": rows,
		"/oauth/events?user=listed&type=listed":       rows,
		"/oauth/events?type=gpt.oauth.listed":         rows,
		"/oauth/clients":                              rows + 1,
		"/oauth/registrations":                        2 * rows,
		"/oauth/users":                                rows,
	} {
		seen, pages := make(map[string]int), 0
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		for next := ""; ; pages++ {
			page := ask[admin.Page[map[string]any]](s, "GET", path+separator+"limit=7&after="+next, nil)
			for _, item := range page.Items {
				for _, name := range []string{"session_id", "event_id", "client_id", "user_id"} {
					if id, ok := item[name].(string); ok {
						seen[id]++
						break
					}
				}
			}
			if len(page.Items) > 7 {
				t.Errorf("%s: a page of %d", path, len(page.Items))
			}
			s.exec(`INSERT INTO gpt_sessions (user_id, client_id, scopes, expires_at) VALUES ('listed', 'gpt', '{jobs:read}', now() + interval '1 day')`)
			s.exec(`INSERT INTO gpt_oauth_events (event_type, user_id) VALUES ('gpt.oauth.listed', 'listed')`)
			if next = page.Next; next == "" {
				break
			}
		}
		s.exec(`DELETE FROM gpt_sessions WHERE created_at > '2026-02-01'`)
		s.exec(`DELETE FROM gpt_oauth_events WHERE created_at > '2026-02-01'`)
		if len(seen) != want || pages < want/7-1 {
			t.Errorf("%s: %d of %d in %d pages", path, len(seen), want, pages)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s: %s came %d times", path, id, n)
			}
		}
	}
	// The same by commands.
	first := parsed[admin.Page[admin.Session]](t, s.must("session", "list", "--user", "listed", "--limit", "50", "--json"))
	second := parsed[admin.Page[admin.Session]](t, s.must("session", "list", "--user", "listed", "--limit", "50", "--after", first.Next, "--json"))
	if len(first.Items) != 50 || len(second.Items) != 10 || second.Next != "" {
		t.Errorf("%d and %d sessions", len(first.Items), len(second.Items))
	}
	if out := s.must("session", "list", "--user", "listed", "--limit", "50"); !strings.Contains(out, "--after "+first.Next) {
		t.Errorf("%s", out)
	}
}

// ADM-07: TestNoListTellsASecret, neither as it is nor as it is kept.
func TestNoListTellsASecret(t *testing.T) {
	s := newAdministered(t, "registration {\n\tdynamic\n}")
	secret := parsed[admin.Client](t, s.must("client", "add", "op_a", "--redirect-uri", "https://a.example/cb", "--json")).Secret
	newer := parsed[admin.Client](t, s.must("client", "rotate", "op_a", "--json")).Secret
	resp, err := http.Post("http://"+s.address+"/oauth/register", "application/json", strings.NewReader(`{"client_name":"Mine","redirect_uris":["https://b.example/cb"]}`))
	if err != nil {
		t.Fatal(err)
	}
	content, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	registered := parsed[map[string]any](t, string(content))
	id := registered["client_id"].(string)
	s.exec(`INSERT INTO gpt_users (email, password_hash) VALUES ('ada@example.com', 'hash-of-a-password')`)
	hidden := []string{"hash-of-a-password", secret, newer, registered["client_secret"].(string), registered["registration_access_token"].(string), "a-client-secret-that-is-long-enough", s.signingKey()}
	for _, text := range slices.Clone(hidden) {
		digest := sha256.Sum256([]byte(text))
		hidden = append(hidden, hex.EncodeToString(digest[:]), base64.StdEncoding.EncodeToString(digest[:]), base64.RawURLEncoding.EncodeToString(digest[:]))
	}
	var told strings.Builder
	for _, path := range []string{"clients", "clients/gpt", "clients/op_a", "sessions", "sessions/" + testSession, "events", "registrations", "registrations/" + id, "keys", "users", "status"} {
		status, text := s.api("GET", "/oauth/"+path, nil)
		if status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, text)
		}
		told.WriteString(text)
	}
	for _, args := range [][]string{{"client", "list"}, {"client", "show", "op_a"}, {"client", "show", "gpt", "--json"}, {"registration", "show", id}, {"registration", "list", "--json"}, {"event", "list"}, {"event", "list", "--json"}, {"key", "list", "--json"}, {"user", "list", "--json"}, {"session", "list", "--json"}} {
		told.WriteString(s.must(args...))
	}
	if !strings.Contains(told.String(), "op_a") || !strings.Contains(told.String(), id) || !strings.Contains(told.String(), testSession) {
		t.Error("the lists do not tell what is there")
	}
	for _, text := range hidden {
		if strings.Contains(told.String(), text) {
			t.Errorf("a list tells %q", text)
		}
	}
	if _, text := s.api("POST", "/oauth/clients/op_a/disable", struct{}{}); strings.Contains(text, "secret") {
		t.Errorf("%s", text)
	}
	s.must("registration", "remove", id)
	if _, err := s.command("registration", "show", id); err == nil || !strings.Contains(err.Error(), "registration list") {
		t.Errorf("%v", err)
	}
}
