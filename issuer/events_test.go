package issuer_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

const (
	svixSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	svixOldSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	appSecret     = "the secret of the app itself"
)

// newEventScene has two that tell of accounts: one as Clerk does, under two
// secrets, and an app.
func newEventScene(t *testing.T, change ...func(*issuer.Config)) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		cfg.Events = []issuer.EventSource{
			{Scheme: issuer.EventsSvix, Secrets: [][]byte{eventSecret(t, svixSecret), eventSecret(t, svixOldSecret)}},
			{Scheme: issuer.EventsHMAC, Name: "app", Secrets: [][]byte{[]byte(appSecret)}, SignatureHeader: "X-App-Signature", TimestampHeader: "X-App-Time"},
		}
		for _, f := range change {
			f(cfg)
		}
	}))
}

func eventSecret(t *testing.T, text string) []byte {
	t.Helper()
	secret, err := issuer.EventSecret(issuer.EventsSvix, text)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// clerkEvent is an event as Clerk sends it.
func clerkEvent(kind, userID string, data map[string]any) []byte {
	all := map[string]any{"id": userID, "object": "user", "deleted": kind == "user.deleted"}
	for name, value := range data {
		all[name] = value
	}
	body, _ := json.Marshal(map[string]any{"data": all, "object": "event", "type": kind, "timestamp": time.Now().UnixMilli()})
	return body
}

// delivery is one event on its way.
type delivery struct {
	path   string
	body   []byte
	header http.Header
}

// bySvix signs with the library of Standard Webhooks; Svix has other names for the
// headers.
func bySvix(t *testing.T, secret, id string, at time.Time, body []byte) delivery {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := webhook.Sign(id, at, body)
	if err != nil {
		t.Fatal(err)
	}
	return delivery{"/oauth/events", body, http.Header{
		"Svix-Id": {id}, "Svix-Timestamp": {strconv.FormatInt(at.Unix(), 10)}, "Svix-Signature": {signature}, "Content-Type": {"application/json"},
	}}
}

func byApp(secret string, at time.Time, body []byte) delivery {
	stamp := strconv.FormatInt(at.Unix(), 10)
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(stamp + "." + string(body)))
	return delivery{"/oauth/events/app", body, http.Header{"X-App-Time": {stamp}, "X-App-Signature": {"sha256=" + hex.EncodeToString(h.Sum(nil))}}}
}

func (d delivery) with(change func(*delivery)) delivery {
	d.header = d.header.Clone()
	change(&d)
	return d
}

func (d delivery) request(base string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, base+d.path, bytes.NewReader(d.body))
	r.RequestURI, r.Header = "", d.header.Clone()
	return r
}

func send(scene *issuertest.Scene, d delivery) issuertest.Response {
	return scene.Do(d.request(scene.URL))
}

// person is ada with an app connected, in a browser that is signed in.
type person struct {
	scene   *issuertest.Scene
	browser *issuertest.Browser
	tokens  issuertest.Tokens
}

func connect(t *testing.T, scene *issuertest.Scene) person {
	t.Helper()
	p := person{scene: scene, browser: scene.Browser(t)}
	query, verifier := scene.Authorization(issuertest.Public)
	code := p.browser.Get("/oauth/authorize?" + query.Encode()).SignIn().Allow().Code()
	p.tokens = scene.Redeem(t, issuertest.Public, code, url.Values{"code_verifier": {verifier}})
	return p
}

func (p person) signedIn() bool {
	return p.browser.Authorize(issuertest.Public, issuertest.Set("prompt", "none")).Query().Get("error") != "login_required"
}

func (p *person) refreshes() bool {
	r := p.scene.PostForm("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {p.tokens.Refresh}, "client_id": {issuertest.Public}})
	if r.Status == http.StatusOK {
		p.tokens = r.Tokens()
	}
	return r.Status == http.StatusOK
}

func (p person) logged(what string) bool {
	return p.scene.Logs.FilterMessage(what).Len() > 0
}

// EVT-01: whoever is deleted or disabled elsewhere has no session and no login any
// more, and gets none until the owner says so. Of one who was deleted nothing
// personal is kept.
func TestEventEndsTheAccount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		event   func(userID string) delivery
		deleted bool
	}{
		"deleted at Clerk": {func(id string) delivery {
			return bySvix(t, svixSecret, "msg_1", time.Now(), clerkEvent("user.deleted", id, nil))
		}, true},
		"banned at Clerk": {func(id string) delivery {
			return bySvix(t, svixSecret, "msg_2", time.Now(), clerkEvent("user.updated", id, map[string]any{"banned": true}))
		}, false},
		"disabled, by the names of the standard": {func(id string) delivery {
			d := bySvix(t, svixSecret, "msg_3", time.Now(), clerkEvent("user.disabled", id, nil))
			h := http.Header{}
			for name, values := range d.header {
				h[strings.Replace(name, "Svix-", "Webhook-", 1)] = values
			}
			d.header = h
			return d
		}, false},
		"deleted in the app": {func(id string) delivery {
			return byApp(appSecret, time.Now(), clerkEvent("user.deleted", id, nil))
		}, true},
		"disabled in the app, signed in base64": {func(id string) delivery {
			return byApp(appSecret, time.Now(), clerkEvent("user.disabled", id, nil)).with(func(d *delivery) {
				raw, _ := hex.DecodeString(strings.TrimPrefix(d.header.Get("X-App-Signature"), "sha256="))
				d.header.Set("X-App-Signature", "v1=AAAA, "+base64.StdEncoding.EncodeToString(raw))
			})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := newEventScene(t)
			ada := connect(t, scene)
			r := send(scene, c.event(scene.User.ID))
			if r.Status != http.StatusNoContent || r.Body != "" || r.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %s", r.Status, r.Body)
			}
			if ada.signedIn() || ada.refreshes() {
				t.Error("the login or the session goes on")
			}
			if n := scene.Count(t, `SELECT count(*) FROM gpt_revocations WHERE ended`); n != 1 {
				t.Errorf("the nodes hear of %d revocations, want 1", n)
			}
			events := scene.SQL(t, `SELECT event_type, metadata->>'sessions', metadata->>'logins', metadata->>'deleted' FROM gpt_oauth_events
				WHERE user_id = $1 AND event_type IN ('gpt.oauth.account_ended', 'gpt.oauth.user_ended') ORDER BY 1`, scene.User.ID)
			if len(events) != 2 || events[0][3] != strconv.FormatBool(c.deleted) || events[1][1] != "1" || events[1][2] != "1" {
				t.Errorf("events: %v", events)
			}
			user := scene.SQL(t, `SELECT disabled_at IS NOT NULL, email IS NULL AND password_hash IS NULL AND claims = '{}' AND profile = '{}' FROM gpt_users WHERE id = $1`, scene.User.ID)
			if len(user) != 1 || user[0][0] != true || user[0][1] != c.deleted {
				t.Fatalf("the user: %v", user)
			}
			page := scene.Browser(t).Authorize(issuertest.Public).SignIn()
			if page.Has("Allow") {
				t.Error("the user signs in again")
			}
			if !c.deleted {
				scene.SQL(t, `UPDATE gpt_users SET disabled_at = NULL WHERE id = $1`, scene.User.ID)
				if page := scene.Browser(t).Authorize(issuertest.Public).SignIn(); !page.Has("Allow") || ada.refreshes() {
					t.Errorf("enabled again, and the page is %s; or a session came back", page.Text())
				}
			}
		})
	}
}

// EVT-02: what is not signed, not now, or changed on the way ends nothing.
func TestEventsThatAreNotProvenEndNothing(t *testing.T) {
	t.Parallel()
	scene := newEventScene(t)
	ada := connect(t, scene)
	now, body := time.Now(), clerkEvent("user.deleted", scene.User.ID, nil)
	other := "whsec_" + base64.StdEncoding.EncodeToString([]byte("another secret than this"))
	svix := bySvix(t, svixSecret, "msg_1", now, body)
	app := byApp(appSecret, now, body)
	set := func(d delivery, name, value string) delivery {
		return d.with(func(d *delivery) { d.header.Set(name, value) })
	}
	twice := func(d delivery, name string) delivery {
		return d.with(func(d *delivery) { d.header.Add(name, d.header.Get(name)) })
	}
	changed := func(d delivery) delivery {
		return d.with(func(d *delivery) { d.body = append([]byte(" "), d.body...) })
	}
	stamp := func(ago time.Duration) string { return strconv.FormatInt(now.Add(-ago).Unix(), 10) }
	for name, d := range map[string]delivery{
		"svix: by another secret":         bySvix(t, other, "msg_1", now, body),
		"svix: a space more":              changed(svix),
		"svix: of another time":           set(svix, "Svix-Timestamp", stamp(time.Second)),
		"svix: with another id":           set(svix, "Svix-Id", "msg_2"),
		"svix: old":                       bySvix(t, svixSecret, "msg_1", now.Add(-6*time.Minute), body),
		"svix: of the future":             bySvix(t, svixSecret, "msg_1", now.Add(6*time.Minute), body),
		"svix: without signature":         set(svix, "Svix-Signature", ""),
		"svix: without id":                svix.with(func(d *delivery) { d.header.Del("Svix-Id") }),
		"svix: two ids":                   twice(svix, "Svix-Id"),
		"svix: two times":                 twice(svix, "Svix-Timestamp"),
		"svix: two signature lines":       twice(svix, "Svix-Signature"),
		"svix: of a version that is not":  set(svix, "Svix-Signature", strings.Replace(svix.header.Get("Svix-Signature"), "v1,", "v1a,", 1)),
		"svix: an empty signature":        set(svix, "Svix-Signature", "v1,"),
		"svix: too many signatures":       set(svix, "Svix-Signature", strings.Repeat("v1,AAAA ", 100)+svix.header.Get("Svix-Signature")),
		"svix: a time that is none":       set(svix, "Svix-Timestamp", "+"+stamp(0)),
		"svix: a time of the next era":    set(svix, "Svix-Timestamp", "9223372036854775807"),
		"svix: signed as the app signs":   app.with(func(d *delivery) { d.path = "/oauth/events" }),
		"svix: a long id":                 bySvix(t, svixSecret, strings.Repeat("m", 300), now, body),
		"app: by another secret":          byApp("another secret than this", now, body),
		"app: a space more":               changed(app),
		"app: of another time":            set(app, "X-App-Time", stamp(time.Second)),
		"app: old":                        byApp(appSecret, now.Add(-6*time.Minute), body),
		"app: without time":               app.with(func(d *delivery) { d.header.Del("X-App-Time") }),
		"app: without signature":          app.with(func(d *delivery) { d.header.Del("X-App-Signature") }),
		"app: an empty signature":         set(app, "X-App-Signature", "sha256="),
		"app: half of the signature":      set(app, "X-App-Signature", app.header.Get("X-App-Signature")[:39]),
		"app: signed without its time":    app.with(func(d *delivery) { d.header.Set("X-App-Signature", hexMAC(appSecret, d.body)) }),
		"app: signed by Clerk":            svix.with(func(d *delivery) { d.path = "/oauth/events/app" }),
		"app: the secret of Clerk's text": byApp(svixSecret, now, body),
	} {
		r := send(scene, d)
		if r.Status != http.StatusForbidden || r.Error() != "access_denied" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	for name, d := range map[string]delivery{ // from here on signed
		"a large body":       bySvix(t, svixSecret, "msg_9", now, clerkEvent("user.deleted", scene.User.ID, map[string]any{"filler": strings.Repeat("x", 1<<20)})),
		"no JSON":            bySvix(t, svixSecret, "msg_9", now, []byte("user.deleted")),
		"no object":          bySvix(t, svixSecret, "msg_9", now, []byte(`["user.deleted"]`)),
		"no user":            bySvix(t, svixSecret, "msg_9", now, []byte(`{"type":"user.deleted","data":{}}`)),
		"a user who is two":  bySvix(t, svixSecret, "msg_9", now, []byte(`{"type":"user.deleted","data":{"id":["a","b"]}}`)),
		"a user of controls": bySvix(t, svixSecret, "msg_9", now, []byte(`{"type":"user.deleted","data":{"id":"a\u0000b"}}`)),
		"nobody's address":   svix.with(func(d *delivery) { d.path = "/oauth/events/others" }),
	} {
		if r := send(scene, d); r.Status < 400 || r.Status >= 500 {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	if r := scene.Get("/oauth/events"); r.Status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", r.Status)
	}
	if !ada.signedIn() || !ada.refreshes() {
		t.Error("something has ended")
	}
}

func hexMAC(secret string, body []byte) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// EVT-03: an event counts once, whichever node it comes to: sent again, by whoever
// saw it, it does not disable a user who was enabled since. The sender hears that
// it was received.
func TestEventCountsOnce(t *testing.T) {
	t.Parallel()
	var config issuer.Config
	scene := newEventScene(t, func(cfg *issuer.Config) { config = *cfg })
	other, err := issuer.New(config)
	if err != nil {
		t.Fatal(err)
	}
	atOther := func(d delivery) int {
		w := httptest.NewRecorder()
		other.ServeHTTP(w, d.request(scene.URL))
		return w.Code
	}
	body := clerkEvent("user.disabled", scene.User.ID, nil)
	for name, c := range map[string]struct{ first, again delivery }{
		"svix":             {bySvix(t, svixSecret, "msg_1", time.Now(), body), bySvix(t, svixSecret, "msg_1", time.Now(), body)},
		"svix tries again": {bySvix(t, svixSecret, "msg_2", time.Now().Add(-time.Minute), body), bySvix(t, svixSecret, "msg_2", time.Now(), body)},
		"app":              {byApp(appSecret, time.Now(), body), byApp(appSecret, time.Now(), body).with(func(d *delivery) { d.header = nil })},
	} {
		if c.again.header == nil {
			c.again = c.first
		}
		if r := send(scene, c.first); r.Status != http.StatusNoContent || scene.Count(t, `SELECT count(*) FROM gpt_users WHERE disabled_at IS NOT NULL`) != 1 {
			t.Fatalf("%s: %d %s", name, r.Status, r.Body)
		}
		scene.SQL(t, `UPDATE gpt_users SET disabled_at = NULL`)
		ada := connect(t, scene)
		if here, there := send(scene, c.again).Status, atOther(c.again); here != http.StatusNoContent || there != http.StatusNoContent {
			t.Errorf("%s, again: %d and %d", name, here, there)
		}
		if !ada.signedIn() || !ada.refreshes() || !ada.logged("event came again, and was not followed again") {
			t.Errorf("%s: the event was followed twice, or nobody was told", name)
		}
		scene.Logs.TakeAll()
	}
}

// EVT-04: events that do not matter, and users whom nobody knows here, are answered
// as any other, so that the sender learns nothing and does not repeat them; the log
// tells of the users.
func TestEventsOfNoMatterAreAnsweredTheSame(t *testing.T) {
	t.Parallel()
	scene := newEventScene(t)
	ada := connect(t, scene)
	known := send(scene, bySvix(t, svixSecret, rand.Text(), time.Now(), clerkEvent("user.updated", scene.User.ID, map[string]any{"banned": false})))
	for name, body := range map[string][]byte{
		"another type":        clerkEvent("session.created", scene.User.ID, nil),
		"a type by case":      clerkEvent("USER.DELETED", scene.User.ID, nil),
		"another user":        clerkEvent("user.deleted", "user_29wBMCtzATuFJut8jO2VNTVekS4", nil),
		"the id of a client":  clerkEvent("user.deleted", issuertest.Confidential, nil),
		"an empty object":     []byte(`{"type":"organization.created"}`),
		"the address as name": clerkEvent("user.deleted", issuertest.Email, nil),
	} {
		r := send(scene, bySvix(t, svixSecret, rand.Text(), time.Now(), body))
		if r.Status != known.Status || r.Body != known.Body || len(r.Header) != len(known.Header) {
			t.Errorf("%s: %d %s %v", name, r.Status, r.Body, r.Header)
		}
	}
	if !ada.signedIn() || !ada.refreshes() {
		t.Error("something has ended")
	}
	if n := scene.Logs.FilterMessage("account ended elsewhere, of a user who is not known here").Len(); n != 3 {
		t.Errorf("%d lines tell of users who are not known, want 3", n)
	}
	for _, line := range scene.Logs.All() {
		for _, field := range line.Context {
			if text := field.String; strings.Contains(text, svixSecret) || strings.Contains(text, "v1,") {
				t.Errorf("the log holds %q", text)
			}
		}
	}
}

// EVT-05: a client that acts for itself is no user, whatever an event says.
func TestEventDoesNotEndAClientThatActsForItself(t *testing.T) {
	t.Parallel()
	scene := newEventScene(t)
	token := func() issuertest.Response {
		return scene.PostForm("/oauth/token", url.Values{"grant_type": {"client_credentials"}}, issuertest.Basic(issuertest.Machine, issuertest.Secret))
	}
	if r := token(); r.Status != http.StatusOK {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	send(scene, bySvix(t, svixSecret, "msg_1", time.Now(), clerkEvent("user.deleted", issuertest.Machine, nil)))
	if n := scene.Count(t, `SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NULL`); n != 1 || token().Status != http.StatusOK {
		t.Errorf("%d sessions live", n)
	}
}

// EVT-06: sessions of the system that went before end too, though their user has
// never signed in here, and the user stays out.
func TestEventEndsSessionsOfAUserWhoNeverSignedInHere(t *testing.T) {
	t.Parallel()
	scene := newEventScene(t)
	ada := connect(t, scene)
	scene.SQL(t, `UPDATE gpt_sessions SET user_id = 'user_29w'`)
	if !ada.refreshes() {
		t.Fatal("the scene is wrong")
	}
	if r := send(scene, bySvix(t, svixSecret, "msg_1", time.Now(), clerkEvent("user.deleted", "user_29w", nil))); r.Status != http.StatusNoContent {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	if ada.refreshes() {
		t.Error("the session goes on")
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_users WHERE id = 'user_29w' AND disabled_at IS NOT NULL`); n != 1 {
		t.Error("nothing keeps the user out")
	}
}

// EVT-07: while a secret is being replaced both hold, also in one header; after it
// only the new one.
func TestEventSecretsAreReplaced(t *testing.T) {
	t.Parallel()
	scene := newEventScene(t)
	body := clerkEvent("user.disabled", "nobody", nil)
	old, next := bySvix(t, svixOldSecret, "msg_1", time.Now(), body), bySvix(t, svixSecret, "msg_2", time.Now(), body)
	both := next.with(func(d *delivery) {
		d.header.Set("Svix-Signature", "v1a,AAAA v1,"+base64.StdEncoding.EncodeToString(make([]byte, 32))+" "+d.header.Get("Svix-Signature"))
	})
	for name, d := range map[string]delivery{"the old one": old, "the new one": next, "several signatures": both} {
		if r := send(scene, d); r.Status != http.StatusNoContent {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	after := newEventScene(t, func(cfg *issuer.Config) { cfg.Events[0].Secrets = cfg.Events[0].Secrets[:1] })
	if before, now := send(after, old).Status, send(after, next).Status; before != http.StatusForbidden || now != http.StatusNoContent {
		t.Errorf("after the change: %d and %d", before, now)
	}
}
