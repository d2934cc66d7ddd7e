package fetch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer/fetch"
)

// bait is a TLS server on this machine that counts who connects, and a fetcher
// that may use its port. Names are looked up in the test's own DNS.
type bait struct {
	*httptest.Server
	port     uint16
	accepted atomic.Int32
	mu       sync.Mutex
	dialed   []netip.AddrPort
	lookUps  []string
	dns      func(host string, n int) []netip.Addr // n counts from 0
}

func newBait(t *testing.T, answer http.HandlerFunc) *bait {
	t.Helper()
	b := &bait{Server: httptest.NewUnstartedServer(answer)}
	b.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			b.accepted.Add(1)
		}
	}
	b.Config.ErrorLog = nil
	b.StartTLS()
	t.Cleanup(b.Close)
	b.port = b.Listener.Addr().(*net.TCPAddr).AddrPort().Port()
	return b
}

func (b *bait) config(allowed ...string) fetch.Config {
	cfg := fetch.Config{
		AllowedPorts: []uint16{b.port}, RootCAs: b.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, Timeout: 2 * time.Second,
		Dialing: func(a netip.AddrPort) { b.mu.Lock(); defer b.mu.Unlock(); b.dialed = append(b.dialed, a) },
		LookUp: func(_ context.Context, host string) ([]netip.Addr, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.lookUps = append(b.lookUps, host)
			if b.dns == nil {
				return nil, errors.New("no such host")
			}
			return b.dns(host, len(b.lookUps)-1), nil
		},
	}
	for _, prefix := range allowed {
		cfg.AllowedAddresses = append(cfg.AllowedAddresses, netip.MustParsePrefix(prefix))
	}
	return cfg
}

func (b *bait) nobodyCame(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.dialed) > 0 || b.accepted.Load() > 0 {
		t.Errorf("connected: dialed %v, %d accepted", b.dialed, b.accepted.Load())
	}
}

func json(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, body)
}

// C-02, C-08, REG-11: URLs that are refused by their form, before a look-up. PORT is that
// of a listener, which a reader that is mistaken about them would reach.
func TestHostileURLsAreRefusedUnseen(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"http":                     "http://client.example:PORT/c.json",
		"no scheme":                "client.example:PORT/c.json",
		"scheme in upper case":     "HTTPS://client.example:PORT/c.json",
		"scheme-relative":          "//client.example:PORT/c.json",
		"one slash":                "https:/client.example:PORT/c.json",
		"opaque":                   "https:client.example/c.json",
		"file":                     "file:///etc/passwd",
		"gopher":                   "gopher://127.0.0.1:PORT/_x",
		"ftp":                      "ftp://client.example/c.json",
		"javascript":               "javascript:alert(1)",
		"data":                     "data:application/json,{}",
		"unix socket":              "unix:///var/run/docker.sock",
		"user":                     "https://user@client.example:PORT/c.json",
		"user and password":        "https://user:pass@client.example:PORT/c.json",
		"empty user":               "https://@127.0.0.1:PORT/c.json",
		"user that is a host":      "https://client.example@127.0.0.1:PORT/c.json",
		"two at signs":             "https://a@b@127.0.0.1:PORT/c.json",
		"backslash":                "https://client.example\\@127.0.0.1:PORT/c.json",
		"fragment":                 "https://client.example:PORT/c.json#x",
		"empty fragment":           "https://client.example:PORT/c.json#",
		"no path":                  "https://client.example:PORT",
		"only a slash":             "https://client.example:PORT/",
		"no path, a query":         "https://client.example:PORT?x=/c.json",
		"dot segment":              "https://client.example:PORT/a/../c.json",
		"single dot":               "https://client.example:PORT/./c.json",
		"dot segment, escaped":     "https://client.example:PORT/a/%2e%2e/c.json",
		"dot segment, half":        "https://client.example:PORT/a/.%2E/c.json",
		"no host":                  "https:///c.json",
		"port only":                "https://:PORT/c.json",
		"empty port":               "https://client.example:/c.json",
		"port zero":                "https://client.example:0/c.json",
		"port too high":            "https://client.example:65536/c.json",
		"port with zeros":          "https://client.example:00443/c.json",
		"port with a sign":         "https://client.example:+443/c.json",
		"two ports":                "https://client.example:443:PORT/c.json",
		"decimal address":          "https://2130706433:PORT/c.json",
		"hexadecimal address":      "https://0x7f000001:PORT/c.json",
		"hexadecimal part":         "https://0x7f.1:PORT/c.json",
		"octal address":            "https://0177.0.0.1:PORT/c.json",
		"octal number":             "https://017700000001:PORT/c.json",
		"short address":            "https://127.1:PORT/c.json",
		"address of three parts":   "https://127.0.1:PORT/c.json",
		"address with a dot":       "https://127.0.0.1.:PORT/c.json",
		"address with zeros":       "https://127.000.000.001:PORT/c.json",
		"five parts":               "https://127.0.0.1.1:PORT/c.json",
		"trailing dot":             "https://localhost.:PORT/c.json",
		"empty label":              "https://client..example:PORT/c.json",
		"leading dot":              "https://.example:PORT/c.json",
		"escaped host":             "https://%31%32%37.0.0.1:PORT/c.json",
		"escaped NUL":              "https://client.example%00.evil:PORT/c.json",
		"upper-case host":          "https://LOCALHOST:PORT/c.json",
		"full-width digits":        "https://１２７.0.0.1:PORT/c.json",
		"ideographic full stop":    "https://127。0。0。1:PORT/c.json",
		"homograph":                "https://clіent.example:PORT/c.json",
		"circled letters":          "https://ⓛocalhost:PORT/c.json",
		"IPv6 in full":             "https://[0:0:0:0:0:0:0:1]:PORT/c.json",
		"IPv6 in upper case":       "https://[2001:DB8::1]:PORT/c.json",
		"IPv6 with a zone":         "https://[fe80::1%25lo]:PORT/c.json",
		"IPv6 with dots elsewhere": "https://[::ffff:7f00:1]:PORT/c.json",
		"IPv6 without brackets":    "https://::1:PORT/c.json",
		"space before":             " https://client.example:PORT/c.json",
		"space in it":              "https://client.example:PORT/c .json",
		"tab in the host":          "https://cli\tent.example:PORT/c.json",
		"line break":               "https://client.example:PORT/c.json\r\nHost: evil",
		"too long":                 "https://client.example:PORT/" + strings.Repeat("a", 2048),
		"host too long":            "https://" + strings.Repeat("a.", 127) + "example:PORT/c.json",
		"label too long":           "https://" + strings.Repeat("a", 64) + ".example:PORT/c.json",
		"not UTF-8":                "https://client.example:PORT/\xff.json",
		"empty":                    "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBait(t, func(w http.ResponseWriter, _ *http.Request) { json(w, "{}") })
			b.dns = func(string, int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }
			cfg := b.config("0.0.0.0/0", "::/0") // nothing but the form is in the way
			_, err := fetch.New(cfg).Get(t.Context(), strings.ReplaceAll(url, "PORT", fmt.Sprint(b.port)), 5<<10)
			if !errors.Is(err, fetch.ErrGone) || !strings.Contains(err.Error(), "the URL") {
				t.Errorf("%q: %v", url, err)
			}
			if len(b.lookUps) > 0 {
				t.Errorf("looked up %q", b.lookUps)
			}
			b.nobodyCame(t)
		})
	}
}

// C-01, C-04, PROTOCOL 8.15, REG-15: names whose addresses are not public are not connected to, and
// neither are addresses that an owner has not named.
func TestSpecialAddressesAreNotConnectedTo(t *testing.T) {
	t.Parallel()
	for name, addresses := range map[string]string{
		"loopback":                  "127.0.0.1",
		"loopback, another":         "127.8.8.8",
		"this network":              "0.0.0.0",
		"this network, another":     "0.1.2.3",
		"private A":                 "10.0.0.1",
		"private B":                 "172.16.0.1",
		"private B, last":           "172.31.255.255",
		"private C":                 "192.168.1.1",
		"metadata service":          "169.254.169.254",
		"carrier grade NAT":         "100.64.0.1",
		"protocol assignments":      "192.0.0.8",
		"documentation":             "192.0.2.1",
		"documentation 2":           "198.51.100.1",
		"documentation 3":           "203.0.113.1",
		"6to4 relay":                "192.88.99.1",
		"benchmarks":                "198.19.0.1",
		"multicast":                 "224.0.0.1",
		"reserved":                  "240.0.0.1",
		"broadcast":                 "255.255.255.255",
		"IPv6 loopback":             "::1",
		"IPv6 unspecified":          "::",
		"IPv6 unique local":         "fd00::1",
		"IPv6 link local":           "fe80::1",
		"IPv6 site local":           "fec0::1",
		"IPv6 multicast":            "ff02::1",
		"IPv6 documentation":        "2001:db8::1",
		"IPv6 documentation, new":   "3fff::1",
		"IPv6 discard":              "100::1",
		"metadata service by IPv6":  "fd00:ec2::254",
		"mapped loopback":           "::ffff:127.0.0.1",
		"mapped private":            "::ffff:10.0.0.1",
		"compatible loopback":       "::127.0.0.1",
		"translated loopback":       "::ffff:0:127.0.0.1",
		"NAT64 loopback":            "64:ff9b::7f00:1",
		"NAT64 metadata service":    "64:ff9b::a9fe:a9fe",
		"NAT64 local":               "64:ff9b:1::7f00:1",
		"6to4 loopback":             "2002:7f00:1::",
		"6to4 private":              "2002:a00:1::1",
		"Teredo":                    "2001:0:7f00:1::1",
		"ORCHID":                    "2001:10::1",
		"ORCHID, new":               "2001:20::1",
		"IPv6 benchmarks":           "2001:2::1",
		"IPv6 segments":             "5f00::1",
		"IPv6 dummy prefix":         "100:0:0:1::1",
		"not given out":             "4000::1",
		"mapped metadata service":   "::ffff:169.254.169.254",
		"public, then loopback":     "93.184.216.34 127.0.0.1",
		"loopback among public":     "93.184.216.34 ::1 93.184.216.35",
		"public IPv6, then private": "2606:2800:220:1::1 10.0.0.1",
		"no address at all":         "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBait(t, func(w http.ResponseWriter, _ *http.Request) { json(w, "{}") })
			b.dns = func(string, int) (answer []netip.Addr) {
				for _, text := range strings.Fields(addresses) {
					answer = append(answer, netip.MustParseAddr(text))
				}
				return answer
			}
			_, err := fetch.New(b.config()).Get(t.Context(), fmt.Sprintf("https://client.example:%d/c.json", b.port), 5<<10)
			if err == nil {
				t.Error("fetched")
			}
			b.nobodyCame(t)
			for literal := range strings.FieldsSeq(addresses) { // nor by the address itself
				host := literal
				if strings.Contains(literal, ":") {
					host = "[" + literal + "]"
				}
				if _, err := fetch.New(b.config()).Get(t.Context(), fmt.Sprintf("https://%s:%d/c.json", host, b.port), 5<<10); !errors.Is(err, fetch.ErrGone) {
					t.Errorf("%s: %v", host, err)
				}
			}
			b.nobodyCame(t)
		})
	}
}

// C-08: a port that the owner has not named is not connected to.
func TestOtherPortsAreNotConnectedTo(t *testing.T) {
	t.Parallel()
	b := newBait(t, func(w http.ResponseWriter, _ *http.Request) { json(w, "{}") })
	b.dns = func(string, int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }
	cfg := b.config("127.0.0.0/8")
	cfg.AllowedPorts = nil
	for _, port := range []uint16{b.port, 80, 22, 5432, 6379} {
		if _, err := fetch.New(cfg).Get(t.Context(), fmt.Sprintf("https://example.com:%d/c.json", port), 5<<10); !errors.Is(err, fetch.ErrGone) {
			t.Errorf("port %d: %v", port, err)
		}
	}
	b.nobodyCame(t)
}

// C-03, PROTOCOL 8.15: a name that means another address by the time of the connection. There
// is one look-up, and its answer is dialed.
func TestNameIsLookedUpOnce(t *testing.T) {
	t.Parallel()
	b := newBait(t, func(w http.ResponseWriter, _ *http.Request) { json(w, "{}") })
	b.dns = func(_ string, n int) []netip.Addr {
		if n == 0 {
			return []netip.Addr{netip.MustParseAddr("127.0.0.2")} // looked at, and allowed
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	}
	_, err := fetch.New(b.config("127.0.0.2/32")).Get(t.Context(), fmt.Sprintf("https://example.com:%d/c.json", b.port), 5<<10)
	if err == nil {
		t.Error("fetched from the second answer")
	}
	if len(b.lookUps) != 1 || b.accepted.Load() != 0 || len(b.dialed) != 1 || b.dialed[0].Addr().String() != "127.0.0.2" {
		t.Errorf("looked up %q, dialed %v, %d accepted", b.lookUps, b.dialed, b.accepted.Load())
	}
	// The next fetch looks again, and sees what is private now.
	if _, err := fetch.New(b.config("127.0.0.2/32")).Get(t.Context(), fmt.Sprintf("https://example.com:%d/c.json", b.port), 5<<10); !errors.Is(err, fetch.ErrGone) {
		t.Errorf("%v", err)
	}
	if b.accepted.Load() != 0 || len(b.dialed) != 1 {
		t.Errorf("dialed %v", b.dialed)
	}
}

// C-05, C-06, C-07, PROTOCOL 8.15, REG-14: what an allowed host may answer that is no document. A second
// listener is where redirects lead; nobody goes there.
func TestHostileAnswersAreRefused(t *testing.T) {
	t.Parallel()
	elsewhere := newBait(t, func(w http.ResponseWriter, _ *http.Request) { json(w, `{"from":"elsewhere"}`) })
	redirect := func(status int, to string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(status)
		}
	}
	typed := func(mediaType string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{mediaType}
			_, _ = io.WriteString(w, "{}")
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"301":           redirect(301, elsewhere.URL+"/c.json"),
		"302":           redirect(302, elsewhere.URL+"/c.json"),
		"303":           redirect(303, elsewhere.URL+"/c.json"),
		"307":           redirect(307, elsewhere.URL+"/c.json"),
		"308":           redirect(308, elsewhere.URL+"/c.json"),
		"302 to itself": redirect(302, "/other.json"),
		"302 to http":   redirect(302, "http://"+elsewhere.Listener.Addr().String()),
		"200 with Location": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", elsewhere.URL)
			w.Header().Set("Refresh", "0")
			w.WriteHeader(200)
		},
		"201": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			_, _ = io.WriteString(w, "{}")
		},
		"204":                  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"304":                  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) },
		"401":                  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
		"404":                  http.NotFound,
		"429":                  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) },
		"500":                  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"HTML":                 typed("text/html"),
		"plain text":           typed("text/plain"),
		"JavaScript":           typed("application/javascript"),
		"no type":              typed(""),
		"broken type":          typed("application/json; ="),
		"a type like JSON":     typed("application/jsonp"),
		"JSON of another kind": typed("image/svg+json"),
		"one byte too long":    func(w http.ResponseWriter, _ *http.Request) { json(w, strings.Repeat(" ", 5<<10)+"x") },
		"endless": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
		"length that is no one's": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "100"); json(w, "{}") },
		"a gzip bomb": func(w http.ResponseWriter, _ *http.Request) {
			var bomb bytes.Buffer
			z := gzip.NewWriter(&bomb)
			_, _ = z.Write(make([]byte, 4<<20))
			_ = z.Close()
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		},
		"brotli": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "br"); json(w, "{}") },
		"huge header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Filler", strings.Repeat("a", 64<<10))
			json(w, "{}")
		},
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a byte a time": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		},
		"torn off": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBait(t, answer)
			b.dns = func(string, int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }
			began := time.Now()
			d, err := fetch.New(b.config("127.0.0.1/32")).Get(t.Context(), fmt.Sprintf("https://example.com:%d/c.json", b.port), 5<<10)
			if err == nil {
				t.Errorf("fetched %d bytes", len(d.Body))
			}
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("it took %s", took)
			}
			if b.accepted.Load() != 1 {
				t.Errorf("%d connections", b.accepted.Load())
			}
			if elsewhere.accepted.Load() != 0 {
				t.Error("the redirect was followed")
			}
		})
	}
}

// C-09: a server that cannot prove its name is not believed, and a proxy of the
// environment is not asked.
func TestServerMustProveItsName(t *testing.T) {
	b := newBait(t, func(w http.ResponseWriter, _ *http.Request) { json(w, "{}") })
	b.dns = func(string, int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }
	proxy := newBait(t, func(w http.ResponseWriter, _ *http.Request) { json(w, "{}") })
	t.Setenv("HTTPS_PROXY", proxy.URL)
	address := fmt.Sprintf(":%d/c.json", b.port)
	if _, err := fetch.New(b.config("127.0.0.1/32")).Get(t.Context(), "https://example.com"+address, 5<<10); err != nil {
		t.Errorf("the right name: %v", err)
	}
	_, err := fetch.New(b.config("127.0.0.1/32")).Get(t.Context(), "https://client.test"+address, 5<<10)
	var wrong *tls.CertificateVerificationError
	if !errors.As(err, &wrong) {
		t.Errorf("another name: %v", err)
	}
	if proxy.accepted.Load() != 0 {
		t.Error("the proxy was asked")
	}
}

// What may be kept is what the host says. RFC 9111 section 4.2.1.
func TestFreshnessIsAsTheHostSays(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		header http.Header
		want   time.Duration
	}{
		"nothing":         {http.Header{}, -1},
		"max-age":         {http.Header{"Cache-Control": {"public, max-age=600"}}, 10 * time.Minute},
		"max-age and Age": {http.Header{"Cache-Control": {"max-age=600"}, "Age": {"590"}}, 10 * time.Second},
		"older than that": {http.Header{"Cache-Control": {"max-age=600"}, "Age": {"900"}}, 0},
		"no-store":        {http.Header{"Cache-Control": {"max-age=600", "No-Store"}}, 0},
		"no-cache":        {http.Header{"Cache-Control": {"no-cache"}}, 0},
		"nonsense":        {http.Header{"Cache-Control": {"max-age=soon"}}, 0},
		"Expires":         {http.Header{"Expires": {now.Add(time.Hour).UTC().Format(http.TimeFormat)}}, time.Hour},
		"Expires, past":   {http.Header{"Expires": {now.Add(-time.Hour).UTC().Format(http.TimeFormat)}}, 0},
		"Expires, broken": {http.Header{"Expires": {"0"}}, 0},
		"both":            {http.Header{"Cache-Control": {"max-age=60"}, "Expires": {now.Add(time.Hour).UTC().Format(http.TimeFormat)}}, time.Minute},
	} {
		b := newBait(t, func(w http.ResponseWriter, _ *http.Request) {
			for name, values := range c.header {
				w.Header()[name] = values
			}
			json(w, `{"a":1}`)
		})
		cfg := b.config("127.0.0.1/32")
		cfg.Now = func() time.Time { return now }
		d, err := fetch.New(cfg).Get(t.Context(), b.URL+"/c.json", 5<<10)
		if err != nil || string(d.Body) != `{"a":1}` {
			t.Errorf("%s: %q %v", name, d.Body, err)
		}
		if diff := d.Fresh - c.want; diff < -time.Second || diff > time.Second {
			t.Errorf("%s: fresh for %s, want %s", name, d.Fresh, c.want)
		}
	}
}

// An address that passes names one host in one way.
func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{"https://a.example/c", "https://127.1/c", "https://[::1]:443/c", "https://a@b/c", "https://a.example/%2e%2e/c", "https://0x7f.1/c", "https://a\\b/c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := fetch.CheckURL(raw)
		if err != nil {
			return
		}
		if u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.String() != raw && !strings.Contains(raw, "?") {
			t.Fatalf("%q is read as %q", raw, u)
		}
		host := u.Hostname()
		if _, err := netip.ParseAddr(host); err != nil && net.ParseIP(host) != nil {
			t.Fatalf("%q: the host is an address to one reader only", raw)
		}
		if last := host[strings.LastIndex(host, ".")+1:]; strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
			if _, err := netip.ParseAddr(host); err != nil {
				t.Fatalf("%q: the host ends in a number", raw)
			}
		}
	})
}
