package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// maxFailedRedemptions by the right client burn a code: enough for an honest
// mistake, too few to guess.
const maxFailedRedemptions = 5

// current is the condition of a code c that is in its life. One from the future
// is of before the clock was set back, and may have expired long ago.
const current = `c.expires_at > clock_timestamp() AND c.created_at < clock_timestamp() + interval '5 seconds'`

// CreateAuthorizationCode is described at issuer.CodeStore. ErrNotFound: the
// client or the login has ended meanwhile.
func (s *Store) CreateAuthorizationCode(ctx context.Context, c issuer.AuthorizationCode, ttl time.Duration, origin issuer.Origin) error {
	return s.db.write(ctx, "create authorization code", func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, s.db.sql(`
			WITH code AS (
				INSERT INTO {s}.gpt_authorization_codes (code_hash, request_id, client_id, user_id, login_id, redirect_uri, redirect_uri_sent,
					resource, scopes, code_challenge, auth_time, expires_at, dpop_jkt, nonce, login_method, address, agent)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, clock_timestamp() + make_interval(secs => $12::float8), $15, $16, $17, $13::text, $18)
				ON CONFLICT (request_id) DO NOTHING
				RETURNING user_id, client_id)
			INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, ip_address, request_id)
			SELECT 'gpt.oauth.authorize', user_id, client_id, $13::text, $14::text FROM code`),
			c.Digest[:], c.RequestID, c.ClientID, c.UserID, c.LoginID, c.RedirectURI, c.RedirectURISent, c.Resource, scopeArray(c.Scopes),
			orNull(c.CodeChallenge), c.AuthTime, ttl.Seconds(), address(origin), requestID(origin), orNull(c.DPoPKey), orNull(c.Nonce), orNull(c.LoginMethod), orNull(origin.Agent))
		if hasCode(err, "23503") {
			return issuer.ErrNotFound
		}
		return err
	})
}

const findCodesSQL = `
	SELECT c.code_hash, c.request_id::text, c.client_id, c.user_id, coalesce(c.login_id::text, ''), c.redirect_uri, c.redirect_uri_sent, c.resource,
		c.scopes, coalesce(c.code_challenge, ''), c.auth_time, coalesce(c.dpop_jkt, ''), coalesce(c.nonce, ''), c.used_at
	FROM {s}.gpt_authorization_codes c
	WHERE c.code_hash = ANY ($1) AND NOT c.adopted AND ` + current + ` AND c.failed_attempts < $2
		AND (c.used_at IS NOT NULL OR c.login_id IS NOT NULL)`

// FindAuthorizationCode is described at issuer.CodeStore. Concurrent ones share
// round trips.
func (s *Store) FindAuthorizationCode(ctx context.Context, digest issuer.Digest) (issuer.AuthorizationCode, error) {
	code, err := s.codes.join(ctx, digest)
	return code, wrap("find authorization code", err)
}

func (s *Store) findCodes(ctx context.Context, batch []*passenger[issuer.Digest, issuer.AuthorizationCode]) {
	digests := make(pgtype.FlatArray[[]byte], len(batch))
	for i, p := range batch {
		digests[i] = p.ask[:]
	}
	lookUp[issuer.Digest, issuer.AuthorizationCode]{
		step: "read authorization codes",
		sql:  findCodesSQL, args: []any{digests, maxFailedRedemptions},
		scan: func(row pgx.Row) (issuer.Digest, issuer.AuthorizationCode, error) {
			code, err := scanCode(row)
			return code.Digest, code, err
		},
	}.answer(ctx, s.db, batch)
}

func scanCode(row pgx.Row) (c issuer.AuthorizationCode, err error) {
	var digest []byte
	var scopes []string
	var used *time.Time
	err = row.Scan(&digest, &c.RequestID, &c.ClientID, &c.UserID, &c.LoginID, &c.RedirectURI, &c.RedirectURISent, &c.Resource,
		&scopes, &c.CodeChallenge, &c.AuthTime, &c.DPoPKey, &c.Nonce, &used)
	if err == nil && len(digest) != len(c.Digest) {
		err = errors.New("the digest of a code is cut off")
	}
	if err != nil {
		return issuer.AuthorizationCode{}, err
	}
	c.Digest, c.Scopes = issuer.Digest(digest), oauth.NewScopeSet(scopes...)
	if used != nil {
		c.RedeemedAt = *used
	}
	return c, nil
}

// The user's lock makes session_limit and the union of granted scopes hold
// among simultaneous redemptions. It is a statement of its own, so that the
// next one's snapshot is taken after the wait.
const lockCodeUserSQL = `SELECT pg_advisory_xact_lock(hashtext('gpt_user'), hashtext(user_id)) FROM {s}.gpt_authorization_codes WHERE code_hash = $1`

// The rows of client, login and user are held, so that ending one of them either
// comes first and is seen here, or comes after and finds the session.
const redeemCodeSQL = `
	WITH code AS MATERIALIZED (
		SELECT c.* FROM {s}.gpt_authorization_codes c
		JOIN {s}.gpt_clients cl ON cl.client_id = c.client_id AND cl.disabled_at IS NULL
		JOIN {s}.gpt_logins l ON l.id = c.login_id AND l.expires_at > clock_timestamp()
		WHERE c.code_hash = $1 AND c.used_at IS NULL AND NOT c.adopted AND ` + current + ` AND c.failed_attempts < $2
		FOR UPDATE OF c FOR SHARE OF cl, l),
	account AS MATERIALIZED (
		SELECT u.disabled_at FROM {s}.gpt_users u, code c WHERE u.id = c.user_id FOR SHARE OF u),
	session AS (
		INSERT INTO {s}.gpt_sessions (user_id, client_id, resource, redirect_uri, scopes, granted_scopes, auth_time, expires_at, idle_expires_at, tokens_expire_at, dpop_jkt,
			login_method, consent_address, consent_agent, client_address, client_agent)
		SELECT c.user_id, c.client_id, c.resource, c.redirect_uri, c.scopes,
			ARRAY(SELECT unnest(c.scopes) UNION SELECT unnest(o.granted_scopes) FROM {s}.gpt_sessions o
				WHERE o.user_id = c.user_id AND o.client_id = c.client_id AND o.resource = c.resource AND o.redirect_uri = c.redirect_uri AND ` + live + ` AND ` + direct + `),
			c.auth_time, clock_timestamp() + make_interval(secs => $3::float8),
			CASE WHEN $4::float8 > 0 THEN clock_timestamp() + make_interval(secs => $4::float8) END,
			clock_timestamp() + make_interval(secs => $5::float8), $9::text, c.login_method, c.address, c.agent, $7::text, $10::text
		FROM code c
		WHERE NOT EXISTS (SELECT FROM account WHERE disabled_at IS NOT NULL)
			AND ($6::int = 0 OR (SELECT count(*) FROM {s}.gpt_sessions WHERE user_id = c.user_id AND ` + live + ` AND ` + direct + `) < $6::int)
		RETURNING *),
	consumed AS (
		UPDATE {s}.gpt_authorization_codes c SET used_at = clock_timestamp(), session_id = session.id FROM session WHERE c.code_hash = $1),
	event AS (
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id)
		SELECT 'gpt.oauth.token_exchanged', user_id, client_id, id, $7::text, $8::text FROM session)
	SELECT ` + sessionColumns + ` FROM session`

// RedeemAuthorizationCode is described at issuer.CodeStore. ErrSessionLimit:
// the user has no room for one more; the code is not consumed.
func (s *Store) RedeemAuthorizationCode(ctx context.Context, digest issuer.Digest, lifetime issuer.SessionLifetime, origin issuer.Origin) (session issuer.Session, err error) {
	err = s.db.write(ctx, "redeem authorization code", func(ctx context.Context, conn *pgxpool.Conn) error {
		var batch pgx.Batch // one round trip, one transaction
		batch.Queue(s.db.sql(lockCodeUserSQL), digest[:])
		batch.Queue(s.db.sql(redeemCodeSQL), digest[:], maxFailedRedemptions, lifetime.TTL.Seconds(), lifetime.IdleTTL.Seconds(),
			lifetime.AccessTokenTTL.Seconds(), lifetime.Limit, address(origin), requestID(origin), orNull(lifetime.DPoPKey), orNull(origin.Agent)).
			QueryRow(func(row pgx.Row) error {
				session, err = scanSession(row)
				return err
			})
		if err := conn.SendBatch(ctx, &batch).Close(); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return s.whyNotRedeemed(ctx, conn, digest, lifetime.Limit)
	})
	if err != nil {
		return issuer.Session{}, err
	}
	return session, nil
}

func (s *Store) whyNotRedeemed(ctx context.Context, conn *pgxpool.Conn, digest issuer.Digest, limit int) error {
	var full bool
	err := conn.QueryRow(ctx, s.db.sql(`
		SELECT $2::int > 0 AND (SELECT count(*) FROM {s}.gpt_sessions WHERE user_id = c.user_id AND `+live+` AND `+direct+`) >= $2::int
		FROM {s}.gpt_authorization_codes c
		JOIN {s}.gpt_clients cl ON cl.client_id = c.client_id AND cl.disabled_at IS NULL
		JOIN {s}.gpt_logins l ON l.id = c.login_id AND l.expires_at > clock_timestamp()
		WHERE c.code_hash = $1 AND c.used_at IS NULL AND `+current+` AND c.failed_attempts < $3`), digest[:], limit, maxFailedRedemptions).Scan(&full)
	if err == nil && full {
		return issuer.ErrSessionLimit
	}
	if err == nil || errors.Is(err, pgx.ErrNoRows) {
		return issuer.ErrNotFound
	}
	return fmt.Errorf("find out why: %w", err)
}

// CountFailedRedemption is described at issuer.CodeStore.
func (s *Store) CountFailedRedemption(ctx context.Context, digest issuer.Digest) error {
	return s.db.write(ctx, "count failed redemption", func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, s.db.sql(`UPDATE {s}.gpt_authorization_codes SET failed_attempts = failed_attempts + 1
			WHERE code_hash = $1 AND used_at IS NULL AND failed_attempts < $2`), digest[:], maxFailedRedemptions)
		return err
	})
}

// ReplayAuthorizationCode is described at issuer.CodeStore. ErrNotFound: no
// such code was redeemed.
func (s *Store) ReplayAuthorizationCode(ctx context.Context, digest issuer.Digest, tolerance time.Duration, origin issuer.Origin) error {
	return s.db.write(ctx, "replay authorization code", func(ctx context.Context, conn *pgxpool.Conn) error {
		var late bool
		err := conn.QueryRow(ctx, s.db.sql(`
			WITH code AS (
				SELECT session_id, user_id, client_id, used_at + make_interval(secs => $2::float8) <= clock_timestamp() AS late
				FROM {s}.gpt_authorization_codes WHERE code_hash = $1 AND used_at IS NOT NULL),
			revoked AS (
				UPDATE {s}.gpt_sessions s SET revoked_at = clock_timestamp(), revoke_reason = 'code_replayed'
				FROM code c WHERE s.id = c.session_id AND c.late AND s.revoked_at IS NULL),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
				SELECT 'gpt.oauth.replay_detected', user_id, client_id, session_id, $3::text, $4::text, '{"what":"code"}' FROM code WHERE late)
			SELECT late FROM code`), digest[:], tolerance.Seconds(), address(origin), requestID(origin)).Scan(&late)
		if err == nil && late {
			return issuer.ErrReplayed
		}
		return err
	})
}
