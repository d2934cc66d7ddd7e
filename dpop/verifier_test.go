package dpop_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	cryptorsa "crypto/rsa"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/dpop/dpoptest"
)

const (
	uri   = "https://api.example.com/jobs"
	token = "an.access.token"
)

// memory is a dpop.Store.
type memory struct {
	mu   sync.Mutex
	used map[[32]byte]bool
	err  error
}

func (m *memory) UseProof(_ context.Context, digest [32]byte, _ time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	if m.used[digest] {
		return dpop.ErrReplayed
	}
	m.used[digest] = true
	return nil
}

func newVerifier(keys ...string) *dpop.Verifier {
	raw := [][]byte{[]byte("a key that all nodes have")}
	if len(keys) > 0 {
		raw = nil
	}
	for _, key := range keys {
		raw = append(raw, []byte(key))
	}
	return &dpop.Verifier{Nonces: dpop.NewNonces(time.Now, raw...), Store: &memory{used: map[[32]byte]bool{}}, Now: time.Now}
}

func check(v *dpop.Verifier, fields ...string) (*dpop.Proof, error) {
	return v.Check(fields, dpop.Request{Method: "GET", URI: uri + "?page=2", AccessToken: token})
}

// A proof of each algorithm holds, and names its key.
func TestProofHolds(t *testing.T) {
	t.Parallel()
	v := newVerifier()
	for _, algorithm := range dpop.Algorithms {
		key := dpoptest.NewKey(t, algorithm)
		proof, err := check(v, key.Proof("GET", uri, dpoptest.For(token), dpoptest.Nonce(v.Nonces.Current())))
		if err != nil || proof.Thumbprint != key.Thumbprint() || proof.NextNonce != "" || !dpop.IsThumbprint(proof.Thumbprint) {
			t.Errorf("%s: %+v %v", algorithm, proof, err)
		}
	}
}

// The twelve checks of RFC 9449 section 4.3, each with proofs that fail it and
// nothing else. P-02.
func TestProofFailsEachOfTheTwelveChecks(t *testing.T) {
	t.Parallel()
	v := newVerifier()
	key, other, rsa := dpoptest.NewKey(t, "ES256"), dpoptest.NewKey(t, "ES256"), dpoptest.NewKey(t, "RS256")
	nonce := dpoptest.Nonce(v.Nonces.Current())
	proof := func(changes ...dpoptest.Change) string {
		return key.Proof("GET", uri, append([]dpoptest.Change{dpoptest.For(token), nonce}, changes...)...)
	}
	header := func(name string, value any) string { return proof(dpoptest.Header(name, value)) }
	claim := func(name string, value any) string { return proof(dpoptest.Claim(name, value)) }
	good := proof()
	if _, err := check(v, good); err != nil {
		t.Fatal(err)
	}
	segments := strings.Split(good, ".")
	privateJWK, symmetric := key.JWK(), map[string]any{"kty": "oct", "k": "c2VjcmV0"}
	privateJWK["d"] = "AAAA"
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	small, _ := cryptorsa.GenerateKey(rand.Reader, 1024)
	by := func(private crypto.Signer, algorithm string) string {
		return dpoptest.WithKey(t, private, algorithm).Proof("GET", uri, dpoptest.For(token), nonce)
	}
	halfPrivate := rsa.JWK()
	halfPrivate["p"] = "AAAA"

	for name, c := range map[string]struct {
		fields []string
		want   error
	}{
		"1 two headers":           {[]string{good, proof()}, dpop.ErrInvalid},
		"1 none":                  {nil, dpop.ErrInvalid},
		"2 garbage":               {[]string{"x"}, dpop.ErrInvalid},
		"2 two in one header":     {[]string{good + ", " + good}, dpop.ErrInvalid},
		"2 two segments":          {[]string{segments[0] + "." + segments[1]}, dpop.ErrInvalid},
		"2 padded":                {[]string{segments[0] + "=." + segments[1] + "." + segments[2]}, dpop.ErrInvalid},
		"2 line break":            {[]string{segments[0][:8] + "\n" + segments[0][8:] + "." + segments[1] + "." + segments[2]}, dpop.ErrInvalid},
		"2 too long":              {[]string{claim("more", strings.Repeat("x", 9000))}, dpop.ErrInvalid},
		"3 no jti":                {[]string{claim("jti", nil)}, dpop.ErrInvalid},
		"3 long jti":              {[]string{claim("jti", strings.Repeat("x", 513))}, dpop.ErrInvalid},
		"3 no htm":                {[]string{claim("htm", nil)}, dpop.ErrInvalid},
		"3 no htu":                {[]string{claim("htu", nil)}, dpop.ErrInvalid},
		"3 no iat":                {[]string{claim("iat", nil)}, dpop.ErrInvalid},
		"3 iat is text":           {[]string{claim("iat", "now")}, dpop.ErrInvalid},
		"4 typ JWT":               {[]string{header("typ", "JWT")}, dpop.ErrInvalid},
		"4 typ at+jwt":            {[]string{header("typ", "at+jwt")}, dpop.ErrInvalid},
		"4 no typ":                {[]string{header("typ", nil)}, dpop.ErrInvalid},
		"5 alg none":              {[]string{header("alg", "none")}, dpop.ErrInvalid},
		"5 alg HS256":             {[]string{header("alg", "HS256")}, dpop.ErrInvalid},
		"5 no alg":                {[]string{header("alg", nil)}, dpop.ErrInvalid},
		"5 alg of another key":    {[]string{header("alg", "RS256")}, dpop.ErrInvalid},
		"5 PS256 of an RSA key":   {[]string{rsa.Proof("GET", uri, dpoptest.For(token), nonce, dpoptest.Header("alg", "PS256"))}, dpop.ErrInvalid},
		"5 crit":                  {[]string{header("crit", []string{"b64"})}, dpop.ErrInvalid},
		"6 another key's":         {[]string{header("jwk", other.JWK())}, dpop.ErrInvalid},
		"6 unsigned":              {[]string{segments[0] + "." + segments[1] + "."}, dpop.ErrInvalid},
		"6 changed":               {[]string{segments[0] + "." + strings.Split(proof(), ".")[1] + "." + segments[2]}, dpop.ErrInvalid},
		"7 private jwk":           {[]string{header("jwk", privateJWK)}, dpop.ErrInvalid},
		"7 half private":          {[]string{rsa.Proof("GET", uri, dpoptest.For(token), nonce, dpoptest.Header("jwk", halfPrivate))}, dpop.ErrInvalid},
		"7 symmetric jwk":         {[]string{header("jwk", symmetric)}, dpop.ErrInvalid},
		"7 no jwk":                {[]string{header("jwk", nil)}, dpop.ErrInvalid},
		"7 jwk is text":           {[]string{header("jwk", "key")}, dpop.ErrInvalid},
		"5 P-384":                 {[]string{by(p384, "ES256")}, dpop.ErrInvalid},
		"5 short RSA":             {[]string{by(small, "RS256")}, dpop.ErrInvalid},
		"8 htm":                   {[]string{claim("htm", "POST")}, dpop.ErrInvalid},
		"8 htm lower case":        {[]string{claim("htm", "get")}, dpop.ErrInvalid},
		"9 another path":          {[]string{claim("htu", uri+"/1")}, dpop.ErrInvalid},
		"9 another host":          {[]string{claim("htu", "https://api.example.org/jobs")}, dpop.ErrInvalid},
		"9 plain http":            {[]string{claim("htu", "http://api.example.com/jobs")}, dpop.ErrInvalid},
		"9 another port":          {[]string{claim("htu", "https://api.example.com:8443/jobs")}, dpop.ErrInvalid},
		"10 no nonce":             {[]string{claim("nonce", nil)}, dpop.ErrUseNonce},
		"10 made up":              {[]string{claim("nonce", "x")}, dpop.ErrUseNonce},
		"10 of another server":    {[]string{claim("nonce", newVerifier("another key").Nonces.Current())}, dpop.ErrUseNonce},
		"11 iat too old":          {[]string{claim("iat", time.Now().Add(-62*time.Second).Unix())}, dpop.ErrInvalid},
		"11 iat too new":          {[]string{claim("iat", time.Now().Add(62*time.Second).Unix())}, dpop.ErrInvalid},
		"11 iat without end":      {[]string{claim("iat", 1e300)}, dpop.ErrInvalid},
		"12 no ath":               {[]string{claim("ath", nil)}, dpop.ErrInvalid},
		"12 ath of another token": {[]string{proof(dpoptest.For("another.access.token"))}, dpop.ErrInvalid},
	} {
		if proof, err := check(v, c.fields...); proof != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v %v", name, proof, err)
		}
	}
}

// P-24: htu is compared as RFC 3986 has it, and without query and fragment.
func TestProofNamesTheURIInAnySpelling(t *testing.T) {
	t.Parallel()
	v, key := newVerifier(), dpoptest.NewKey(t, "EdDSA")
	for _, c := range []struct {
		htu, request string
		same         bool
	}{
		{"https://a.example/x", "https://a.example/x", true},
		{"HTTPS://A.Example:443/x?page=1#top", "https://a.example/x", true},
		{"http://127.0.0.1:80/x", "http://127.0.0.1/x", true},
		{"https://[::1]:443/x", "https://[::1]/x", true},
		{"https://a.example", "https://a.example/", true},
		{"https://a.example/%7ejo%62s/%c3%a4", "https://a.example/~jobs/%C3%A4", true},
		{"https://a.example/y/../x", "https://a.example/x", true},
		{"https://a.example/y/%2e%2e/x", "https://a.example/x", true},
		{"https://a.example/x/", "https://a.example/x", false},
		{"https://a.example/X", "https://a.example/x", false},
		{"https://a.example/a%2fb", "https://a.example/a/b", false},
		{"https://user@a.example/x", "https://a.example/x", false},
		{"https://a.example:80/x", "https://a.example/x", false},
		{"/x", "https://a.example/x", false},
		{"ftp://a.example/x", "ftp://a.example/x", false},
		{"https://a.example/%zz", "https://a.example/%zz", false},
	} {
		_, err := v.Check([]string{key.Proof("GET", c.htu, dpoptest.Nonce(v.Nonces.Current()))}, dpop.Request{Method: "GET", URI: c.request})
		if (err == nil) != c.same {
			t.Errorf("%s for %s: %v", c.htu, c.request, err)
		}
	}
}

// P-21: a nonce is every node's, also of one whose secret is an old one of the other,
// and for some ten minutes.
func TestNoncesRotateAndAreShared(t *testing.T) {
	t.Parallel()
	key := dpoptest.NewKey(t, "ES256")
	at := func(offset time.Duration, keys ...string) *dpop.Verifier {
		v := newVerifier(keys...)
		now := func() time.Time { return time.Unix(3000, 0).Add(offset) }
		raw := make([][]byte, len(keys))
		for i := range keys {
			raw[i] = []byte(keys[i])
		}
		v.Nonces = dpop.NewNonces(now, raw...)
		return v
	}
	made := at(0, "new").Nonces.Current()
	for name, c := range map[string]struct {
		node     *dpop.Verifier
		accepted bool
		next     bool
	}{
		"the same period":        {at(4*time.Minute, "new"), true, false},
		"the next":               {at(5*time.Minute, "new"), true, true},
		"the one after":          {at(10*time.Minute, "new"), false, false},
		"a clock that is behind": {at(-time.Minute, "new"), true, false},
		"far behind":             {at(-6*time.Minute, "new"), false, false},
		"a newer secret":         {at(0, "newer", "new"), true, true},
		"another secret":         {at(0, "other"), false, false},
	} {
		proof, err := check(c.node, key.Proof("GET", uri, dpoptest.For(token), dpoptest.Nonce(made)))
		if (err == nil) != c.accepted || err != nil && !errors.Is(err, dpop.ErrUseNonce) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.accepted && (proof.NextNonce != "") != c.next {
			t.Errorf("%s: the next nonce is %q", name, proof.NextNonce)
		}
	}
	raw, _ := base64.RawURLEncoding.DecodeString(made)
	raw[7]++
	if _, err := check(at(0, "new"), key.Proof("GET", uri, dpoptest.For(token), dpoptest.Nonce(base64.RawURLEncoding.EncodeToString(raw)))); !errors.Is(err, dpop.ErrUseNonce) {
		t.Errorf("a changed period: %v", err)
	}
}

// P-23, RFC 9449 section 11.1: a proof is good once. Another key may have the same jti.
func TestProofIsUsedOnce(t *testing.T) {
	t.Parallel()
	v := newVerifier()
	use := func(key *dpoptest.Key, jti string) error {
		proof, err := check(v, key.Proof("GET", uri, dpoptest.For(token), dpoptest.Nonce(v.Nonces.Current()), dpoptest.Claim("jti", jti)))
		if err != nil {
			t.Fatal(err)
		}
		return v.Use(t.Context(), proof)
	}
	one, two := dpoptest.NewKey(t, "ES256"), dpoptest.NewKey(t, "ES256")
	if err := errors.Join(use(one, "a"), use(one, "b"), use(two, "a")); err != nil {
		t.Error(err)
	}
	if err := use(one, "a"); !errors.Is(err, dpop.ErrReplayed) {
		t.Errorf("again: %v", err)
	}
	v.Store.(*memory).err = errors.New("down")
	if err := use(two, "c"); err == nil || errors.Is(err, dpop.ErrReplayed) {
		t.Errorf("P-04: %v", err)
	}
}
