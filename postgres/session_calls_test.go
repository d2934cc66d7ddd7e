//go:build unix

package postgres_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// counting returns a function that lets n requests of a session for a scope through
// a gate that counts for the upkeep.
func counting(t *testing.T, u *postgres.Upkeep) func(sessionID, scope string, n int) {
	t.Helper()
	catalog, err := oauth.NewCatalog([]oauth.Scope{{Name: "jobs:read", Description: "Search jobs"}, {Name: "resume:read", Description: "Read your resume"}})
	if err != nil {
		t.Fatal(err)
	}
	minter, sessions := validatortest.NewMinter(t), validatortest.NewSessions()
	var rules []validator.Rule
	for _, scope := range catalog.Names() {
		rules = append(rules, validator.Rule{Path: "/" + scope, Access: validator.AccessScopes, Scopes: oauth.NewScopeSet(scope)})
	}
	gate, err := validator.New(validator.Config{
		Issuer: validatortest.Issuer, Resource: validatortest.Resource, Catalog: catalog, Keys: minter, Sessions: sessions, Rules: rules,
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(sessionID, scope string, n int) {
		sessions.Put(sessionID, &validator.Session{UserID: validatortest.UserID, ClientID: validatortest.ClientID, Scopes: catalog.Names()})
		token := minter.Token(validatortest.With(validatortest.Claims(scope), "sid", sessionID))
		for range n {
			r := httptest.NewRequest(http.MethodGet, "/"+scope, nil)
			r.Header.Set("Authorization", "Bearer "+token)
			decision, err := gate.Authorize(r)
			if err != nil {
				t.Error(err)
			}
			decision.CountUse(u.Usage)
		}
	}
}

func TestCallsAreWrittenInBatchesByDay(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session, gone := s.session("jobs:read"), s.session("jobs:read")
	u := postgres.NewUpkeep(s.db)
	call := counting(t, u)
	call(session.ID, "jobs:read", 3)
	call(session.ID, "resume:read", 1)
	call(gone.ID, "jobs:read", 1)
	s.exec(`DELETE FROM gpt_sessions WHERE id = $1`, gone.ID)
	if s.count(`SELECT count(*) FROM gpt_session_calls`) != 0 {
		t.Fatal("written on the request")
	}
	s.must(u.FlushCalls(s.ctx, 0))
	call(session.ID, "jobs:read", 4)
	s.must(u.FlushCalls(s.ctx, 0))
	for query, want := range map[string]int{
		`SELECT count(*) FROM gpt_session_calls`:                                    2,
		`SELECT calls FROM gpt_session_calls WHERE scope = 'jobs:read'`:             7,
		`SELECT calls FROM gpt_session_calls WHERE scope = 'resume:read'`:           1,
		`SELECT (now() AT TIME ZONE 'UTC')::date - min(day) FROM gpt_session_calls`: 0,
	} {
		if got := s.count(query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
}

func TestCallsAreKeptWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	u := postgres.NewUpkeep(s.db)
	call := counting(t, u)
	s.exec(`ALTER TABLE gpt_session_calls RENAME TO away`)
	call(session.ID, "jobs:read", 3)
	if err := u.FlushCalls(s.ctx, 0); err == nil {
		t.Fatal("written to a table that is not there")
	}
	call(session.ID, "jobs:read", 2)
	s.exec(`ALTER TABLE away RENAME TO gpt_session_calls`)
	s.must(u.FlushCalls(s.ctx, 0))
	if got := s.count(`SELECT sum(calls)::int FROM gpt_session_calls`); got != 5 {
		t.Errorf("%d calls, want 5", got)
	}
}

// Nodes that write about the same sessions at the same time neither wait for each
// other for ever nor lose a call.
func TestNodesWriteCallsOfTheSameSessionsAtOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var sessions []string
	for range 40 {
		sessions = append(sessions, s.session("jobs:read").ID)
	}
	parallel(4, func(int) {
		u := postgres.NewUpkeep(s.db)
		call := counting(t, u)
		for range 3 {
			for _, id := range sessions {
				call(id, "jobs:read", 1)
			}
			if err := u.FlushCalls(s.ctx, 0); err != nil {
				t.Error(err)
			}
		}
	})
	if got := s.count(`SELECT sum(calls)::int FROM gpt_session_calls`); got != 4*3*40 {
		t.Errorf("%d calls, want %d", got, 4*3*40)
	}
}

func TestUpkeepRemovesCallsAfterThirtyDays(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	for _, age := range []int{0, 29, 30, 300} {
		s.exec(`INSERT INTO gpt_session_calls VALUES ($1, (now() AT TIME ZONE 'UTC')::date - $2::int, 'jobs:read', 1)`, session.ID, age)
	}
	s.must(postgres.NewUpkeep(s.db).Clean(s.ctx))
	if got := s.count(`SELECT count(*) FROM gpt_session_calls`); got != 2 {
		t.Errorf("%d days are left, want 2", got)
	}
}
