package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// appColumns follow sessionColumns. What a session did is summed up row by row,
// so that what is read grows with what the user has and not with the tables. The
// day is no condition: it would choose another index, and days that are over are
// removed within the minute.
const appColumns = sessionColumns + `, coalesce(consent_address, ''), coalesce(consent_agent, ''), coalesce(client_address, ''), coalesce(client_agent, ''), calls_since,
	(SELECT coalesce(jsonb_object_agg(scope, calls) FILTER (WHERE calls IS NOT NULL), '{}') FROM (
		SELECT c.scope, sum(c.calls) FILTER (WHERE c.day > ` + firstDay + `) AS calls FROM {s}.gpt_session_calls c
		WHERE c.session_id = gpt_sessions.id GROUP BY c.scope) AS used)`

func scanApp(row pgx.Row) (app issuer.ConnectedApp, err error) {
	var calls []byte
	if app.Session, err = scanSession(row, &app.Consent.Address, &app.Consent.Agent, &app.Client.Address, &app.Client.Agent, &app.CallsSince, &calls); err != nil {
		return app, err
	}
	return app, json.Unmarshal(calls, &app.Calls)
}

// ConnectedApps is described at issuer.AppStore.
func (s *Store) ConnectedApps(ctx context.Context, userID string, after issuer.AppPosition, limit int) ([]issuer.ConnectedApp, error) {
	id, ok := parseID(after.SessionID)
	from := after.CreatedAt
	if !ok {
		from = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return list(ctx, s.db, "list connected apps", scanApp, `
		SELECT `+appColumns+` FROM {s}.gpt_sessions
		WHERE user_id = $1 AND (created_at, id) < ($2, $3) AND `+live+` AND `+own+` ORDER BY created_at DESC, id DESC LIMIT $4`, userID, from, id, limit)
}

// ConnectedApp is described at issuer.AppStore.
func (s *Store) ConnectedApp(ctx context.Context, userID, sessionID string) (app issuer.ConnectedApp, err error) {
	const step = "find connected app"
	id, ok := parseID(sessionID)
	if !ok {
		return app, wrap(step, issuer.ErrNotFound)
	}
	err = s.db.read(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		app, err = scanApp(conn.QueryRow(ctx, s.db.sql(`SELECT `+appColumns+` FROM {s}.gpt_sessions WHERE id = $1 AND user_id = $2 AND `+live+` AND `+own), id, userID))
		return err
	})
	return app, err
}

// EndUserSessions is described at issuer.AppStore. The user's lock lets
// redemptions under way finish, so that their sessions are found; codes that are
// left lose their validity first.
func (s *Store) EndUserSessions(ctx context.Context, userID string, origin issuer.Origin) (ended int, err error) {
	err = s.db.write(ctx, "end user sessions", func(ctx context.Context, conn *pgxpool.Conn) error {
		var batch pgx.Batch // one round trip, one transaction
		batch.Queue(`SELECT pg_advisory_xact_lock(hashtext('gpt_user'), hashtext($1))`, userID)
		batch.Queue(s.db.sql(`DELETE FROM {s}.gpt_authorization_codes WHERE used_at IS NULL AND login_id IN (SELECT id FROM {s}.gpt_logins WHERE user_id = $1)`), userID)
		batch.Queue(s.db.sql(`DELETE FROM {s}.gpt_device_codes WHERE redeemed_at IS NULL AND login_id IN (SELECT id FROM {s}.gpt_logins WHERE user_id = $1)`), userID)
		batch.Queue(s.db.sql(`
			WITH revoked AS (
				UPDATE {s}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'ended_by_user'
				WHERE user_id = $1 AND `+live+` AND `+own+` RETURNING id, user_id, client_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
				SELECT 'gpt.oauth.session_revoked', user_id, client_id, id, $2::text, $3::text, '{"reason":"ended_by_user","all":true}' FROM revoked)
			SELECT count(*) FROM revoked`), userID, address(origin), requestID(origin)).
			QueryRow(func(row pgx.Row) error { return row.Scan(&ended) })
		err := conn.SendBatch(ctx, &batch).Close()
		if err == nil && ended == 0 {
			err = s.confirmEnded(ctx, conn, `user_id = $1`, userID)
		}
		return err
	})
	return ended, err
}

// NarrowSession is described at issuer.AppStore. A trigger tells every node.
func (s *Store) NarrowSession(ctx context.Context, userID, sessionID string, from, keep oauth.ScopeSet, origin issuer.Origin) error {
	const step = "narrow session"
	id, ok := parseID(sessionID)
	if !ok {
		return wrap(step, issuer.ErrNotFound)
	}
	return s.db.write(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		var narrowed bool
		return conn.QueryRow(ctx, s.db.sql(`
			WITH narrowed AS (
				UPDATE {s}.gpt_sessions SET scopes = $3, granted_scopes = $3
				WHERE id = $1 AND user_id = $2 AND scopes @> $4 AND scopes <@ $4 AND `+live+` AND `+own+` RETURNING id, user_id, client_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
				SELECT 'gpt.oauth.session_narrowed', user_id, client_id, id, $5::text, $6::text, jsonb_build_object('from', $4::text[], 'to', $3::text[]) FROM narrowed)
			SELECT true FROM narrowed`), id, userID, scopeArray(keep), scopeArray(from), address(origin), requestID(origin)).Scan(&narrowed)
	})
}
