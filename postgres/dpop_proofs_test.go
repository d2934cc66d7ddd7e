//go:build unix

package postgres_test

import (
	"crypto/sha256"
	"errors"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// P-23: of a hundred uses of each proof, at the same moment and on two nodes, one
// succeeds.
func TestProofIsUsedOnceAmongNodes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	nodes := []*postgres.Store{s.store, postgres.NewStore(s.db)}
	const proofs, uses = 20, 100
	var accepted [proofs]atomic.Int32
	var all sync.WaitGroup
	for i := range proofs * uses {
		all.Go(func() {
			n := i % proofs
			err := nodes[i%len(nodes)].UseProof(s.ctx, sha256.Sum256([]byte(strconv.Itoa(n))), time.Minute)
			switch {
			case err == nil:
				accepted[n].Add(1)
			case !errors.Is(err, dpop.ErrReplayed):
				t.Error(err)
			}
		})
	}
	all.Wait()
	for n := range accepted {
		if got := accepted[n].Load(); got != 1 {
			t.Errorf("proof %d was accepted %d times", n, got)
		}
	}
	if n := s.count(`SELECT count(*) FROM gpt_dpop_proofs`); n != proofs {
		t.Errorf("%d rows", n)
	}
	s.exec(`UPDATE gpt_dpop_proofs SET expires_at = now() - interval '1 second' WHERE digest = $1`, digestOf("0"))
	s.must(postgres.NewUpkeep(s.db).Clean(s.ctx))
	if n := s.count(`SELECT count(*) FROM gpt_dpop_proofs`); n != proofs-1 {
		t.Errorf("%d rows after the clean-up", n)
	}
}

// Noting a proof waits for no disk, and nothing else on the connection does so
// after it.
func TestOnlyProofsAreCommittedWithoutWaiting(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	dsn, err := url.Parse(s.dsn)
	s.must(err)
	query := dsn.Query()
	query.Set("synchronous_commit", "on") // the test server's own is off
	dsn.RawQuery = query.Encode()
	db, err := postgres.Open(s.ctx, postgres.Config{DSN: dsn.String(), MaxConns: 1})
	s.must(err)
	t.Cleanup(db.Close)
	s.exec(`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO seen VALUES (TG_TABLE_NAME, current_setting('synchronous_commit')); RETURN NULL; END $$`)
	s.exec(`CREATE TABLE seen (what text, waits text)`)
	s.exec(`CREATE TRIGGER note AFTER INSERT ON gpt_dpop_proofs FOR EACH STATEMENT EXECUTE FUNCTION note()`)
	s.exec(`CREATE TRIGGER note AFTER INSERT ON gpt_client_assertions FOR EACH STATEMENT EXECUTE FUNCTION note()`)
	store := postgres.NewStore(db)
	s.must(store.UseProof(s.ctx, sha256.Sum256([]byte("a")), time.Minute))
	s.must(store.UseAssertion(s.ctx, "app", sha256.Sum256([]byte("a")), time.Minute))
	if n := s.count(`SELECT count(*) FROM seen WHERE (what, waits) IN (('gpt_dpop_proofs', 'off'), ('gpt_client_assertions', 'on'))`); n != 2 {
		t.Errorf("%d of 2", n)
	}
}

// P-04: who cannot be told whether a proof was used before is told so.
func TestProofIsNotUsedWithoutTheStore(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.exec(`ALTER TABLE gpt_dpop_proofs RENAME TO away`)
	if err := s.store.UseProof(s.ctx, sha256.Sum256(nil), time.Minute); err == nil || errors.Is(err, dpop.ErrReplayed) {
		t.Error(err)
	}
}

func digestOf(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}
