package issuer

import (
	"encoding/base64"
	"math/big"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// What is signed by hand is what a library takes for a JWS, and has one spelling:
// the lower of the two signatures that verify. RFC 7515 section 3.1, RFC 7518
// section 3.4, ADR 10.
func TestSignedTokenIsAnES256JWSWithTheLowerS(t *testing.T) {
	t.Parallel()
	server, _ := refreshServer(t)
	ring := server.cfg.Keys
	kid, _ := ring.KeyIDs()
	key, _ := ring.VerificationKey(kid)
	half := new(big.Int).Rsh(key.Params().N, 1)
	for range 100 { // half of all signatures have the higher s at first
		token, err := ring.sign(accessTokenType, []byte(`{"sub":"user-1"}`))
		if err != nil {
			t.Fatal(err)
		}
		payload, err := jws.Verify([]byte(token), jws.WithKey(jwa.ES256, key))
		if err != nil || string(payload) != `{"sub":"user-1"}` {
			t.Fatalf("%s: %q, %v", token, payload, err)
		}
		segments := strings.Split(token, ".")
		if header, _ := base64.RawURLEncoding.DecodeString(segments[0]); string(header) != `{"alg":"ES256","kid":"`+kid+`","typ":"at+jwt"}` {
			t.Fatalf("header %s", header)
		}
		signature, err := base64.RawURLEncoding.DecodeString(segments[2])
		if err != nil || len(signature) != 64 {
			t.Fatalf("signature of %d bytes, %v", len(signature), err)
		}
		if new(big.Int).SetBytes(signature[32:]).Cmp(half) > 0 {
			t.Fatal("the higher s")
		}
	}
}

// A refresh allocates little: what is collected later is paid by every request.
// Of the bound, 60 are crypto/ecdsa's and a dozen the test's.
func TestRefreshAllocatesLittle(t *testing.T) {
	server, body := refreshServer(t)
	if n := testing.AllocsPerRun(200, func() { refreshOnce(t, server, body) }); n > 200 {
		t.Errorf("%v allocations", n)
	}
}
