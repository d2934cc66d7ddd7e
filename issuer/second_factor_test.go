package issuer_test

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"image/png"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// LOG-20: a user sets up a second factor, and then signs in by both; logins by the
// password alone have ended; the secret is sealed, the recovery codes are hashed.
func TestUserSetsUpASecondFactor(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional), issuertest.With(func(c *issuer.Config) { c.OpenID = true }))
	elsewhere := account(t, scene).Browser()
	a, recovery, shown := enrol(t, scene)
	if len(recovery) != 10 {
		t.Errorf("%d recovery codes", len(recovery))
	}
	if got := elsewhere.Get("/oauth/apps"); got.Heading() != "Sign in" {
		t.Errorf("a login by one factor goes on: %s", got.Heading())
	}
	if p := shown.Browser().Get("/oauth/account"); !strings.Contains(p.Text(), "Recovery codes left 10") {
		t.Errorf("%d %s", p.Status, p.Text())
	}
	claims := idTokenAfter(t, scene, func(p *issuertest.Page) *issuertest.Page {
		return enterCode(p.Press("Sign in", "email", issuertest.Email, "password", issuertest.Password), a.code(t, 0)).Follow()
	})
	if claims["acr"] != scene.URL+"/oauth/login/password+otp" || fmt.Sprint(claims["amr"]) != "[pwd otp mfa]" {
		t.Errorf("acr %v, amr %v", claims["acr"], claims["amr"])
	}
	raw, _ := base32.StdEncoding.DecodeString(a.secret)
	for _, row := range scene.SQL(t, `SELECT sealed FROM gpt_second_factors UNION ALL SELECT digest FROM gpt_recovery_codes`) {
		for _, secret := range append(recovery, string(raw), a.secret) {
			if bytes.Contains(row[0].([]byte), []byte(secret)) {
				t.Error("a secret is stored as it is")
			}
		}
	}
}

// LOG-29, A-26: who has set a second factor up, or added a passkey, goes on under a new
// cookie: one that was stolen before is worth nothing, and does not become the login by
// two factors that this one is now.
func TestLoginIsRenewedWhenAFactorIsSetUp(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys(), secondFactor(issuer.SecondFactorOptional))
	device := scene.Authenticator(t)
	for what, setUp := range map[string]func(*issuertest.Page){
		"a passkey": func(p *issuertest.Page) {
			if p = add(t, p, device, "Phone"); !strings.Contains(p.Text(), "Phone is added.") {
				t.Errorf("%d %s", p.Status, p.Text())
			}
		},
		"a second factor": func(p *issuertest.Page) {
			p = p.Press("Set up a second factor")
			if p = p.Press("Turn it on", "code", scan(t, scene, p).code(t, 0)); p.Heading() != "Keep your recovery codes" {
				t.Errorf("%d %s", p.Status, p.Text())
			}
		},
	} {
		scene.SQL(t, "DELETE FROM gpt_second_factors")
		p := account(t, scene)
		stolen, login := p.Browser().Cookie("oauth_login"), scene.Count(t, "SELECT count(*) FROM gpt_logins")
		setUp(p)
		if got := p.Browser().Get("/oauth/account"); got.Heading() != "How you sign in" || p.Browser().Cookie("oauth_login") == stolen {
			t.Errorf("%s: the user does not go on under a new cookie: %d %s", what, got.Status, got.Heading())
		}
		thief := scene.Browser(t)
		thief.SetCookie("oauth_login", stolen)
		if got := thief.Get("/oauth/account"); got.Heading() != "Sign in" {
			t.Errorf("%s: the stolen cookie is of a login: %d %s", what, got.Status, got.Heading())
		}
		if n := scene.Count(t, "SELECT count(*) FROM gpt_logins"); n > login {
			t.Errorf("%s: %d logins in place of %d", what, n, login)
		}
	}
}

// The picture is what the text says, and comes from nowhere else.
func TestSecondFactorIsDrawnInThePage(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	p := account(t, scene).Press("Set up a second factor")
	_, data, found := strings.Cut(p.Body, `src="data:image/png;base64,`)
	data, _, _ = strings.Cut(data, `"`)
	raw, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(data, "&#43;", "+"))
	if err != nil || !found {
		t.Fatalf("no picture: %v", err)
	}
	if picture, err := png.Decode(bytes.NewReader(raw)); err != nil || picture.Bounds().Dx() != 240 {
		t.Errorf("%v", err)
	}
	if policy := p.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "img-src data:") || strings.Contains(policy, "script") {
		t.Error(policy)
	}
}

// LOG-24, A-33: no order of steps leads past the second factor.
func TestNothingIsAllowedBeforeTheSecondFactor(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	a, _, _ := enrol(t, scene)
	p := askedForCode(t, scene)
	_, form := p.Form("Continue")
	signInAgain := func(what string, got *issuertest.Page) {
		t.Helper()
		if got.Heading() != "Sign in" || got.Browser().Cookie("oauth_login") != "" {
			t.Errorf("%s: %d %s %s", what, got.Status, got.Location(), got.Heading())
		}
	}
	signInAgain("consent", p.Browser().Get("/oauth/consent?"+url.Values{"request": form["request"]}.Encode()))
	signInAgain("the account page", p.Browser().Get("/oauth/account"))
	signInAgain("a broken enrolment in its place", p.Browser().Post("/oauth/second_factor", url.Values{"request": form["request"], "pending": {"x"}, "enrolment": {"x"}}))
	other := askedForCode(t, scene)
	_, others := other.Form("Continue")
	signInAgain("the password of another request", p.Press("Continue", "pending", others.Get("pending"), "code", a.code(t, 0)))
	foreign := scene.Browser(t).Post("/oauth/second_factor", url.Values{"request": form["request"], "pending": form["pending"], "code": {a.code(t, 0)}})
	if foreign.Status == http.StatusSeeOther || foreign.Browser().Cookie("oauth_login") != "" {
		t.Errorf("another browser: %d", foreign.Status)
	}
	scene.Clock.Advance(5*time.Minute + time.Second)
	signInAgain("too late", enterCode(p, a.code(t, 0)))
	p = askedForCode(t, scene)
	if err := scene.Store.SetPassword(context.Background(), issuertest.Email, "x", issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
	signInAgain("the password was changed", enterCode(p, a.code(t, 0)))
}

// LOG-24: nor does a secret of one's own in place of the user's, nor one that is of
// another user, too old, or something else that we have sealed.
func TestSecondFactorIsNotReplacedByAnother(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	open := account(t, scene).Press("Set up a second factor")
	own := scan(t, scene, open)
	_, offered := open.Form("Turn it on")
	enrol(t, scene)
	p := askedForCode(t, scene)
	_, half := p.Form("Continue")
	post := func(what, enrolment, code string) {
		t.Helper()
		got := p.Browser().Post("/oauth/second_factor", url.Values{"request": half["request"], "pending": half["pending"], "enrolment": {enrolment}, "code": {code}}).Follow()
		if got.Heading() != "Sign in" || got.Browser().Cookie("oauth_login") != "" {
			t.Errorf("%s: %d %s %s", what, got.Status, got.Location(), got.Heading())
		}
	}
	before := scene.SQL(t, `SELECT sealed FROM gpt_second_factors`)[0][0].([]byte)
	post("another secret", offered.Get("enrolment"), own.code(t, 0))
	if after := scene.SQL(t, `SELECT sealed FROM gpt_second_factors`)[0][0].([]byte); !bytes.Equal(before, after) || scene.Count(t, `SELECT count(*) FROM gpt_recovery_codes`) != 10 {
		t.Error("the second factor is another")
	}
	scene.SQL(t, `DELETE FROM gpt_second_factors`)
	post("what is pending, as a secret", half.Get("pending"), "000000")
	if _, err := scene.Store.CreateUser(context.Background(), "eve@example.com", scene.SQL(t, `SELECT password_hash FROM gpt_users`)[0][0].(string), issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
	eve := scene.Browser(t).Get("/oauth/account").Press("Sign in", "email", "eve@example.com", "password", issuertest.Password).Follow().Follow()
	_, hers := eve.Press("Set up a second factor").Form("Turn it on")
	changed := func(what string, got *issuertest.Page) {
		t.Helper()
		if scene.Count(t, `SELECT count(*) FROM gpt_second_factors`) != 0 {
			t.Errorf("%s: %d %s", what, got.Status, got.Text())
		}
	}
	hers.Set("enrolment", offered.Get("enrolment"))
	hers.Set("code", own.code(t, 0))
	changed("of another user", eve.Browser().Post("/oauth/account", hers))
	p = account(t, scene).Press("Set up a second factor")
	slow := scan(t, scene, p)
	scene.Clock.Advance(10*time.Minute + time.Second)
	changed("too old", p.Press("Turn it on", "code", slow.code(t, 0)))
}

// LOG-25: where everybody needs one, the password alone signs nobody in.
func TestRequiredSecondFactorIsSetUpAtSignIn(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorRequired))
	if _, err := scene.Store.CreateLogin(context.Background(), issuer.Digest{1}, scene.User.ID, "password", time.Hour, issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
	p := scene.Browser(t).Authorize(issuertest.Confidential).Press("Sign in", "email", issuertest.Email, "password", issuertest.Password)
	a := scan(t, scene, p)
	if p.Browser().Cookie("oauth_login") != "" {
		t.Error("signed in by the password alone")
	}
	wrong := p.Press("Turn it on", "code", a.wrong(t))
	if wrong.Status != http.StatusOK || !strings.Contains(wrong.Text(), "not right") || scan(t, scene, wrong) != a {
		t.Errorf("a wrong code: %d %s", wrong.Status, wrong.Text())
	}
	shown := wrong.Press("Turn it on", "code", a.code(t, 0))
	if len(codesOnPage.FindAllString(shown.Text(), -1)) != 10 {
		t.Fatal(shown.Text())
	}
	shown.Browser().Get(shown.Link("I have kept them; go on")).Allow().Code()
	got := shown.Browser().Get("/oauth/account")
	_, form := got.Form("Make new recovery codes")
	form.Set("factor", "remove")
	if answer := got.Browser().Post("/oauth/account", form); got.Has("Remove the second factor") || answer.Status != http.StatusBadRequest || scene.Count(t, `SELECT count(*) FROM gpt_second_factors`) != 1 {
		t.Errorf("it can be removed: %d", answer.Status)
	}
	scene.Clock.Advance(30 * time.Second)
	enterCode(askedForCode(t, scene), a.code(t, 0)).Follow().Allow().Code()
}

// A login from before the second factor became required counts no more.
func TestPasswordAloneIsNoLoginWhereTwoAreRequired(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorRequired), issuertest.Passkeys())
	p := scene.Browser(t).Authorize(issuertest.Confidential).Press("Sign in", "email", issuertest.Email, "password", issuertest.Password)
	a := scan(t, scene, p)
	shown := p.Press("Turn it on", "code", a.code(t, 0))
	key := scene.Authenticator(t)
	add(t, shown.Browser().Get("/oauth/account"), key, "key")
	use(t, scene.Browser(t).Authorize(issuertest.Confidential), key).Follow().Allow().Code() // two factors in one
	scene.SQL(t, `UPDATE gpt_logins SET method = 'password'`)
	if got := shown.Browser().Get("/oauth/apps"); got.Heading() != "Sign in" {
		t.Errorf("%d %s", got.Status, got.Heading())
	}
}

// LOG-25, A-33: nor where the user has one: logins made while `totp` was off, by a node that
// has not heard of it, or while the factor was being set up.
func TestPasswordAloneIsNoLoginOfWhoHasTwo(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	before := account(t, scene).Browser()
	scene.SQL(t, `INSERT INTO gpt_second_factors (user_id, sealed, last_step) VALUES ($1, 'x', 0)`, scene.User.ID)
	for _, path := range []string{"/oauth/account", "/oauth/apps"} {
		if got := before.Get(path); got.Heading() != "Sign in" {
			t.Errorf("%s: %d %s", path, got.Status, got.Heading())
		}
	}
	if got := before.Authorize(issuertest.Confidential); got.Heading() != "Sign in" {
		t.Errorf("authorize: %d %s", got.Status, got.Heading())
	}
	if got := before.Authorize(issuertest.Confidential, issuertest.Set("prompt", "none")); got.Heading() == "Sign in" || strings.Contains(got.Location(), "code=") {
		t.Errorf("prompt=none: %d %s", got.Status, got.Location())
	}
	scene.SQL(t, `DELETE FROM gpt_second_factors`)
	if got := before.Get("/oauth/account"); got.Heading() == "Sign in" {
		t.Error("who has no second factor has to sign in again")
	}
}

// LOG-26: who removes it signs in by the password again; a reset link removes it for
// who has lost the device.
func TestSecondFactorIsRemoved(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	_, _, shown := enrol(t, scene)
	p := shown.Browser().Get("/oauth/account")
	_, form := p.Form("Remove the second factor")
	form.Set("csrf", "x")
	if got := p.Browser().Post("/oauth/account", form); got.Status != http.StatusForbidden {
		t.Errorf("by a form that is not ours: %d", got.Status)
	}
	scene.SQL(t, `UPDATE gpt_logins SET auth_time = auth_time - interval '16 minutes'`)
	for _, button := range []string{"Remove the second factor", "Make new recovery codes"} {
		if got := p.Press(button); got.Heading() != "Sign in again" || scene.Count(t, `SELECT count(*) FROM gpt_recovery_codes`) != 10 {
			t.Errorf("signed in long ago: %s: %d %s", button, got.Status, got.Heading())
		}
	}
	scene.SQL(t, `UPDATE gpt_logins SET auth_time = auth_time + interval '16 minutes'`)
	removed := p.Press("Remove the second factor").Follow()
	if !strings.Contains(removed.Text(), "The second factor is removed.") {
		t.Fatal(removed.Text())
	}
	scene.Browser(t).Authorize(issuertest.Confidential).SignIn().Allow().Code()
	enrol(t, scene)
	setPassword(scene.Browser(t).Get(resetLink(t, scene, issuer.Reset{})), issuertest.Password)
	askedForCode(t, scene)
	setPassword(scene.Browser(t).Get(resetLink(t, scene, issuer.Reset{RemoveFactors: true})), issuertest.Password)
	scene.Browser(t).Authorize(issuertest.Confidential).SignIn().Allow().Code()
}

// LOG-27: a secret that was sealed under an old root secret works, and is sealed anew
// when it is used; that of another user does not pass.
func TestSecondFactorFollowsTheRootSecret(t *testing.T) {
	t.Parallel()
	renewed, err := issuer.NewRootSecrets([]byte("the next root secret, of more than thirty-two bytes"), []byte("a root secret of at least thirty-two bytes"))
	if err != nil {
		t.Fatal(err)
	}
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	a, _, _ := enrol(t, scene)
	before := scene.SQL(t, `SELECT sealed FROM gpt_second_factors`)[0][0].([]byte)
	next := issuertest.New(t, secondFactor(issuer.SecondFactorOptional), issuertest.With(func(c *issuer.Config) { c.Secrets = renewed }))
	next.SQL(t, `UPDATE gpt_users SET id = $1`, scene.User.ID)
	next.SQL(t, `INSERT INTO gpt_second_factors (user_id, sealed, last_step) VALUES ($1, $2, 0)`, scene.User.ID, before)
	enterCode(askedForCode(t, next), app{next, a.secret}.code(t, 0)).Follow().Allow().Code()
	if after := next.SQL(t, `SELECT sealed FROM gpt_second_factors`)[0][0].([]byte); bytes.Equal(before[:4], after[:4]) {
		t.Error("it is sealed under the old secret still")
	}
	// Moved to another user's row.
	other := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	other.SQL(t, `INSERT INTO gpt_second_factors (user_id, sealed, last_step) VALUES ($1, $2, 0)`, other.User.ID, before)
	wantRefusedCode(t, "another user's secret", enterCode(askedForCode(t, other), app{other, a.secret}.code(t, 0)))
}
