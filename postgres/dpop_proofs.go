package postgres

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/dpop"
)

// usedProof is a proof that wants to be noted.
type usedProof struct {
	digest [32]byte
	ttl    time.Duration
}

// useProofsSQL returns the digests that were not there. It does not wait until
// the disk, or a standby, has them (synchronous_commit, for this transaction
// only): a proof is worth a minute, and each request brings one. ADR 13.
const useProofsSQL = `
	INSERT INTO {s}.gpt_dpop_proofs (digest, expires_at)
	SELECT u.digest, clock_timestamp() + make_interval(secs => u.ttl)
	FROM unnest($1::bytea[], $2::float8[]) AS u (digest, ttl), (SELECT set_config('synchronous_commit', 'off', true)) AS quick
	ON CONFLICT (digest) DO NOTHING
	RETURNING digest`

// UseProof is described at dpop.Store. Concurrent proofs share round trips.
func (s *Store) UseProof(ctx context.Context, digest [32]byte, ttl time.Duration) error {
	_, err := s.proofs.join(ctx, usedProof{digest, ttl})
	return err
}

func (s *Store) useProofs(ctx context.Context, batch []*passenger[usedProof, struct{}]) {
	// In one order, so that two nodes with the same proofs do not wait for each
	// other in a circle.
	ordered := slices.SortedFunc(slices.Values(batch), func(a, b *passenger[usedProof, struct{}]) int {
		return bytes.Compare(a.ask.digest[:], b.ask.digest[:])
	})
	digests, ttls := make([][]byte, len(ordered)), make([]float64, len(ordered))
	for i, p := range ordered {
		digests[i], ttls[i] = p.ask.digest[:], p.ask.ttl.Seconds()
	}
	added := make(map[[32]byte]bool, len(batch))
	err := s.db.write(ctx, "use DPoP proofs", func(ctx context.Context, conn *pgxpool.Conn) error {
		clear(added)
		rows, err := conn.Query(ctx, s.db.sql(useProofsSQL), digests, ttls)
		if err != nil {
			return err
		}
		var digest []byte
		_, err = pgx.ForEachRow(rows, []any{&digest}, func() error {
			added[[32]byte(digest)] = true
			return nil
		})
		return err
	})
	for _, p := range batch {
		switch {
		case err != nil:
			p.err = err
		case !added[p.ask.digest]:
			p.err = dpop.ErrReplayed
		default:
			delete(added, p.ask.digest) // of two alike, one was first
		}
	}
}
