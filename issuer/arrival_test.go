package issuer_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// T-26: who sends a body byte by byte, or promises one and sends nothing, is
// answered when its time is up, and the connection is closed: also where nobody
// reads the body, for the server would wait for it before it answers.
func TestBodyThatDoesNotArriveIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.SelfRegistration(nil), issuertest.With(func(c *issuer.Config) { c.BodyTimeout = time.Second }))
	const form = "Content-Type: application/x-www-form-urlencoded\r\n"
	for name, c := range map[string]struct {
		head   string
		status int
	}{
		"token":                    {"POST /oauth/token|" + form, http.StatusRequestTimeout},
		"revocation":               {"POST /oauth/revoke|" + form, http.StatusRequestTimeout},
		"introspection":            {"POST /oauth/introspect|" + form, http.StatusRequestTimeout},
		"pushed request":           {"POST /oauth/par|" + form, http.StatusRequestTimeout},
		"registration":             {"POST /oauth/register|Content-Type: application/json\r\n", http.StatusRequestTimeout},
		"authorization":            {"POST /oauth/authorize|" + form, http.StatusRequestTimeout},
		"sign-in":                  {"POST /oauth/login|" + form + "Origin: " + scene.URL + "\r\n", http.StatusRequestTimeout},
		"a type that is not read":  {"POST /oauth/token|Content-Type: text/plain\r\n", http.StatusBadRequest},
		"a method that is not one": {"PUT /oauth/token|" + form, http.StatusMethodNotAllowed},
		"metadata with a body":     {"GET /.well-known/oauth-authorization-server|", http.StatusOK},
	} {
		for _, length := range []string{"Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1\r\n"} {
			t.Run(name+" "+strings.Fields(length)[0], func(t *testing.T) {
				t.Parallel()
				host := strings.TrimPrefix(scene.URL, "http://")
				conn, err := net.Dial("tcp", host)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Minute)) // for what never ends
				request, fields, _ := strings.Cut(c.head, "|")
				if _, err := io.WriteString(conn, request+" HTTP/1.1\r\nHost: "+host+"\r\n"+fields+length+"a"); err != nil {
					t.Fatal(err)
				}
				answer := bufio.NewReader(conn)
				r, err := http.ReadResponse(answer, nil)
				if err != nil {
					t.Fatalf("no answer: %v", err)
				}
				body, _ := io.ReadAll(r.Body)
				if r.StatusCode != c.status {
					t.Errorf("%s %s, want %d", r.Status, body, c.status)
				}
				if rest, err := io.ReadAll(answer); err != nil || len(rest) > 0 {
					t.Errorf("the connection stays: %v, %q", err, rest)
				}
			})
		}
	}
}

// T-26: also where only the document of another origin stands.
func TestDocumentAloneWaitsForNoBody(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.With(func(c *issuer.Config) { c.BodyTimeout = time.Second }))
	server := httptest.NewServer(scene.Server.ResourceMetadata("https://other.example.com"))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, "POST /.well-known/oauth-protected-resource HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\na"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 405 ") {
		t.Errorf("%q, %v", answer, err)
	}
}

// What has arrived is answered, however long that takes: the time is for the
// body alone.
func TestAnswerMayTakeLongerThanABody(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	var asked, cut atomic.Int32
	scene := issuertest.New(t, issuertest.With(func(c *issuer.Config) {
		c.BodyTimeout = timeout
		c.ClientAddress = func(r *http.Request) netip.Addr {
			if r.Header.Get("X-Slow") == "" || asked.Add(1) != 2 { // the second time the body has been read
				return netip.Addr{}
			}
			select {
			case <-r.Context().Done():
				cut.Add(1)
			case <-time.After(timeout + timeout/2): // a slow answer
			}
			return netip.Addr{}
		}
	}))
	form := withClient(issuertest.Confidential, issuertest.Secret).Encode()
	conn, err := net.Dial("tcp", strings.TrimPrefix(scene.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	answers := bufio.NewReader(conn)
	for _, slow := range []string{"X-Slow: 1\r\n", ""} { // and the connection is good for more
		_, err := io.WriteString(conn, "POST /oauth/token HTTP/1.1\r\nHost: a\r\n"+slow+"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: "+strconv.Itoa(len(form))+"\r\n\r\n"+form)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		if body, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "invalid_grant") {
			t.Errorf("%s %s", r.Status, body)
		}
	}
	if asked.Load() < 2 || cut.Load() > 0 {
		t.Errorf("asked %d times; the request was given up %d times while it was answered", asked.Load(), cut.Load())
	}
}
