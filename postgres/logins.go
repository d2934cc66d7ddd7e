package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// userName is what pages call a user.
const userName = `coalesce(u.email, u.name, u.id)`

// CreateLogin is described at issuer.LoginStore. ErrNotFound: the user is gone
// or disabled.
func (s *Store) CreateLogin(ctx context.Context, digest issuer.Digest, userID, method string, ttl time.Duration, origin issuer.Origin) (login issuer.Login, err error) {
	err = s.db.write(ctx, "create login", func(ctx context.Context, conn *pgxpool.Conn) error {
		// The user's row is held: disabling it meanwhile waits and finds the login.
		return conn.QueryRow(ctx, s.db.sql(`
			WITH account AS MATERIALIZED (
				SELECT id, email FROM {s}.gpt_users WHERE id = $2 AND email IS NOT NULL AND disabled_at IS NULL FOR SHARE),
			login AS (
				INSERT INTO {s}.gpt_logins (digest, user_id, method, auth_time, expires_at)
				SELECT $1, id, $6, clock_timestamp(), clock_timestamp() + make_interval(secs => $3::float8) FROM account
				RETURNING id, user_id, method, auth_time, expires_at),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id)
				SELECT 'gpt.oauth.login', user_id, $4::text, $5::text FROM login)
			SELECT l.id::text, l.user_id, a.email, l.method, l.auth_time, l.expires_at FROM login l, account a`),
			digest[:], userID, ttl.Seconds(), address(origin), requestID(origin), method).
			Scan(&login.ID, &login.UserID, &login.Name, &login.Method, &login.AuthTime, &login.ExpiresAt)
	})
	return login, err
}

// FindLogin is described at issuer.LoginStore.
func (s *Store) FindLogin(ctx context.Context, digest issuer.Digest) (login issuer.Login, err error) {
	var claims []byte
	err = s.db.read(ctx, "find login", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.db.sql(`
			SELECT l.id::text, l.user_id, `+userName+`, l.method, l.auth_time, l.expires_at, coalesce(i.authority, ''), coalesce(i.subject, ''), u.claims,
				l.method = 'password' AND EXISTS (SELECT FROM {s}.gpt_second_factors f WHERE f.user_id = l.user_id)
			FROM {s}.gpt_logins l JOIN {s}.gpt_users u ON u.id = l.user_id AND u.disabled_at IS NULL
			LEFT JOIN {s}.gpt_identities i ON i.user_id = u.id
			WHERE l.digest = $1 AND l.expires_at > clock_timestamp()`), digest[:]).
			Scan(&login.ID, &login.UserID, &login.Name, &login.Method, &login.AuthTime, &login.ExpiresAt, &login.Authority, &login.Subject, &claims, &login.HalfDone)
	})
	if err == nil {
		login.Claims, err = oauth.ReadUserClaims(claims)
	}
	return login, err
}

// LogoutHint is described at issuer.LoginStore.
func (s *Store) LogoutHint(ctx context.Context, digest issuer.Digest) (sealed []byte, err error) {
	err = s.db.read(ctx, "find logout hint", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.db.sql(`SELECT logout_hint FROM {s}.gpt_logins WHERE digest = $1`), digest[:]).Scan(&sealed)
	})
	return sealed, err
}

// EndLogin is described at issuer.LoginStore. Its unredeemed codes lose their
// login (ON DELETE SET NULL), without which none is redeemed.
func (s *Store) EndLogin(ctx context.Context, digest issuer.Digest, origin issuer.Origin) error {
	return s.db.write(ctx, "end login", func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, s.db.sql(`
			WITH ended AS (DELETE FROM {s}.gpt_logins WHERE digest = $1 RETURNING user_id)
			INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id)
			SELECT 'gpt.oauth.logout', user_id, $2::text, $3::text FROM ended`), digest[:], address(origin), requestID(origin))
		return err
	})
}
