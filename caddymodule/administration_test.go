package caddymodule

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
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

// ADM-01: TestClientOfTheDatabaseLivesItsLife: added, known with no reload, its
// secret rotated with an overlap, disabled, enabled, removed.
func TestClientOfTheDatabaseLivesItsLife(t *testing.T) {
	s := newAdministered(t, "grants client_credentials")
	added := parsed[admin.Client](t, s.must("client", "add", "op_robot", "--name", "Robot", "--grant", "client_credentials", "--scope", "jobs:read", "--json"))
	if added.Kind != admin.KindOperator || len(added.Secret) < 40 || !added.Confidential {
		t.Fatalf("%+v", added)
	}
	if token := s.fetch("op_robot", added.Secret); s.call(token) != http.StatusOK {
		t.Fatal("the token of a client that was added does not pass")
	}
	if s.fetch("op_robot", added.Secret+"x") != "" || s.fetch("op_nobody", added.Secret) != "" {
		t.Error("a wrong secret, or an unknown client, gets a token")
	}

	// The old secret goes on for its overlap, and not after it.
	second := parsed[admin.Client](t, s.must("client", "rotate", "op_robot", "--overlap", "1h", "--json"))
	if second.Secret == added.Secret || second.PreviousUntil == nil || time.Until(*second.PreviousUntil) > time.Hour+time.Minute {
		t.Fatalf("%+v", second)
	}
	if s.fetch("op_robot", added.Secret) == "" || s.fetch("op_robot", second.Secret) == "" {
		t.Error("during the overlap one of the two secrets is refused")
	}
	s.exec(`UPDATE gpt_operator_clients SET previous_until = now() - interval '1 second'`)
	if s.fetch("op_robot", added.Secret) != "" {
		t.Error("the old secret works after its overlap")
	}
	third := ask[admin.Client](s, "POST", "/oauth/clients/op_robot/rotate", map[string]string{"overlap": "0s"})
	if s.fetch("op_robot", second.Secret) != "" || s.fetch("op_robot", third.Secret) == "" {
		t.Error("without an overlap the old secret works, or the new one does not")
	}
	// A third secret ends the first, whatever of its overlap was left.
	fourth := ask[admin.Client](s, "POST", "/oauth/clients/op_robot/rotate", map[string]string{})
	ask[admin.Client](s, "POST", "/oauth/clients/op_robot/rotate", map[string]string{"overlap": "1h"})
	if s.fetch("op_robot", third.Secret) != "" || s.fetch("op_robot", fourth.Secret) == "" {
		t.Error("the secret before the one before works, or the one before does not")
	}

	// Disabled, it is refused; V-08 has it with the very next request.
	token := s.fetch("op_robot", fourth.Secret)
	if got := ask[admin.Switched](s, "POST", "/oauth/clients/op_robot/disable", struct{}{}); got.Sessions != 1 {
		t.Errorf("disable: %+v", got)
	}
	s.awaitRefusal(token)
	if s.fetch("op_robot", fourth.Secret) != "" {
		t.Error("a disabled client gets a token")
	}
	if got := parsed[admin.Client](t, s.must("client", "show", "op_robot", "--json")); got.DisabledAt == nil {
		t.Errorf("%+v", got)
	}
	s.must("client", "enable", "op_robot")
	if s.call(token) != http.StatusUnauthorized {
		t.Error("a session came back with the client")
	}
	token = s.fetch("op_robot", fourth.Secret)
	if s.call(token) != http.StatusOK {
		t.Error("an enabled client is refused")
	}

	s.must("client", "remove", "op_robot")
	s.awaitRefusal(token)
	if s.fetch("op_robot", fourth.Secret) != "" || s.count(`SELECT count(*) FROM gpt_clients WHERE client_id = 'op_robot'`) != 0 {
		t.Error("a removed client is still there")
	}
	if n := s.count(`SELECT count(DISTINCT event_type) FROM gpt_oauth_events WHERE client_id = 'op_robot' AND metadata->>'by' = 'operator'
		AND event_type IN ('gpt.oauth.client_added', 'gpt.oauth.client_secret_rotated', 'gpt.oauth.client_disabled', 'gpt.oauth.client_enabled', 'gpt.oauth.client_deleted')`); n != 5 {
		t.Errorf("%d of 5 kinds of events tell of it", n)
	}
}

// ADM-01: TestClientOfTheDatabaseSendsItsUsersToSignIn: it is a client like any
// other at the pages, and its redirect addresses are held.
func TestClientOfTheDatabaseSendsItsUsersToSignIn(t *testing.T) {
	s := newAdministered(t)
	s.must("client", "add", "op_partner", "--name", "The Partner", "--redirect-uri", "https://partner.example/cb")
	authorize := func(redirect string) answer {
		query := url.Values{"client_id": {"op_partner"}, "redirect_uri": {redirect}, "response_type": {"code"}, "scope": {"jobs:read"},
			"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"}}
		return s.exact("GET /oauth/authorize?" + query.Encode() + " HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n")
	}
	if got := authorize("https://partner.example/cb"); got.status != http.StatusOK || !strings.Contains(got.body, "The Partner") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := authorize("https://evil.example/cb"); got.status != http.StatusBadRequest {
		t.Errorf("another redirect address: %d %s", got.status, got.body)
	}
	s.must("client", "disable", "op_partner")
	if got := authorize("https://partner.example/cb"); got.status != http.StatusBadRequest || strings.Contains(got.body, "The Partner") {
		t.Errorf("disabled: %d %s", got.status, got.body)
	}
}

// ADM-01: TestClientIDThatNoRowCanHaveIsUnknown: bytes that are no text are no fault of
// the database, and spoil no round trip that others share.
func TestClientIDThatNoRowCanHaveIsUnknown(t *testing.T) {
	s := newAdministered(t, "registration {\ndynamic\n}")
	for _, id := range []string{"op_%00", "op_%ff", "dcr_%00", "dcr_%ff"} {
		if got := s.exact("GET /oauth/authorize?client_id=" + id + " HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n"); got.status != http.StatusBadRequest {
			t.Errorf("authorize, %s: %d", id, got.status)
		}
		form := "grant_type=refresh_token&refresh_token=x&client_id=" + id
		got := s.exact(fmt.Sprintf("POST /oauth/token HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(form), form))
		if got.status != http.StatusUnauthorized {
			t.Errorf("token, %s: %d %s", id, got.status, got.body)
		}
	}
	if status, text := s.api("GET", "/oauth/clients/op_%00", nil); status != http.StatusNotFound {
		t.Errorf("admin: %d %s", status, text)
	}
}

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

// ADM-02: TestClientsAreCheckedAsThoseOfTheConfiguration: what the Caddyfile
// refuses, an operator cannot add, and nothing is read on their behalf.
func TestClientsAreCheckedAsThoseOfTheConfiguration(t *testing.T) {
	t.Setenv("HIDDEN", "https://hidden.example/cb")
	s := newAdministered(t, "client_policy https://denied.example/* {\n\tdeny\n}")
	for name, c := range map[string]struct {
		spec map[string]any
		want string
	}{
		"no redirect address":      {map[string]any{}, "redirect_uri is missing"},
		"plain http":               {map[string]any{"redirect_uris": []string{"http://partner.example/cb"}}, "redirect_uri"},
		"a placeholder":            {map[string]any{"redirect_uris": []string{"{env.HIDDEN}"}}, "placeholders"},
		"a file":                   {map[string]any{"redirect_uris": []string{"https://a.example/cb"}, "resource": "{file./etc/passwd}"}, "placeholders"},
		"undeclared scope":         {map[string]any{"redirect_uris": []string{"https://a.example/cb"}, "scopes": []string{"nope"}}, "is not declared"},
		"grant that is off":        {map[string]any{"grants": []string{"client_credentials"}}, "turn it on with `grants client_credentials`"},
		"public with credentials":  {map[string]any{"public": true, "grants": []string{"client_credentials"}}, "prove who it is"},
		"denied by a policy":       {map[string]any{"redirect_uris": []string{"https://denied.example/cb"}}, "client_policy denies"},
		"an id of another kind":    {map[string]any{"client_id": "gpt2", "redirect_uris": []string{"https://a.example/cb"}}, "op_NAME"},
		"an id with odd letters":   {map[string]any{"client_id": "op_a b", "redirect_uris": []string{"https://a.example/cb"}}, "op_NAME"},
		"PKCE optional and public": {map[string]any{"public": true, "pkce": "optional", "redirect_uris": []string{"https://a.example/cb"}}, "pkce optional is for clients with a secret"},
		"a word that is not there": {map[string]any{"redirect_uri": "https://a.example/cb"}, "unknown field"},
		"keys that are none":       {map[string]any{"jwks": map[string]any{"keys": "x"}, "redirect_uris": []string{"https://a.example/cb"}}, "jwks"},
	} {
		status, text := s.api("POST", "/oauth/clients", c.spec)
		if status != http.StatusBadRequest || !strings.Contains(text, c.want) || strings.Contains(text, "hidden.example") {
			t.Errorf("%s: %d %s, want %q", name, status, text, c.want)
		}
	}
	if n := s.count(`SELECT count(*) FROM gpt_operator_clients`); n != 0 {
		t.Errorf("%d clients were added", n)
	}
	good := map[string]any{"client_id": "op_a", "redirect_uris": []string{"https://a.example/cb"}}
	ask[admin.Client](s, "POST", "/oauth/clients", good)
	if status, text := s.api("POST", "/oauth/clients", good); status != http.StatusConflict || !strings.Contains(text, "is taken") {
		t.Errorf("the same id again: %d %s", status, text)
	}
	s.exec(`INSERT INTO gpt_users (id) VALUES ('op_user')`)
	if status, _ := s.api("POST", "/oauth/clients", map[string]any{"client_id": "op_user", "redirect_uris": []string{"https://a.example/cb"}}); status != http.StatusConflict {
		t.Errorf("the id of a user: %d", status)
	}
}

// ADM-03: TestClientThatFitsNoMoreIsRefusedAndSaysWhy: the configuration changes
// below a client that was added.
func TestClientThatFitsNoMoreIsRefusedAndSaysWhy(t *testing.T) {
	s := newAdministered(t, "grants client_credentials", `scope extra "Something more"`)
	added := ask[admin.Client](s, "POST", "/oauth/clients", map[string]any{"client_id": "op_robot", "grants": []string{"client_credentials"}, "scopes": []string{"jobs:read", "extra"}})
	if s.fetch("op_robot", added.Secret) == "" {
		t.Fatal("refused")
	}
	s.words = "grants client_credentials"
	s.load("", realSite)
	if s.fetch("op_robot", added.Secret) != "" {
		t.Error("a client with a scope that is not declared gets tokens")
	}
	if got := s.must("client", "show", "op_robot"); !strings.Contains(got, `scope "extra" is not declared`) {
		t.Errorf("%s", got)
	}
}

// ADM-04: TestClientsOfTheConfigurationAreChangedThere: they are shown and can be
// switched off, and errors say where they stand.
func TestClientsOfTheConfigurationAreChangedThere(t *testing.T) {
	s := newAdministered(t)
	shown := ask[admin.Client](s, "GET", "/oauth/clients/gpt", nil)
	if shown.Kind != admin.KindConfigured || !strings.HasPrefix(shown.Source, "Caddyfile:") || !slices.Equal(shown.RedirectURIs, []string{"https://chatgpt.com/cb"}) {
		t.Errorf("%+v", shown)
	}
	for _, args := range [][]string{{"client", "rotate", "gpt"}, {"client", "remove", "gpt"}} {
		if _, err := s.command(args...); err == nil || !strings.Contains(err.Error(), "Caddyfile:") || !strings.Contains(err.Error(), "reload") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if status, text := s.api("DELETE", "/oauth/clients/gpt", nil); status != http.StatusConflict || !strings.Contains(text, shown.Source) {
		t.Errorf("%d %s", status, text)
	}
	for _, args := range [][]string{{"client", "show", "nobody"}, {"client", "rotate", "op_nobody"}, {"client", "disable", "nobody"}, {"client", "enable", "nobody"}} {
		if _, err := s.command(args...); err == nil || !strings.Contains(err.Error(), `"`+args[2]+`"`) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if s.get("/jobs").status != http.StatusOK {
		t.Fatal("the session does not pass")
	}
	ask[admin.Switched](s, "POST", "/oauth/clients/gpt/disable", struct{}{})
	s.awaitRefusal(s.token())
	if got := ask[admin.Page[admin.Client]](s, "GET", "/oauth/clients", nil); len(got.Items) != 1 || got.Items[0].DisabledAt == nil {
		t.Errorf("%+v", got)
	}
}

// ADM-05: TestSessionsAreRevokedByEveryFilter, those that match and no others,
// and counting them ends none. One that has expired is none of them.
func TestSessionsAreRevokedByEveryFilter(t *testing.T) {
	s := newAdministered(t)
	const seed = `
		INSERT INTO gpt_clients (client_id) VALUES ('other') ON CONFLICT DO NOTHING;
		INSERT INTO gpt_users (id, email, password_hash) VALUES ('u-ada', 'ada@example.com', 'x') ON CONFLICT DO NOTHING;
		DELETE FROM gpt_sessions;
		INSERT INTO gpt_sessions (user_id, client_id, scopes, created_at, last_active, expires_at, consent_address, client_address) VALUES
			('u-ada', 'gpt', '{jobs:read}', now() - interval '40 days', now() - interval '35 days', now() + interval '1 day', '203.0.113.7', '198.51.100.1'),
			('u-ada', 'other', '{jobs:read,jobs:write}', now() - interval '2 days', now(), now() + interval '1 day', NULL, '2001:db8::7'),
			('u-bob', 'gpt', '{jobs:write}', now(), now(), now() + interval '1 day', 'fe80::1%eth0', '203.0.113.9'),
			('u-bob', 'gpt', '{jobs:write}', now() - interval '40 days', now() - interval '40 days', now() - interval '1 hour', '203.0.113.7', '203.0.113.7')`
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"user by id":      {[]string{"--user", "u-bob"}, 1},
		"user by address": {[]string{"--user", "Ada@example.com"}, 2},
		"client":          {[]string{"--client", "gpt"}, 2},
		"scope":           {[]string{"--scope", "jobs:write"}, 2},
		"address":         {[]string{"--address", "203.0.113.7"}, 1},
		"network":         {[]string{"--address", "203.0.113.0/24"}, 2},
		"IPv6 network":    {[]string{"--address", "2001:db8::/32"}, 1},
		"age":             {[]string{"--older-than", "1d"}, 2},
		"idle":            {[]string{"--idle-for", "30d"}, 1},
		"all of several":  {[]string{"--user", "u-ada", "--client", "gpt", "--scope", "jobs:read"}, 1},
		"none":            {[]string{"--user", "u-ada", "--scope", "nope"}, 0},
		"everything":      {[]string{"--all"}, 3},
	} {
		s.exec(seed)
		revoke := append([]string{"session", "revoke", "--json"}, c.args...)
		listed := 0
		if name != "everything" {
			listed = len(parsed[admin.Page[admin.Session]](t, s.must(append([]string{"session", "list", "--json"}, c.args...)...)).Items)
		} else {
			listed = 3
		}
		counted := parsed[admin.Ended](t, s.must(append(revoke, "--dry-run")...))
		if counted.Sessions != c.want || listed != c.want || s.count(`SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NOT NULL`) != 0 {
			t.Errorf("%s: %d listed, %d counted, want %d and none ended", name, listed, counted.Sessions, c.want)
		}
		ended := parsed[admin.Ended](t, s.must(append(revoke, "--yes")...))
		if n := s.count(`SELECT count(*) FROM gpt_sessions WHERE revoke_reason = 'revoked_by_operator'`); ended.Sessions != c.want || n != c.want {
			t.Errorf("%s: %d ended, %d rows, want %d", name, ended.Sessions, n, c.want)
		}
	}
	for name, args := range map[string][]string{
		"no filter":       {"session", "revoke", "--yes"},
		"no time":         {"session", "revoke", "--older-than", "soon", "--yes"},
		"no address":      {"session", "revoke", "--address", "home", "--yes"},
		"id and filter":   {"session", "revoke", testSession, "--client", "gpt", "--yes"},
		"all and filter":  {"session", "revoke", "--all", "--client", "gpt", "--yes"},
		"no such session": {"session", "revoke", testSession},
		"no limit":        {"session", "list", "--limit", "0"},
		"no cursor":       {"session", "list", "--after", "x"},
	} {
		s.exec(seed)
		if out, err := s.command(args...); err == nil || s.count(`SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NOT NULL`) != 0 {
			t.Errorf("%s: %q", name, out)
		}
	}
	// Without --yes it counts, and says how to go on.
	s.exec(seed)
	if out, err := s.command("session", "revoke", "--client", "gpt"); err == nil || !strings.Contains(out, "2 sessions match") || !strings.Contains(out, "--yes") {
		t.Errorf("%q %v", out, err)
	}
}

// ADM-05: TestSessionsEndByTheAdminAPI, counted first.
func TestSessionsEndByTheAdminAPI(t *testing.T) {
	s := newAdministered(t)
	if s.get("/jobs").status != http.StatusOK {
		t.Fatal("the session does not pass")
	}
	if got := ask[admin.Ended](s, "POST", "/oauth/sessions/revoke", map[string]any{"user": "user-1", "dry_run": true}); got.Sessions != 1 || s.get("/jobs").status != http.StatusOK {
		t.Errorf("dry run: %+v", got)
	}
	if got := ask[admin.Ended](s, "POST", "/oauth/sessions/revoke", map[string]any{"user": "user-1", "scope": "jobs:read"}); got.Sessions != 1 || got.Next != "" {
		t.Errorf("%+v", got)
	}
	s.awaitRefusal(s.token())
	if got := ask[admin.Session](s, "GET", "/oauth/sessions/"+testSession, nil); got.RevokedAt == nil || got.RevokeReason != "revoked_by_operator" {
		t.Errorf("%+v", got)
	}
	if status, _ := s.api("DELETE", "/oauth/sessions/"+testSession, nil); status != http.StatusNotFound {
		t.Errorf("again: %d", status)
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

// ADM-08: TestOperatorTokenPassesTheGateAndIsRevoked
func TestOperatorTokenPassesTheGateAndIsRevoked(t *testing.T) {
	s := newAdministered(t, "client bound {\n\tsecret a-client-secret-that-is-long-enough\n\tredirect_uri https://a.example/cb\n\tdpop_bound_access_tokens\n}",
		"client narrow {\n\tsecret a-client-secret-that-is-long-enough\n\tredirect_uri https://a.example/cb\n\tscope jobs:write\n}")
	s.exec(`INSERT INTO gpt_users (id, email, password_hash) VALUES ('u-ada', 'ada@example.com', 'x'), ('u-bob', 'bob@example.com', 'x')`)
	s.exec(`UPDATE gpt_users SET disabled_at = now() WHERE id = 'u-bob'`)
	issue := func(args ...string) (string, error) { return s.command(append([]string{"token", "issue"}, args...)...) }

	out, err := issue("--client", "gpt", "--user", "ada@example.com", "--scope", "jobs:read", "--for", "2m")
	if err != nil {
		t.Fatal(err)
	}
	token, rest, _ := strings.Cut(out, "\n") // the rest is standard error
	if s.call(token) != http.StatusOK {
		t.Fatalf("the token does not pass: %s", out)
	}
	var id, user, scopes string
	var ttl float64
	if err := s.db.QueryRow(t.Context(), `SELECT s.id::text, s.user_id, array_to_string(s.scopes, ' '), extract(epoch FROM s.expires_at - s.created_at)::float8
		FROM gpt_sessions s JOIN gpt_oauth_events e ON e.session_id = s.id AND e.event_type = 'gpt.oauth.token_issued_by_operator' AND e.metadata->>'by' = 'operator'`).
		Scan(&id, &user, &scopes, &ttl); err != nil {
		t.Fatal(err)
	}
	if user != "u-ada" || scopes != "jobs:read" || ttl > 125 || !strings.Contains(rest, id) {
		t.Errorf("session %s of %s with %q for %vs; printed %q", id, user, scopes, ttl, rest)
	}
	s.must("session", "revoke", id)
	s.awaitRefusal(token)

	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown client":    {[]string{"--client", "nobody", "--user", "u-ada"}, "client list"},
		"unknown user":      {[]string{"--client", "gpt", "--user", "nobody"}, "user list"},
		"disabled user":     {[]string{"--client", "gpt", "--user", "bob@example.com"}, "user list"},
		"undeclared scope":  {[]string{"--client", "gpt", "--user", "u-ada", "--scope", "nope"}, "invalid_scope"},
		"scope of others":   {[]string{"--client", "narrow", "--user", "u-ada", "--scope", "jobs:read"}, "invalid_scope"},
		"unknown resource":  {[]string{"--client", "gpt", "--user", "u-ada", "--resource", "https://other.example"}, "invalid_target"},
		"too long":          {[]string{"--client", "gpt", "--user", "u-ada", "--for", "16m"}, "access_token_ttl"},
		"no time":           {[]string{"--client", "gpt", "--user", "u-ada", "--for", "0s"}, "access_token_ttl"},
		"bound to a key":    {[]string{"--client", "bound", "--user", "u-ada"}, "bound to its key"},
		"nobody in general": {[]string{"--client", "gpt"}, "user"},
	} {
		if out, err := issue(c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q %v, want %q", name, out, err, c.want)
		}
	}
	if n := s.count(`SELECT count(*) FROM gpt_sessions WHERE asserted_by = 'operator'`); n != 1 {
		t.Errorf("%d sessions, though but one token was issued", n)
	}
}

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
