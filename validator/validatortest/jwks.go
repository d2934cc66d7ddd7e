package validatortest

import (
	"crypto/ecdsa"
	"encoding/json"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// JWKS is the document of public keys by kid, as an issuer publishes it.
func JWKS(keys map[string]*ecdsa.PublicKey) []byte {
	set := jwk.NewSet()
	for kid, key := range keys {
		public, err := jwk.FromRaw(key)
		if err != nil {
			panic(err)
		}
		for name, value := range map[string]string{jwk.KeyIDKey: kid, jwk.AlgorithmKey: "ES256", jwk.KeyUsageKey: "sig"} {
			if err := public.Set(name, value); err != nil {
				panic(err)
			}
		}
		if err := set.AddKey(public); err != nil {
			panic(err)
		}
	}
	document, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return document
}
