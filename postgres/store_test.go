//go:build unix

package postgres_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/validator"
)

// T-01, R-23, PROTOCOL 8.6.
func TestOneOfManyConcurrentRedemptionsSucceeds(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	code := s.code("jobs:read")
	var wins, losses atomic.Int64
	parallel(100, func(int) {
		_, err := s.store.RedeemAuthorizationCode(s.ctx, code, lifetime, issuer.Origin{})
		switch {
		case err == nil:
			wins.Add(1)
		case errors.Is(err, issuer.ErrNotFound):
			losses.Add(1)
		default:
			t.Error(err)
		}
	})
	if wins.Load() != 1 || losses.Load() != 99 {
		t.Fatalf("%d successes, %d refusals", wins.Load(), losses.Load())
	}
	if n := s.count(`SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NULL`); n != 1 {
		t.Fatalf("%d live sessions", n)
	}
}

// PROTOCOL 8.7: an honest race of refreshes ends in one successor.
func TestConcurrentRefreshesReturnTheSameSuccessor(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	var moved atomic.Int64
	parallel(100, func(int) {
		r, err := s.rotate(session.ID, 0, time.Minute)
		if err != nil || r.Session.Counter != 1 {
			t.Errorf("counter %d, %v", r.Session.Counter, err)
		}
		if !r.Repeated {
			moved.Add(1)
		}
	})
	if moved.Load() != 1 {
		t.Fatalf("the counter moved %d times", moved.Load())
	}
	if n := s.count(`SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NULL AND rt_counter = 1`); n != 1 {
		t.Fatal("the session does not live on")
	}
}

// A statement that began before the winner rotated, and waited for its lock,
// must not take the honest race for a replay.
func TestRefreshThatWaitedForTheLockFindsItsSuccessor(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	tx, err := s.sql.Begin(s.ctx)
	s.must(err)
	_, err = tx.Exec(s.ctx, `SELECT FROM gpt_sessions WHERE id = $1 FOR UPDATE`, session.ID)
	s.must(err)
	result := make(chan error, 1)
	go func() {
		_, err := s.rotate(session.ID, 0, time.Minute)
		result <- err
	}()
	time.Sleep(100 * time.Millisecond) // until it waits for the row
	_, err = tx.Exec(s.ctx, `UPDATE gpt_sessions SET rt_counter = 1, rt_previous = 0, rotated_at = clock_timestamp() WHERE id = $1`, session.ID)
	s.must(err)
	s.must(tx.Commit(s.ctx))
	s.must(<-result)
}

// T-13: past the grace, and for older counters at any time, the session ends.
func TestReplayedRefreshTokenRevokesTheSession(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*scene, string){
		"previous after its grace": func(s *scene, id string) {
			_, err := s.rotate(id, 0, time.Minute)
			s.must(err)
			s.exec(`UPDATE gpt_sessions SET rotated_at = rotated_at - interval '61 seconds' WHERE id = $1`, id)
		},
		"grandparent in the grace of the parent": func(s *scene, id string) {
			for n := range int64(2) {
				_, err := s.rotate(id, n, time.Minute)
				s.must(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			session := s.session("jobs:read")
			prepare(s, session.ID)
			if _, err := s.rotate(session.ID, 0, time.Minute); !errors.Is(err, issuer.ErrReplayed) {
				t.Fatalf("got %v", err)
			}
			if _, err := s.rotate(session.ID, 2, time.Minute); !errors.Is(err, issuer.ErrNotFound) {
				t.Fatalf("the session lives on: %v", err)
			}
			if n := s.count(`SELECT count(*) FROM gpt_oauth_events WHERE event_type = 'gpt.oauth.replay_detected'`); n != 1 {
				t.Fatalf("%d events", n)
			}
		})
	}
}

func TestZeroGraceMeansExactlyOneSuccess(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	var wins atomic.Int64
	parallel(20, func(int) {
		if _, err := s.rotate(session.ID, 0, 0); err == nil {
			wins.Add(1)
		}
	})
	if wins.Load() != 1 {
		t.Fatalf("%d successes", wins.Load())
	}
}

// A restored backup knows less than the client: its token is authentic.
func TestCounterAboveTheRowIsAcceptedWithAnEvent(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	for range 2 { // and again within the grace: one event
		r, err := s.rotate(session.ID, 7, time.Minute)
		if err != nil || r.Session.Counter != 8 {
			t.Fatalf("counter %d, %v", r.Session.Counter, err)
		}
	}
	if n := s.count(`SELECT count(*) FROM gpt_oauth_events WHERE event_type = 'gpt.oauth.counter_ahead'`); n != 1 {
		t.Fatalf("%d events", n)
	}
}

// T-16, V-02.
func TestAnotherClientNeitherRefreshesNorRevokes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	_, err := s.store.RotateRefreshToken(s.ctx, issuer.Rotation{SessionID: session.ID, ClientID: "other", Grace: time.Minute}, issuer.Origin{})
	if !errors.Is(err, issuer.ErrNotFound) {
		t.Fatal(err)
	}
	if err := s.store.RevokeSession(s.ctx, session.ID, "other", "x", issuer.Origin{}); !errors.Is(err, issuer.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := s.store.FindSession(s.ctx, session.ID, "app"); err != nil {
		t.Fatal(err)
	}
}

// PROTOCOL 8.6: a late replay ends the session, an immediate one is a double submit.
func TestReplayedCodeRevokesItsSessionAfterTheTolerance(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	code := s.code("jobs:read")
	session, err := s.store.RedeemAuthorizationCode(s.ctx, code, lifetime, issuer.Origin{})
	s.must(err)
	s.must(s.store.ReplayAuthorizationCode(s.ctx, code, 10*time.Second, issuer.Origin{}))
	if _, err := s.store.FindSession(s.ctx, session.ID, "app"); err != nil {
		t.Fatal(err)
	}
	s.exec(`UPDATE gpt_authorization_codes SET used_at = used_at - interval '11 seconds'`)
	if err := s.store.ReplayAuthorizationCode(s.ctx, code, 10*time.Second, issuer.Origin{}); !errors.Is(err, issuer.ErrReplayed) {
		t.Fatal(err)
	}
	if _, err := s.store.FindSession(s.ctx, session.ID, "app"); !errors.Is(err, issuer.ErrNotFound) {
		t.Fatal(err)
	}
}

// T-05, T-07, T-08.
func TestCodeThatMayNotBeRedeemed(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*scene, issuer.Digest){
		"expired": func(s *scene, _ issuer.Digest) { s.exec(`UPDATE gpt_authorization_codes SET expires_at = now()`) },
		"user disabled": func(s *scene, _ issuer.Digest) {
			s.must(s.store.DisableUser(s.ctx, "demo@example.COM", issuer.Origin{}))
		},
		"user disabled, login left behind": func(s *scene, _ issuer.Digest) {
			s.exec(`ALTER TABLE gpt_users DISABLE TRIGGER gpt_user_disabled`)
			s.exec(`UPDATE gpt_users SET disabled_at = now()`)
		},
		"user deleted":    func(s *scene, _ issuer.Digest) { s.exec(`DELETE FROM gpt_users`) },
		"client disabled": func(s *scene, _ issuer.Digest) { s.exec(`UPDATE gpt_clients SET disabled_at = now()`) },
		"login ended":     func(s *scene, _ issuer.Digest) { s.exec(`DELETE FROM gpt_logins`) },
		"burnt": func(s *scene, d issuer.Digest) {
			for range 5 {
				s.must(s.store.CountFailedRedemption(s.ctx, d))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			code := s.code("jobs:read")
			end(s, code)
			if _, err := s.store.RedeemAuthorizationCode(s.ctx, code, lifetime, issuer.Origin{}); !errors.Is(err, issuer.ErrNotFound) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestSessionLimitHoldsAmongConcurrentRedemptions(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	limited := lifetime
	limited.Limit = 3
	var codes []issuer.Digest
	for range 8 {
		codes = append(codes, s.code("jobs:read"))
	}
	var wins, full atomic.Int64
	parallel(len(codes), func(i int) {
		switch _, err := s.store.RedeemAuthorizationCode(s.ctx, codes[i], limited, issuer.Origin{}); {
		case err == nil:
			wins.Add(1)
		case errors.Is(err, issuer.ErrSessionLimit):
			full.Add(1)
		}
	})
	if wins.Load() != 3 || full.Load() != 5 {
		t.Fatalf("%d redeemed, %d at the limit", wins.Load(), full.Load())
	}
}

func TestGrantedScopesAreCumulativeUntilTheSessionEnds(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.session("jobs:read")
	second := s.session("resume:read")
	if got := second.GrantedScopes.String(); got != "jobs:read resume:read" {
		t.Fatal(got)
	}
	s.must(s.store.EndUserSession(s.ctx, first.ID, s.user.ID, issuer.Origin{}))
	s.must(s.store.EndUserSession(s.ctx, second.ID, s.user.ID, issuer.Origin{}))
	if got := s.session("resume:read").GrantedScopes.String(); got != "resume:read" {
		t.Fatal(got)
	}
}

// V-04: the session's state is read, not remembered.
func TestSessionReaderSharesReadsAndSeesRevocations(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	reader := postgres.NewSessionReader(s.db)
	alive, ended := s.session("jobs:read", "resume:read"), s.session("jobs:read")
	s.exec(`UPDATE gpt_sessions SET revoked_at = now() WHERE id = $1`, ended.ID)
	parallel(200, func(i int) {
		if i%2 == 0 {
			got, err := reader.ReadSession(s.ctx, alive.ID)
			if err != nil || got.UserID != s.user.ID || got.Scopes.String() != "jobs:read resume:read" {
				t.Errorf("%+v, %v", got, err)
			}
		} else if _, err := reader.ReadSession(s.ctx, ended.ID); !errors.Is(err, validator.ErrSessionEnded) {
			t.Error(err)
		}
	})
	if _, err := reader.ReadSession(s.ctx, "no-uuid"); !errors.Is(err, validator.ErrSessionEnded) {
		t.Error(err)
	}
}

func TestUserEmailsFoldCaseAndAreUnique(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	if _, err := s.store.CreateUser(s.ctx, "demo@example.COM", "h", issuer.Origin{}); !errors.Is(err, issuer.ErrExists) {
		t.Fatal(err)
	}
	if u, err := s.store.FindUserByEmail(s.ctx, "DEMO@example.com"); err != nil || u.ID != s.user.ID {
		t.Fatal(u, err)
	}
	s.must(s.store.SetPassword(s.ctx, "demo@example.com", "new", issuer.Origin{}))
	if n := s.count(`SELECT count(*) FROM gpt_logins`); n != 0 {
		t.Fatal("a new password leaves logins alive")
	}
}

// K-05: another root secret is refused, an old one named second is replaced.
func TestRootSecretOfOtherNodesIsRequired(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.must(s.store.CheckRootSecret(s.ctx, []string{"one"}))
	if err := s.store.CheckRootSecret(s.ctx, []string{"two"}); err == nil {
		t.Fatal("another secret is accepted")
	}
	s.must(s.store.CheckRootSecret(s.ctx, []string{"two", "one"}))
	if err := s.store.CheckRootSecret(s.ctx, []string{"one"}); err == nil {
		t.Fatal("the replaced secret is accepted")
	}
}

func parallel(n int, do func(int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}
