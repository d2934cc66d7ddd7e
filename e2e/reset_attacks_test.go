package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/mail"
	"net/textproto"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

// postOffice takes mails in by SMTP (RFC 5321), and shows their texts.
type postOffice struct {
	address string
	mails   chan string
	close   func()
}

func newPostOffice(t *testing.T) *postOffice {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &postOffice{address: l.Addr().String(), mails: make(chan string, 8), close: func() { _ = l.Close() }}
	t.Cleanup(o.close)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go o.serve(conn)
		}
	}()
	return o
}

func (o *postOffice) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in, say := textproto.NewReader(bufio.NewReader(conn)), func(line string) { _, _ = fmt.Fprint(conn, line+"\r\n") }
	say("220 post office")
	for {
		line, err := in.ReadLine()
		if err != nil {
			return
		}
		switch command, _, _ := strings.Cut(strings.ToUpper(line), " "); command {
		case "DATA":
			say("354 go on")
			message, err := mail.ReadMessage(in.DotReader())
			if err != nil {
				return
			}
			text := new(strings.Builder)
			_, _ = bufio.NewReader(message.Body).WriteTo(text)
			o.mails <- strings.ReplaceAll(text.String(), "=\r\n", "")
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 yes")
		}
	}
}

var resetLink = regexp.MustCompile(`http://localhost:\d+/oauth/reset\?token=(?:3D)?([\w-]+)`)

// link reads the mail that comes next.
func (o *postOffice) link(t *testing.T, base string) string {
	t.Helper()
	select {
	case text := <-o.mails:
		return linkIn(t, base, text)
	case <-time.After(30 * time.Second):
		t.Fatal("no mail came")
		return ""
	}
}

func linkIn(t *testing.T, base, text string) string {
	t.Helper()
	token := resetLink.FindStringSubmatch(strings.ReplaceAll(text, "=\n", ""))
	if token == nil {
		t.Fatalf("no link: %s", text)
	}
	return base + "/oauth/reset?token=" + token[1]
}

// LOG-30: a link to a new password, from `caddy oauth user reset` and by mail,
// against what may happen on its way, in Chromium. It holds in any browser: whoever
// reads the mail elsewhere must get on.
func TestNothingOnTheWayToANewPasswordTakesTheAccount(t *testing.T) {
	office := newPostOffice(t)
	sc := newSceneWith(t, sceneConfig{Login: `login password {
			smtp ` + office.address + ` {
				from "Jobs <no-reply@example.com>"
				tls  off
			}
		}`})
	s := &site{Base: sc.Base, chromium: newChromiumFor(t, 10*time.Minute), sql: sc.sql, count: sc.count, now: time.Now}
	fields := func(v *visitor, chosen string) {
		v.do(chromedp.WaitVisible(field("New password")), chromedp.SetValue(field("New password"), chosen), chromedp.SetValue(field("New password again"), chosen))
	}
	press := chromedp.Click(button("Change the password"))
	gone, done := "This link does not work any more", "Your password is changed"

	for name, begin := range map[string]func(*testing.T) string{
		"by command": func(t *testing.T) string {
			reset := exec.CommandContext(t.Context(), cluster.Binary(t), "oauth", "user", "reset", email, "--config", sc.Caddyfile, "--adapter", "caddyfile")
			reset.Env = sc.env()
			out, err := reset.Output()
			if err != nil {
				t.Fatalf("caddy oauth user reset: %v", err)
			}
			return linkIn(t, s.Base, string(out))
		},
		"by mail": func(t *testing.T) string {
			v := s.visitor(t)
			v.do(chromedp.Navigate(s.Base+"/oauth/forgot"), chromedp.WaitVisible(field("Email")), chromedp.SendKeys(field("Email"), email), chromedp.Click(button("Send the link")))
			return office.link(t, s.Base)
		},
	} {
		t.Run(name, func(t *testing.T) {
			link := begin(t)

			// Planted before: the cookie of a login is worth nothing after. Two tabs at once:
			// one changes the password. Back button, and the link once more: nothing.
			v, thief := s.visitor(t), s.visitor(t)
			thief.do(chromedp.Navigate(s.Base + "/oauth/apps"))
			thief.types(email)
			thief.do(chromedp.Click(button("Sign in")), chromedp.WaitVisible(button("Not you? Sign out")))
			v.plants(thief.login())
			v.do(chromedp.Navigate(link))
			other := v.another()
			other.do(chromedp.Navigate(link))
			fields(v, password)
			fields(other, "the password of the other tab")
			v.do(press)
			v.reads(done)
			v.wantLogins(0)
			if v.login() != "" {
				t.Error("the planted cookie is still there")
			}
			other.do(press)
			other.reads(gone)
			v.do(chromedp.NavigateBack())
			v.reads(gone)
			thief.do(chromedp.Navigate(s.Base+"/oauth/apps"), chromedp.WaitVisible(field("Password")))

			// Expired, while the form is filled in.
			sc.sql(`DELETE FROM gpt_password_resets`)
			late := s.visitor(t)
			late.do(chromedp.Navigate(begin(t)))
			fields(late, "a password that comes late")
			sc.sql(`UPDATE gpt_password_resets SET expires_at = now()`)
			late.do(press)
			late.reads(gone)

			// What counts is what was chosen in time.
			late.do(chromedp.Navigate(s.Base + "/oauth/apps"))
			late.types(email)
			late.do(chromedp.Click(button("Sign in")), chromedp.WaitVisible(button("Not you? Sign out")))
		})
	}

	t.Run("mail server down", func(t *testing.T) {
		office.close()
		v := s.visitor(t)
		v.do(chromedp.Navigate(s.Base+"/oauth/forgot"), chromedp.WaitVisible(field("Email")), chromedp.SendKeys(field("Email"), email), chromedp.Click(button("Send the link")))
		v.reads("a link")
		eventually(t, "the log says that nothing was mailed", func() bool {
			return strings.Contains(sc.Log.String(), "password reset not mailed: see to the mail server")
		})
	})
}
