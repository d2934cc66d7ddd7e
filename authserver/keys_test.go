package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/authserver"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// host is an authorization server as others see it: documents that a test changes,
// and a count of who asked for them.
type host struct {
	*httptest.Server
	t        *testing.T
	clock    atomic.Int64 // seconds that have passed
	began    time.Time
	jwks     atomic.Pointer[http.HandlerFunc]
	metadata atomic.Pointer[string] // nil: those of the server
	asked    atomic.Int32           // for keys
}

func newHost(t *testing.T, kids ...string) *host {
	h := &host{t: t, began: time.Now()}
	h.publish(kids...)
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		if other := h.metadata.Load(); other != nil {
			_, _ = io.WriteString(w, *other)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": h.URL, "jwks_uri": h.URL + "/oauth/jwks.json"})
	})
	mux.HandleFunc("/oauth/jwks.json", func(w http.ResponseWriter, r *http.Request) {
		h.asked.Add(1)
		(*h.jwks.Load())(w, r)
	})
	h.Server = httptest.NewServer(mux)
	t.Cleanup(h.Close)
	return h
}

// keysOnce makes one key for each kid: which key it is, matters nowhere.
var keysOnce sync.Map

func keyOf(t testing.TB, kid string) *ecdsa.PublicKey {
	t.Helper()
	if key, ok := keysOnce.Load(kid); ok {
		return key.(*ecdsa.PublicKey)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	actual, _ := keysOnce.LoadOrStore(kid, &key.PublicKey)
	return actual.(*ecdsa.PublicKey)
}

func (h *host) publish(kids ...string) {
	keys := make(map[string]*ecdsa.PublicKey)
	for _, kid := range kids {
		keys[kid] = keyOf(h.t, kid)
	}
	h.answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(validatortest.JWKS(keys)) })
}

func (h *host) answer(with http.HandlerFunc) { h.jwks.Store(&with) }

func (h *host) pass(d time.Duration) { h.clock.Add(int64(d / time.Second)) }

func (h *host) server(change ...func(*authserver.Config)) *authserver.Server {
	h.t.Helper()
	cfg := authserver.Config{Issuer: h.URL, Now: func() time.Time { return h.began.Add(time.Duration(h.clock.Load()) * time.Second) }}
	for _, c := range change {
		c(&cfg)
	}
	s, err := authserver.New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// eventually polls: what is read beside the requests takes a moment.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// UPS-07: a flood of tokens that name keys which do not exist costs the
// authorization server one request in ten seconds, and good tokens nothing.
func TestUnknownKeysCauseOneRequestInTenSeconds(t *testing.T) {
	t.Parallel()
	h := newHost(t, "current")
	s := h.server()
	flood := func() {
		var all sync.WaitGroup
		for n := range 10_000 {
			all.Go(func() {
				if _, err := s.FindKey(t.Context(), fmt.Sprint("made-up-", n)); !errors.Is(err, oauth.ErrUnknownKey) {
					t.Errorf("%v", err)
				}
			})
		}
		all.Wait()
	}
	flood()
	if n := h.asked.Load(); n != 1 {
		t.Fatalf("%d requests for the keys at first, want 1", n)
	}
	if _, ok := s.VerificationKey("current"); !ok {
		t.Error("the current key is not known")
	}
	h.pass(9 * time.Second)
	flood()
	if n := h.asked.Load(); n != 1 {
		t.Fatalf("%d requests within ten seconds, want 1", n)
	}
	h.pass(time.Second)
	flood()
	if n := h.asked.Load(); n != 2 {
		t.Fatalf("%d requests after ten seconds, want 2", n)
	}
}

// UPS-07: while one request hangs there is no second one, however long it takes.
func TestOneRequestForKeysAtATime(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	release := make(chan struct{})
	h.answer(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = w.Write(validatortest.JWKS(map[string]*ecdsa.PublicKey{"late": keyOf(t, "late")}))
	})
	s := h.server(func(c *authserver.Config) { c.Timeout = time.Minute })
	var all sync.WaitGroup
	find := func() {
		if _, err := s.FindKey(t.Context(), "late"); err != nil {
			t.Error(err)
		}
	}
	all.Go(find)
	eventually(t, "the keys are asked for", func() bool { return h.asked.Load() == 1 })
	h.pass(10 * time.Second)
	all.Go(find)
	all.Go(func() {
		defer close(release)
		for range 100 { // who waits for nothing would have asked by now
			_, _ = s.VerificationKey("late")
			time.Sleep(time.Millisecond)
		}
	})
	all.Wait()
	if n := h.asked.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// UPS-07: a key that was rotated in is found by the first token that names it.
func TestNewKeyIsFoundByItsFirstToken(t *testing.T) {
	t.Parallel()
	h := newHost(t, "old")
	s := h.server()
	if _, err := s.FindKey(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	h.publish("old", "new")
	h.pass(10 * time.Second)
	if key, err := s.FindKey(t.Context(), "new"); err != nil || !key.Equal(keyOf(t, "new")) {
		t.Fatalf("%v, %v", key, err)
	}
}

// UPS-07: a key that was withdrawn counts no more once the keys were read again,
// which happens beside the requests after a minute.
func TestWithdrawnKeyCountsNoMore(t *testing.T) {
	t.Parallel()
	h := newHost(t, "stolen", "good")
	s := h.server()
	if _, err := s.FindKey(t.Context(), "stolen"); err != nil {
		t.Fatal(err)
	}
	h.publish("good")
	h.pass(time.Minute)
	eventually(t, "the stolen key is gone", func() bool { _, ok := s.VerificationKey("stolen"); return !ok })
	if _, ok := s.VerificationKey("good"); !ok {
		t.Error("the good key is gone too")
	}
}

// UPS-08: an address for keys that hangs, or drips, keeps nobody longer than the
// timeout.
func TestHangingKeysEndByTheTimeout(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"drips": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.answer(answer)
			s := h.server(func(c *authserver.Config) { c.Timeout = 300 * time.Millisecond })
			began := time.Now()
			if _, err := s.FindKey(t.Context(), "any"); !errors.Is(err, authserver.ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if time.Since(began) > 15*time.Second {
				t.Error("the timeout of 300 ms has not ended it")
			}
		})
	}
}

// UPS-08: an address for keys that is huge, answers with an error, with
// something else or with somebody else's keys: no key is taken, and it is no verdict
// about a token. Keys that are known go on for five minutes.
func TestKeysThatCannotBeReadAreNoVerdict(t *testing.T) {
	t.Parallel()
	elsewhere := newHost(t, "made-up")
	private := `{"keys":[{"kty":"EC","crv":"P-256","kid":"made-up","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}]}`
	good := validatortest.JWKS(map[string]*ecdsa.PublicKey{"made-up": keyOf(t, "made-up")})
	for name, answer := range map[string]http.HandlerFunc{
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append(good, strings.Repeat(" ", 1<<20)...))
		},
		"error": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write(good)
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"no keys": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/oauth/jwks.json", http.StatusFound)
		},
		"a private key": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, private) },
		"a shared secret": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[{"kty":"oct","kid":"made-up","k":"AAAA"}]}`)
		},
		"for encryption": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Replace(string(good), `"sig"`, `"enc"`, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "known")
			s := h.server(func(c *authserver.Config) { c.Timeout = time.Minute })
			h.answer(answer)
			if _, err := s.FindKey(t.Context(), "made-up"); !errors.Is(err, authserver.ErrUnavailable) {
				t.Fatalf("nothing is known: %v", err)
			}
			h.publish("known")
			h.pass(10 * time.Second)
			if _, err := s.FindKey(t.Context(), "known"); err != nil {
				t.Fatal(err)
			}
			h.answer(answer)
			h.pass(4 * time.Minute)
			if _, ok := s.VerificationKey("known"); !ok {
				t.Error("the known key does not go on")
			}
			if _, err := s.FindKey(t.Context(), "made-up"); !errors.Is(err, oauth.ErrUnknownKey) {
				t.Errorf("a made-up key, while keys are known: %v", err)
			}
			h.pass(time.Minute)
			if _, err := s.FindKey(t.Context(), "known"); !errors.Is(err, authserver.ErrUnavailable) {
				t.Errorf("keys of five minutes ago: %v", err)
			}
		})
	}
}

// UPS-08: keys that grow too old while they are on their way count no more, and the
// error says so: nothing has failed that it could name.
func TestKeysThatCameTooLateAreNamed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	keys := validatortest.JWKS(map[string]*ecdsa.PublicKey{"known": keyOf(t, "known")})
	h.answer(func(w http.ResponseWriter, _ *http.Request) {
		h.pass(5 * time.Minute)
		_, _ = w.Write(keys)
	})
	_, err := h.server().FindKey(t.Context(), "known")
	if !errors.Is(err, authserver.ErrUnavailable) || !strings.HasSuffix(err.Error(), "took too long to come, and count no more") {
		t.Errorf("%v", err)
	}
}

// UPS-08: who answers at the issuer's address must be the issuer. RFC 8414 section
// 3.3.
func TestMetadataOfAnotherIssuerAreRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t, "known")
	for _, issuer := range []string{"https://evil.example", h.URL + "/", strings.ToUpper(h.URL), ""} {
		text := fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, h.URL+"/oauth/jwks.json")
		h.metadata.Store(&text)
		if _, err := h.server().FindKey(t.Context(), "known"); !errors.Is(err, authserver.ErrOtherIssuer) || !errors.Is(err, authserver.ErrUnavailable) {
			t.Errorf("%q: %v", issuer, err)
		}
	}
	text := fmt.Sprintf(`{"issuer":%q,"jwks_uri":"http://keys.example/jwks.json"}`, h.URL)
	h.metadata.Store(&text)
	if _, err := h.server().FindKey(t.Context(), "known"); !errors.Is(err, authserver.ErrUnavailable) || !strings.Contains(err.Error(), "plain http") {
		t.Errorf("keys over plain http: %v", err)
	}
}
