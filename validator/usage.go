package validator

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Usage counts requests that were let through, by session and by the scope that
// they needed, until somebody takes the counts away. It outlives gates and
// reloads as TokenCache does. Safe for concurrent use.
type Usage struct {
	shards [usageShards]usageShard
	next   int // where Take begins
	scopes scopeNumbers
}

// Calls is how often a session used a scope.
type Calls struct {
	SessionID string
	Scope     string
	Count     int64
}

const (
	usageShards = 64
	// maxCounted bounds what waits to be taken in a shard, by session and scope; what
	// further ones do is not counted until there is room.
	maxCounted = 200_000 / usageShards
	// takenAtOnce is how many shards one call of Take empties, so that what is
	// written each minute is not written at one time.
	takenAtOnce = usageShards / 4
)

// usageShard has the counts of some sessions. Neither its keys nor its values have
// pointers, so that the garbage collector does not look at them.
type usageShard struct {
	mu    sync.Mutex
	calls map[useKey]uint32
	taken time.Time
}

type useKey struct {
	session uuid.UUID
	scope   uint32 // see scopeNumbers
}

// CountUse notes that the request of the decision was let through. Of a rule
// with several scopes each one that the session holds was used; calls of tools
// count each for itself. A session whose id is no UUID is nobody's to count.
func (d *Decision) CountUse(usage *Usage) {
	if d.token.isNone() || d.Rule == nil || usage == nil {
		return
	}
	session, err := uuid.Parse(d.token.sessionID())
	if err != nil {
		return
	}
	shard := &usage.shards[session[len(session)-1]%usageShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	usage.count(shard, session, d.Rule, d.granted)
}

// count adds the scopes of the rule that are held.
func (u *Usage) count(shard *usageShard, session uuid.UUID, rule *Rule, granted *grantedScopes) {
	for _, scope := range rule.Scopes {
		if granted.scopes.Contains(scope) {
			shard.add(useKey{session, u.scopes.number(scope)})
		}
	}
	for _, other := range rule.also {
		u.count(shard, session, other, granted)
	}
}

func (s *usageShard) add(key useKey) {
	if s.calls == nil {
		s.calls = make(map[useKey]uint32)
	}
	if count, known := s.calls[key]; known || len(s.calls) < maxCounted {
		s.calls[key] = count + 1
	}
}

// Take returns what was counted since it was last taken. It leaves the counts of
// sessions of which it took some less than every ago, and of sessions beside which
// they lie; and of many sessions it leaves some for the next call. With every zero
// it returns all. One caller at a time.
func (u *Usage) Take(now time.Time, every time.Duration) []Calls {
	var calls []Calls
	shards, start := 0, u.next
	for n := range usageShards {
		i := (start + n) % usageShards // in turn, so that each one's comes
		taken := u.shards[i].take(now, every)
		if taken == nil {
			continue
		}
		for key, count := range taken {
			calls = append(calls, Calls{key.session.String(), u.scopes.name(key.scope), int64(count)})
		}
		if shards++; shards == takenAtOnce && every > 0 {
			u.next = i + 1
			break
		}
	}
	return calls
}

func (s *usageShard) take(now time.Time, every time.Duration) map[useKey]uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) == 0 || now.Sub(s.taken) < every {
		return nil
	}
	calls := s.calls
	s.calls, s.taken = nil, now
	return calls
}

// scopeNumbers numbers the scopes that rules ask for, which are few.
type scopeNumbers struct {
	mu    sync.Mutex // of whoever adds
	known atomic.Pointer[knownScopes]
}

type knownScopes struct {
	numbers map[string]uint32
	names   []string
}

func (n *scopeNumbers) number(scope string) uint32 {
	if known := n.known.Load(); known != nil {
		if number, ok := known.numbers[scope]; ok {
			return number
		}
	}
	return n.add(scope)
}

func (n *scopeNumbers) add(scope string) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	more := &knownScopes{numbers: make(map[string]uint32)}
	if known := n.known.Load(); known != nil {
		if number, ok := known.numbers[scope]; ok { // since it was looked up
			return number
		}
		more.names = append(more.names, known.names...)
	}
	more.names = append(more.names, scope)
	for i, name := range more.names {
		more.numbers[name] = uint32(i)
	}
	n.known.Store(more)
	return more.numbers[scope]
}

func (n *scopeNumbers) name(number uint32) string { return n.known.Load().names[number] }
