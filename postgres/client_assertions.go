package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// UseAssertion is described at issuer.AssertionStore.
func (s *Store) UseAssertion(ctx context.Context, clientID string, jti issuer.Digest, ttl time.Duration) error {
	return s.db.write(ctx, "use client assertion", func(ctx context.Context, conn *pgxpool.Conn) error {
		tag, err := conn.Exec(ctx, s.db.sql(`
			INSERT INTO {s}.gpt_client_assertions AS a (client_id, jti_hash, expires_at)
			VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3::float8))
			ON CONFLICT (client_id, jti_hash) DO UPDATE SET expires_at = excluded.expires_at WHERE a.expires_at <= clock_timestamp()`),
			clientID, jti[:], ttl.Seconds())
		switch {
		case hasCode(err, "23503"):
			return issuer.ErrNotFound
		case err == nil && tag.RowsAffected() == 0:
			return issuer.ErrReplayed
		}
		return err
	})
}
