package login_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
)

const eventSecret = "the secret of those who tell"

// newEventScene signs users in at two providers; the first one tells of its users,
// by the names that it has for them.
func newEventScene(t *testing.T, theirs, others *provider, change ...func(*login.OIDCConfig)) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		cfg.Password = false
		cfg.Methods = []issuer.LoginMethod{oidcMethod(t, "theirs", "Their ID", theirs, cfg.Now, change...), oidcMethod(t, "others", "Other ID", others, cfg.Now)}
		cfg.Events = []issuer.EventSource{{
			Scheme: issuer.EventsHMAC, UsersOf: "theirs", Secrets: [][]byte{[]byte(eventSecret)}, SignatureHeader: "X-Signature", TimestampHeader: "X-Time",
		}}
	}))
}

func tell(t *testing.T, scene *issuertest.Scene, kind, subject string) {
	t.Helper()
	body := fmt.Sprintf(`{"type":%q,"data":{"id":%q}}`, kind, subject)
	stamp := fmt.Sprint(time.Now().Unix())
	h := hmac.New(sha256.New, []byte(eventSecret))
	h.Write([]byte(stamp + "." + body))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, scene.URL+"/oauth/events", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Time", stamp)
	r.Header.Set("X-Signature", hex.EncodeToString(h.Sum(nil)))
	if answer := scene.Do(r); answer.Status != http.StatusNoContent {
		t.Fatalf("%d %s", answer.Status, answer.Body)
	}
}

// at signs a new browser in by the method of that label.
func at(t *testing.T, scene *issuertest.Scene, label string) *issuertest.Page {
	t.Helper()
	b := scene.Browser(t)
	page := b.Authorize(issuertest.Public).Press("Continue with " + label)
	return b.Get(b.Get(page.Location()).Location()).Follow()
}

// EVT-08: a provider tells of its own users, by its names for them, and of nobody
// else's.
func TestProviderEndsItsOwnUsersOnly(t *testing.T) {
	t.Parallel()
	theirs, others := newProvider(t), newProvider(t)
	scene := newEventScene(t, theirs, others, func(c *login.OIDCConfig) { c.Claims.User = "email" })
	others.set(func(p *provider) { p.lie = func(claims map[string]any) { claims["sub"] = "bob-1" } })
	at(t, scene, "Their ID").Allow().Code()
	at(t, scene, "Other ID").Allow().Code()

	tell(t, scene, "user.disabled", "bob-1")                 // the other provider's
	tell(t, scene, "user.disabled", scene.User.ID)           // who has a password
	tell(t, scene, "user.disabled", "ada@provider.example")  // an id here, and no name there
	tell(t, scene, "user.disabled", issuertest.Confidential) // a client
	if n := scene.Count(t, `SELECT count(*) FROM gpt_users WHERE disabled_at IS NOT NULL`); n != 0 {
		t.Fatalf("%d users are disabled", n)
	}
	tell(t, scene, "user.disabled", "ada-1")
	if rows := scene.SQL(t, `SELECT id FROM gpt_users WHERE disabled_at IS NOT NULL`); len(rows) != 1 || rows[0][0] != "ada@provider.example" {
		t.Errorf("disabled: %v", rows)
	}
	if page := at(t, scene, "Their ID"); page.Has("Allow") {
		t.Error("the user signs in again")
	}
	if page := at(t, scene, "Other ID"); !page.Has("Allow") {
		t.Error("the other provider's user does not sign in")
	}
	if err := scene.Store.EnableUser(t.Context(), "ada@provider.example", issuer.Origin{}); err != nil { // an id, and no address here
		t.Fatal(err)
	}
	if page := at(t, scene, "Their ID"); !page.Has("Allow") {
		t.Error("who is enabled again does not sign in")
	}
}

// EVT-09: an account that ends before its first sign-in here has come back makes
// no user; and who was deleted makes no user anew.
func TestEndedAccountDoesNotBecomeAUser(t *testing.T) {
	t.Parallel()
	theirs := newProvider(t)
	scene := newEventScene(t, theirs, newProvider(t))
	b := scene.Browser(t)
	callback := b.Get(b.Authorize(issuertest.Public).Press("Continue with Their ID").Location()).Location()
	tell(t, scene, "user.deleted", "ada-1")
	if b.Get(callback); b.Cookie("oauth_login") != "" || scene.Count(t, `SELECT count(*) FROM gpt_users WHERE id = 'ada-1'`) != 0 {
		t.Error("signed in after the account had ended")
	}

	theirs.set(func(p *provider) { p.lie = func(claims map[string]any) { claims["sub"] = "eve-1" } })
	at(t, scene, "Their ID").Allow().Code()
	tell(t, scene, "user.deleted", "eve-1")
	rows := scene.SQL(t, `SELECT name, claims::text, profile::text FROM gpt_users WHERE id = 'eve-1'`)
	if len(rows) != 1 || rows[0][0] != nil || rows[0][1] != "{}" || rows[0][2] != "{}" {
		t.Errorf("kept of a user who was deleted: %v", rows)
	}
	if page := at(t, scene, "Their ID"); page.Has("Allow") {
		t.Error("who was deleted signs in")
	}
	// The owner has the last word: with the row gone the provider's word counts.
	scene.SQL(t, `DELETE FROM gpt_users WHERE id = 'eve-1'`)
	if page := at(t, scene, "Their ID"); !page.Has("Allow") {
		t.Errorf("the owner removed the row, and the page is %s", page.Text())
	}
}

// EVT-11: an app of the owner tells of its own users too, whether they sign in by its
// token or by asking it: by the names that it has for them, at once, with their
// sessions, and of nobody else's users.
func TestAppEndsItsOwnUsersOnly(t *testing.T) {
	t.Parallel()
	a := newOwnersApp(t)
	for usersOf, c := range map[string]struct{ theirs, others string }{"token": {"ada-1", "ada"}, "forward": {"ada", "ada-1"}} {
		scene := issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
			if a.now == nil { // the earliest: each clock stands still
				a.now = cfg.Now
			}
			back := login.Return{SignIn: a.URL + "/sign-in"}
			token, err := login.NewJWT(login.JWTConfig{Cookie: appCookie, Issuer: a.URL, JWKS: a.keys.URL + "/keys", Claims: login.Claims{User: "email", Keep: []string{"roles"}}, Return: back, Now: cfg.Now})
			if err != nil {
				t.Fatal(err)
			}
			forward, err := login.NewForward(login.ForwardConfig{URL: a.URL + "/whoami", User: "X-User", Return: back})
			if err != nil {
				t.Fatal(err)
			}
			cfg.Methods = []issuer.LoginMethod{{Name: "token", Label: "By token", App: token}, {Name: "forward", Label: "By asking", App: forward}}
			cfg.Events = []issuer.EventSource{{Scheme: issuer.EventsHMAC, UsersOf: usersOf, Secrets: [][]byte{[]byte(eventSecret)}, SignatureHeader: "X-Signature", TimestampHeader: "X-Time"}}
		}))
		by := func(label string, query url.Values) *issuertest.Page {
			b := scene.Browser(t)
			b.SetCookie(appCookie, a.keys.signed(a.claims(func(c map[string]any) { c["email_verified"] = true })))
			b.SetCookie("sid", "session-of-ada")
			return b.Get("/oauth/authorize?" + query.Encode()).Press("Continue with " + label).Follow()
		}
		labels := map[string]string{"ada-1": "By token", "ada": "By asking"}
		for _, name := range []string{c.theirs, c.others} {
			query, verifier := scene.Authorization(issuertest.Public)
			code := by(labels[name], query).Allow().Code()
			scene.Redeem(t, issuertest.Public, code, url.Values{"code_verifier": {verifier}})
		}
		tell(t, scene, "user.disabled", c.others)          // whom the other way names so
		tell(t, scene, "user.disabled", scene.User.ID)     // who has a password
		tell(t, scene, "user.disabled", "ada@app.example") // an id here, and no name there
		tell(t, scene, "user.disabled", issuertest.Public) // a client
		if n := scene.Count(t, `SELECT count(*) FROM gpt_users WHERE disabled_at IS NOT NULL`) + scene.Count(t, `SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NOT NULL`); n != 0 {
			t.Errorf("users of %s: %d are disabled, or sessions ended, of others", usersOf, n)
		}
		tell(t, scene, "user.disabled", c.theirs)
		id := map[string]string{"ada-1": "ada@app.example", "ada": "ada"}[c.theirs]
		if rows := scene.SQL(t, `SELECT u.id FROM gpt_users u WHERE disabled_at IS NOT NULL AND NOT EXISTS (SELECT FROM gpt_logins l WHERE l.user_id = u.id)
			AND EXISTS (SELECT FROM gpt_sessions s WHERE s.user_id = u.id AND s.revoked_at IS NOT NULL)`); len(rows) != 1 || rows[0][0] != id {
			t.Errorf("users of %s: ended %v, want %s", usersOf, rows, id)
		}
		again, _ := scene.Authorization(issuertest.Public)
		if by(labels[c.theirs], again).Has("Allow") {
			t.Errorf("users of %s: who was disabled signs in", usersOf)
		}
		if !by(labels[c.others], again).Has("Allow") {
			t.Errorf("users of %s: the other user does not sign in", usersOf)
		}
	}
}
