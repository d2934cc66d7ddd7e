package caddymodule

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// listener is the module events.handlers.test_listener: what somebody subscribes.
type listener struct {
	Name string `json:"name,omitempty"`
}

// heardEvents is what the listeners of this process have got.
var heardEvents struct {
	mu    sync.Mutex
	got   []heardEvent
	react func(name string) // before it is noted; nil: nothing
}

type heardEvent struct {
	listener, name, origin string
	data                   map[string]any
}

func init() { caddy.RegisterModule(listener{}) }

func (listener) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.test_listener", New: func() caddy.Module { return new(listener) }}
}

func (l *listener) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&l.Name) {
		return d.ArgErr()
	}
	return nil
}

func (l *listener) Handle(_ context.Context, event caddy.Event) error {
	if !strings.HasPrefix(event.Name(), eventPrefix) {
		return nil
	}
	heardEvents.mu.Lock()
	react := heardEvents.react
	heardEvents.mu.Unlock()
	if react != nil {
		react(event.Name())
	}
	heardEvents.mu.Lock()
	defer heardEvents.mu.Unlock()
	heardEvents.got = append(heardEvents.got, heardEvent{l.Name, event.Name(), string(event.Origin().CaddyModule().ID), event.Data})
	return nil
}

func listen(t *testing.T, react func(name string)) {
	t.Helper()
	heardEvents.mu.Lock()
	heardEvents.got, heardEvents.react = nil, react
	heardEvents.mu.Unlock()
	t.Cleanup(func() { listenOn(nil) })
}

func listenOn(react func(name string)) {
	heardEvents.mu.Lock()
	defer heardEvents.mu.Unlock()
	heardEvents.react = react
}

func heardSoFar() []heardEvent {
	heardEvents.mu.Lock()
	defer heardEvents.mu.Unlock()
	return slices.Clone(heardEvents.got)
}

// awaitEvent returns the first event of the name whose data has what is wanted.
func awaitEvent(t *testing.T, name string, want map[string]any) heardEvent {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		for _, event := range heardSoFar() {
			fits := event.name == name
			for key, value := range want {
				fits = fits && fmt.Sprint(event.data[key]) == fmt.Sprint(value)
			}
			if fits {
				return event
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s with %v; heard: %v", name, want, heardSoFar())
		}
	}
}

const allEvents = "events {\non * test_listener one\n}"

// codeFor puts an authorization code of the user into the database.
func codeFor(t *testing.T, s *administered, user, code string) url.Values {
	t.Helper()
	digest := sha256.Sum256([]byte(code))
	if _, err := s.db.Exec(t.Context(), `
		WITH login AS (INSERT INTO gpt_logins (digest, user_id, expires_at) VALUES ($1, $2, now() + interval '1 hour') RETURNING id)
		INSERT INTO gpt_authorization_codes (code_hash, request_id, client_id, user_id, login_id, redirect_uri, redirect_uri_sent, resource, scopes, auth_time, expires_at)
		SELECT $1, gen_random_uuid(), 'gpt', $2, id, 'https://chatgpt.com/cb', false, $3, '{jobs:read}', now(), now() + interval '10 minutes' FROM login`, digest[:], user, testIssuer); err != nil {
		t.Fatal(err)
	}
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {"gpt"}, "client_secret": {sceneSecret}}
}

// EVS-05: TestCaddyEventsTellWhatHasEnded: each event that is documented comes to
// who has subscribed, with what is documented and with no secret.
func TestCaddyEventsTellWhatHasEnded(t *testing.T) {
	listen(t, nil)
	const eventSecret = "a-secret-of-the-identity-provider"
	s := newAdministered(t, "refresh_grace 0s", "events hmac {\nsecret "+eventSecret+"\nsignature_header X-Signature\ntimestamp_header X-Time\n}")
	s.load(allEvents, realSite)
	secrets := []string{sceneSecret, eventSecret}

	// 1. What clients do.
	tokens := func(form url.Values, want int) map[string]any {
		t.Helper()
		status, answer := s.post("/oauth/token", form)
		if status != want {
			t.Fatalf("%v: %d %v", form, status, answer)
		}
		for _, name := range []string{"access_token", "refresh_token"} {
			if secret, ok := answer[name].(string); ok {
				secrets = append(secrets, secret)
			}
		}
		return answer
	}
	opened := func(user string) (form url.Values, refresh string) {
		code := codePrefixOfTests + user
		secrets = append(secrets, code)
		form = codeFor(t, s, user, code)
		return form, tokens(form, http.StatusOK)["refresh_token"].(string)
	}
	form, _ := opened("replayed-code")
	if _, err := s.db.Exec(t.Context(), `UPDATE gpt_authorization_codes SET used_at = used_at - interval '1 minute'`); err != nil {
		t.Fatal(err)
	}
	tokens(form, http.StatusBadRequest)
	if event := awaitEvent(t, eventCodeReuse, nil); event.origin != "oauth" || event.data["ip_address"] != "127.0.0.1" || event.data["request_id"] == nil {
		t.Errorf("%+v", event)
	}
	_, refresh := opened("replayed-refresh")
	form = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "client_id": {"gpt"}, "client_secret": {sceneSecret}}
	tokens(form, http.StatusOK)
	tokens(form, http.StatusBadRequest)
	session := ""
	if err := s.db.QueryRow(t.Context(), `SELECT id FROM gpt_sessions WHERE user_id = 'replayed-refresh'`).Scan(&session); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, eventRefreshReuse, map[string]any{"session_id": session, "client_id": "gpt"})
	_, refresh = opened("revoked")
	s.raw(formRequest("/oauth/revoke", url.Values{"token": {refresh}, "client_id": {"gpt"}, "client_secret": {sceneSecret}}))
	awaitEvent(t, eventSessionRevoked, map[string]any{"client_id": "gpt", "reason": "revoked_by_client"})

	// 2. What operators do.
	ask[json.RawMessage](s, "DELETE", "/oauth/sessions/"+testSession, nil)
	awaitEvent(t, eventSessionRevoked, map[string]any{"session_id": testSession, "reason": "revoked_by_operator"})
	opened("revoked-with-others")
	ask[json.RawMessage](s, "POST", "/oauth/sessions/revoke", map[string]any{"user": "revoked-with-others"})
	awaitEvent(t, eventSessionsRevoked, map[string]any{"user_id": "revoked-with-others", "sessions": 1, "reason": "revoked_by_operator"})
	client := ask[map[string]any](s, "POST", "/oauth/clients", map[string]any{"client_id": "op_robot", "redirect_uris": []string{"https://robot.example/cb"}})
	id := client["client_id"].(string)
	rotated := ask[map[string]any](s, "POST", "/oauth/clients/"+id+"/rotate", map[string]any{})
	secrets = append(secrets, client["client_secret"].(string), rotated["client_secret"].(string))
	ask[json.RawMessage](s, "POST", "/oauth/clients/"+id+"/disable", map[string]any{})
	ask[json.RawMessage](s, "POST", "/oauth/clients/"+id+"/enable", map[string]any{})
	ask[json.RawMessage](s, "DELETE", "/oauth/clients/"+id, nil)
	for _, what := range []string{"client_secret_rotated", "client_disabled", "client_enabled", "client_removed"} {
		awaitEvent(t, eventPrefix+what, map[string]any{"client_id": id})
	}

	// 3. What others tell, and who guesses.
	if _, err := s.db.Exec(t.Context(), `INSERT INTO gpt_users (id) VALUES ('gone')`); err != nil {
		t.Fatal(err)
	}
	body, at := `{"type":"user.deleted","data":{"id":"gone"}}`, strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte(eventSecret))
	fmt.Fprintf(mac, "%s.%s", at, body)
	if got := s.exact(fmt.Sprintf("POST /oauth/events HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nX-Time: %s\r\nX-Signature: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		at, hex.EncodeToString(mac.Sum(nil)), len(body), body)); got.status != http.StatusNoContent {
		t.Fatalf("%+v", got)
	}
	awaitEvent(t, eventAccountEnded, map[string]any{"user_id": "gone", "deleted": true})
	const password = "a-guess-of-a-password"
	secrets = append(secrets, password)
	for range 7 {
		s.guess(t, "somebody@example.com", password)
	}
	awaitEvent(t, eventSignInLimited, map[string]any{"method": "password"})

	// 4. No secret, and nothing that is not documented.
	content, err := os.ReadFile("../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for _, names := range regexp.MustCompile("(?m)^\\| (`oauth_[^|]+)").FindAllString(string(content), -1) {
		for _, name := range regexp.MustCompile("oauth_[a-z_]+").FindAllString(names, -1) {
			documented[name] = true
		}
	}
	limits := 0
	for _, event := range heardSoFar() {
		if !documented[event.name] {
			t.Errorf("%s is not in docs/events.md", event.name)
		}
		if event.name == eventSignInLimited {
			limits++
		}
		for _, secret := range secrets {
			if strings.Contains(fmt.Sprint(event.data), secret) {
				t.Errorf("%+v holds %q", event, secret)
			}
		}
	}
	if limits != 1 {
		t.Errorf("the limit was told of %d times within a minute, want once", limits)
	}
	for _, event := range heardSoFar() {
		delete(documented, event.name)
	}
	for _, name := range []string{eventViewStale, eventViewFresh, eventDatabaseAway, eventDatabaseBack} { // the next test's
		if !documented[name] && !slices.ContainsFunc(heardSoFar(), func(e heardEvent) bool { return e.name == name }) {
			t.Errorf("%s is not in docs/events.md", name)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s is in docs/events.md and never came", name)
	}
}

// codePrefixOfTests is what codes begin with.
const codePrefixOfTests = "gpt_ac_"

func formRequest(path string, form url.Values, headers ...string) string {
	body := form.Encode()
	return fmt.Sprintf("POST %s HTTP/1.1\nHost: api.example.com\nConnection: close\nContent-Type: application/x-www-form-urlencoded\nContent-Length: %d\n%s\n%s",
		path, len(body), strings.Join(append(headers, ""), "\n"), body)
}

// guess tries to sign in with a password, as a browser would.
func (s *gateScene) guess(t *testing.T, email, password string) {
	t.Helper()
	query := url.Values{"response_type": {"code"}, "client_id": {"gpt"}, "redirect_uri": {"https://chatgpt.com/cb"}, "scope": {"jobs:read"}, "state": {"s"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"}}
	page := s.raw("GET /oauth/authorize?" + query.Encode() + " HTTP/1.1\nHost: api.example.com\nConnection: close\n\n")
	request := regexp.MustCompile(`name="request" value="([^"]+)"`).FindStringSubmatch(page.body)
	cookie, _, _ := strings.Cut(page.header.Get("Set-Cookie"), ";")
	if request == nil {
		t.Fatalf("%+v", page)
	}
	got := s.raw(formRequest("/oauth/login", url.Values{"request": {request[1]}, "email": {email}, "password": {password}},
		"Cookie: "+cookie, "Origin: "+testIssuer, "Sec-Fetch-Site: same-origin"))
	if got.status != http.StatusTooManyRequests && !strings.Contains(got.body, "<form") {
		t.Fatalf("%+v", got)
	}
}

// EVS-05: TestCaddyEventsTellWhenTheDatabaseIsAwayAndBack, and that the view does
// not decide meanwhile.
func TestCaddyEventsTellWhenTheDatabaseIsAwayAndBack(t *testing.T) {
	listen(t, nil)
	wire, dsn := postgrestest.NewWire(t, postgrestest.New(t))
	s := prepareGateScene(t)
	s.dsn, s.real = dsn, true
	s.load(allEvents, realSite)
	for deadline := time.Now().Add(30 * time.Second); !running.Load().runtime.view.State().Fresh; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the view is not fresh")
		}
	}
	// What comes after the worker's first look is a change.
	for deadline := time.Now().Add(30 * time.Second); !running.Load().caddyEvents.looked.Load(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody looks")
		}
	}
	wire.Refuse()
	wire.Cut()
	awaitEvent(t, eventDatabaseAway, nil)
	awaitEvent(t, eventViewStale, nil)
	wire.Heal(t)
	awaitEvent(t, eventDatabaseBack, nil)
	awaitEvent(t, eventViewFresh, nil)
}

// EVS-06: TestAListenerThatHangsOrPanicsHoldsNoRequest: Caddy calls listeners within
// Emit, and no token request waits for them; what they cannot take is dropped and
// counted.
func TestAListenerThatHangsOrPanicsHoldsNoRequest(t *testing.T) {
	hang := make(chan struct{})
	let := sync.OnceFunc(func() { close(hang) })
	entered := make(chan struct{}, maxWaitingEvents*2)
	listen(t, func(string) { entered <- struct{}{}; <-hang })
	t.Cleanup(let)
	s := newAdministered(t, "refresh_grace 0s")
	s.load(allEvents, realSite)

	// 1. It hangs, and requests are answered.
	revoke := func(user string) {
		t.Helper()
		status, answer := s.post("/oauth/token", codeFor(t, s, user, codePrefixOfTests+user))
		if status != http.StatusOK {
			t.Fatalf("%d %v", status, answer)
		}
		if got := s.raw(formRequest("/oauth/revoke", url.Values{"token": {answer["refresh_token"].(string)}, "client_id": {"gpt"}, "client_secret": {sceneSecret}})); got.status != http.StatusOK {
			t.Fatalf("%+v", got)
		}
	}
	revoke("first")
	<-entered
	revoke("second")

	// 2. It hangs for long.
	dropped := func() float64 {
		t.Helper()
		_, metrics := s.api("GET", "/metrics", nil)
		number := regexp.MustCompile(`(?m)^caddy_oauth_caddy_events_dropped_total ([0-9.e+]+)$`).FindStringSubmatch(metrics)
		if number == nil {
			t.Fatal("nobody counts what is dropped")
		}
		count, _ := strconv.ParseFloat(number[1], 64)
		return count
	}
	before := dropped()
	for range maxWaitingEvents + 10 {
		running.Load().caddyEvents.tell(eventSessionRevoked, "session_id", testSession)
	}
	if n := dropped() - before; n != 11 { // one place is the second's
		t.Errorf("%v were dropped, want 11", n)
	}

	// 3. It goes on, and panics.
	listenOn(func(string) { panic("a listener's mistake") })
	let()
	for deadline := time.Now().Add(30 * time.Second); len(running.Load().caddyEvents.queue) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the queue stands")
		}
	}
	listenOn(nil)
	revoke("third")
	awaitEvent(t, eventSessionRevoked, map[string]any{"client_id": "gpt"})
}

// EVS-06: TestNothingIsKeptForNobody: an event that nobody has subscribed takes no
// place in the queue, and nobody looks at the database for it.
func TestNothingIsKeptForNobody(t *testing.T) {
	hang, entered := make(chan struct{}), make(chan struct{}, 1)
	listen(t, func(string) { entered <- struct{}{}; <-hang })
	t.Cleanup(func() { close(hang) })
	newGateSceneWith(t, "events {\non oauth_client_removed test_listener one\n}", realSite)
	events := running.Load().caddyEvents
	events.tell("oauth_client_removed")
	<-entered
	for range 10 {
		events.tell(eventSessionRevoked, "session_id", testSession)
	}
	events.tell("oauth_client_removed")
	if n := len(events.queue); n != 1 {
		t.Errorf("%d wait, want the one that somebody listens for", n)
	}
	if events.looks() {
		t.Error("somebody looks at the database for nobody")
	}
}

// EVS-07: TestEventsComeToTheConfigurationInForce: after a reload to those who are
// subscribed then, and to no others.
func TestEventsComeToTheConfigurationInForce(t *testing.T) {
	listen(t, nil)
	s := newAdministered(t)
	s.load(allEvents, realSite)
	s.load("events {\non oauth_session_revoked test_listener two\n}", realSite)
	ask[json.RawMessage](s, "DELETE", "/oauth/sessions/"+testSession, nil)
	if event := awaitEvent(t, eventSessionRevoked, nil); event.listener != "two" {
		t.Errorf("%+v", event)
	}
	if slices.ContainsFunc(heardSoFar(), func(e heardEvent) bool { return e.name == eventSessionRevoked && e.listener == "one" }) {
		t.Errorf("%+v", heardSoFar())
	}
}
