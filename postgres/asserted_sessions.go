package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// assertedUserSQL finds the user whom the provider names. The row is held:
// disabling the user either comes first and is seen here, or comes after and
// finds the session.
const assertedUserSQL = `
	SELECT u.id FROM {s}.gpt_identities i JOIN {s}.gpt_users u ON u.id = i.user_id AND u.disabled_at IS NULL
	WHERE i.authority = $1 AND i.subject = $2 FOR SHARE OF u`

// lockUserSQL lets one request make the session that several miss. It is a
// statement of its own, so that the next one's snapshot is taken after the wait.
const lockUserSQL = `SELECT pg_advisory_xact_lock(hashtext('gpt_user'), hashtext($1))`

// useAssertedSQL notes one more token. It writes no event: a client that asks
// every quarter of an hour, for each user, would fill the table with them.
const useAssertedSQL = `
	UPDATE {s}.gpt_sessions SET
		scopes = ARRAY(SELECT unnest(scopes) UNION SELECT unnest($5::text[]) ORDER BY 1),
		tokens_expire_at = greatest(tokens_expire_at, clock_timestamp() + make_interval(secs => $6::float8)),
		last_active = clock_timestamp(), client_address = $7::text, client_agent = $8::text
	WHERE id = (SELECT id FROM {s}.gpt_sessions WHERE user_id = $1 AND client_id = $2 AND resource = $3 AND asserted_by = $4
			AND revoked_at IS NULL AND expires_at > clock_timestamp() + make_interval(secs => $6::float8)
			ORDER BY created_at DESC, id LIMIT 1)
		AND ` + live + ` AND EXISTS (SELECT FROM {s}.gpt_clients WHERE client_id = $2 AND disabled_at IS NULL)
	RETURNING ` + sessionColumns

const makeAssertedSQL = `
	WITH client AS MATERIALIZED (
		SELECT client_id FROM {s}.gpt_clients WHERE client_id = $2 AND disabled_at IS NULL FOR SHARE),
	session AS (
		INSERT INTO {s}.gpt_sessions (user_id, client_id, resource, asserted_by, scopes, granted_scopes, auth_time, expires_at, tokens_expire_at, client_address, client_agent)
		SELECT $1, client_id, $3, $4, $5, $5, coalesce($9::timestamptz, clock_timestamp()), clock_timestamp() + make_interval(secs => $10::float8),
			clock_timestamp() + make_interval(secs => $6::float8), $7::text, $8::text
		FROM client
		RETURNING *),
	event AS (
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
		SELECT 'gpt.oauth.session_asserted', user_id, client_id, id, $7::text, $11::text, jsonb_build_object('provider', $4::text) FROM session)
	SELECT ` + sessionColumns + ` FROM session`

// assertedUser makes a user of one whom nobody has seen.
func (s *Store) assertedUser(ctx context.Context, tx pgx.Tx, user issuer.ExternalUser, origin issuer.Origin) error {
	made, err := s.firstSight(ctx, tx, user, origin)
	if err != nil || !made {
		return err
	}
	claims, err := jsonObject(user.Claims)
	if err != nil {
		return err
	}
	profile, err := jsonObject(user.Profile)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, s.db.sql(`UPDATE {s}.gpt_users SET claims = $2, profile = $3 WHERE id = $1`), user.UserID, claims, profile)
	return err
}

// AssertSession is described at issuer.SessionStore.
func (s *Store) AssertSession(ctx context.Context, a issuer.AssertedSession, origin issuer.Origin) (session issuer.Session, err error) {
	err = s.db.write(ctx, "assert session", inTx(func(ctx context.Context, tx pgx.Tx) error {
		// 1. Once. What follows may refuse, and then it was not used.
		if err := s.useOnce(ctx, tx, "identity assertion", a.Assertion, a.AssertionTTL); err != nil {
			return err
		}
		// 2. The user. What is kept of them is what they were first seen with, or
		// signed in with since: an assertion need not say all of it.
		if !a.KnownUsersOnly {
			if err := s.assertedUser(ctx, tx, a.User, origin); err != nil {
				return err
			}
		}
		var userID string
		if err := tx.QueryRow(ctx, s.db.sql(assertedUserSQL), a.User.Authority, a.User.Subject).Scan(&userID); err != nil {
			return err
		}
		// 3. The session.
		if _, err := tx.Exec(ctx, lockUserSQL, userID); err != nil {
			return err
		}
		what := []any{userID, a.ClientID, a.Resource, a.User.Authority, scopeArray(a.Scopes), a.AccessTokenTTL.Seconds(), address(origin), orNull(origin.Agent)}
		if session, err = scanSession(tx.QueryRow(ctx, s.db.sql(useAssertedSQL), what...)); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		var authTime *time.Time
		if !a.User.AuthTime.IsZero() {
			authTime = &a.User.AuthTime
		}
		session, err = scanSession(tx.QueryRow(ctx, s.db.sql(makeAssertedSQL), append(what, authTime, a.TTL.Seconds(), requestID(origin))...))
		return err
	}))
	if err != nil {
		return issuer.Session{}, err
	}
	return session, nil
}
