package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// CreateReset is described at issuer.ResetStore.
func (s *Store) CreateReset(ctx context.Context, digest issuer.Digest, reset issuer.Reset, ttl time.Duration, origin issuer.Origin) error {
	return s.db.write(ctx, "create password reset", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.db.sql(`
			WITH made AS (
				INSERT INTO {s}.gpt_password_resets (digest, user_id, ends_sessions, removes_factors, created_at, expires_at)
				SELECT $2, id, $3, $4, clock_timestamp(), clock_timestamp() + make_interval(secs => $5::float8)
				FROM {s}.gpt_users WHERE `+byEmail+` AND disabled_at IS NULL RETURNING user_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id)
				SELECT 'gpt.oauth.password_reset_made', user_id, $6::text, $7::text FROM made)
			SELECT true FROM made`), reset.Email, digest[:], reset.EndSessions, reset.RemoveFactors, ttl.Seconds(), address(origin), requestID(origin)).Scan(new(bool))
	})
}

// FindReset is described at issuer.ResetStore.
func (s *Store) FindReset(ctx context.Context, digest issuer.Digest) (reset issuer.Reset, err error) {
	err = s.db.read(ctx, "find password reset", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.db.sql(`
			SELECT u.email, r.ends_sessions, r.removes_factors FROM {s}.gpt_password_resets r
			JOIN {s}.gpt_users u ON u.id = r.user_id AND u.email IS NOT NULL AND u.disabled_at IS NULL
			WHERE r.digest = $1 AND r.expires_at > clock_timestamp()`), digest[:]).Scan(&reset.Email, &reset.EndSessions, &reset.RemoveFactors)
	})
	return reset, err
}

// UseReset is described at issuer.ResetStore.
func (s *Store) UseReset(ctx context.Context, digest issuer.Digest, passwordHash string, origin issuer.Origin) error {
	return s.db.write(ctx, "use password reset", inTx(func(ctx context.Context, tx pgx.Tx) error {
		var user string
		var reset issuer.Reset
		// 1. The link, which goes: of many that use it at once, one finds it.
		if err := tx.QueryRow(ctx, s.db.sql(`
			DELETE FROM {s}.gpt_password_resets WHERE digest = $1 AND expires_at > clock_timestamp()
			RETURNING user_id, ends_sessions, removes_factors`), digest[:]).Scan(&user, &reset.EndSessions, &reset.RemoveFactors); err != nil {
			return err
		}
		// 2. The password.
		if err := tx.QueryRow(ctx, s.db.sql(`
			UPDATE {s}.gpt_users SET password_hash = $2, updated_at = clock_timestamp()
			WHERE id = $1 AND email IS NOT NULL AND disabled_at IS NULL RETURNING true`), user, passwordHash).Scan(new(bool)); err != nil {
			return err
		}
		// 3. What was signed in with the old one, and other links. Redemptions under way
		// finish first, so that their sessions are found.
		steps := []string{
			`DELETE FROM {s}.gpt_password_resets WHERE user_id = $1`,
			`DELETE FROM {s}.gpt_logins WHERE user_id = $1`,
		}
		if reset.EndSessions {
			steps = append([]string{`SELECT pg_advisory_xact_lock(hashtext('gpt_user'), hashtext($1))`}, steps...)
			steps = append(steps, `UPDATE {s}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'password_reset' WHERE user_id = $1 AND revoked_at IS NULL`)
		}
		if reset.RemoveFactors {
			steps = append(steps, `DELETE FROM {s}.gpt_passkeys WHERE user_id = $1`, `DELETE FROM {s}.gpt_second_factors WHERE user_id = $1`)
		}
		for _, step := range steps {
			if _, err := tx.Exec(ctx, s.db.sql(step), user); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, s.db.sql(`
			INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id, metadata)
			VALUES ('gpt.oauth.password_reset', $1, $2::text, $3::text, jsonb_build_object('sessions_ended', $4::boolean, 'factors_removed', $5::boolean))`),
			user, address(origin), requestID(origin), reset.EndSessions, reset.RemoveFactors)
		return err
	}))
}
