package authserver_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/authserver"
	"github.com/caddy-scope/caddy-scope/validator"
)

const resource = "https://jobs.example.com"

// teller is an authorization server that answers introspection as a test wants it.
type teller struct {
	*httptest.Server
	t         *testing.T
	clock     atomic.Int64 // milliseconds that have passed
	began     time.Time
	questions atomic.Int32
	answer    atomic.Pointer[http.HandlerFunc]
}

func newTeller(t *testing.T) *teller {
	l := &teller{t: t, began: time.Now()}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": l.URL, "jwks_uri": l.URL + "/jwks", "introspection_endpoint": l.URL + "/introspect"})
	})
	mux.HandleFunc("/introspect", func(w http.ResponseWriter, r *http.Request) {
		l.questions.Add(1)
		if id, secret, ok := r.BasicAuth(); !ok || id != "gate" || secret != "s%3Acret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		(*l.answer.Load())(w, r)
	})
	l.Server = httptest.NewServer(mux)
	t.Cleanup(l.Close)
	l.say(nil)
	return l
}

// say answers that the token is active, with changes; nil removes a member.
func (l *teller) say(change map[string]any) {
	said := map[string]any{
		"active": true, "iss": l.URL, "aud": resource, "sub": "ada", "client_id": "gpt", "scope": "jobs:read", "exp": l.began.Add(time.Hour).Unix(),
	}
	for name, value := range change {
		said[name] = value
		if value == nil {
			delete(said, name)
		}
	}
	l.do(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(said) })
}

func (l *teller) do(with http.HandlerFunc) { l.answer.Store(&with) }

func (l *teller) pass(d time.Duration) { l.clock.Add(int64(d / time.Millisecond)) }

func (l *teller) server() *authserver.Server {
	l.t.Helper()
	s, err := authserver.New(authserver.Config{
		Issuer: l.URL, ClientID: "gate", ClientSecret: "s:cret", MaxStaleness: 4 * time.Second, Timeout: time.Minute,
		Now: func() time.Time { return l.began.Add(time.Duration(l.clock.Load()) * time.Millisecond) },
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func down(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }

// UPS-10: a token is asked about once for all requests, and the answer counts for
// the bound: so late, at most, is a revocation seen. In the second half of it the
// next answer is fetched beside the requests.
func TestAnswersCountForTheirBound(t *testing.T) {
	t.Parallel()
	l := newTeller(t)
	s := l.server()
	read := func() (validator.Session, error) { return s.ReadTokenSession(t.Context(), "token", resource) }
	var all sync.WaitGroup
	for range 500 {
		all.Go(func() {
			if session, err := read(); err != nil || session.UserID != "ada" || session.ClientID != "gpt" || session.Scopes.String() != "jobs:read" {
				t.Errorf("%+v, %v", session, err)
			}
		})
	}
	all.Wait()
	if n := l.questions.Load(); n != 1 {
		t.Fatalf("%d questions, want 1", n)
	}
	l.say(map[string]any{"active": false})
	l.pass(1900 * time.Millisecond)
	if _, err := read(); err != nil || l.questions.Load() != 1 {
		t.Fatalf("in the first half: %v, %d questions", err, l.questions.Load())
	}
	l.pass(200 * time.Millisecond)
	if _, err := read(); err != nil { // and asks
		t.Fatalf("in the second half: %v", err)
	}
	eventually(t, "the revocation is seen", func() bool { _, err := read(); return errors.Is(err, validator.ErrSessionEnded) })

	// Nobody asked in between: the answer is too old, and is not taken.
	l.say(nil)
	if _, err := s.ReadTokenSession(t.Context(), "other", resource); err != nil {
		t.Fatal(err)
	}
	l.say(map[string]any{"active": false})
	l.pass(4 * time.Second)
	if _, err := s.ReadTokenSession(t.Context(), "other", resource); !errors.Is(err, validator.ErrSessionEnded) {
		t.Errorf("after the bound: %v", err)
	}
}

// UPS-11: while the authorization server is away answers count to their bound, not
// shorter and not longer; then nobody can say, which ends no session.
func TestAnswersCountNoLongerWhenNobodyAnswers(t *testing.T) {
	t.Parallel()
	l := newTeller(t)
	s := l.server()
	read := func() error { _, err := s.ReadTokenSession(t.Context(), "token", resource); return err }
	if err := read(); err != nil {
		t.Fatal(err)
	}
	l.do(down)
	for range 39 {
		l.pass(100 * time.Millisecond)
		if err := read(); err != nil {
			t.Fatalf("before the bound: %v", err)
		}
	}
	l.pass(100 * time.Millisecond)
	if err := read(); !errors.Is(err, authserver.ErrUnavailable) || errors.Is(err, validator.ErrSessionEnded) {
		t.Fatalf("at the bound: %v", err)
	}
	l.say(nil)
	eventually(t, "it is back", func() bool { return read() == nil })
}

// UPS-12: an answer that is about another issuer's token, or for another resource,
// admits nobody, whatever it says; nor does one that is no answer.
func TestAnswersAboutOtherTokensAdmitNobody(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]map[string]any{
		"another resource": {"aud": "https://other.example.com"},
		"two resources":    {"aud": []string{resource, "https://other.example.com"}},
		"no resource":      {"aud": nil},
		"another issuer":   {"iss": "https://evil.example"},
		"no issuer":        {"iss": nil},
		"active as text":   {"active": "true"},
		"malformed scope":  {"scope": "a\"b"},
	} {
		l := newTeller(t)
		l.say(change)
		if session, err := l.server().ReadTokenSession(t.Context(), "token", resource); !errors.Is(err, authserver.ErrUnavailable) || session.UserID != "" {
			t.Errorf("%s: %+v, %v", name, session, err)
		}
	}
	l := newTeller(t)
	for name, answer := range map[string]http.HandlerFunc{
		"error": down,
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"page": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"active":true}` + strings.Repeat(" ", 1<<20)))
		},
	} {
		l.do(answer)
		if _, err := l.server().ReadTokenSession(t.Context(), "token", resource); !errors.Is(err, authserver.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Of a token that is not active nothing else counts.
	l.say(map[string]any{"active": false, "aud": nil})
	if _, err := l.server().ReadTokenSession(t.Context(), "token", resource); !errors.Is(err, validator.ErrSessionEnded) {
		t.Errorf("not active: %v", err)
	}
	l.say(map[string]any{"active": nil})
	if _, err := l.server().ReadTokenSession(t.Context(), "token", resource); !errors.Is(err, validator.ErrSessionEnded) {
		t.Errorf("nothing about active: %v", err)
	}
}
