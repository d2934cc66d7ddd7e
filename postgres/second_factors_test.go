//go:build unix

package postgres_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// LOG-23: attempts of one user are counted one by one, however many nodes make them
// at once; and of many that use one code or one recovery code, one does.
func TestSecondFactorCountsOverAllNodes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	code := digest()
	s.must(s.store.SetSecondFactor(s.ctx, s.user.ID, issuer.SecondFactor{Sealed: []byte("x"), Step: 1}, []issuer.Digest{code}, issuer.Digest{}, issuer.Origin{}))
	atOnce := func(what string, want int, refused error, do func() error) {
		t.Helper()
		var wg sync.WaitGroup
		results := make(chan error, 16)
		for range cap(results) {
			wg.Go(func() { results <- do() })
		}
		wg.Wait()
		close(results)
		n := 0
		for err := range results {
			if err == nil {
				n++
			} else if !errors.Is(err, refused) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if n != want {
			t.Errorf("%s: %d of 16 count, want %d", what, n, want)
		}
	}
	atOnce("attempts", 10, issuer.ErrTooManyAttempts, func() error {
		_, err := s.store.TrySecondFactor(s.ctx, s.user.ID, 10, time.Minute)
		return err
	})
	atOnce("a code", 1, issuer.ErrReplayed, func() error { return s.store.UseSecondFactor(s.ctx, s.user.ID, 2, nil) })
	atOnce("a recovery code", 1, issuer.ErrNotFound, func() error { return s.store.UseRecoveryCode(s.ctx, s.user.ID, code, issuer.Origin{}) })
}
