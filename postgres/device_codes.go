package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	// maxEntered is how often a user code may be entered, by whomever.
	maxEntered = 10
	// slowDown is what polling too early adds to the interval, in seconds. RFC
	// 8628 section 3.5.
	slowDown = 5
)

// CreateDeviceCode is described at issuer.DeviceStore.
func (s *Store) CreateDeviceCode(ctx context.Context, c issuer.DeviceCode, interval, ttl time.Duration) error {
	return s.db.write(ctx, "create device code", func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, s.db.sql(`
			INSERT INTO {s}.gpt_device_codes (device_hash, user_code_hash, client_id, resource, scopes, poll_interval, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7::float8))`),
			c.Digest[:], c.UserCode[:], c.ClientID, c.Resource, scopeArray(c.Scopes), int(interval.Seconds()), ttl.Seconds())
		switch {
		case hasCode(err, "23505"):
			return issuer.ErrExists
		case hasCode(err, "23503"):
			return issuer.ErrNotFound
		}
		return err
	})
}

// EnterUserCode is described at issuer.DeviceStore.
func (s *Store) EnterUserCode(ctx context.Context, userCode issuer.Digest) (c issuer.DeviceCode, err error) {
	err = s.db.write(ctx, "enter user code", func(ctx context.Context, conn *pgxpool.Conn) error {
		var digest []byte
		var scopes []string
		err := conn.QueryRow(ctx, s.db.sql(`
			UPDATE {s}.gpt_device_codes SET entered = entered + 1
			WHERE user_code_hash = $1 AND allowed IS NULL AND expires_at > clock_timestamp() AND entered < $2
			RETURNING device_hash, client_id, resource, scopes`), userCode[:], maxEntered).Scan(&digest, &c.ClientID, &c.Resource, &scopes)
		if err != nil {
			return err
		}
		c.Digest, c.UserCode, c.Scopes = issuer.Digest(digest), userCode, oauth.NewScopeSet(scopes...)
		return nil
	})
	return c, err
}

// DecideDeviceCode is described at issuer.DeviceStore.
func (s *Store) DecideDeviceCode(ctx context.Context, userCode issuer.Digest, d issuer.DeviceDecision, origin issuer.Origin) error {
	return s.db.write(ctx, "decide device code", func(ctx context.Context, conn *pgxpool.Conn) error {
		var decided bool
		err := conn.QueryRow(ctx, s.db.sql(`
			WITH decided AS (
				UPDATE {s}.gpt_device_codes SET allowed = $2, user_id = $3, login_id = $4, auth_time = $5, login_method = $8, address = $6::text, agent = $9::text,
					scopes = CASE WHEN $2 AND allowed IS NULL THEN $10 ELSE scopes END
				WHERE user_code_hash = $1 AND expires_at > clock_timestamp() AND ((allowed IS NULL AND $10 <@ scopes) OR (allowed = $2 AND user_id = $3))
				RETURNING user_id, client_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, ip_address, request_id)
				SELECT CASE WHEN $2 THEN 'gpt.oauth.device_allowed' ELSE 'gpt.oauth.device_denied' END, user_id, client_id, $6::text, $7::text FROM decided)
			SELECT true FROM decided`), userCode[:], d.Allow, d.UserID, d.LoginID, d.AuthTime, address(origin), requestID(origin), orNull(d.LoginMethod), orNull(origin.Agent), scopeArray(d.Scopes)).Scan(&decided)
		if hasCode(err, "23503") { // the login ended
			return issuer.ErrNotFound
		}
		return err
	})
}

// pollDeviceSQL notes the poll and says how the request stands. One second of
// the interval is forgiven: who waits as long as it was told arrives now and
// then a little early.
const pollDeviceSQL = `
	UPDATE {s}.gpt_device_codes SET
		polled_early = coalesce(polled_at + make_interval(secs => poll_interval - 1) > clock_timestamp(), false),
		poll_interval = poll_interval + CASE WHEN polled_at + make_interval(secs => poll_interval - 1) > clock_timestamp() THEN $3::int ELSE 0 END,
		polled_at = clock_timestamp()
	WHERE device_hash = $1 AND client_id = $2 AND redeemed_at IS NULL
	RETURNING CASE
		WHEN expires_at <= clock_timestamp() THEN 'expired'
		WHEN polled_early THEN 'early'
		WHEN allowed IS NULL THEN 'pending'
		WHEN NOT allowed THEN 'denied'
		ELSE 'allowed' END`

// The user's lock makes session_limit hold among simultaneous redemptions, as
// for authorization codes.
const lockDeviceUserSQL = `SELECT pg_advisory_xact_lock(hashtext('gpt_user'), hashtext(user_id)) FROM {s}.gpt_device_codes WHERE device_hash = $1`

const redeemDeviceSQL = `
	WITH code AS MATERIALIZED (
		SELECT c.* FROM {s}.gpt_device_codes c
		JOIN {s}.gpt_clients cl ON cl.client_id = c.client_id AND cl.disabled_at IS NULL
		JOIN {s}.gpt_logins l ON l.id = c.login_id AND l.expires_at > clock_timestamp()
		WHERE c.device_hash = $1 AND c.client_id = $2 AND c.allowed AND c.redeemed_at IS NULL AND ` + current + `
		FOR UPDATE OF c FOR SHARE OF cl, l),
	account AS MATERIALIZED (
		SELECT u.disabled_at FROM {s}.gpt_users u, code c WHERE u.id = c.user_id FOR SHARE OF u),
	session AS (
		INSERT INTO {s}.gpt_sessions (user_id, client_id, resource, scopes, granted_scopes, auth_time, expires_at, idle_expires_at, tokens_expire_at, dpop_jkt,
			login_method, consent_address, consent_agent, client_address, client_agent)
		SELECT c.user_id, c.client_id, c.resource, c.scopes,
			ARRAY(SELECT unnest(c.scopes) UNION SELECT unnest(o.granted_scopes) FROM {s}.gpt_sessions o
				WHERE o.user_id = c.user_id AND o.client_id = c.client_id AND o.resource = c.resource AND o.redirect_uri IS NULL AND ` + live + ` AND ` + direct + `),
			c.auth_time, clock_timestamp() + make_interval(secs => $3::float8),
			CASE WHEN $4::float8 > 0 THEN clock_timestamp() + make_interval(secs => $4::float8) END,
			clock_timestamp() + make_interval(secs => $5::float8), $9::text, c.login_method, c.address, c.agent, $7::text, $10::text
		FROM code c
		WHERE NOT EXISTS (SELECT FROM account WHERE disabled_at IS NOT NULL)
			AND ($6::int = 0 OR (SELECT count(*) FROM {s}.gpt_sessions WHERE user_id = c.user_id AND ` + live + ` AND ` + direct + `) < $6::int)
		RETURNING *),
	consumed AS (
		UPDATE {s}.gpt_device_codes c SET redeemed_at = clock_timestamp() FROM session WHERE c.device_hash = $1),
	event AS (
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id)
		SELECT 'gpt.oauth.token_exchanged', user_id, client_id, id, $7::text, $8::text FROM session)
	SELECT ` + sessionColumns + ` FROM session`

// RedeemDeviceCode is described at issuer.DeviceStore.
func (s *Store) RedeemDeviceCode(ctx context.Context, digest issuer.Digest, clientID string, lifetime issuer.SessionLifetime, origin issuer.Origin) (session issuer.Session, err error) {
	var refusal error // what is said once the poll is noted
	err = s.db.write(ctx, "redeem device code", inTx(func(ctx context.Context, tx pgx.Tx) error {
		refusal = nil
		var state string
		if err := tx.QueryRow(ctx, s.db.sql(pollDeviceSQL), digest[:], clientID, slowDown).Scan(&state); err != nil {
			return err
		}
		if refusal = deviceRefusals[state]; refusal != nil {
			return nil
		}
		if _, err := tx.Exec(ctx, s.db.sql(lockDeviceUserSQL), digest[:]); err != nil {
			return err
		}
		session, err = scanSession(tx.QueryRow(ctx, s.db.sql(redeemDeviceSQL), digest[:], clientID, lifetime.TTL.Seconds(), lifetime.IdleTTL.Seconds(),
			lifetime.AccessTokenTTL.Seconds(), lifetime.Limit, address(origin), requestID(origin), orNull(lifetime.DPoPKey), orNull(origin.Agent)))
		if errors.Is(err, pgx.ErrNoRows) { // its user, client or login ended, or there is no room
			refusal, err = issuer.ErrDeviceDenied, nil
		}
		return err
	}))
	if err = errors.Join(err, wrap("redeem device code", refusal)); err != nil {
		return issuer.Session{}, err
	}
	return session, nil
}

var deviceRefusals = map[string]error{
	"expired": issuer.ErrDeviceExpired,
	"early":   issuer.ErrDevicePolledEarly,
	"pending": issuer.ErrDevicePending,
	"denied":  issuer.ErrDeviceDenied,
}
