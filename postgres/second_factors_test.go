//go:build unix

package postgres_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// LOG-23, LOG-28: attempts of one user are counted one by one, however many nodes make
// them at once; and of many that use one code or one recovery code, one does. Those of
// a day are counted besides; a code that counts takes its own from them, and no other.
func TestSecondFactorCountsOverAllNodes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	code := digest()
	s.must(s.store.SetSecondFactor(s.ctx, s.user.ID, issuer.SecondFactor{Sealed: []byte("x"), Step: 1}, []issuer.Digest{code}, issuer.RenewedLogin{}, issuer.Origin{}))
	atOnce := func(what string, want int, refused func(error) bool, do func() error) {
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
			} else if !refused(err) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if n != want {
			t.Errorf("%s: %d of 16 count, want %d", what, n, want)
		}
	}
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	try := func(lately, daily int) error {
		_, err := s.store.TrySecondFactor(s.ctx, s.user.ID, issuer.AttemptBound{Limit: lately, Window: time.Minute}, issuer.AttemptBound{Limit: daily, Window: time.Hour})
		return err
	}
	within := func(least, most time.Duration) func(error) bool {
		return func(err error) bool {
			var many *issuer.TooManyAttempts
			return errors.As(err, &many) && many.For > least && many.For <= most
		}
	}
	atOnce("attempts", 10, within(0, time.Minute), func() error { return try(10, 100) })
	atOnce("a code", 1, is(issuer.ErrReplayed), func() error { return s.store.UseSecondFactor(s.ctx, s.user.ID, 2, nil) })
	atOnce("attempts of the day, of which nine are gone", 6, within(time.Minute, time.Hour), func() error { return try(100, 15) })
	atOnce("a recovery code", 1, is(issuer.ErrNotFound), func() error { return s.store.UseRecoveryCode(s.ctx, s.user.ID, code, issuer.Origin{}) })
	if err := try(10, 15); !within(time.Minute, time.Hour)(err) {
		t.Errorf("a recovery code gave a day's attempts back: %v", err)
	}
	s.exec(`UPDATE gpt_second_factors SET day_since = now() - interval '61 minutes'`)
	if err := try(10, 15); err != nil {
		t.Errorf("the day after: %v", err)
	}
}
