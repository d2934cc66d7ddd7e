package validator_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

const goodHeader = `{"alg":"ES256","kid":"key-1","typ":"at+jwt"}`

func goodPayload() string {
	raw, _ := json.Marshal(validatortest.Claims("jobs:read"))
	return string(raw)
}

// hostileTokens are tokens that must not pass, by what is wrong with them.
func hostileTokens(m *validatortest.Minter) map[string]string {
	good := m.Token(validatortest.Claims("jobs:read"))
	parts := strings.Split(good, ".")
	claim := func(name string, value any) string {
		return m.Token(validatortest.With(validatortest.Claims("jobs:read"), name, value))
	}
	header := func(h string) string { return m.Sign(h, goodPayload()) }
	payload := func(p string) string { return m.Sign(goodHeader, p) }
	signature := func(raw []byte) string {
		return parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(raw)
	}
	raw, _ := base64.RawURLEncoding.DecodeString(parts[2])
	n := elliptic.P256().Params().N.FillBytes(make([]byte, 32))
	zero := make([]byte, 32)
	der, _ := x509.MarshalPKIXPublicKey(&m.Key.PublicKey)
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	hs256 := func(key []byte) string {
		signed := validatortest.Encode(`{"alg":"HS256","kid":"key-1","typ":"at+jwt"}`) + "." + validatortest.Encode(goodPayload())
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(signed))
		return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	now := time.Now().Unix()
	members := strings.TrimSuffix(goodPayload(), "}")

	return map[string]string{
		// J-01
		"alg none, unsigned":     validatortest.Encode(`{"alg":"none","kid":"key-1","typ":"at+jwt"}`) + "." + parts[1] + ".",
		"alg none, signed":       header(`{"alg":"none","kid":"key-1","typ":"at+jwt"}`),
		"alg nOnE":               header(`{"alg":"nOnE","kid":"key-1","typ":"at+jwt"}`),
		"alg missing":            header(`{"kid":"key-1","typ":"at+jwt"}`),
		"alg null":               header(`{"alg":null,"kid":"key-1","typ":"at+jwt"}`),
		"alg array":              header(`{"alg":["ES256"],"kid":"key-1","typ":"at+jwt"}`),
		"alg es256":              header(`{"alg":"es256","kid":"key-1","typ":"at+jwt"}`),
		"HS256 with PEM":         hs256(pemKey),                                                                    // J-02
		"HS256 with DER":         hs256(der),                                                                       // J-02
		"HS256 with x and y":     hs256(append(m.Key.X.Bytes(), m.Key.Y.Bytes()...)),                               // J-02
		"embedded jwk":           header(`{"alg":"ES256","kid":"key-1","typ":"at+jwt","jwk":{}}`),                  // J-03
		"jku":                    header(`{"alg":"ES256","kid":"key-1","typ":"at+jwt","jku":"http://127.0.0.1/"}`), // J-03
		"x5c":                    header(`{"alg":"ES256","kid":"key-1","typ":"at+jwt","x5c":["x"]}`),               // J-03
		"crit":                   header(`{"alg":"ES256","kid":"key-1","typ":"at+jwt","crit":["exp"]}`),
		"zip":                    header(`{"alg":"ES256","kid":"key-1","typ":"at+jwt","zip":"DEF"}`),                   // J-10
		"cty JWT":                header(`{"alg":"ES256","kid":"key-1","typ":"at+jwt","cty":"JWT"}`),                   // J-10
		"kid traversal":          header(`{"alg":"ES256","kid":"../../dev/null","typ":"at+jwt"}`),                      // J-04
		"kid SQL":                header(`{"alg":"ES256","kid":"' OR 1=1--","typ":"at+jwt"}`),                          // J-04
		"kid NUL":                header(`{"alg":"ES256","kid":"\u0000","typ":"at+jwt"}`),                              // J-04
		"kid 10 KiB":             header(`{"alg":"ES256","kid":"` + strings.Repeat("k", 10<<10) + `","typ":"at+jwt"}`), // J-04
		"kid number":             header(`{"alg":"ES256","kid":1,"typ":"at+jwt"}`),                                     // J-04
		"kid empty":              header(`{"alg":"ES256","kid":"","typ":"at+jwt"}`),                                    // J-04
		"signature zero":         signature(make([]byte, 64)),                                                          // J-05
		"r zero":                 signature(append(zero[:32:32], raw[32:]...)),                                         // J-05
		"s zero":                 signature(append(raw[:32:32], zero...)),                                              // J-05
		"r is n":                 signature(append(n[:32:32], raw[32:]...)),                                            // J-05
		"s is n":                 signature(append(raw[:32:32], n...)),                                                 // J-05
		"MAYCAQACAQA":            parts[0] + "." + parts[1] + ".MAYCAQACAQA",                                           // J-05
		"63 bytes":               signature(raw[:63]),                                                                  // J-06
		"65 bytes":               signature(append(raw[:64:64], 0)),                                                    // J-06
		"96 bytes":               signature(append(raw[:64:64], zero...)),                                              // J-06
		"no signature":           parts[0] + "." + parts[1] + ".",
		"higher s":               validatortest.HighS(good),                                                                                       // V-05, M3
		"padding":                good + "=",                                                                                                      // J-08
		"double padding":         good + "==",                                                                                                     // J-08
		"line break":             good[:40] + "\n" + good[40:],                                                                                    // J-08
		"carriage return at end": good + "\r",                                                                                                     // J-08
		"space inside":           good[:40] + " " + good[40:],                                                                                     // J-08
		"tab at end":             good + "\t",                                                                                                     // J-08
		"byte order mark":        "\ufeff" + good,                                                                                                 // J-08
		"unused low bits":        good[:len(good)-1] + nextInAlphabet(good[len(good)-1]),                                                          // J-08
		"standard alphabet":      strings.NewReplacer("-", "+", "_", "/").Replace(good) + "+",                                                     // J-08
		"flattened JSON":         `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,                  // J-09
		"general JSON":           `{"payload":"` + parts[1] + `","signatures":[{"protected":"` + parts[0] + `","signature":"` + parts[2] + `"}]}`, // J-09
		"five parts":             good + ".x.y",                                                                                                   // J-10
		"two parts":              parts[0] + "." + parts[1],
		"only dots":              "..",
		"100,000 dots":           strings.Repeat(".", 100_000),                  // J-20
		"8 KiB and one":          good + strings.Repeat("A", 8<<10+1-len(good)), // J-20
		// J-12
		"duplicate alg":     header(`{"alg":"ES256","alg":"ES256","kid":"key-1","typ":"at+jwt"}`),
		"alg and ALG":       header(`{"alg":"ES256","ALG":"none","kid":"key-1","typ":"at+jwt"}`),
		"duplicate sub":     payload(members + `,"sub":"admin"}`),
		"sub and SUB":       payload(members + `,"SUB":"admin"}`),
		"exp and Exp":       payload(members + `,"Exp":99999999999}`),
		"scope and Scope":   payload(members + `,"Scope":"applications:write"}`),
		"escaped duplicate": payload(members + `,"\u0073ub":"admin"}`),
		// J-13
		"payload null":   payload(`null`),
		"payload array":  payload(`[]`),
		"payload string": payload(`"x"`),
		"payload empty":  payload(``),
		"second object":  payload(goodPayload() + `{}`),
		"not UTF-8":      payload(members + `,"x":"` + "\xff" + `"}`),
		"deep":           payload(strings.Repeat("[", 3000)),
		"exp string":     claim("exp", "9999999999"),
		"exp zero":       claim("exp", 0),
		"exp negative":   claim("exp", -1),
		"exp null":       payload(strings.Replace(goodPayload(), `"exp":`, `"exp":null,"x":`, 1)),
		"exp fraction":   payload(strings.Replace(goodPayload(), `"exp":`, `"exp":9999999999.5,"x":`, 1)),
		"exp 1e400":      payload(strings.Replace(goodPayload(), `"exp":`, `"exp":1e400,"x":`, 1)),
		"exp 2^63":       payload(strings.Replace(goodPayload(), `"exp":`, `"exp":9223372036854775808,"x":`, 1)),
		"aud object":     claim("aud", map[string]any{"x": 1}),
		"aud list":       claim("aud", []string{validatortest.Resource, "https://other.example.com"}),
		"sub number":     claim("sub", 7),
		"sub empty":      claim("sub", ""),
		"scope array":    claim("scope", []string{"jobs:read"}), // J-25
		// J-14
		"typ JWT":      header(`{"alg":"ES256","kid":"key-1","typ":"JWT"}`),
		"typ dpop+jwt": header(`{"alg":"ES256","kid":"key-1","typ":"dpop+jwt"}`),
		"typ missing":  header(`{"alg":"ES256","kid":"key-1"}`),
		// J-15
		"iss missing":              claim("iss", nil),
		"aud missing":              claim("aud", nil),
		"sub missing":              claim("sub", nil),
		"sid missing":              claim("sid", nil),
		"jti missing":              claim("jti", nil),
		"exp missing":              claim("exp", nil),
		"iat missing":              claim("iat", nil),
		"client_id missing":        claim("client_id", nil),
		"iss with slash":           claim("iss", validatortest.Issuer+"/"),
		"iss upper case":           claim("iss", strings.ToUpper(validatortest.Issuer)),
		"iss other path":           claim("iss", validatortest.Issuer+"/staging"), // J-18
		"aud with slash":           claim("aud", validatortest.Resource+"/"),
		"aud below":                claim("aud", validatortest.Resource+"/v1"),
		"aud longer":               claim("aud", validatortest.Resource+"x"),
		"expired":                  claim("exp", now-6),
		"issued in the future":     claim("iat", now+60),
		"not valid yet":            claim("nbf", now+60),
		"exp before iat":           m.Token(validatortest.With(validatortest.With(validatortest.Claims("jobs:read"), "iat", now+4), "exp", now+2)),
		"foreign key, our kid":     (&validatortest.Minter{Key: other}).Token(validatortest.Claims("jobs:read")), // J-17, J-18
		"unknown kid":              header(`{"alg":"ES256","kid":"key-2","typ":"at+jwt"}`),                       // K-03
		"refresh token":            "gpt_rt_" + strings.Repeat("A", 86),                                          // T-18
		"code":                     "gpt_ac_" + strings.Repeat("A", 43),                                          // T-18
		"prefix of the old system": "gpt_at_" + good,                                                             // PROTOCOL 1.5
	}
}

func nextInAlphabet(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[(strings.IndexByte(alphabet, c)+1)%len(alphabet)])
}

// J-01 to J-18, M3, V-05, T-18, PROTOCOL 8.20: no odd token passes.
func TestVerifierRefusesHostileTokens(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for name, token := range hostileTokens(s.minter) {
		t.Run(name, func(t *testing.T) {
			_, refusal := s.call("GET", "/jobs", token)
			wantRefusal(t, refusal, 401, oauth.CodeInvalidToken)
		})
	}
	if n := s.sessions.Reads(); n != 0 {
		t.Errorf("%d hostile tokens reached the session store", n)
	}
}

func TestVerifierForgivesSmallSkew(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	now := time.Now().Unix()
	for name, value := range map[string]int64{"exp": now - 3, "iat": now + 3} {
		claims := validatortest.With(validatortest.Claims("jobs:read"), name, value)
		if name == "exp" {
			claims["iat"] = now - 900
		}
		if _, refusal := s.call("GET", "/jobs", s.minter.Token(claims)); refusal != nil {
			t.Errorf("%s: %v", name, refusal)
		}
	}
}

// J-21, J-22, trap 7: also an empty token gets the challenge.
func TestBearerCredentials(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	good := s.minter.Token(validatortest.Claims("jobs:read"))
	for _, c := range []struct {
		name   string
		fields []string
		target string
		status int
		code   string
	}{
		{"lower-case scheme", []string{"bearer " + good}, "/jobs", 0, ""},
		{"upper-case scheme", []string{"BEARER " + good}, "/jobs", 0, ""},
		{"two spaces", []string{"Bearer  " + good}, "/jobs", 401, oauth.CodeInvalidToken},
		{"tab", []string{"Bearer\t" + good}, "/jobs", 401, ""},
		{"list", []string{"Bearer " + good + "," + good}, "/jobs", 401, oauth.CodeInvalidToken},
		{"two in one", []string{"Bearer " + good + " Bearer " + good}, "/jobs", 401, oauth.CodeInvalidToken},
		{"empty", []string{"Bearer "}, "/jobs", 401, ""},
		{"scheme alone", []string{"Bearer"}, "/jobs", 401, ""},
		{"other scheme", []string{"Token " + good}, "/jobs", 401, ""},
		{"Basic", []string{"Basic dTpw"}, "/jobs", 401, ""},
		{"DPoP", []string{"DPoP " + good}, "/jobs", 401, oauth.CodeInvalidToken},
		{"twice", []string{"Bearer " + good, "Bearer " + good}, "/jobs", 400, oauth.CodeInvalidRequest},
		{"header and query", []string{"Bearer " + good}, "/jobs?access_token=" + good, 400, oauth.CodeInvalidRequest},
		{"header and escaped query", []string{"Bearer " + good}, "/jobs?access%5Ftoken=x&access_token=y", 400, oauth.CodeInvalidRequest},
		{"header and lone escaped query", []string{"Bearer " + good}, "/jobs?access%5ftoken=x", 400, oauth.CodeInvalidRequest},
		{"header and query after a semicolon", []string{"Bearer " + good}, "/jobs?a=b;access_token=x", 400, oauth.CodeInvalidRequest},
		{"header and name alone", []string{"Bearer " + good}, "/jobs?%zz&access_token", 400, oauth.CodeInvalidRequest},
		{"like a token", []string{"Bearer " + good}, "/jobs?access_tokens=x&q=access_token&x=%zz", 0, ""},
		{"query alone", nil, "/jobs?access_token=" + good, 401, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request("GET", c.target)
			r.Header["Authorization"] = c.fields
			_, refusal := s.decide(r)
			if c.status == 0 {
				if refusal != nil {
					t.Error(refusal)
				}
				return
			}
			wantRefusal(t, refusal, c.status, c.code)
		})
	}
}

// J-22: a token in a cookie beside the header makes two credentials.
func TestTokenInHeaderAndCookieIsRefused(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	good := s.minter.Token(validatortest.Claims("jobs:read"))
	for cookie, status := range map[string]int{
		"access_token=x": 400, "a=b; access_token=x": 400, "a=b;access_token": 400, "a=access_token; access_token_hint=1": 0,
	} {
		r := request("GET", "/jobs")
		r.Header.Set("Authorization", "Bearer "+good)
		r.Header.Set("Cookie", cookie)
		_, refusal := s.decide(r)
		if status != 0 {
			wantRefusal(t, refusal, status, oauth.CodeInvalidRequest)
		} else if refusal != nil {
			t.Errorf("%s: %v", cookie, refusal)
		}
	}
}

// N-05: a cookie is no credential.
func TestCookieIsNoCredential(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := request("GET", "/jobs")
	r.Header.Set("Cookie", "oauth_login=x; access_token="+s.minter.Token(validatortest.Claims("jobs:read")))
	_, refusal := s.decide(r)
	wantRefusal(t, refusal, 401, "")
}
