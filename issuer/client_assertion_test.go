package issuer_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// robot is a client that signs assertions.
type robot struct {
	t       *testing.T
	scene   *issuertest.Scene
	private map[string]crypto.Signer // by kid, which is the algorithm
}

func newRobot(t *testing.T, scene *issuertest.Scene) *robot {
	t.Helper()
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rs, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	r := &robot{t, scene, map[string]crypto.Signer{"ES256": ec, "RS256": rs, "EdDSA": ed}}
	var set []jwk.Key
	for kid, private := range r.private {
		key, err := jwk.FromRaw(private.Public())
		if err != nil {
			t.Fatal(err)
		}
		_ = key.Set(jwk.KeyIDKey, kid)
		set = append(set, key)
	}
	document, _ := json.Marshal(map[string]any{"keys": set})
	keys, err := issuer.ParseClientKeys(document)
	if err != nil {
		t.Fatal(err)
	}
	scene.Clients.Register(t, issuer.Client{ID: "robot", AuthMethods: []string{"private_key_jwt"}, Grants: []string{"client_credentials"}, JWKS: issuer.StaticKeys(keys)})
	return r
}

// assertion is a good one, after change.
func (r *robot) assertion(algorithm string, change func(header, claims map[string]any)) string {
	r.t.Helper()
	header := map[string]any{"kid": algorithm}
	claims := map[string]any{"iss": "robot", "sub": "robot", "aud": r.scene.URL, "jti": uuid.NewString(), "exp": time.Now().Add(time.Minute).Unix()}
	if change != nil {
		change(header, claims)
	}
	headers := jws.NewHeaders()
	for name, value := range header {
		if err := headers.Set(name, value); err != nil {
			r.t.Fatal(err)
		}
	}
	payload, _ := json.Marshal(claims)
	signed, err := jws.Sign(payload, jws.WithKey(jwa.SignatureAlgorithm(algorithm), r.private[algorithm], jws.WithProtectedHeaders(headers)))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(signed)
}

func (r *robot) token(assertion string, params ...issuertest.Param) issuertest.Response {
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"jobs:read"}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
	for _, param := range params {
		param(form)
	}
	return r.scene.PostForm("/oauth/token", form)
}

// A client that signs is let in by each algorithm, at each endpoint that asks
// who it is. RFC 7523 section 2.2.
func TestAssertionAuthenticatesTheClient(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	r := newRobot(t, scene)
	for _, algorithm := range []string{"ES256", "RS256", "EdDSA"} {
		for name, change := range map[string]func(header, claims map[string]any){
			"plain":               nil,
			"without a kid":       func(header, _ map[string]any) { delete(header, "kid") },
			"typ":                 func(header, _ map[string]any) { header["typ"] = "client-authentication+jwt" },
			"to the endpoint":     func(_, claims map[string]any) { claims["aud"] = scene.URL + "/oauth/token" },
			"to the par endpoint": func(_, claims map[string]any) { claims["aud"] = []string{scene.URL + "/oauth/par", scene.URL} },
			"five minutes":        func(_, claims map[string]any) { claims["exp"] = time.Now().Add(5 * time.Minute).Unix() },
			"a little late":       func(_, claims map[string]any) { claims["exp"] = time.Now().Add(-20 * time.Second).Unix() },
			"a fraction":          func(_, claims map[string]any) { claims["iat"] = float64(time.Now().Unix()) + 0.5 },
		} {
			if got := r.token(r.assertion(algorithm, change)); got.Status != 200 {
				t.Errorf("%s, %s: %d %s", algorithm, name, got.Status, got.Body)
			}
		}
	}
	token := r.token(r.assertion("ES256", nil), issuertest.Set("client_id", "robot")).Tokens().Access
	form := url.Values{"token": {token}, "client_assertion": {r.assertion("ES256", nil)}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
	if got := scene.PostForm("/oauth/introspect", form); got.JSON["active"] != true {
		t.Errorf("%s", got.Body)
	}
	got := scene.Get("/.well-known/oauth-authorization-server")
	list, _ := got.JSON["token_endpoint_auth_signing_alg_values_supported"].([]any)
	if !slices.Equal(list, []any{"ES256", "RS256", "EdDSA"}) {
		t.Errorf("%v", list)
	}
}

// T-24: what does not prove that the client speaks to us, now, is refused.
func TestAssertionThatProvesNothingIsRefused(t *testing.T) {
	t.Parallel()
	// A client of its own for each few, because guessing is throttled.
	for name, change := range map[string]func(r *robot) string{
		"no exp": func(r *robot) string { return r.assertion("ES256", func(_, c map[string]any) { delete(c, "exp") }) },
		"expired": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["exp"] = time.Now().Add(-2 * time.Minute).Unix() })
		},
		"exp too far": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["exp"] = time.Now().Add(7 * time.Minute).Unix() })
		},
		"exp of 1e300": func(r *robot) string { return r.assertion("ES256", func(_, c map[string]any) { c["exp"] = 1e300 }) },
		"not yet": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["nbf"] = time.Now().Add(2 * time.Minute).Unix() })
		},
		"of the future": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["iat"] = time.Now().Add(2 * time.Minute).Unix() })
		},
		"no jti": func(r *robot) string { return r.assertion("ES256", func(_, c map[string]any) { delete(c, "jti") }) },
		"long jti": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["jti"] = strings.Repeat("x", 513) })
		},
		"no aud": func(r *robot) string { return r.assertion("ES256", func(_, c map[string]any) { delete(c, "aud") }) },
		"empty aud": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["aud"] = []string{} })
		},
		"another server": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["aud"] = "https://other.example" })
		},
		"also another": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["aud"] = []string{r.scene.URL, "https://other.example"} })
		},
		"slash": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["aud"] = r.scene.URL + "/" })
		},
		"other issuer": func(r *robot) string { return r.assertion("ES256", func(_, c map[string]any) { c["iss"] = "other" }) },
		"other subject": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["sub"] = issuertest.Machine })
		},
		"both others": func(r *robot) string {
			return r.assertion("ES256", func(_, c map[string]any) { c["iss"], c["sub"] = issuertest.Machine, issuertest.Machine })
		},
		"unknown kid":     func(r *robot) string { return r.assertion("ES256", func(h, _ map[string]any) { h["kid"] = "other" }) },
		"kid of another":  func(r *robot) string { return r.assertion("ES256", func(h, _ map[string]any) { h["kid"] = "RS256" }) },
		"an access token": func(r *robot) string { return r.assertion("ES256", func(h, _ map[string]any) { h["typ"] = "at+jwt" }) },
		"a DPoP proof": func(r *robot) string {
			return r.assertion("ES256", func(h, _ map[string]any) { h["typ"] = "dpop+jwt" })
		},
		"other key": func(r *robot) string {
			other := newRobot(r.t, issuertest.New(r.t))
			other.scene = r.scene
			return other.assertion("ES256", nil)
		},
		"another algorithm of the key": func(r *robot) string {
			r.private["PS256"] = r.private["RS256"]
			return r.assertion("PS256", func(h, _ map[string]any) { h["kid"] = "RS256" })
		},
		"alg none": func(r *robot) string {
			_, rest, _ := strings.Cut(r.assertion("ES256", nil), ".")
			payload, _, _ := strings.Cut(rest, ".")
			return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + payload + "."
		},
		"HMAC with the public key": func(r *robot) string {
			key, _ := jwk.FromRaw(r.private["RS256"].Public())
			public, _ := jwk.Pem(key)
			payload, _ := json.Marshal(map[string]any{"iss": "robot", "sub": "robot", "aud": r.scene.URL, "jti": "x", "exp": time.Now().Add(time.Minute).Unix()})
			signed, err := jws.Sign(payload, jws.WithKey(jwa.HS256, public))
			if err != nil {
				r.t.Fatal(err)
			}
			return string(signed)
		},
		"changed": func(r *robot) string {
			parts := strings.Split(r.assertion("ES256", nil), ".")
			payload, _ := json.Marshal(map[string]any{"iss": "robot", "sub": "robot", "aud": r.scene.URL, "jti": "mine", "exp": time.Now().Add(time.Minute).Unix()})
			parts[1] = base64.RawURLEncoding.EncodeToString(payload)
			return strings.Join(parts, ".")
		},
		"critical": func(r *robot) string {
			return r.assertion("ES256", func(h, _ map[string]any) { h["crit"] = []string{"b64"}; h["b64"] = true })
		},
		"garbage":   func(*robot) string { return "a.b.c" },
		"two parts": func(*robot) string { return "a.b" },
		"long":      func(*robot) string { return strings.Repeat("a", 20_000) + ".b.c" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := issuertest.New(t)
			r := newRobot(t, scene)
			wantOAuthError(t, r.token(change(r)), 401, "invalid_client")
			if n := scene.Count(t, "SELECT count(*) FROM gpt_client_assertions"); n != 0 {
				t.Errorf("%d were noted as used", n)
			}
			if got := r.token(r.assertion("ES256", nil)); got.Status != 200 {
				t.Errorf("a good one afterwards: %s", got.Body)
			}
		})
	}
}

// T-24: one assertion, one request, also among many at once; another client's
// method and two methods at a time are refused; and a store or a key source that
// fails lets nobody in.
func TestAssertionIsUsedOnce(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	r := newRobot(t, scene)
	assertion := r.assertion("EdDSA", nil)
	succeeded := 0
	for _, got := range atOnce(9, func() issuertest.Response { return r.token(assertion) }) {
		if got.Status == 200 {
			succeeded++
		}
	}
	if succeeded != 1 {
		t.Errorf("%d succeeded", succeeded)
	}

	wantOAuthError(t, r.token(r.assertion("ES256", nil), issuertest.Set("client_id", issuertest.Machine)), 401, "invalid_client")

	scene = issuertest.New(t)
	r = newRobot(t, scene)
	wantOAuthError(t, r.token(r.assertion("ES256", nil), issuertest.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")), 401, "invalid_client")
	wantOAuthError(t, r.token(r.assertion("ES256", nil), issuertest.Omit("client_assertion_type")), 401, "invalid_client")
	wantOAuthError(t, r.token(r.assertion("ES256", nil), issuertest.Set("client_secret", "x")), 400, "invalid_request")
	wantOAuthError(t, r.token("", issuertest.Omit("client_assertion"), issuertest.Omit("client_assertion_type"), issuertest.Set("client_id", "robot")), 401, "invalid_client")
	wantOAuthError(t, r.token("", issuertest.Omit("client_assertion"), issuertest.Omit("client_assertion_type"), issuertest.Set("client_id", "robot"), issuertest.Set("client_secret", "x")), 401, "invalid_client")
	scene.Clients.Change(t, "robot", func(c *issuer.Client) { c.AuthMethods = []string{"client_secret_post"} })
	wantOAuthError(t, r.token(r.assertion("ES256", nil)), 401, "invalid_client")
	scene.Clients.Change(t, "robot", func(c *issuer.Client) { c.AuthMethods = []string{"private_key_jwt"} })

	scene.SQL(t, "ALTER TABLE gpt_client_assertions RENAME TO away")
	wantOAuthError(t, r.token(r.assertion("ES256", nil)), 503, "temporarily_unavailable")
	scene.SQL(t, "ALTER TABLE away RENAME TO gpt_client_assertions")
	scene.Clients.Change(t, "robot", func(c *issuer.Client) {
		c.JWKS = func(context.Context) (issuer.ClientKeys, error) { return nil, errors.New("no answer") }
	})
	wantOAuthError(t, r.token(r.assertion("ES256", nil)), 503, "temporarily_unavailable")
}
