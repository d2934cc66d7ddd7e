//go:build unix

package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// RATE-06: TestNodesShareWhatCallersSpend: three nodes on one database. A caller who has
// spent the quota at the first finds no more than a sixteenth of it at each of the
// others.
func TestNodesShareWhatCallersSpend(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	limit, err := ratelimit.NewLimit("test", "64/h per user", ratelimit.Rate{Quota: 64, Window: time.Hour})
	s.must(err)
	nodes := make([]*ratelimit.Table, 3)
	ctx, stop := context.WithCancel(s.ctx)
	var ended sync.WaitGroup
	defer ended.Wait()
	defer stop()
	for i := range nodes {
		nodes[i] = ratelimit.NewTable(nil)
		ended.Go(func() { nodes[i].Share(ctx, postgres.NewRates(s.db).Exchange, zap.NewNop()) })
	}
	key := ratelimit.NewLimiter(nil, [32]byte{1}).Key(limit, "user-1")

	passed := 0
	for nodes[0].Take(key, limit).Allowed {
		passed++
	}
	owed := func() (units int) {
		s.must(s.sql.QueryRow(s.ctx, `SELECT coalesce(max(extract(epoch FROM whole_at - now()) / 56.25)::int, 0) FROM gpt_rates`).Scan(&units))
		return units
	}
	s.eventually("the database hears of the first node", func() bool {
		nodes[0].Return(key, limit) // until Share has begun, nobody is told
		nodes[0].Take(key, limit)
		return owed() >= 60
	})
	for i, node := range nodes[1:] {
		for range 64 / 16 {
			if node.Take(key, limit).Allowed {
				passed++
			}
		}
		s.eventually(fmt.Sprintf("node %d hears of the others", i+2), func() bool {
			if !node.Take(key, limit).Allowed {
				return true
			}
			node.Return(key, limit)
			return false
		})
	}
	if most := 64 + 2*64/16; passed > most {
		t.Errorf("%d passed, want at most %d", passed, most)
	}
	if got := owed(); got < 64 {
		t.Errorf("%d units are owed after %d passed", got, passed)
	}
}

// RATE-06: TestParallelExchangesAddUp: many nodes with the same keys, in any order, wait for
// each other in no circle and lose nothing.
func TestParallelExchangesAddUp(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const nodes, rounds, keys = 6, 10, 50
	rates := postgres.NewRates(s.db)
	var all sync.WaitGroup
	for n := range nodes {
		all.Go(func() {
			for r := range rounds {
				var spent []ratelimit.Spent
				for k := range keys {
					spent = append(spent, ratelimit.Spent{Key: ratelimit.Key{1, byte((k*7 + n*11 + r) % keys)}, Time: time.Hour})
				}
				standing, err := rates.Exchange(s.ctx, spent)
				if err != nil || len(standing) != keys {
					t.Errorf("%d of %d keys: %v", len(standing), keys, err)
				}
			}
		})
	}
	all.Wait()
	if n := s.count(`SELECT count(*) FROM gpt_rates WHERE whole_at BETWEEN now() + interval '59 hours' AND now() + interval '61 hours'`); n != keys {
		t.Errorf("%d of %d keys have what %d nodes spent", n, keys, nodes)
	}
}

// RATE-07: TestExchangeFailsWhereTheDatabaseIsAway, so that the node goes on alone.
func TestExchangeFailsWhereTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.db.Close()
	if _, err := postgres.NewRates(s.db).Exchange(s.ctx, []ratelimit.Spent{{Key: ratelimit.Key{1}, Time: time.Second}}); err == nil {
		t.Error("an exchange with nobody is no error")
	}
}
