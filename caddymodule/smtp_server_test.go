package caddymodule

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mailServer is an SMTP server (RFC 5321) on a loopback address, which takes the
// mails of one sender with one password.
type mailServer struct {
	address string
	caFile  string // of who vouches for it
	mails   chan receivedMail
	stop    func()

	config   *tls.Config
	implicit bool // TLS from the first byte
	starttls bool // offered
	login    bool // needed
	silent   bool // says nothing
}

// receivedMail is what came, and how.
type receivedMail struct {
	from, to   string // of the envelope
	message    *mail.Message
	encrypted  bool
	authorized bool
}

const mailUser, mailPassword = "caddy", "a-mail-password"

// newMailServer starts one, which offers STARTTLS and wants a password.
func newMailServer(t *testing.T, change ...func(*mailServer)) *mailServer {
	t.Helper()
	s := &mailServer{mails: make(chan receivedMail, 100), starttls: true, login: true}
	for _, f := range change {
		f(s)
	}
	s.certify(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.stop = func() { _ = listener.Close() }
	t.Cleanup(s.stop)
	s.address = listener.Addr().String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

// certify makes the certificate of the server, which vouches for itself.
func (s *mailServer) certify(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s.config = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(s.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serve talks to one client until it leaves.
func (s *mailServer) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if s.silent {
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	var got receivedMail
	if s.implicit {
		conn, got.encrypted = tls.Server(conn, s.config), true
	}
	lines := textproto.NewReader(bufio.NewReader(conn))
	say := func(answer string) { _, _ = fmt.Fprintf(conn, "%s\r\n", answer) }
	say("220 mail ready")
	for {
		line, err := lines.ReadLine()
		if err != nil {
			return
		}
		command, rest, _ := strings.Cut(line, " ")
		switch strings.ToUpper(command) {
		case "EHLO":
			answer := "250-mail\r\n250-8BITMIME"
			if s.starttls && !got.encrypted {
				answer += "\r\n250-STARTTLS"
			}
			if s.login && got.encrypted {
				answer += "\r\n250-AUTH PLAIN"
			}
			say(answer + "\r\n250 SMTPUTF8")
		case "STARTTLS":
			say("220 go on")
			conn, got.encrypted = tls.Server(conn, s.config), true
			lines = textproto.NewReader(bufio.NewReader(conn))
		case "AUTH":
			given, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			if got.authorized = string(given) == "\x00"+mailUser+"\x00"+mailPassword; !got.authorized {
				say("535 no")
				continue
			}
			say("235 yes")
		case "MAIL":
			if s.login && !got.authorized {
				say("530 who are you")
				continue
			}
			got.from = rest
			say("250 yes")
		case "RCPT":
			got.to += rest
			say("250 yes")
		case "DATA":
			say("354 go on")
			if got.message, err = mail.ReadMessage(lines.DotReader()); err != nil {
				say("554 not a message")
				continue
			}
			body, _ := io.ReadAll(got.message.Body)
			got.message.Body = strings.NewReader(string(body))
			s.mails <- got
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 yes")
		}
	}
}
