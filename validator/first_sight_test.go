package validator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestFirstSightIsShared: requests that bring the same new token while its
// signature is being checked wait for that one check.
func TestFirstSightIsShared(t *testing.T) {
	const callers = 50
	cache := NewTokenCache(1000, 1<<20)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int64
	checking, goOn := make(chan struct{}), make(chan struct{})
	verify := func() (*claims, error) {
		if runs.Add(1) == 1 {
			close(checking)
		}
		<-goOn
		return &claims{commonClaims: commonClaims{key: &key.PublicKey}, times: times{expiresAt: time.Now().Add(time.Minute).Unix()}}, nil
	}
	results := make([]verifiedToken, callers)
	var wg sync.WaitGroup
	call := func(i int) {
		wg.Go(func() { results[i], _ = cache.verifyOnce(strings.Clone("a.b.c"), &key.PublicKey, verify) })
	}
	call(0)
	<-checking
	for i := 1; i < callers; i++ {
		call(i)
	}
	close(goOn)
	wg.Wait()
	if n := runs.Load(); n != 1 {
		t.Errorf("%d checks, want 1", n)
	}
	for i, got := range results {
		if got.isNone() || got.keptToken != results[0].keptToken {
			t.Errorf("caller %d got another result", i)
		}
	}
}
