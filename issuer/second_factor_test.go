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
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// secondFactor sets how the users of a scene sign in.
func secondFactor(mode issuer.SecondFactorMode) issuertest.Option {
	return issuertest.With(func(c *issuer.Config) { c.SecondFactor = mode })
}

// app is an authenticator app, by the clock of the scene.
type app struct {
	scene  *issuertest.Scene
	secret string
}

func (a app) code(t *testing.T, later time.Duration) string {
	t.Helper()
	code, err := totp.GenerateCode(a.secret, a.scene.Clock.Now().Add(later))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// wrong is a code that is none of those that count now.
func (a app) wrong(t *testing.T) string {
	t.Helper()
	for n := range 10 {
		guess := fmt.Sprintf("%06d", n)
		if guess != a.code(t, -30*time.Second) && guess != a.code(t, 0) && guess != a.code(t, 30*time.Second) {
			return guess
		}
	}
	return "none"
}

var (
	secretOnPage = regexp.MustCompile(`(?:[A-Z2-7]{4} ){7}[A-Z2-7]{4}`)
	codesOnPage  = regexp.MustCompile(`[A-Z2-7]{4}(?:-[A-Z2-7]{4}){3}`)
)

// scan reads the secret of the page that sets a second factor up.
func scan(t *testing.T, scene *issuertest.Scene, p *issuertest.Page) app {
	t.Helper()
	secret := strings.ReplaceAll(secretOnPage.FindString(p.Text()), " ", "")
	if p.Heading() != "Set up a second factor" || secret == "" {
		t.Fatalf("%d %s", p.Status, p.Text())
	}
	return app{scene, secret}
}

// enrol sets up ada's second factor on the account page, and lets half a minute pass,
// so that the next code is a new one.
func enrol(t *testing.T, scene *issuertest.Scene) (a app, recovery []string, shown *issuertest.Page) {
	t.Helper()
	p := account(t, scene).Press("Set up a second factor")
	a = scan(t, scene, p)
	shown = p.Press("Turn it on", "code", a.code(t, 0))
	if shown.Heading() != "Keep your recovery codes" {
		t.Fatalf("%d %s", shown.Status, shown.Text())
	}
	scene.Clock.Advance(30 * time.Second)
	return a, codesOnPage.FindAllString(shown.Text(), -1), shown
}

// askedForCode signs in with the password in a new browser.
func askedForCode(t *testing.T, scene *issuertest.Scene, params ...issuertest.Param) *issuertest.Page {
	t.Helper()
	p := scene.Browser(t).Authorize(issuertest.Confidential, params...).Press("Sign in", "email", issuertest.Email, "password", issuertest.Password)
	if p.Heading() != "Enter the code" || p.Browser().Cookie("oauth_login") != "" {
		t.Fatalf("%d %s: %s", p.Status, p.Location(), p.Text())
	}
	return p
}

func enterCode(p *issuertest.Page, code string) *issuertest.Page {
	return p.Press("Continue", "code", code)
}

func wantRefusedCode(t *testing.T, what string, got *issuertest.Page) {
	t.Helper()
	if got.Status != http.StatusOK || got.Heading() != "Enter the code" || !strings.Contains(got.Text(), "not right, or was used before") || got.Browser().Cookie("oauth_login") != "" {
		t.Errorf("%s: %d %s %s", what, got.Status, got.Location(), got.Text())
	}
}

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

// LOG-21: a code counts once, and those before it not any more; on whichever node,
// and of many at once one.
func TestCodeCountsOnce(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	a, _, _ := enrol(t, scene)
	wantRefusedCode(t, "the code that set it up", enterCode(askedForCode(t, scene), a.code(t, -30*time.Second)))
	code := a.code(t, 0)
	enterCode(askedForCode(t, scene), code).Follow().Allow().Code()
	wantRefusedCode(t, "the same code again", enterCode(askedForCode(t, scene), code))

	scene.Clock.Advance(time.Minute)
	code = a.code(t, 0)
	var wg sync.WaitGroup
	entered := make(chan bool, 4)
	for range cap(entered) {
		p := askedForCode(t, scene)
		wg.Go(func() { entered <- enterCode(p, code).Status == http.StatusSeeOther })
	}
	wg.Wait()
	close(entered)
	n := 0
	for in := range entered {
		if in {
			n++
		}
	}
	if n != 1 {
		t.Errorf("one code signed in %d times", n)
	}
	for what, later := range map[string]time.Duration{"long ago": -90 * time.Second, "not yet": 90 * time.Second} {
		wantRefusedCode(t, what, enterCode(askedForCode(t, scene), a.code(t, later)))
	}
}

// LOG-22: a recovery code stands in once, in any spelling.
func TestRecoveryCodeCountsOnce(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	_, recovery, _ := enrol(t, scene)
	p := enterCode(askedForCode(t, scene), " "+strings.ToLower(strings.ReplaceAll(recovery[3], "-", ""))).Follow()
	p.Allow().Code()
	wantRefusedCode(t, "the same again", enterCode(askedForCode(t, scene), recovery[3]))
	page := p.Browser().Get("/oauth/account")
	if !strings.Contains(page.Text(), "Recovery codes left 9") {
		t.Error(page.Text())
	}
	renewed := codesOnPage.FindAllString(page.Press("Make new recovery codes").Text(), -1)
	wantRefusedCode(t, "one of before", enterCode(askedForCode(t, scene), recovery[4]))
	enterCode(askedForCode(t, scene), renewed[0]).Follow().Allow().Code()
}

// LOG-23, A-32: the sixth wrong code of an address waits, also in parallel and after
// a new sign-in; and the eleventh of a user, from wherever.
func TestCodesCannotBeGuessed(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	a, _, _ := enrol(t, scene)
	var wg sync.WaitGroup
	refused := make(chan bool, 8)
	for range cap(refused) {
		p := askedForCode(t, scene)
		wg.Go(func() { refused <- enterCode(p, a.wrong(t)).Status == http.StatusTooManyRequests })
	}
	wg.Wait()
	close(refused)
	n := 0
	for r := range refused {
		if r {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d of 8 wrong codes were told to wait, want 3", n)
	}
	if got := enterCode(askedForCode(t, scene), a.code(t, 0)); got.Status != http.StatusTooManyRequests || got.Header.Get("Retry-After") == "" {
		t.Errorf("the right code, at once: %d", got.Status)
	}
	scene.Clock.Advance(5*time.Minute + time.Second)
	scene.SQL(t, `UPDATE gpt_second_factors SET attempts = 10`) // as if other nodes had counted
	if got := enterCode(askedForCode(t, scene), a.code(t, 0)); got.Status != http.StatusTooManyRequests || !strings.Contains(got.Text(), "none is looked at for 15 minutes") {
		t.Errorf("the eleventh of the user: %d %s", got.Status, got.Text())
	}
	scene.SQL(t, `UPDATE gpt_second_factors SET attempts_since = now() - interval '16 minutes'`)
	enterCode(askedForCode(t, scene), a.code(t, 0)).Follow().Allow().Code()
	if n := scene.Count(t, `SELECT attempts FROM gpt_second_factors`); n != 0 {
		t.Errorf("%d attempts are left after a right code", n)
	}
}

// LOG-28: thirty codes a day, and no more, whoever tries them; the page says what to do,
// and none of the ways around the codes is closed by a stranger who tries: a recovery
// code, a passkey, a link that removes the factor.
func TestPatienceDoesNotGuessACode(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys(), secondFactor(issuer.SecondFactorOptional))
	device := scene.Authenticator(t)
	add(t, account(t, scene), device, "Phone")
	a, recovery, _ := enrol(t, scene)
	for range 6 {
		p := askedForCode(t, scene)
		for range 5 {
			if got := enterCode(p, a.wrong(t)); got.Status != http.StatusOK {
				t.Fatalf("%d %s", got.Status, got.Text())
			}
		}
		scene.Clock.Advance(5*time.Minute + time.Second) // five are those of an address
		scene.SQL(t, `UPDATE gpt_second_factors SET attempts_since = now() - interval '16 minutes'`)
	}
	got := enterCode(askedForCode(t, scene), a.code(t, 0))
	wait, err := strconv.Atoi(got.Header.Get("Retry-After"))
	if got.Status != http.StatusTooManyRequests || err != nil || wait < 23*60*60 || wait > 24*60*60 || !strings.Contains(got.Text(), "none is looked at for 24 hours. One of your recovery codes signs you in all the same") {
		t.Errorf("the right code, as the thirty-first: %d, again in %q s: %s", got.Status, got.Header.Get("Retry-After"), got.Text())
	}
	enterCode(askedForCode(t, scene), recovery[0]).Follow().Allow().Code()
	if got := enterCode(askedForCode(t, scene), a.code(t, 0)); got.Status != http.StatusTooManyRequests {
		t.Errorf("a recovery code gave a day's attempts back: %d", got.Status)
	}
	use(t, scene.Browser(t).Authorize(issuertest.Confidential), device).Follow().Allow().Code()
	scene.SQL(t, `UPDATE gpt_second_factors SET day_since = now() - interval '25 hours'`)
	enterCode(askedForCode(t, scene), a.code(t, 0)).Follow().Allow().Code()
	if n := scene.Count(t, `SELECT day_attempts FROM gpt_second_factors`); n != 0 {
		t.Errorf("a right code counts as a wrong one: %d", n)
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
