package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// PushRequest is described at issuer.PushStore.
func (s *Store) PushRequest(ctx context.Context, digest issuer.Digest, clientID, parameters string, ttl time.Duration) error {
	return s.db.write(ctx, "push authorization request", func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, s.db.sql(`
			INSERT INTO {s}.gpt_pushed_requests (digest, client_id, parameters, expires_at)
			VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4::float8))`), digest[:], clientID, parameters, ttl.Seconds())
		if hasCode(err, "23503") {
			return issuer.ErrNotFound
		}
		return err
	})
}

// UsePushedRequest is described at issuer.PushStore.
func (s *Store) UsePushedRequest(ctx context.Context, digest issuer.Digest, clientID string) (parameters string, err error) {
	err = s.db.write(ctx, "use pushed authorization request", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.db.sql(`
			DELETE FROM {s}.gpt_pushed_requests WHERE digest = $1 AND client_id = $2 AND expires_at > clock_timestamp()
			RETURNING parameters`), digest[:], clientID).Scan(&parameters)
	})
	return parameters, err
}
