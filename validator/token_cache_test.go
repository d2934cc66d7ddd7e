package validator_test

import (
	"crypto/ecdsa"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// revocableKeys is a key source that can retire its key or put another in its
// place.
type revocableKeys struct {
	lookups atomic.Int64
	key     atomic.Pointer[ecdsa.PublicKey]
}

func (k *revocableKeys) VerificationKey(kid string) (*ecdsa.PublicKey, bool) {
	k.lookups.Add(1)
	key := k.key.Load()
	return key, kid == validatortest.KID && key != nil
}

// A busy token does not ask at each request whether its use is worth a note.
func TestUseOfATokenIsNotedOnceInEachInterval(t *testing.T) {
	s := newScene(t, func(c *validator.Config) { c.Tokens = validator.NewTokenCache(1000, 1<<20) })
	token, now := s.minter.Token(validatortest.Claims("jobs:read")), time.Now()
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {time.Second, false}, {19 * time.Second, false}, {20 * time.Second, true}, {21 * time.Second, false}, {40 * time.Second, true}} {
		decision, refusal := s.call("GET", "/jobs", token)
		if refusal != nil {
			t.Fatal(refusal)
		}
		if got := decision.NoteUse(20*time.Second, now.Add(step.after)); got != step.want {
			t.Errorf("after %v: %v, want %v", step.after, got, step.want)
		}
	}
	if (&validator.Decision{}).NoteUse(time.Second, now) {
		t.Error("a decision that rests on no token has a use")
	}
}

// TestKnownTokenIsDecidedAgain: what is kept of a token is what it says. A gate
// of another resource or issuer, a retired key, the clock, the session, the
// client and the rule decide anew. J-18, J-19.
func TestKnownTokenIsDecidedAgain(t *testing.T) {
	now := time.Now()
	cases := map[string]struct {
		change func(*validator.Config)      // the second gate, sharing the cache
		then   func(*scene, *revocableKeys) // before it is asked
		status int                          // 0: passes
		code   string
	}{
		"nothing changed":             {},
		"another resource":            {change: func(c *validator.Config) { c.Resource = "https://other.example.com" }, status: 401, code: "invalid_token"},
		"another issuer":              {change: func(c *validator.Config) { c.Issuer = "https://other.example.com" }, status: 401, code: "invalid_token"},
		"another rule":                {change: func(c *validator.Config) { c.Rules = []validator.Rule{scopeRule("GET", "/jobs", "resume:read")} }, status: 403, code: "insufficient_scope"},
		"expired":                     {change: func(c *validator.Config) { c.Now = func() time.Time { return now.Add(16 * time.Minute) } }, status: 401, code: "invalid_token"},
		"clock before it was issued":  {change: func(c *validator.Config) { c.Now = func() time.Time { return now.Add(-time.Minute) } }, status: 401, code: "invalid_token"},
		"client removed":              {change: func(c *validator.Config) { c.ClientAllowed = func(string) bool { return false } }, status: 401, code: "invalid_token"},
		"key retired":                 {then: func(_ *scene, k *revocableKeys) { k.key.Store(nil) }, status: 401, code: "invalid_token"},
		"another key of the same kid": {then: func(_ *scene, k *revocableKeys) { k.key.Store(&validatortest.NewMinter(t).Key.PublicKey) }, status: 401, code: "invalid_token"},
		"the same key, read anew":     {then: func(_ *scene, k *revocableKeys) { same := *k.key.Load(); k.key.Store(&same) }},
		"session ended":               {then: func(s *scene, _ *revocableKeys) { s.sessions.End(validatortest.SessionID) }, status: 401, code: "invalid_token"},
		"session of another user": {then: func(s *scene, _ *revocableKeys) {
			s.sessions.Put(validatortest.SessionID, &validator.Session{UserID: "user-2", ClientID: validatortest.ClientID})
		}, status: 401, code: "invalid_token"},
		"session narrowed": {then: func(s *scene, _ *revocableKeys) {
			s.sessions.Put(validatortest.SessionID, &validator.Session{UserID: validatortest.UserID, ClientID: validatortest.ClientID, Scopes: oauth.NewScopeSet("resume:read")})
		}, status: 403, code: "insufficient_scope"},
		"declarations without a scope": {change: func(c *validator.Config) {
			c.Catalog, c.Rules = otherCatalog(t), []validator.Rule{scopeRule("GET", "/jobs", "jobs:write")}
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			keys, cache := &revocableKeys{}, validator.NewTokenCache(1000, 1<<20)
			minter := validatortest.NewMinter(t)
			keys.key.Store(&minter.Key.PublicKey)
			shared := func(cfg *validator.Config) { cfg.Keys, cfg.Tokens = keys, cache }
			first, second := newScene(t, shared), newScene(t, shared, func(cfg *validator.Config) {
				if c.change != nil {
					c.change(cfg)
				}
			})
			token := minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "scope", "jobs:read jobs:write"))
			if _, refusal := first.call("GET", "/jobs", token); refusal != nil {
				t.Fatal(refusal)
			}
			if cache.Len() != 1 {
				t.Fatalf("%d tokens are known, want 1", cache.Len())
			}
			if c.then != nil {
				c.then(second, keys)
			}
			_, refusal := second.call("GET", "/jobs", token)
			if c.status != 0 {
				wantRefusal(t, refusal, c.status, c.code)
			} else if refusal != nil {
				t.Error(refusal)
			}
		})
	}
}

// otherCatalog declares jobs:read as part of jobs:write, which the session
// does not have by name.
func otherCatalog(t *testing.T) *oauth.Catalog {
	c, err := oauth.NewCatalog([]oauth.Scope{
		{Name: "jobs:write", Description: "Write"},
		{Name: "jobs:read", Description: "Read", Implies: []string{"jobs:write"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestGatesWithDifferentKeysOfOneNameShareNoVerdict, neither of a token that is known
// nor of one that both see first at the same time. J-18.
func TestGatesWithDifferentKeysOfOneNameShareNoVerdict(t *testing.T) {
	cache := validator.NewTokenCache(10_000, 64<<20)
	share := func(c *validator.Config) { c.Tokens = cache }
	one, other := newScene(t, share), newScene(t, share)
	for range 500 {
		token := one.minter.Token(validatortest.Claims("jobs:read"))
		var both sync.WaitGroup
		both.Go(func() {
			if _, refusal := one.call("GET", "/jobs", token); refusal != nil {
				t.Errorf("the gate whose key signed it: %v", refusal)
			}
		})
		both.Go(func() {
			if _, refusal := other.call("GET", "/jobs", token); refusal == nil {
				t.Error("a gate with another key let it through")
			}
		})
		both.Wait()
		if t.Failed() {
			return
		}
	}
}

// TestOnlyVerifiedTokensAreKept: a hostile token is refused as often as it comes,
// also beside the good one that it was made from, and takes no memory.
// J-19, V-05.
func TestOnlyVerifiedTokensAreKept(t *testing.T) {
	cache := validator.NewTokenCache(1000, 1<<20)
	s := newScene(t, func(cfg *validator.Config) { cfg.Tokens = cache })
	if _, refusal := s.call("GET", "/jobs", s.minter.Token(validatortest.Claims("jobs:read"))); refusal != nil {
		t.Fatal(refusal)
	}
	for name, token := range hostileTokens(s.minter) {
		for range 2 {
			if _, refusal := s.call("GET", "/jobs", token); refusal == nil {
				t.Errorf("%s was let through", name)
			}
		}
	}
	if cache.Len() != 1 {
		t.Errorf("%d tokens are kept, want the good one", cache.Len())
	}
}

// TestTokenCacheHoldsItsBound: more good tokens than fit are all let through and
// leave no more memory in use than was allowed; what had to go is counted.
// MET-05.
func TestTokenCacheHoldsItsBound(t *testing.T) {
	const bound = 64 << 10
	cache := validator.NewTokenCache(1000, bound)
	s := newScene(t, func(cfg *validator.Config) { cfg.Tokens = cache })
	for i := range 500 {
		token := s.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "jti", string(rune('a'+i%26))+time.Duration(i).String()))
		if _, refusal := s.call("GET", "/jobs", token); refusal != nil {
			t.Fatal(refusal)
		}
	}
	deadline := time.Now().Add(5 * time.Second) // eviction runs beside the callers
	for cache.Bytes() > bound && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if cache.Bytes() > bound || cache.Len() == 0 {
		t.Errorf("%d bytes in %d tokens, want at most %d", cache.Bytes(), cache.Len(), bound)
	}
	if n := cache.Verified(); n != 500 {
		t.Errorf("%d tokens were verified", n)
	}
	for deadline := time.Now().Add(30 * time.Second); cache.Evicted()+int64(cache.Len()) != 500; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d tokens were evicted and %d are kept, of 500", cache.Evicted(), cache.Len())
		}
	}
}

// TestKnownTokenCostsNoAllocation: what is asked most is the cheapest.
func TestKnownTokenCostsNoAllocation(t *testing.T) {
	s := newScene(t, func(cfg *validator.Config) { cfg.Tokens = validator.NewTokenCache(1000, 1<<20) })
	r := request(http.MethodGet, "/jobs/17")
	r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
	allocs := testing.AllocsPerRun(200, func() {
		if _, err := s.Authorize(r); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%.1f allocations, want none", allocs)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	for name, cache := range map[string]*validator.TokenCache{"known token": validator.NewTokenCache(1000, 1<<20), "verified every time": nil} {
		b.Run(name, func(b *testing.B) {
			s := newScene(b, func(cfg *validator.Config) { cfg.Tokens = cache })
			r := request(http.MethodGet, "/jobs/17")
			r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Authorize(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
