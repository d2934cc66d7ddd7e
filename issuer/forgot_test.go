package issuer_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

const forgotPath = "/oauth/forgot"

// mailbox takes the mails of a server.
type mailbox struct {
	mails chan issuer.Mail
	err   error         // the mail server's answer
	hold  chan struct{} // if set, it answers when this is closed

	busy, most atomic.Int32 // mails that are being taken now, and were at most
}

func newMailbox() *mailbox { return &mailbox{mails: make(chan issuer.Mail, 200)} }

func (b *mailbox) send(ctx context.Context, mail issuer.Mail) error {
	for now := b.busy.Add(1); ; {
		if most := b.most.Load(); now <= most || b.most.CompareAndSwap(most, now) {
			break
		}
	}
	defer b.busy.Add(-1)
	b.mails <- mail
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-ctx.Done():
		}
	}
	return b.err
}

func (b *mailbox) next(t *testing.T) issuer.Mail {
	t.Helper()
	select {
	case mail := <-b.mails:
		return mail
	case <-time.After(30 * time.Second):
		t.Fatal("no mail came")
		return issuer.Mail{}
	}
}

// mailing is a scene whose users get mails.
func mailing(t *testing.T, box *mailbox, opts ...issuertest.Option) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, append(opts, issuertest.With(func(c *issuer.Config) { c.SendMail = box.send }))...)
}

// logged waits until the log has n lines that begin with message.
func logged(t *testing.T, scene *issuertest.Scene, message string, n int) {
	t.Helper()
	var got int
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		got = 0
		for _, line := range scene.Logs.All() {
			if strings.HasPrefix(line.Message, message) {
				got++
			}
		}
		if got == n {
			return
		}
	}
	t.Fatalf("the log has %d times %q, want %d", got, message, n)
}

var resetAddress = regexp.MustCompile(`https?://\S+/oauth/reset\?token=([\w-]+)`)

// LOG-13: who has forgotten the password gets a mail, in the language of the page,
// with a link that works once, and what was asked for is not in the log.
func TestForgottenPasswordIsResetByMail(t *testing.T) {
	t.Parallel()
	box := newMailbox()
	scene := mailing(t, box)
	p := scene.Browser(t).Get(scene.Browser(t).Authorize(issuertest.Confidential).Link("Forgot your password?"))
	p.WantPage(http.StatusOK, "Forgot your password?")
	p.Press("Send the link", "email", " ADA@example.com").WantPage(http.StatusOK, "Look at your mail")
	mail := box.next(t)
	if mail.To != issuertest.Email || !strings.HasPrefix(mail.Subject, "A new password for ") || !strings.Contains(mail.Text, "within 30 minutes") || !strings.Contains(mail.Text, "If it was not you, do nothing") {
		t.Errorf("%+v", mail)
	}
	link := resetAddress.FindStringSubmatch(mail.Text)
	if link == nil || !strings.HasPrefix(link[0], scene.URL) {
		t.Fatal(mail.Text)
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_password_resets WHERE expires_at BETWEEN now() + interval '25 minutes' AND now() + interval '30 minutes' AND NOT ends_sessions AND NOT removes_factors`); n != 1 {
		t.Errorf("%d links", n)
	}
	setPassword(scene.Browser(t).Get(link[0]), newPassword).WantPage(http.StatusOK, "Your password is changed")
	if got := scene.Browser(t).Get(link[0]); got.Status != http.StatusBadRequest {
		t.Errorf("the link again: %d", got.Status)
	}
	scene.Browser(t).Authorize(issuertest.Confidential).Press("Sign in", "email", issuertest.Email, "password", newPassword).Follow().Allow().Code()

	german := scene.Browser(t)
	german.Header.Set("Accept-Language", "de")
	german.Get(forgotPath).Press("Link senden", "email", issuertest.Email).WantPage(http.StatusOK, "Sehen Sie in Ihre E-Mails")
	if mail := box.next(t); !strings.HasPrefix(mail.Subject, "Ein neues Passwort für ") || !strings.Contains(mail.Text, "innerhalb von 30 Minuten") {
		t.Errorf("%+v", mail)
	}
	logged(t, scene, "password reset mailed", 2)
	for _, line := range scene.Logs.All() {
		if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, link[1]) {
			t.Errorf("the log has the token: %s", text)
		}
	}
}

// LOG-14: the answer is the same, byte for byte and before anybody is looked for,
// whether there is such a user, there is none, or none can be written to; mails go
// to users alone.
func TestForgottenPasswordTellsNobodyWhoHasAnAccount(t *testing.T) {
	t.Parallel()
	box := newMailbox()
	box.hold = make(chan struct{}) // a mail server that does not answer holds up no page
	scene := mailing(t, box)
	hash := scene.SQL(t, "SELECT password_hash FROM gpt_users")[0][0].(string)
	if _, err := scene.Store.CreateUser(t.Context(), "gone@example.com", hash, issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
	if err := scene.Store.DisableUser(t.Context(), "gone@example.com", issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
	form := scene.Browser(t).Get(forgotPath)
	ask := func(email string) *issuertest.Page { return form.Press("Send the link", "email", email) }
	known := ask(issuertest.Email)
	known.WantPage(http.StatusOK, "Look at your mail")
	for name, email := range map[string]string{"unknown": "nobody@example.com", "disabled": "gone@example.com", "known again": issuertest.Email} {
		got := ask(email)
		known.Header.Del("Date")
		got.Header.Del("Date")
		if got.Status != known.Status || got.Body != known.Body || fmt.Sprint(got.Header) != fmt.Sprint(known.Header) {
			t.Errorf("%s: %d %v %s", name, got.Status, got.Header, got.Text())
		}
	}
	logged(t, scene, "password reset asked for nobody", 2)
	close(box.hold)
	logged(t, scene, "password reset mailed", 2)
	close(box.mails)
	for mail := range box.mails {
		if mail.To != issuertest.Email {
			t.Errorf("a mail to %s", mail.To)
		}
	}

	// The database is away: the page does not know of it.
	scene.SQL(t, "ALTER TABLE gpt_password_resets RENAME TO away")
	if got := ask("other@example.com"); got.Status != known.Status || got.Body != known.Body {
		t.Errorf("without a database: %d %s", got.Status, got.Text())
	}
	logged(t, scene, "password reset not mailed: the database did not answer", 1)
}

// LOG-15: three mails an hour for one account, ten questions from one network, and a
// bounded number that waits; who has an account is told by none of it.
func TestForgottenPasswordMailsAreBounded(t *testing.T) {
	t.Parallel()
	box := newMailbox()
	box.hold = make(chan struct{})
	var network atomic.Uint32
	scene := mailing(t, box, issuertest.With(func(c *issuer.Config) {
		c.ClientAddress = func(*http.Request) netip.Addr {
			n := network.Load()
			return netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
		}
	}))
	form := scene.Browser(t).Get(forgotPath)
	ask := func(email string) *issuertest.Page { return form.Press("Send the link", "email", email) }

	for range 10 {
		ask(issuertest.Email).WantPage(http.StatusOK, "Look at your mail")
	}
	logged(t, scene, "password reset not mailed: asked for too often for one account", 7)
	for _, email := range []string{issuertest.Email, "nobody@example.com"} {
		if got := ask(email); got.Status != http.StatusTooManyRequests || got.Header.Get("Retry-After") != "3600" {
			t.Errorf("the eleventh from one network, of %s: %d %v", email, got.Status, got.Header)
		}
	}
	for range 3 {
		box.next(t)
	}

	hash := scene.SQL(t, "SELECT password_hash FROM gpt_users")[0][0].(string)
	if _, err := scene.Store.CreateUser(t.Context(), "bob@example.com", hash, issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
	network.Add(1)
	ask("bob@example.com")
	box.next(t) // four are being sent, and the rest waits
	for n := range 64 {
		if n%10 == 0 {
			network.Add(1)
		}
		ask(fmt.Sprintf("user%d@example.com", n)).WantPage(http.StatusOK, "Look at your mail")
	}
	logged(t, scene, "password reset not mailed: too many mails wait", 0)
	ask("late@example.com").WantPage(http.StatusOK, "Look at your mail")
	logged(t, scene, "password reset not mailed: too many mails wait", 1)
	close(box.hold)
	logged(t, scene, "password reset asked for nobody", 64)
	scene.Clock.Advance(time.Hour)
	ask(issuertest.Email).WantPage(http.StatusOK, "Look at your mail")
	if mail := box.next(t); mail.To != issuertest.Email {
		t.Errorf("an hour later: %+v", mail)
	}
}

// LOG-14, LOG-15: mails go out behind the answer, four at once, in turn: the page waits
// for no mail server, and a mail server has no flood of ours.
func TestForgottenPasswordMailsGoOutBehindTheAnswer(t *testing.T) {
	t.Parallel()
	box := newMailbox()
	box.hold = make(chan struct{})
	scene := mailing(t, box)
	hash := scene.SQL(t, "SELECT password_hash FROM gpt_users")[0][0].(string)
	form, answered := scene.Browser(t).Get(forgotPath), make(chan struct{})
	for n := range 9 {
		if _, err := scene.Store.CreateUser(t.Context(), fmt.Sprintf("user%d@example.com", n), hash, issuer.Origin{}); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(answered)
		for n := range 9 {
			form.Press("Send the link", "email", fmt.Sprintf("user%d@example.com", n)).WantPage(http.StatusOK, "Look at your mail")
		}
	}()
	select {
	case <-answered:
	case <-time.After(30 * time.Second):
		t.Fatal("the page waits for the mail server")
	}
	for range 4 {
		box.next(t)
	}
	// What nothing keeps back comes now.
	for deadline := time.Now().Add(time.Second); box.most.Load() <= 4 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	close(box.hold)
	for range 5 {
		box.next(t)
	}
	if n := box.most.Load(); n != 4 {
		t.Errorf("%d mails were sent at once", n)
	}
}

// LOG-16: a mail server that is down is said to the log, with what to do.
func TestForgottenPasswordIsLoggedWhenTheMailServerIsDown(t *testing.T) {
	t.Parallel()
	box := newMailbox()
	box.err = errors.New("connection refused")
	scene := mailing(t, box)
	scene.Browser(t).Get(forgotPath).Press("Send the link", "email", issuertest.Email).WantPage(http.StatusOK, "Look at your mail")
	logged(t, scene, "password reset not mailed: see to the mail server; until then caddy oauth user reset makes a link for a user", 1)
	logged(t, scene, "password reset mailed", 0)
	for _, line := range scene.Logs.All() {
		if fields := line.ContextMap(); strings.HasPrefix(line.Message, "password reset not mailed") && (fields["error"] != "connection refused" || fields["request_id"] == "") {
			t.Errorf("%v", fields)
		}
	}
}

// LOG-17: what is not one address, or not our form, asks for nothing; and where no
// mail is sent, there is no such page.
func TestForgottenPasswordTakesOneAddressFromOurForm(t *testing.T) {
	t.Parallel()
	box := newMailbox()
	scene := mailing(t, box)
	form := scene.Browser(t).Get(forgotPath)
	for _, email := range []string{"", "ada", "ada@example.com\r\nBcc: eve@example.com", "ada@example.com, eve@example.com", "ada@example.com\x00", strings.Repeat("a", 250) + "@example.com"} {
		if got := form.Press("Send the link", "email", email); got.Status != http.StatusOK || !strings.Contains(got.Text(), "Enter your email address.") {
			t.Errorf("%q: %d %s", email, got.Status, got.Text())
		}
	}
	foreign := scene.Browser(t)
	foreign.Header.Set("Sec-Fetch-Site", "cross-site")
	if got := foreign.Post(forgotPath, url.Values{"email": {issuertest.Email}}); got.Status != http.StatusForbidden {
		t.Errorf("from another site: %d", got.Status)
	}
	if len(box.mails) != 0 || scene.Count(t, "SELECT count(*) FROM gpt_password_resets") != 0 {
		t.Error("a link was made")
	}

	without := issuertest.New(t)
	if got := without.Browser(t).Get(forgotPath); got.Status != http.StatusNotFound {
		t.Errorf("without mails: %d", got.Status)
	}
	if got := without.Browser(t).Authorize(issuertest.Confidential); strings.Contains(got.Body, "Forgot") {
		t.Error(got.Text())
	}
}
