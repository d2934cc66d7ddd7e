package validator

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// TestCountsThatNobodyTakesAreBounded: nobody takes them while the database is away.
// What is counted already goes on, and there is room for others afterwards.
func TestCountsThatNobodyTakesAreBounded(t *testing.T) {
	scopes := oauth.NewScopeSet("jobs:read")
	rule, granted, usage := &Rule{Scopes: scopes}, &grantedScopes{scopes: scopes}, &Usage{}
	use := func(session uuid.UUID) {
		d := Decision{Rule: rule, granted: granted, token: (&claims{sessionID: session.String()}).token(&sharedClaims{})}
		d.CountUse(usage)
	}
	first := uuid.New()
	use(first)
	for range 3 * usageShards * maxCounted {
		use(uuid.New())
	}
	use(first)
	counted := map[string]int64{}
	for _, c := range usage.Take(time.Now(), 0) {
		counted[c.SessionID] = c.Count
	}
	if most := usageShards * maxCounted; len(counted) != most || counted[first.String()] != 2 {
		t.Errorf("%d sessions were counted, want %d; the first one %d times", len(counted), most, counted[first.String()])
	}
	late := uuid.New()
	use(late)
	if calls := usage.Take(time.Now(), 0); len(calls) != 1 || calls[0] != (Calls{late.String(), "jobs:read", 1}) {
		t.Errorf("afterwards %v", calls)
	}
}

// TestCountsOfManySessionsAreTakenInParts, so that a minute's are not written at one
// time; each one's turn comes, and nothing is lost.
func TestCountsOfManySessionsAreTakenInParts(t *testing.T) {
	const sessions = 50 * usageShards
	scopes := oauth.NewScopeSet("jobs:read")
	rule, granted, usage := &Rule{Scopes: scopes}, &grantedScopes{scopes: scopes}, &Usage{}
	for n := range sessions {
		id := uuid.New()
		id[len(id)-1] = byte(n) // as many in each shard
		d := Decision{Rule: rule, granted: granted, token: (&claims{sessionID: id.String()}).token(&sharedClaims{})}
		d.CountUse(usage)
	}
	now, parts := time.Now(), usageShards/takenAtOnce
	for part := range parts {
		if taken := len(usage.Take(now, time.Minute)); taken != sessions/parts {
			t.Errorf("part %d: %d of %d sessions were taken", part+1, taken, sessions)
		}
	}
	if left := usage.Take(now, 0); len(left) > 0 {
		t.Errorf("%d sessions are left", len(left))
	}
}
