package caddymodule

import (
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// settings are those of a Caddyfile for the server.
func (s *mailServer) settings() *SMTPSettings {
	return &SMTPSettings{Address: s.address, From: "Jobs & Söhne <no-reply@example.com>", Username: mailUser, Password: mailPassword, TLS: smtpSTARTTLS, CAFile: s.caFile}
}

// sendTo sends a mail by the settings.
func sendTo(t *testing.T, s *SMTPSettings, to string) error {
	t.Helper()
	m, err := s.mailer()
	if err != nil {
		t.Fatal(err)
	}
	return m.send(t.Context(), issuer.Mail{To: to, Subject: "Ein neues Passwort für Jobs", Text: "Öffnen Sie diesen Link:\n\nhttps://api.example.com/oauth/reset?token=" + strings.Repeat("x", 43) + "\n"})
}

// LOG-18: a mail goes out by STARTTLS, by TLS from the first byte, and without TLS to
// this machine alone; as plain text in UTF-8, from the configured sender.
func TestMailsGoOutBySMTP(t *testing.T) {
	for name, c := range map[string]struct {
		server func(*mailServer)
		change func(*SMTPSettings)
		tls    bool
	}{
		"STARTTLS":     {func(*mailServer) {}, func(*SMTPSettings) {}, true},
		"implicit":     {func(s *mailServer) { s.implicit = true }, func(s *SMTPSettings) { s.TLS = smtpImplicit }, true},
		"this machine": {func(s *mailServer) { s.login = false }, func(s *SMTPSettings) { s.TLS, s.Username, s.Password, s.CAFile = smtpPlain, "", "", "" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := newMailServer(t, c.server)
			settings := server.settings()
			c.change(settings)
			if err := sendTo(t, settings, "ada@example.com"); err != nil {
				t.Fatal(err)
			}
			got := <-server.mails
			if got.encrypted != c.tls || got.authorized != c.tls || !strings.HasPrefix(got.from, "FROM:<no-reply@example.com>") || got.to != "TO:<ada@example.com>" {
				t.Errorf("%+v", got)
			}
			header := got.message.Header
			subject, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject"))
			if err != nil || subject != "Ein neues Passwort für Jobs" {
				t.Errorf("subject %q (%v)", subject, err)
			}
			from, err := header.AddressList("From")
			if err != nil || len(from) != 1 || from[0].Name != "Jobs & Söhne" || from[0].Address != "no-reply@example.com" {
				t.Errorf("from %v (%v)", from, err)
			}
			if header.Get("Auto-Submitted") != "auto-generated" || !strings.HasSuffix(header.Get("Message-Id"), "@example.com>") || header.Get("Content-Type") != "text/plain; charset=UTF-8" || header.Get("Date") == "" {
				t.Errorf("%v", header)
			}
			if text := got.text(t); !strings.HasPrefix(text, "Öffnen Sie") || !strings.Contains(text, "?token="+strings.Repeat("x", 43)+"\n") {
				t.Errorf("%q", text)
			}
		})
	}
}

func (m receivedMail) text(t *testing.T) string {
	t.Helper()
	body := m.message.Body
	if m.message.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// LOG-19: no mail, and no password, goes out without the TLS that is asked for, to a
// server for which nobody vouches, or to anything but one address; a server that is
// down or silent is an error, in time. The error names the server and no secret.
func TestMailsThatDoNotGoOut(t *testing.T) {
	for name, c := range map[string]struct {
		server func(*mailServer)
		change func(*SMTPSettings)
		to     string
		want   string
	}{
		"STARTTLS is not offered":      {func(s *mailServer) { s.starttls, s.login = false, false }, func(s *SMTPSettings) { s.Username, s.Password = "", "" }, "", "does not support STARTTLS"},
		"nobody vouches for it":        {func(*mailServer) {}, func(s *SMTPSettings) { s.CAFile = "" }, "", "certificate"},
		"TLS where there is none":      {func(*mailServer) {}, func(s *SMTPSettings) { s.TLS = smtpImplicit }, "", "tls"},
		"a wrong password":             {func(*mailServer) {}, func(s *SMTPSettings) { s.Password = "not-the-password" }, "", "535"},
		"it is down":                   {func(*mailServer) {}, func(s *SMTPSettings) { s.Address = "127.0.0.1:1" }, "", "refused"},
		"it says nothing":              {func(s *mailServer) { s.silent = true }, func(s *SMTPSettings) { s.Timeout = caddy.Duration(300 * time.Millisecond) }, "", "timeout"},
		"two recipients":               {func(*mailServer) {}, func(*SMTPSettings) {}, "ada@example.com, eve@example.com", "recipient"},
		"a header in the recipient":    {func(*mailServer) {}, func(*SMTPSettings) {}, "ada@example.com\r\nBcc: eve@example.com", "recipient"},
		"a command in the recipient":   {func(*mailServer) {}, func(*SMTPSettings) {}, "ada@example.com>\r\nRCPT TO:<eve@example.com", "recipient"},
		"a name around the recipient":  {func(*mailServer) {}, func(*SMTPSettings) {}, "Eve <ada@example.com>", "recipient"},
		"a recipient without a domain": {func(*mailServer) {}, func(*SMTPSettings) {}, "ada", "recipient"},
	} {
		t.Run(name, func(t *testing.T) {
			server := newMailServer(t, c.server)
			settings := server.settings()
			c.change(settings)
			if c.to == "" {
				c.to = "ada@example.com"
			}
			err := sendTo(t, settings, c.to)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "smtp "+settings.Address+": ") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && (settings.Password != "" && strings.Contains(err.Error(), settings.Password) || strings.Contains(err.Error(), "xxxx")) {
				t.Errorf("the error has a secret: %v", err)
			}
			if len(server.mails) != 0 {
				t.Errorf("a mail went out: %+v", <-server.mails)
			}
		})
	}
}

var mailedLink = regexp.MustCompile(`https://api\.example\.com(/oauth/reset\?token=[\w-]+)\n`)

// LOG-13: TestForgottenPasswordIsResetByMailFromCaddy: the words of the Caddyfile, Caddy, Postgres
// and a mail server together; the answer does not tell that there is nobody, or that
// the mail server takes nothing.
func TestForgottenPasswordIsResetByMailFromCaddy(t *testing.T) {
	server := newMailServer(t)
	t.Setenv("SMTP_PASSWORD", mailPassword)
	s := prepareMailScene(t, server)
	post := func(path string, form url.Values) answer {
		body := form.Encode()
		return s.exact(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body))
	}
	ask := func(email string) answer { return post("/oauth/forgot", url.Values{"email": {email}}) }

	first := ask("ada@example.com")
	if first.status != http.StatusOK || !strings.Contains(first.body, "Look at your mail") {
		t.Fatalf("%d %s", first.status, first.body)
	}
	if got := ask("nobody@example.com"); got.status != first.status || got.body != first.body {
		t.Errorf("of nobody: %d %s", got.status, got.body)
	}
	var mail receivedMail
	select {
	case mail = <-server.mails:
	case <-time.After(30 * time.Second):
		t.Fatal("no mail came")
	}
	link := mailedLink.FindStringSubmatch(mail.text(t))
	if link == nil || !mail.encrypted || mail.to != "TO:<ada@example.com>" {
		t.Fatalf("%+v", mail)
	}
	token, _ := url.Parse(link[1])
	form := url.Values{"token": token.Query()["token"], "password": {"a new horse battery"}, "again": {"a new horse battery"}}
	if got := post("/oauth/reset", form); got.status != http.StatusOK || !strings.Contains(got.body, "Your password is changed") {
		t.Errorf("the link: %d %s", got.status, got.body)
	}
	if got := post("/oauth/reset", form); got.status != http.StatusBadRequest {
		t.Errorf("the link again: %d", got.status)
	}
	server.stop()
	if got := ask("ada@example.com"); got.status != first.status || got.body != first.body {
		t.Errorf("without a mail server: %d %s", got.status, got.body)
	}
}

// prepareMailScene is a gate scene on real Postgres, with ada and the mail server.
func prepareMailScene(t *testing.T, server *mailServer) *gateScene {
	t.Helper()
	s, _ := newRealScene(t)
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: s.dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	hash, err := issuer.HashPassword(t.Context(), "correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.NewStore(db).CreateUser(t.Context(), "ada@example.com", hash, issuer.Origin{}); err != nil {
		t.Fatal(err)
	}
	s.login = fmt.Sprintf("{\nsmtp %s {\nfrom no-reply@example.com\nusername %s\npassword {env.SMTP_PASSWORD}\nca_file %s\n}\n}", server.address, mailUser, server.caFile)
	s.load("", realSite)
	return s
}
