package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
)

// K-03: a kid that nobody knows costs a look into memory, so that no flood of
// them reaches the database.
func TestUnknownKeyIDsReadNothing(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := NewStaticKeyRing([]*ecdsa.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := ring.VerificationKey("unknown"); ok {
			t.Fatal("found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
