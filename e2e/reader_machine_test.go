//go:build linux

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// A tutorial is followed on a machine of its own: a network namespace with
// nothing but loopback, in which api.example.com is this machine, its ports 80
// and 443 are free, and so is a public address for the product, since metadata
// documents are fetched from public addresses only. Nothing leaves it.
const (
	readerMachine  = "READER_MACHINE"  // set inside: the folder
	readerDatabase = "READER_DATABASE" // the DSN of the reader's database
	productAddress = "104.18.32.47"    // any public address will do
)

var productHosts = []string{"chatgpt.com", "chat.openai.com", "claude.ai", "claude.com"}

// onReadersMachine runs the rest of the test, in a process of its own, on the
// machine of a reader, and returns the machine there and nil here.
func onReadersMachine(t *testing.T) *machine {
	t.Helper()
	if dir := os.Getenv(readerMachine); dir != "" {
		return newMachine(t, dir)
	}
	t.Parallel()
	dir := t.TempDir()
	args := []string{"--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Getuid() != 0 {
		args = append(args, "--map-root-user")
	}
	inside := exec.CommandContext(t.Context(), "unshare", append(args, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")...)
	inside.Env = append(os.Environ(), readerMachine+"="+dir, readerDatabase+"="+postgrestest.New(t), "READER_CADDY="+cluster.Binary(t))
	out, err := inside.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("%v\n%s", err, out)
	}
	return nil
}

// machine is the reader's.
type machine struct {
	dir     string // home and working folder
	product *product
	roots   *x509.CertPool
}

func newMachine(t *testing.T, dir string) *machine {
	t.Helper()
	if links, err := net.Interfaces(); err != nil || len(links) != 1 || links[0].Flags&net.FlagLoopback == 0 {
		t.Fatalf("this is no machine of its own: %v %v", links, err)
	}
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", productAddress + "/32", "dev", "lo"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	hosts := filepath.Join(dir, "hosts")
	writeFile(t, hosts, "127.0.0.1 localhost api.example.com\n"+productAddress+" "+strings.Join(productHosts, " ")+"\n")
	if err := os.Chmod(hosts, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(hosts, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("names of the machine: %v", err)
	}
	m := &machine{dir: dir}
	m.product = newProduct(t, m)
	m.install(t)
	return m
}

// install puts where a shell finds it what the tutorials say that the reader
// has: xcaddy, which here brings the Caddy that was built for all tests (that
// xcaddy builds this module, scripts/xcaddy shows), and curl, which trusts
// Caddy's own authority.
func (m *machine) install(t *testing.T) {
	t.Helper()
	bin := filepath.Join(m.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	m.program(t, "xcaddy", `[ "$*" = "build --with github.com/caddy-scope/caddy-scope" ]
ln -sf "$READER_CADDY" caddy
`)
	m.program(t, "claude", `echo "$*" > "$HOME/claude.args"
`)
	writeFile(t, filepath.Join(m.dir, ".curlrc"), "cacert = "+m.authority()+"\n")
	t.Setenv("HOME", m.dir)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME", "DATABASE_URL"} {
		t.Setenv(name, "")
		_ = os.Unsetenv(name)
	}
}

// program puts a shell script where a shell finds it by this name.
func (m *machine) program(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, "bin", name), []byte("#!/bin/sh\nset -eu\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// authority is the certificate of Caddy's own authority, which stands in for a
// public one.
func (m *machine) authority() string {
	return filepath.Join(m.dir, ".local", "share", "caddy", "pki", "authorities", "local", "root.crt")
}

// http is a client that trusts the sites of the machine.
func (m *machine) http(t *testing.T) *http.Client {
	t.Helper()
	root, err := os.ReadFile(m.authority())
	if err != nil {
		t.Fatal(err)
	}
	roots := m.roots.Clone()
	roots.AppendCertsFromPEM(root)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// certificate makes an authority that the gateway trusts, and a certificate for
// the names by it.
func (m *machine) certificate(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	template := func(serial int64) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "product"}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true}
	}
	ca := template(1)
	ca.IsCA = true
	caKey, key := newECKey(t), newECKey(t)
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := template(2)
	leaf.DNSNames = names
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(m.dir, "public-authorities.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	writeFile(t, bundle, string(text))
	t.Setenv("SSL_CERT_FILE", bundle) // for Caddy, which the shell starts
	m.roots = x509.NewCertPool()
	m.roots.AppendCertsFromPEM(text)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newECKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serveAt answers at an address of the machine until the test ends.
func serveAt(t *testing.T, address string, certificate *tls.Certificate, handler http.Handler) {
	t.Helper()
	// Beside Caddy, which listens on every address and shares its ports too.
	shared := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		refused := conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(refused, err)
	}}
	listener, err := shared.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if certificate != nil {
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{*certificate}})
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}
