package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
)

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
// below a client that was added. The log says it once, not with each request.
func TestClientThatFitsNoMoreIsRefusedAndSaysWhy(t *testing.T) {
	s := newAdministered(t, "grants client_credentials", `scope extra "Something more"`)
	added := ask[admin.Client](s, "POST", "/oauth/clients", map[string]any{"client_id": "op_robot", "grants": []string{"client_credentials"}, "scopes": []string{"jobs:read", "extra"}})
	if s.fetch("op_robot", added.Secret) == "" {
		t.Fatal("refused")
	}
	file := filepath.Join(t.TempDir(), "log")
	told := func() int {
		written, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(written), "does not fit the configuration any more")
	}
	s.words = "grants client_credentials"
	s.load("log misfits {\noutput file "+file+"\ninclude oauth\n}", realSite)
	for range 3 {
		if s.fetch("op_robot", added.Secret) != "" {
			t.Error("a client with a scope that is not declared gets tokens")
		}
	}
	if n := told(); n != 1 {
		t.Errorf("the log tells of it %d times, want once", n)
	}
	// Another change that does not fit either is told of, and so is what fitted meanwhile.
	for n, scopes := range []string{`["jobs:read","more"]`, `["jobs:read"]`, `["jobs:read","more"]`} {
		s.exec(`UPDATE gpt_operator_clients SET settings = $1::text::json WHERE client_id = 'op_robot'`, `{"grants":["client_credentials"],"scopes":`+scopes+`}`)
		for range 2 {
			s.fetch("op_robot", added.Secret)
		}
		if want := []int{2, 2, 3}[n]; told() != want {
			t.Errorf("with %s the log tells of it %d times, want %d", scopes, told(), want)
		}
	}
	s.exec(`UPDATE gpt_operator_clients SET settings = '{"grants":["client_credentials"],"scopes":["jobs:read","extra"]}' WHERE client_id = 'op_robot'`)
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
