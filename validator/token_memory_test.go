//go:build !race

// The race detector takes memory of its own; scripts/test runs this without it.

package validator_test

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"math/big"
	"net/http"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// floodMinter signs tokens as fast as they can be thought up. Its nonce is
// always the same, which gives the key away and is of no harm here.
type floodMinter struct {
	order, r, rd, inverse *big.Int // of the nonce
}

func newFloodMinter(key *ecdsa.PrivateKey) *floodMinter {
	nonce := sha256.Sum256([]byte("nonce"))
	n := elliptic.P256().Params().N
	point, err := ecdh.P256().NewPrivateKey(nonce[:])
	if err != nil {
		panic(err)
	}
	secret, err := key.Bytes()
	if err != nil {
		panic(err)
	}
	r := new(big.Int).SetBytes(point.PublicKey().Bytes()[1:33]) // its x
	return &floodMinter{n, r, new(big.Int).Mul(r, new(big.Int).SetBytes(secret)), new(big.Int).ModInverse(new(big.Int).SetBytes(nonce[:]), n)}
}

func (m *floodMinter) token(session string) string {
	now := time.Now().Unix()
	signed := validatortest.Encode(`{"alg":"ES256","kid":"`+validatortest.KID+`","typ":"at+jwt"}`) + "." + validatortest.Encode(fmt.Sprintf(
		`{"iss":%q,"aud":%q,"sub":"user-of-%s","client_id":%q,"sid":%q,"scope":"jobs:read","jti":%q,"iat":%d,"exp":%d}`,
		validatortest.Issuer, validatortest.Resource, session, validatortest.ClientID, session, uuid.NewString(), now, now+900))
	digest := sha256.Sum256([]byte(signed))
	s := new(big.Int).SetBytes(digest[:])
	s.Mod(s.Mul(s.Add(s, m.rd), m.inverse), m.order)
	if s.Cmp(new(big.Int).Rsh(m.order, 1)) > 0 {
		s.Sub(m.order, s)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(append(m.r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// everySession has a session of its own for every id, as a view has.
type everySession struct{}

func (everySession) ReadSession(_ context.Context, id string) (validator.Session, error) {
	return validator.Session{UserID: "user-of-" + id, ClientID: validatortest.ClientID, Scopes: oauth.NewScopeSet("jobs:read"), Handle: 1}, nil
}

func (everySession) Held(uint64) (validator.Session, bool) { return validator.Session{}, false }

var floodOf = flag.Int64("flood", 40_000, "how many tokens come in TestMemoryOfTokensIsBounded; scripts/test has it 200,000")

// TestMemoryOfTokensIsBounded: many times as many distinct valid tokens as a cache
// of ten thousand keeps, each of a session of its own. All are let through;
// it never holds more than it may, and what it holds takes no more than a
// kibibyte for each token besides its own bytes, of which the garbage collector
// looks at next to nothing.
func TestMemoryOfTokensIsBounded(t *testing.T) {
	const most = 10_000
	cache := validator.NewTokenCache(most, 64<<20)
	s := newScene(t, func(cfg *validator.Config) { cfg.Tokens, cfg.Sessions = cache, everySession{} })
	minter := newFloodMinter(s.minter.Key)
	usage := new(validator.Usage)
	before, scannedBefore := heapInUse(), scanned()

	var sent, length, held atomic.Int64
	var callers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		callers.Go(func() {
			r := request(http.MethodGet, "/jobs/17")
			for sent.Add(1) <= *floodOf {
				token := minter.token(uuid.NewString())
				r.Header.Set("Authorization", "Bearer "+token)
				decision, err := s.Authorize(r)
				if err != nil {
					t.Error(err)
					return
				}
				decision.CountUse(usage)
				length.Store(int64(len(token)))
				held.Store(max(held.Load(), int64(cache.Len())))
			}
		})
	}
	callers.Wait()
	if most := held.Load(); most > 11_000 { // eviction runs beside the callers
		t.Errorf("%d tokens were kept at some moment", most)
	}
	usage.Take(time.Now(), 0) // what was counted, of tokens that are gone too
	deadline := time.Now().Add(5 * time.Second)
	for cache.Len() > most && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	each := (heapInUse()-before)/int64(cache.Len()) - length.Load()
	eachScanned := (scanned() - scannedBefore) / int64(cache.Len())
	t.Logf("%d tokens of %d bytes are kept, at most %d were; %d bytes of heap for each besides, %d that the collector looks at", cache.Len(), length.Load(), held.Load(), each, eachScanned)
	if cache.Len() > most || cache.Len() < most*9/10 {
		t.Errorf("%d tokens are kept, want %d at most and not far from it", cache.Len(), most)
	}
	if each > 1024 {
		t.Errorf("%d bytes of heap for each token, want 1024 at most", each)
	}
	if eachScanned > 64 {
		t.Errorf("the collector looks at %d bytes for each token", eachScanned)
	}
	runtime.KeepAlive(cache)
}

// scanned returns how many bytes of the heap may be pointers.
func scanned() int64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/gc/scan/heap:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers held
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
