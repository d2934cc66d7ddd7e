package validator_test

import (
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// counted lets the requests through and counts them.
func (s *scene) counted(t *testing.T, usage *validator.Usage, token string, requests ...[2]string) {
	t.Helper()
	for _, r := range requests {
		decision, refusal := s.call(r[0], r[1], token)
		if refusal != nil {
			t.Fatalf("%v: %v", r, refusal)
		}
		decision.CountUse(usage)
	}
}

// taken sums up by scope what the test's session did.
func taken(t *testing.T, usage *validator.Usage, now time.Time, every time.Duration) map[string]int64 {
	t.Helper()
	sum := map[string]int64{}
	for _, calls := range usage.Take(now, every) {
		if calls.SessionID != validatortest.SessionID || calls.Count < 1 {
			t.Errorf("counted %+v", calls)
		}
		sum[calls.Scope] += calls.Count
	}
	return sum
}

func wantTaken(t *testing.T, got, want map[string]int64) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("taken %v, want %v", got, want)
	}
}

type calls = map[string]int64

func TestUseIsCountedByTheScopeThatWasNeeded(t *testing.T) {
	rules := append(jobBoard(), validator.Rule{Path: "/either", Access: validator.AccessAny, Scopes: oauth.NewScopeSet("jobs:read", "resume:read")})
	s := newScene(t, func(c *validator.Config) { c.Tokens, c.Rules = validator.NewTokenCache(1000, 1<<20), rules })
	token := s.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "scope", "jobs:read applications:write"))
	all := s.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "scope", "jobs:read resume:read"))
	usage, now := &validator.Usage{}, time.Now()
	s.counted(t, usage, token, [2]string{"GET", "/jobs"}, [2]string{"GET", "/jobs/1"}, [2]string{"GET", "/applications"},
		[2]string{"GET", "/me"}, [2]string{"GET", "/health"}, [2]string{"DELETE", "/either"})
	s.counted(t, usage, all, [2]string{"POST", "/resume/analyze"}, [2]string{"GET", "/either"})
	if _, refusal := s.call("GET", "/resume", token); refusal == nil {
		t.Fatal("no rule names it")
	}
	// applications:read was needed, and is held as a part of applications:write.
	wantTaken(t, taken(t, usage, now, 0), calls{"jobs:read": 5, "applications:read": 1, "resume:read": 2})
	wantTaken(t, taken(t, usage, now, 0), calls{})
	s.counted(t, usage, token, [2]string{"GET", "/jobs"})
	wantTaken(t, taken(t, usage, now, 0), calls{"jobs:read": 1})
}

// What a busy session does is written once in a while, and nothing of it is lost.
func TestUseIsTakenOnceInEachInterval(t *testing.T) {
	s := newScene(t, func(c *validator.Config) { c.Tokens = validator.NewTokenCache(1000, 1<<20) })
	token, usage, now := s.minter.Token(validatortest.Claims("jobs:read")), &validator.Usage{}, time.Now()
	jobs := [2]string{"GET", "/jobs"}
	s.counted(t, usage, token, jobs)
	wantTaken(t, taken(t, usage, now, time.Minute), calls{"jobs:read": 1})
	s.counted(t, usage, token, jobs, jobs)
	wantTaken(t, taken(t, usage, now.Add(59*time.Second), time.Minute), calls{})
	s.counted(t, usage, token, jobs)
	wantTaken(t, taken(t, usage, now.Add(time.Minute), time.Minute), calls{"jobs:read": 3})
}

// A reload changes the declarations, and a narrowed session what a token may do.
func TestUseBeforeAChangeIsStillTaken(t *testing.T) {
	cache := validator.NewTokenCache(1000, 1<<20)
	s := newScene(t, func(c *validator.Config) { c.Tokens = cache })
	token, usage := s.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "scope", "jobs:read resume:read")), &validator.Usage{}
	jobs := [2]string{"GET", "/jobs"}
	s.counted(t, usage, token, jobs)
	s.sessions.Put(validatortest.SessionID, &validator.Session{UserID: validatortest.UserID, ClientID: validatortest.ClientID, Scopes: oauth.NewScopeSet("jobs:read")})
	s.counted(t, usage, token, jobs)
	other := &validator.Usage{} // of another database
	s.counted(t, other, token, jobs)
	s.counted(t, usage, token, jobs)
	wantTaken(t, taken(t, usage, time.Now(), 0), calls{"jobs:read": 3})
	wantTaken(t, taken(t, other, time.Now(), 0), calls{"jobs:read": 1})
}

func TestUseIsCountedExactlyWhileItIsTaken(t *testing.T) {
	s := newScene(t, func(c *validator.Config) { c.Tokens = validator.NewTokenCache(1000, 1<<20) })
	token, usage := s.minter.Token(validatortest.Claims("jobs:read")), &validator.Usage{}
	const callers, each = 8, 2000
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			decision, refusal := s.call("GET", "/jobs", token)
			if refusal != nil {
				t.Error(refusal)
				return
			}
			for range each {
				decision.CountUse(usage)
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	var sum int64
	for counting := true; counting; {
		select {
		case <-done:
			counting = false
		default:
		}
		sum += taken(t, usage, time.Now(), 0)["jobs:read"]
	}
	if sum != callers*each {
		t.Errorf("taken %d of %d", sum, callers*each)
	}
}

func TestCountingCostsNoAllocation(t *testing.T) {
	s := newScene(t, func(c *validator.Config) { c.Tokens = validator.NewTokenCache(1000, 1<<20) })
	usage := &validator.Usage{}
	decision, refusal := s.call(http.MethodGet, "/jobs/17", s.minter.Token(validatortest.Claims("jobs:read")))
	if refusal != nil {
		t.Fatal(refusal)
	}
	if allocs := testing.AllocsPerRun(200, func() { decision.CountUse(usage) }); allocs != 0 {
		t.Errorf("%.1f allocations, want none", allocs)
	}
}

func BenchmarkCountUse(b *testing.B) {
	s := newScene(b, func(c *validator.Config) { c.Tokens = validator.NewTokenCache(1000, 1<<20) })
	usage := &validator.Usage{}
	decision, refusal := s.call(http.MethodGet, "/jobs/17", s.minter.Token(validatortest.Claims("jobs:read")))
	if refusal != nil {
		b.Fatal(refusal)
	}
	b.ReportAllocs()
	for b.Loop() {
		decision.CountUse(usage)
	}
}

// A call of a tool counts for the path and for the tool; a batch for each of its
// tools.
func TestUseOfToolsIsCounted(t *testing.T) {
	s := newToolScene(t, validator.AccessScopes, "resume:read")
	usage := &validator.Usage{}
	for _, body := range []string{call("search_jobs"), call("whoami"), "[" + call("search_jobs") + "," + strings.Replace(call("list_applications"), "one", "two", 1) + "]"} {
		decision, refusal := s.message(body, "jobs:read applications:read resume:read")
		if refusal != nil {
			t.Fatalf("%s: %v", body, refusal)
		}
		decision.CountUse(usage)
	}
	got := taken(t, usage, time.Now(), 0)
	if got["jobs:read"] != 2 || got["applications:read"] != 1 || got["resume:read"] < 3 {
		t.Errorf("taken %v", got)
	}
}
