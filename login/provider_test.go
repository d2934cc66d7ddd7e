package login_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	clientID     = "caddy-scope"
	clientSecret = "what the provider gave us"
)

// provider is an OpenID provider that can be told to lie. It signs its user in
// without a page.
type provider struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	key     *ecdsa.PrivateKey // signs
	keys    []jose.JSONWebKey // published
	codes   map[string]url.Values
	asked   url.Values // the last authorization request
	down    bool
	deny    bool
	lie     func(claims map[string]any)
	sign    func(claims map[string]any) string // instead of the key
	answer  func(url.Values)                   // changes what the browser brings back
	reads   int                                // of the key set
	idToken string                             // the last one
}

func newProvider(t *testing.T) *provider {
	p := &provider{t: t, codes: map[string]url.Values{}}
	p.rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"userinfo_endpoint": p.URL + "/userinfo", "id_token_signing_alg_values_supported": []string{"ES256"},
			"authorization_response_iss_parameter_supported": true, "end_session_endpoint": p.URL + "/logout?realm=main",
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		p.reads++
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: p.keys})
	})
	mux.HandleFunc("/authorize", p.authorize)
	mux.HandleFunc("/token", p.token)
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"sub": "ada-1", "org": "acme"})
	})
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.down {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// set changes the provider between requests.
func (p *provider) set(change func(*provider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// rotate signs with a new key and publishes only that.
func (p *provider) rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	p.key = key
	p.keys = []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: rand.Text(), Algorithm: "ES256", Use: "sig"}}
}

func (p *provider) authorize(w http.ResponseWriter, r *http.Request) {
	p.asked = r.URL.Query()
	answer := url.Values{"state": p.asked["state"], "iss": {p.URL}}
	if p.deny {
		answer.Set("error", "access_denied")
	} else {
		code := rand.Text()
		p.codes[code] = p.asked
		answer.Set("code", code)
	}
	if p.answer != nil {
		p.answer(answer)
	}
	http.Redirect(w, r, p.asked.Get("redirect_uri")+"?"+answer.Encode(), http.StatusFound)
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	asked, known := p.codes[r.PostForm.Get("code")]
	delete(p.codes, r.PostForm.Get("code"))
	id, secret, _ := r.BasicAuth()
	id, _ = url.QueryUnescape(id)
	secret, _ = url.QueryUnescape(secret)
	challenge := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	if !known || id != clientID || secret != clientSecret || r.PostForm.Get("redirect_uri") != asked.Get("redirect_uri") ||
		base64.RawURLEncoding.EncodeToString(challenge[:]) != asked.Get("code_challenge") || asked.Get("code_challenge_method") != "S256" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant"}`))
		return
	}
	now := time.Now()
	claims := map[string]any{
		"iss": p.URL, "aud": clientID, "sub": "ada-1", "nonce": asked.Get("nonce"), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		"email": "ada@provider.example", "email_verified": true, "auth_time": now.Unix(), "sid": "their-session", "roles": []string{"recruiter"},
	}
	if p.lie != nil {
		p.lie(claims)
	}
	sign := p.sign
	if sign == nil {
		sign = p.signed
	}
	p.idToken = sign(claims)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "theirs", "token_type": "Bearer", "id_token": p.idToken})
}

func (p *provider) signed(claims map[string]any) string {
	return signWith(p.t, jose.ES256, p.key, p.keys[0].KeyID, claims)
}

func signWith(t *testing.T, algorithm jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	return signAs(t, "", algorithm, key, kid, claims)
}

// signAs is signWith for a token that says of which type it is.
func signAs(t *testing.T, kind string, algorithm jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if kind != "" {
		options = options.WithType(jose.ContentType(kind))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, options)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}
