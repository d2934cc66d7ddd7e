package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// tap is the proxy between one browser and everybody else. What Chromium follows
// at once can be changed, held, and taken elsewhere there, and it knows when nothing
// is under way any more.
type tap struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	change func(*sent)      // nil: nothing is changed
	hold   func(*sent) bool // nil: everything goes on
	held   chan *sent
	past   []*sent // what went on and was answered
	going  int     // requests that are not answered
}

// sent is a request of the browser.
type sent struct {
	Method string
	URL    *url.URL
	Form   url.Values // of a POST
	Onward string     // where the browser is sent in place of that; empty: it is not
}

// is reports whether the request goes to this path.
func (s *sent) is(method, path string) bool { return s.Method == method && s.URL.Path == path }

// with returns the request with a change of its query.
func (s *sent) with(change func(url.Values)) *sent {
	changed, query := *s, s.URL.Query()
	u := *s.URL
	change(query)
	u.RawQuery = query.Encode()
	changed.URL = &u
	return &changed
}

// at returns the request as one for another path.
func (s *sent) at(path string) *sent {
	changed, u := *s, *s.URL
	u.Path = path
	changed.URL = &u
	return &changed
}

func newTap(t *testing.T) *tap {
	p := &tap{t: t, held: make(chan *sent, 8)}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.Host = r.In.Host },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, err := readSent(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if p.takes(request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<title>held</title><h1>held</h1>")
			return
		}
		defer p.answered(request)
		if request.Onward != "" {
			http.Redirect(w, r, request.Onward, http.StatusFound)
			return
		}
		forward.ServeHTTP(w, request.outgoing(r))
	}))
	t.Cleanup(p.Close)
	return p
}

func readSent(r *http.Request) (*sent, error) {
	s := &sent{Method: r.Method, URL: r.URL}
	if r.Method != http.MethodPost {
		return s, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.Form, err = url.ParseQuery(string(body))
	return s, err
}

// outgoing is r as the request says now.
func (s *sent) outgoing(r *http.Request) *http.Request {
	out := r.Clone(r.Context())
	out.URL, out.Host = s.URL, s.URL.Host
	if s.Form != nil {
		body := s.Form.Encode()
		out.Body, out.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		out.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	return out
}

// takes changes the request, and reports whether it is held.
func (p *tap) takes(s *sent) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.change != nil {
		p.change(s)
	}
	if p.hold != nil && p.hold(s) {
		p.held <- s
		return true
	}
	p.going++
	return false
}

func (p *tap) answered(s *sent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.going--
	p.past = append(p.past, s)
}

// changing has f change what the browser sends; nil: nothing.
func (p *tap) changing(f func(*sent)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change = f
}

// holding keeps back what f reports true of; nil: nothing.
func (p *tap) holding(f func(*sent) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = f
}

// taken returns the next request that was held.
func (p *tap) taken(t *testing.T, browser context.Context) *sent {
	t.Helper()
	select {
	case s := <-p.held:
		return s
	case <-time.After(30 * time.Second):
		t.Fatalf("the browser has not sent after 30 s what is to be held; it shows: %s", pageText(t, browser))
		return nil
	}
}

// seen waits until everything is answered, and returns how many requests went to
// this path.
func (p *tap) seen(t *testing.T, method, path string) int {
	t.Helper()
	n := 0
	eventually(t, fmt.Sprintf("%s %s is answered and nothing else under way", method, path), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		n = 0
		for _, s := range p.past {
			if s.is(method, path) {
				n++
			}
		}
		return n > 0 && p.going == 0
	})
	return n
}
