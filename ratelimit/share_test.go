package ratelimit

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
)

// commons stands in for the database: it adds up what nodes have spent.
type commons struct {
	mu    sync.Mutex
	now   func() time.Time
	whole map[Key]time.Time
	down  error
	trips int
}

func (c *commons) exchange(_ context.Context, spent []Spent) ([]Spent, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trips++
	if c.down != nil {
		return nil, c.down
	}
	standing := make([]Spent, len(spent))
	for i, s := range spent {
		whole := c.whole[s.Key]
		if now := c.now(); whole.Before(now) {
			whole = now
		}
		c.whole[s.Key] = whole.Add(s.Time)
		standing[i] = Spent{s.Key, c.whole[s.Key].Sub(c.now())}
	}
	return standing, nil
}

func newCommons(clock *clock) *commons {
	return &commons{now: clock.now, whole: make(map[Key]time.Time)}
}

// nodes are tables that share in steps which the test takes.
func newNodes(n int) ([]*Table, *clock, *commons) {
	clock := new(clock)
	tables := make([]*Table, n)
	for i := range tables {
		tables[i] = NewTable(clock.now)
		tables[i].sharing.Store(1)
	}
	return tables, clock, newCommons(clock)
}

// TestNodesTogetherKeepTheRate: a caller that goes to three nodes in turn, as a
// balancer sends it, passes hardly more often than at one. RATE-06.
func TestNodesTogetherKeepTheRate(t *testing.T) {
	nodes, clock, db := newNodes(3)
	limit := limitOf(t, "60/m")
	passed := 0
	const minutes = 10
	for step := range minutes * 60 * 10 { // ten requests a second
		node := nodes[step%len(nodes)]
		if node.Take(keyOf(1, 1), limit).Allowed {
			passed++
		}
		if err := node.shareOnce(t.Context(), db.exchange); err != nil {
			t.Fatal(err)
		}
		clock.advance(100 * time.Millisecond)
	}
	// The quota, what ten minutes make good, and a sixteenth for each node.
	most := 60 + 60*minutes + len(nodes)*(60/tellAt+1)
	if passed > most || passed < 60*minutes {
		t.Errorf("%d passed in %d minutes, want at most %d and at least %d", passed, minutes, most, 60*minutes)
	}
}

// TestBurstAtEveryNodeIsOwed: before the nodes have heard of one another each lets
// through a whole quota; what was too much is made good before anybody passes
// again. RATE-06.
func TestBurstAtEveryNodeIsOwed(t *testing.T) {
	nodes, clock, db := newNodes(3)
	limit := limitOf(t, "30/m")
	key := keyOf(1, 1)
	passed := 0
	for _, node := range nodes {
		for range 100 {
			if node.Take(key, limit).Allowed {
				passed++
			}
		}
	}
	if passed != 3*30 {
		t.Fatalf("%d passed before the nodes heard of one another, want 3 times the quota and no more", passed)
	}
	for range 2 { // the first to tell hears of the others when it tells again
		for _, node := range nodes {
			if err := node.shareOnce(t.Context(), db.exchange); err != nil {
				t.Fatal(err)
			}
		}
	}
	// 90 were spent, 30 may be: the last node knows, and is owed two minutes.
	last := nodes[2].Take(key, limit)
	if want := 2*time.Minute + 2*time.Second; last.Allowed || last.Wait != want {
		t.Errorf("%+v, want a wait of %s", last, want)
	}
	for range 60 * 10 {
		clock.advance(time.Second)
		for _, node := range nodes {
			if node.Take(key, limit).Allowed {
				passed++
			}
			_ = node.shareOnce(t.Context(), db.exchange)
		}
	}
	if most := 3*30 + 10*30; passed > most {
		t.Errorf("%d passed, want at most %d: the burst was not owed", passed, most)
	}
}

// TestWithoutTheDatabaseEachNodeCountsAlone: limits never become an outage; when it
// answers again, the others hear what is not made good yet. RATE-07.
func TestWithoutTheDatabaseEachNodeCountsAlone(t *testing.T) {
	nodes, clock, db := newNodes(2)
	limit := limitOf(t, "60/m")
	key := keyOf(1, 1)
	db.down = errors.New("connection refused")
	for range 60 {
		if !nodes[0].Take(key, limit).Allowed {
			t.Fatal("refused although the node's own count has room")
		}
		_ = nodes[0].shareOnce(t.Context(), db.exchange)
	}
	if db.trips == 0 {
		t.Fatal("the exchange was not asked")
	}
	if nodes[0].Take(key, limit).Allowed {
		t.Error("the node's own limit does not hold while the database is away")
	}
	clock.advance(30 * time.Second)
	db.down = nil
	nodes[0].Take(key, limit) // wakes it, as anything does
	if err := nodes[0].shareOnce(t.Context(), db.exchange); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		nodes[1].Take(key, limit)
	}
	if err := nodes[1].shareOnce(t.Context(), db.exchange); err != nil {
		t.Fatal(err)
	}
	// 60 less 30 that were made good, 1 and 8 more.
	if state := nodes[1].Take(key, limit); state.Remaining != 60-39-1 {
		t.Errorf("%d remain at the other node, want %d", state.Remaining, 60-39-1)
	}
}

// TestCallersOfLittleAreNotToldOf: the database hears of those alone who have spent
// a sixteenth, so that a flood of addresses that come once does not reach it.
func TestCallersOfLittleAreNotToldOf(t *testing.T) {
	nodes, _, db := newNodes(1)
	limit := limitOf(t, "600/m")
	for n := range uint64(20_000) {
		nodes[0].Take(keyOf(n, 1), limit)
	}
	for range 600 / tellAt {
		nodes[0].Take(keyOf(7, 7), limit)
	}
	for range 3 {
		if err := nodes[0].shareOnce(t.Context(), db.exchange); err != nil {
			t.Fatal(err)
		}
	}
	if len(db.whole) != 0 {
		t.Errorf("told of %d keys", len(db.whole))
	}
	nodes[0].Take(keyOf(7, 7), limit)
	_ = nodes[0].shareOnce(t.Context(), db.exchange)
	if len(db.whole) != 1 {
		t.Errorf("told of %d keys, want the one that spent", len(db.whole))
	}
}

// TestReturnedUnitsAreTakenBackAtOthersToo.
func TestReturnedUnitsAreTakenBackAtOthersToo(t *testing.T) {
	nodes, _, db := newNodes(2)
	limit := limitOf(t, "4/m")
	key := keyOf(1, 1)
	for _, node := range nodes {
		node.Take(key, limit)
		_ = node.shareOnce(t.Context(), db.exchange)
	}
	nodes[0].Return(key, limit)
	_ = nodes[0].shareOnce(t.Context(), db.exchange)
	nodes[1].Take(key, limit)
	_ = nodes[1].shareOnce(t.Context(), db.exchange)
	if got := db.whole[key].Sub(db.now()); got != 30*time.Second {
		t.Errorf("%s are owed after two units of three, want 30s", got)
	}
}

// TestShareRunsUntilItsContextEnds, and tells as soon as there is something to
// tell.
func TestShareRunsUntilItsContextEnds(t *testing.T) {
	table, clock := newScene()
	db := newCommons(clock)
	told := make(chan []Spent, 8)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		table.Share(ctx, func(ctx context.Context, spent []Spent) ([]Spent, error) {
			told <- spent
			return db.exchange(ctx, spent)
		}, zap.NewNop())
	}()
	limit := limitOf(t, "4/m")
	for table.sharing.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	table.Take(keyOf(1, 1), limit)
	select {
	case spent := <-told:
		if len(spent) != 1 || spent[0].Time != 15*time.Second {
			t.Errorf("told %+v", spent)
		}
	case <-time.After(30 * time.Second):
		t.Error("nobody was told")
	}
	cancel()
	<-ended
}
