package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// One UPDATE of one row. The clock is read after the row's lock was waited for
// (clock_timestamp(), not now()): with the statement's own time the losers of an
// honest race would find rotated_at in their future. A repeated counter moves
// nothing but tokens_expire_at. rt_rotation tells the two apart afterwards, and
// rt_previous whether the counter was above the row's.
const rotateSQL = `
	WITH rotated AS (
		UPDATE {s}.gpt_sessions SET
			rt_previous = CASE WHEN $3::bigint >= rt_counter THEN rt_counter ELSE rt_previous END,
			rt_counter = CASE WHEN $3::bigint >= rt_counter THEN $3::bigint + 1 ELSE rt_counter END,
			rt_rotation = CASE WHEN $3::bigint >= rt_counter THEN pg_current_xact_id() ELSE rt_rotation END,
			rotated_at = CASE WHEN $3::bigint >= rt_counter THEN clock_timestamp() ELSE rotated_at END,
			last_active = CASE WHEN $3::bigint >= rt_counter THEN clock_timestamp() ELSE last_active END,
			idle_expires_at = CASE WHEN $3::bigint < rt_counter THEN idle_expires_at
				WHEN $5::float8 > 0 THEN clock_timestamp() + make_interval(secs => $5::float8) END,
			client_address = CASE WHEN $3::bigint >= rt_counter THEN $7::text ELSE client_address END,
			client_agent = CASE WHEN $3::bigint >= rt_counter THEN $9::text ELSE client_agent END,
			tokens_expire_at = greatest(tokens_expire_at, clock_timestamp() + make_interval(secs => $6::float8))
		WHERE id = $1 AND client_id = $2 AND ` + live + `
			AND ($3::bigint >= rt_counter
				OR ($3::bigint = rt_counter - 1 AND rotated_at <= clock_timestamp() AND clock_timestamp() < rotated_at + make_interval(secs => $4::float8)))
		RETURNING *, coalesce(rt_rotation = pg_current_xact_id(), false) AS moved),
	event AS (
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
		SELECT 'gpt.oauth.counter_ahead', user_id, client_id, id, $7::text, $8::text, jsonb_build_object('row', rt_previous, 'presented', $3::bigint)
		FROM rotated WHERE moved AND rt_previous < $3::bigint)
	SELECT ` + sessionColumns + `, moved FROM rotated`

const replayedSQL = `
	WITH revoked AS (
		UPDATE {s}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'refresh_token_replayed'
		WHERE id = $1 AND client_id = $2 AND ` + live + ` AND rt_counter > $3::bigint
		RETURNING id, user_id, client_id, rt_counter),
	event AS (
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
		SELECT 'gpt.oauth.replay_detected', user_id, client_id, id, $4::text, $5::text, jsonb_build_object('what', 'refresh_token', 'row', rt_counter, 'presented', $3::bigint) FROM revoked)
	SELECT true FROM revoked`

// RotateRefreshToken is described at issuer.SessionStore.
func (s *Store) RotateRefreshToken(ctx context.Context, r issuer.Rotation, origin issuer.Origin) (rotated issuer.Rotated, err error) {
	const step = "rotate refresh token"
	id, ok := parseID(r.SessionID)
	if !ok || r.Counter < 0 {
		return rotated, wrap(step, issuer.ErrNotFound)
	}
	err = s.db.write(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		var moved bool
		session, err := scanSession(conn.QueryRow(ctx, s.db.sql(rotateSQL), id, r.ClientID, r.Counter, r.Grace.Seconds(), r.IdleTTL.Seconds(),
			r.AccessTokenTTL.Seconds(), address(origin), requestID(origin), orNull(origin.Agent)), &moved)
		if err == nil {
			rotated = issuer.Rotated{Session: session, Repeated: !moved}
			return nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		var replayed bool
		if err := conn.QueryRow(ctx, s.db.sql(replayedSQL), id, r.ClientID, r.Counter, address(origin), requestID(origin)).Scan(&replayed); err != nil {
			return err
		}
		return issuer.ErrReplayed
	})
	if err != nil {
		return issuer.Rotated{}, err
	}
	return rotated, nil
}

// FindAdoptedRefreshToken is described at issuer.SessionStore. A token that the
// replaced system rotated leads to its session along rotated_to; within grace
// its direct successor's session answers, as our own previous counter does.
func (s *Store) FindAdoptedRefreshToken(ctx context.Context, digest issuer.Digest, clientID string, grace time.Duration, origin issuer.Origin) (session issuer.Session, err error) {
	err = s.db.write(ctx, "find adopted refresh token", func(ctx context.Context, conn *pgxpool.Conn) error {
		var exists bool
		if err := conn.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, s.db.sql("{s}.gpt_refresh_tokens")).Scan(&exists); err != nil {
			return err
		}
		if !exists {
			return issuer.ErrNotFound
		}
		var id string
		var usable bool
		err := conn.QueryRow(ctx, s.db.sql(`
			WITH RECURSIVE chain AS (
				SELECT id, rotated_to, 0 AS steps FROM {s}.gpt_refresh_tokens WHERE token_hash = $1
				UNION
				SELECT t.id, t.rotated_to, chain.steps + 1 FROM chain JOIN {s}.gpt_refresh_tokens t ON t.id = chain.rotated_to WHERE chain.steps < 10000)
			SELECT s.id::text,
				(chain.steps = 0 AND t.revoked_at IS NULL)
				OR (chain.steps = 1 AND clock_timestamp() < t.revoked_at + make_interval(secs => $3::float8))
			FROM chain JOIN {s}.gpt_sessions s ON s.refresh_token_id = chain.id
			CROSS JOIN (SELECT revoked_at, expires_at FROM {s}.gpt_refresh_tokens WHERE token_hash = $1) t
			WHERE s.client_id = $2 AND t.expires_at > clock_timestamp() AND s.`+`revoked_at IS NULL AND s.expires_at > clock_timestamp()
				AND (s.idle_expires_at IS NULL OR s.idle_expires_at > clock_timestamp())
			ORDER BY chain.steps, s.created_at DESC LIMIT 1`), hex.EncodeToString(digest[:]), clientID, grace.Seconds()).Scan(&id, &usable)
		if err != nil {
			return err
		}
		if !usable {
			var replayed bool
			// Whatever the counter stands at: -1 is below it.
			if err := conn.QueryRow(ctx, s.db.sql(replayedSQL), id, clientID, int64(-1), address(origin), requestID(origin)).Scan(&replayed); err != nil {
				return err
			}
			return issuer.ErrReplayed
		}
		session, err = scanSession(conn.QueryRow(ctx, s.db.sql(`SELECT `+sessionColumns+` FROM {s}.gpt_sessions WHERE id = $1 AND `+live), id))
		return err
	})
	if err != nil {
		return issuer.Session{}, err
	}
	return session, nil
}
