package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/identity"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

const (
	testIssuer   = "https://api.example.com"
	testAudience = "https://api.example.com#upstream"
)

// scene is a gate and an upstream that share a clock.
type scene struct {
	*identity.Minter
	t        *testing.T
	key      *ecdsa.PrivateKey
	ring     *issuer.KeyRing
	verifier *identity.Verifier
	now      time.Time
	down     bool // the keys cannot be had
}

func newScene(t *testing.T, change ...func(*identity.VerifierConfig)) *scene {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, key: key, now: time.Now()}
	if s.ring, err = issuer.NewStaticKeyRing([]*ecdsa.PrivateKey{key}); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return s.now }
	if s.Minter, err = identity.NewMinter(testIssuer, testAudience, clock); err != nil {
		t.Fatal(err)
	}
	cfg := identity.VerifierConfig{Issuer: testIssuer, Audience: testAudience, Keys: s, Now: clock}
	for _, c := range change {
		c(&cfg)
	}
	if s.verifier, err = identity.NewVerifier(cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

// FindKey implements identity.Keys.
func (s *scene) FindKey(_ context.Context, kid string) (*ecdsa.PublicKey, error) {
	if s.down {
		return nil, errors.New("connection refused")
	}
	if key, ok := s.ring.VerificationKey(kid); ok {
		return key, nil
	}
	return nil, oauth.ErrUnknownKey
}

var ada = identity.Caller{
	UserID: "ada", ClientID: "gpt", SessionID: "session-1", Scopes: "jobs:read jobs:write", Claims: map[string][]string{"roles": {"recruiter"}},
}

func (s *scene) mint(r *http.Request, c identity.Caller) string {
	s.t.Helper()
	token, err := s.Token(s.ring, r, &c)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

func request(method, target string) *http.Request {
	return httptest.NewRequest(method, target, nil)
}

// serve sends the request with the token to the upstream.
func (s *scene) serve(r *http.Request, tokens ...string) (*httptest.ResponseRecorder, *identity.Caller) {
	var seen *identity.Caller
	for _, token := range tokens {
		r.Header.Add("X-Identity-Token", token)
	}
	w := httptest.NewRecorder()
	s.verifier.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if caller, ok := identity.FromContext(r.Context()); ok {
			seen = &caller
		}
	})).ServeHTTP(w, r)
	return w, seen
}

// UPS-01: the upstream learns from the token who is calling.
func TestUpstreamLearnsWhoIsCalling(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const target = "https://api.example.com/jobs/a%20b?q=1&q=2"
	w, caller := s.serve(request("GET", target), s.mint(request("GET", target), ada))
	if w.Code != http.StatusOK || caller == nil || caller.UserID != "ada" || caller.ClientID != "gpt" || caller.SessionID != "session-1" ||
		caller.Scopes != "jobs:read jobs:write" || len(caller.Claims["roles"]) != 1 {
		t.Fatalf("%d %s %+v", w.Code, w.Body, caller)
	}
	// At a public rule: through the gate, and nobody.
	w, caller = s.serve(request("GET", target), s.mint(request("GET", target), identity.Caller{}))
	if w.Code != http.StatusOK || caller == nil || caller.UserID != "" || caller.ClientID != "" {
		t.Fatalf("%d %+v", w.Code, caller)
	}
}

// UPS-02: a token is for one request. On another method, path, host or query it is
// refused, and so is a second token beside it.
func TestTokenIsForOneRequest(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	token := s.mint(request("GET", "https://api.example.com/jobs/7?q=1"), ada)
	for name, other := range map[string]*http.Request{
		"method":          request("DELETE", "https://api.example.com/jobs/7?q=1"),
		"HEAD":            request("HEAD", "https://api.example.com/jobs/7?q=1"),
		"path":            request("GET", "https://api.example.com/jobs/8?q=1"),
		"path below":      request("GET", "https://api.example.com/jobs/7/notes?q=1"),
		"slash":           request("GET", "https://api.example.com/jobs/7/?q=1"),
		"another escape":  request("GET", "https://api.example.com/jobs/%37?q=1"),
		"host":            request("GET", "https://other.example.com/jobs/7?q=1"),
		"port":            request("GET", "https://api.example.com:8443/jobs/7?q=1"),
		"query":           request("GET", "https://api.example.com/jobs/7?q=2"),
		"longer query":    request("GET", "https://api.example.com/jobs/7?q=1&q=1"),
		"no query":        request("GET", "https://api.example.com/jobs/7"),
		"query in a path": request("GET", "https://api.example.com/jobs/7%3Fq=1"),
	} {
		if w, caller := s.serve(other, token); w.Code != http.StatusForbidden || caller != nil {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	same := func() *http.Request { return request("GET", "https://API.example.com/jobs/7?q=1") }
	if w, _ := s.serve(same(), token); w.Code != http.StatusOK {
		t.Errorf("the same request: %d %s", w.Code, w.Body)
	}
	if w, _ := s.serve(same(), token, token); w.Code != http.StatusForbidden {
		t.Errorf("two tokens: %d", w.Code)
	}
	if w, _ := s.serve(same()); w.Code != http.StatusForbidden {
		t.Errorf("no token: %d", w.Code)
	}
}

// UPS-02: where the proxy changes Host, the upstream says for which hosts tokens
// may be, and no others are.
func TestHostsOfTheGateStandInForTheRequests(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(c *identity.VerifierConfig) { c.Hosts = []string{"api.example.com"} })
	arrived := func() *http.Request { return request("GET", "https://10.0.0.7:9001/jobs") }
	if w, _ := s.serve(arrived(), s.mint(request("GET", "https://api.example.com/jobs"), ada)); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w, _ := s.serve(arrived(), s.mint(request("GET", "https://other.example.com/jobs"), ada)); w.Code != http.StatusForbidden {
		t.Errorf("another host: %d", w.Code)
	}
}

// UPS-03: what is no identity token of this issuer for this upstream, now, is
// refused: other types and algorithms, other keys, other claims.
func TestOtherTokensAreNoProof(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	good := func() map[string]any {
		return map[string]any{
			"iss": testIssuer, "aud": testAudience, "sub": "ada", "client_id": "gpt", "sid": "session-1", "scope": "jobs:read",
			"htm": "GET", "host": "api.example.com", "path": "/jobs", "iat": s.now.Unix(), "exp": s.now.Unix() + 30,
		}
	}
	kid := s.ring.SignerID()
	minter := &validatortest.Minter{Key: s.key}
	sign := func(header string, claims map[string]any) string {
		payload, _ := json.Marshal(claims)
		return minter.Sign(strings.ReplaceAll(header, "KID", kid), string(payload))
	}
	const header = `{"alg":"ES256","kid":"KID","typ":"upstream-identity+jwt"}`
	with := func(name string, value any) string { return sign(header, validatortest.With(good(), name, value)) }
	parts := strings.Split(sign(header, good()), ".")
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	// The public key as an HMAC secret, in the form in which it is published.
	confused := encode(strings.ReplaceAll(strings.Replace(header, "ES256", "HS256", 1), "KID", kid)) + "." + parts[1]
	mac := hmac.New(sha256.New, validatortest.JWKS(map[string]*ecdsa.PublicKey{kid: &s.key.PublicKey}))
	mac.Write([]byte(confused))

	for name, token := range map[string]string{
		"an access token":    sign(strings.Replace(header, "upstream-identity+jwt", "at+jwt", 1), good()),
		"an ID token":        sign(strings.Replace(header, "upstream-identity+jwt", "JWT", 1), good()),
		"no type":            sign(`{"alg":"ES256","kid":"KID"}`, good()),
		"alg none":           encode(strings.ReplaceAll(strings.Replace(header, "ES256", "none", 1), "KID", kid)) + "." + parts[1] + ".",
		"HS256":              confused + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
		"ES384":              sign(strings.Replace(header, "ES256", "ES384", 1), good()),
		"unknown key":        sign(strings.Replace(header, "KID", "other", 1), good()),
		"another payload":    parts[0] + "." + encode(`{"iss":"`+testIssuer+`"}`) + "." + parts[2],
		"without signature":  parts[0] + "." + parts[1] + ".",
		"another issuer":     with("iss", "https://other.example.com"),
		"another upstream":   with("aud", "https://api.example.com/mcp#upstream"),
		"the resource":       with("aud", testIssuer),
		"two audiences":      with("aud", []string{testAudience, "x"}),
		"expired":            with("exp", s.now.Unix()-5),
		"of the future":      with("iat", s.now.Unix()+6),
		"lives for an hour":  with("exp", s.now.Unix()+3600),
		"without an end":     with("exp", nil),
		"for another method": with("htm", "POST"),
		"for no method":      with("htm", nil),
		"nothing":            "",
		"garbage":            "a.b.c",
		"JSON":               `{"header":{"x":"a.b.c"},"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"too long":           sign(header, validatortest.With(good(), "sub", strings.Repeat("x", 20<<10))),
	} {
		if w, caller := s.serve(request("GET", "https://api.example.com/jobs"), token); w.Code != http.StatusForbidden || caller != nil {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	if w, _ := s.serve(request("GET", "https://api.example.com/jobs"), sign(header, good())); w.Code != http.StatusOK {
		t.Errorf("the good one: %d %s", w.Code, w.Body)
	}
	s.down = true
	if w, _ := s.serve(request("GET", "https://api.example.com/jobs"), sign(header, good())); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("nobody can say: %d", w.Code)
	}
}

// UPS-04: the same request of the same caller gets the same token for ten seconds;
// anything else that the token says, or another key, makes a new one.
func TestTokensAreKeptForTheSameRequestAlone(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	get := func() *http.Request { return request("GET", "https://api.example.com/jobs") }
	first := s.mint(get(), ada)
	s.now = s.now.Add(9 * time.Second)
	if s.mint(get(), ada) != first {
		t.Error("the same request was signed anew")
	}
	narrowed := ada
	narrowed.Scopes = "jobs:read"
	w, caller := s.serve(get(), s.mint(get(), narrowed))
	if w.Code != http.StatusOK || caller.Scopes != "jobs:read" {
		t.Errorf("narrowed: %d %+v", w.Code, caller)
	}
	demoted := ada
	demoted.Claims = nil
	if _, caller = s.serve(get(), s.mint(get(), demoted)); caller == nil || caller.Claims != nil {
		t.Errorf("demoted: %+v", caller)
	}
	if s.mint(request("POST", "https://api.example.com/jobs"), ada) == first || s.mint(request("GET", "https://api.example.com/jobs?x"), ada) == first {
		t.Error("another request has the same token")
	}
	long := func() *http.Request { return request("GET", "https://api.example.com/"+strings.Repeat("x", 2000)) }
	if once := s.mint(long(), ada); s.mint(long(), ada) == once {
		t.Error("a long path, which anybody can make up, is kept")
	}
	s.now = s.now.Add(time.Second)
	second := s.mint(get(), ada)
	if second == first {
		t.Error("after ten seconds it is still the old one")
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if s.ring, err = issuer.NewStaticKeyRing([]*ecdsa.PrivateKey{other}); err != nil {
		t.Fatal(err)
	}
	if w, _ := s.serve(get(), s.mint(get(), ada)); w.Code != http.StatusOK {
		t.Errorf("after the key was replaced: %d: %s", w.Code, w.Body)
	}
}

// BenchmarkToken: what one request costs, signed anew and kept.
func BenchmarkToken(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	ring, err := issuer.NewStaticKeyRing([]*ecdsa.PrivateKey{key})
	if err != nil {
		b.Fatal(err)
	}
	for _, bc := range []struct {
		name string
		step time.Duration
	}{{"kept", 0}, {"signed", time.Minute}} {
		b.Run(bc.name, func(b *testing.B) {
			now := time.Now()
			minter, err := identity.NewMinter(testIssuer, testAudience, func() time.Time { now = now.Add(bc.step); return now })
			if err != nil {
				b.Fatal(err)
			}
			r := request("GET", "https://api.example.com/jobs/job-1")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := minter.Token(ring, r, &ada); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
