package validator

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-scope/caddy-scope/slabcache"
)

// Usage counts requests that were let through, by session and by the scope that
// they needed, until somebody takes the counts away. It outlives gates and
// reloads as TokenCache does. Safe for concurrent use.
type Usage struct {
	mu     sync.Mutex
	listed []*tokenUse
	block  *useBlock // the newest
}

// Calls is how often a session used a scope.
type Calls struct {
	SessionID string
	Scope     string
	Count     int64
}

// maxListed bounds the tokens that wait to be taken; what further ones do is
// counted once there is room.
const maxListed = 100_000

// tokenUse counts what one token did. It is kept with the token, so that a
// request that is let through adds to numbers it has at hand and looks nothing
// up.
type tokenUse struct {
	usage   *Usage
	granted *grantedScopes
	session string
	calls   []atomic.Uint32 // by granted.scopes
	listed  atomic.Bool     // in usage.listed, or about to be
	taken   time.Time       // by Take; nobody else touches it
}

// CountUse notes that the request of the decision was let through. Of a rule
// with several scopes each one that the session holds was used; calls of tools
// count each for itself.
func (d *Decision) CountUse(usage *Usage) {
	if d.token == nil || d.Rule == nil || usage == nil {
		return
	}
	use := d.token.useIn(usage)
	// First the numbers, so that whoever takes the token off the list either finds
	// them or leaves it to be listed again.
	if use.count(d.Rule) && !use.listed.Load() && use.listed.CompareAndSwap(false, true) {
		usage.list(use)
	}
}

// count reports whether the rule names a scope that is held.
func (u *tokenUse) count(rule *Rule) (counted bool) {
	for _, scope := range rule.Scopes {
		if i, held := slices.BinarySearch(u.granted.scopes, scope); held {
			u.calls[i].Add(1)
			counted = true
		}
	}
	for _, other := range rule.also {
		counted = u.count(other) || counted
	}
	return counted
}

// useIn returns the counts of the token; new ones when what it may do has changed,
// while the old ones are still on their list.
func (t *verifiedToken) useIn(usage *Usage) *tokenUse {
	granted := t.granted.Load()
	for {
		use := t.use.Load()
		if use != nil && use.usage == usage && use.granted == granted {
			return use
		}
		fresh := usage.newUse(t.sessionID, granted)
		if t.use.CompareAndSwap(use, fresh) {
			return fresh
		}
	}
}

// useBlock has the counts of some tokens side by side: the garbage collector then
// has few objects to visit (see slabcache).
type useBlock struct {
	uses  []tokenUse
	calls []atomic.Uint32
	text  slabcache.Text
}

const usesInBlock = 64

// newUse returns counts that start at zero.
func (u *Usage) newUse(session string, granted *grantedScopes) *tokenUse {
	n := len(granted.scopes)
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.block
	if b == nil || len(b.uses) == 0 || len(b.calls) < n {
		b = &useBlock{uses: make([]tokenUse, usesInBlock), calls: make([]atomic.Uint32, usesInBlock*max(n, 1))}
		b.text.Grow(usesInBlock * len(session))
		u.block = b
	}
	use := &b.uses[0]
	use.usage, use.granted, use.session, use.calls = u, granted, b.text.Keep(session), b.calls[:n:n]
	b.uses, b.calls = b.uses[1:], b.calls[n:]
	return use
}

func (u *Usage) list(use *tokenUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.listed) >= maxListed {
		use.listed.Store(false)
		return
	}
	u.listed = append(u.listed, use)
}

// Take returns what was counted since it was last taken, and leaves the counts of
// tokens of which it took some less than every ago. One session may stand in the
// answer more than once. One caller at a time.
func (u *Usage) Take(now time.Time, every time.Duration) []Calls {
	u.mu.Lock()
	listed := u.listed
	u.listed = nil
	u.mu.Unlock()

	var calls []Calls
	var later []*tokenUse
	for _, use := range listed {
		if now.Sub(use.taken) < every {
			later = append(later, use)
			continue
		}
		use.taken = now
		use.listed.Store(false)
		for i, scope := range use.granted.scopes {
			if n := use.calls[i].Swap(0); n > 0 {
				calls = append(calls, Calls{use.session, scope, int64(n)})
			}
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.listed = append(u.listed, later...)
	return calls
}
