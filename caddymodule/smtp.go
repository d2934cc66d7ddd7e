package caddymodule

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	gomail "github.com/wneessen/go-mail"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// SMTPSettings is the mail server that takes our mails.
type SMTPSettings struct {
	// Address is its host and port, such as mail.example.com:587. Placeholders.
	// Required.
	Address string `json:"address,omitempty"`
	// From is the sender: an address, or a name and an address as in
	// "Acme Jobs <no-reply@example.com>". Placeholders. Required.
	From string `json:"from,omitempty"`
	// Username and Password authenticate us; both or none. They are never sent
	// without TLS. Placeholders. Default: none.
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// TLS is "implicit", from the first byte; "starttls", which the server must
	// offer; or "off", for a server on this machine. Default: implicit on port 465,
	// else starttls.
	TLS string `json:"tls,omitempty"`
	// CAFile names a file of PEM certificates of who vouches for the server.
	// Placeholders. Default: those that the system trusts.
	CAFile string `json:"ca_file,omitempty"`
	// Timeout is how long the server may take for each step. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// Values of SMTPSettings.TLS.
const (
	smtpImplicit = "implicit"
	smtpSTARTTLS = "starttls"
	smtpPlain    = "off"
)

// parseSMTP reads
//
//	smtp <host:port> {
//		from     <address>
//		username <name>
//		password <password>
//		tls      implicit|starttls|off   # implicit on port 465, else starttls
//		ca_file  <path>                  # those of the system
//		timeout  <duration>              # 10s
//	}
func (l *PasswordLogin) parseSMTP(d *caddyfile.Dispenser) error {
	s := &SMTPSettings{}
	if err := text(&s.Address)(d); err != nil {
		return err
	}
	if d.NextArg() {
		return d.Errf("smtp: unexpected %q", d.Val())
	}
	l.SMTP = s
	return parseBlock(d, map[string]word{
		"from":     once(text(&s.From)),
		"username": once(text(&s.Username)),
		"password": once(text(&s.Password)),
		"tls":      once(oneOf(&s.TLS, smtpImplicit, smtpSTARTTLS, smtpPlain)),
		"ca_file":  once(text(&s.CAFile)),
		"timeout":  once(period(&s.Timeout)),
	})
}

// mailer sends mails by SMTP (RFC 5321). Safe for concurrent use.
type mailer struct {
	address string // for errors
	host    string
	from    *mail.Address
	options []gomail.Option
}

// mailer checks the settings. It opens no connection.
func (s *SMTPSettings) mailer() (*mailer, error) {
	// 1. Where, and from whom.
	m := &mailer{}
	port, err := s.address(m)
	if err != nil {
		return nil, err
	}
	if m.from, err = s.sender(); err != nil {
		return nil, err
	}
	timeout := 10 * time.Second
	if s.Timeout != 0 {
		timeout = time.Duration(s.Timeout)
	}
	if timeout < 0 {
		return nil, errors.New("smtp: timeout is below zero")
	}
	m.options = []gomail.Option{gomail.WithPort(port), gomail.WithTimeout(timeout)}

	// 2. TLS, but on this machine.
	protection, err := s.protection(m.host, port)
	if err != nil {
		return nil, err
	}
	m.options = append(m.options, protection...)

	// 3. Who we are.
	credentials, err := s.credentials()
	if err != nil {
		return nil, err
	}
	m.options = append(m.options, credentials...)
	if _, err := gomail.NewClient(m.host, m.options...); err != nil {
		return nil, fmt.Errorf("smtp: %w", err)
	}
	return m, nil
}

// address fills where the mail server is, and returns its port.
func (s *SMTPSettings) address(m *mailer) (port int, err error) {
	if m.address, err = resolve("smtp", s.Address); err != nil {
		return 0, err
	}
	host, portText, err := net.SplitHostPort(m.address)
	number, portErr := strconv.ParseUint(portText, 10, 16)
	if err != nil || portErr != nil || host == "" || number == 0 {
		return 0, fmt.Errorf("smtp: %q is not host and port, such as mail.example.com:587", m.address)
	}
	m.host = host
	return int(number), nil
}

func (s *SMTPSettings) sender() (*mail.Address, error) {
	if s.From == "" {
		return nil, errors.New(`smtp: from is missing: the sender, such as from "Acme Jobs <no-reply@example.com>"`)
	}
	text, err := resolve("from", s.From)
	if err != nil {
		return nil, fmt.Errorf("smtp: %w", err)
	}
	from, err := mail.ParseAddress(text)
	if err != nil {
		return nil, fmt.Errorf("smtp: from: %q is not an address, such as no-reply@example.com", text)
	}
	return from, nil
}

// protection is TLS from the beginning or before anything is said, and neither
// only on this machine: mails hold links by which an account can be taken.
func (s *SMTPSettings) protection(host string, port int) (options []gomail.Option, err error) {
	how := s.TLS
	if how == "" && port == 465 { // RFC 8314 section 7.3
		how = smtpImplicit
	}
	switch how {
	case smtpImplicit:
		options = append(options, gomail.WithSSL())
	case "", smtpSTARTTLS:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case smtpPlain:
		switch {
		case !oauth.IsLoopbackHost(host):
			return nil, fmt.Errorf("smtp: tls off: %s is not on this machine, and mails hold links by which an account can be taken; use implicit or starttls", host)
		case s.Username != "" || s.Password != "":
			return nil, errors.New("smtp: tls off contradicts username and password, which are never sent without TLS")
		}
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		return nil, fmt.Errorf("smtp: tls: %q is none of implicit, starttls, off", s.TLS)
	}
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		if config.RootCAs, err = readCertificates(s.CAFile); err != nil {
			return nil, fmt.Errorf("smtp: %w", err)
		}
	}
	return append(options, gomail.WithTLSConfig(config)), nil
}

// credentials are those of this server at the mail server; nil: it has none.
func (s *SMTPSettings) credentials() ([]gomail.Option, error) {
	if (s.Username == "") != (s.Password == "") {
		return nil, errors.New("smtp: username and password go together: one of them is missing")
	}
	if s.Username == "" {
		return nil, nil
	}
	username, err := resolve("username", s.Username)
	if err != nil {
		return nil, fmt.Errorf("smtp: %w", err)
	}
	password, err := resolve("password", s.Password)
	if err != nil {
		return nil, fmt.Errorf("smtp: %w", err)
	}
	return []gomail.Option{gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(username), gomail.WithPassword(password)}, nil
}

func readCertificates(file string) (*x509.CertPool, error) {
	path, err := resolve("ca_file", file)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("ca_file: %s holds no PEM certificate", path)
	}
	return pool, nil
}

// send implements issuer.Config.SendMail, by a connection of its own for each mail:
// they are rare.
func (m *mailer) send(ctx context.Context, mail issuer.Mail) error {
	message, err := m.message(mail)
	if err != nil {
		return fmt.Errorf("smtp %s: %w", m.address, err)
	}
	client, err := gomail.NewClient(m.host, m.options...)
	if err == nil {
		err = client.DialAndSendWithContext(ctx, message)
	}
	if err != nil {
		return fmt.Errorf("smtp %s: %w", m.address, err)
	}
	return nil
}

// message is a mail as it goes out. Nothing but the recipient comes from outside,
// and it is parsed: it must be one address and nothing else.
func (m *mailer) message(from issuer.Mail) (*gomail.Msg, error) {
	to, err := mail.ParseAddress(from.To)
	if err != nil || to.Address != from.To || to.Name != "" {
		return nil, errors.New("the recipient is not an address that a mail can go to")
	}
	message := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	message.FromMailAddress(m.from)
	message.ToMailAddress(to)
	message.Subject(from.Subject)
	message.SetDate()
	_, domain, _ := strings.Cut(m.from.Address, "@")
	message.SetMessageIDWithValue(rand.Text() + "@" + domain) // not by the name of this machine
	message.SetGenHeader("Auto-Submitted", "auto-generated")  // RFC 3834: no vacation notices
	message.SetBodyString(gomail.TypeTextPlain, from.Text)
	return message, nil
}
