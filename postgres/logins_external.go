package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// CreateExternalLogin is described at issuer.LoginStore.
func (s *Store) CreateExternalLogin(ctx context.Context, digest issuer.Digest, method string, user issuer.ExternalUser, hint []byte, ttl time.Duration, origin issuer.Origin) (login issuer.Login, err error) {
	claims, err := jsonObject(user.Claims)
	if err != nil {
		return login, fmt.Errorf("create login: claims: %w", err)
	}
	profile, err := jsonObject(user.Profile)
	if err != nil {
		return login, fmt.Errorf("create login: profile: %w", err)
	}
	err = s.db.write(ctx, "create login", inTx(func(ctx context.Context, tx pgx.Tx) error {
		if err := s.providerSessionGoesOn(ctx, tx, user); err != nil {
			return err
		}
		if _, err := s.firstSight(ctx, tx, user, origin); err != nil {
			return err
		}
		// The user's row is held: disabling it meanwhile waits and finds the login.
		if err := tx.QueryRow(ctx, s.db.sql(`
			SELECT u.id FROM {s}.gpt_identities i JOIN {s}.gpt_users u ON u.id = i.user_id AND u.disabled_at IS NULL
			WHERE i.authority = $1 AND i.subject = $2 FOR NO KEY UPDATE OF u`), user.Authority, user.Subject).Scan(&login.UserID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, s.db.sql(`
			UPDATE {s}.gpt_users SET name = $2, claims = $3, profile = $4, updated_at = clock_timestamp()
			WHERE id = $1 AND (name IS DISTINCT FROM $2 OR claims <> $3 OR profile <> $4)`), login.UserID, orNull(user.Name), claims, profile); err != nil {
			return err
		}
		var authTime *time.Time
		if !user.AuthTime.IsZero() {
			authTime = &user.AuthTime
		}
		login.Method = method
		return tx.QueryRow(ctx, s.db.sql(`
			WITH login AS (
				INSERT INTO {s}.gpt_logins (digest, user_id, method, provider_session, logout_hint, auth_time, expires_at)
				VALUES ($1, $2, $3, $4, $9, least($5::timestamptz, clock_timestamp()), clock_timestamp() + make_interval(secs => $6::float8))
				RETURNING id, user_id, auth_time, expires_at),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id, metadata)
				SELECT 'gpt.oauth.login', user_id, $7::text, $8::text, jsonb_build_object('method', $3::text) FROM login)
			SELECT l.id::text, `+userName+`, l.auth_time, l.expires_at FROM login l JOIN {s}.gpt_users u ON u.id = l.user_id`),
			digest[:], login.UserID, method, orNull(user.SessionID), authTime, ttl.Seconds(), address(origin), requestID(origin), hint).
			Scan(&login.ID, &login.Name, &login.AuthTime, &login.ExpiresAt)
	}))
	return login, err
}

func jsonObject(members map[string]any) ([]byte, error) {
	if members == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(members)
}

// firstSight makes a user of an identity that nobody has seen, and reports
// whether it did. ErrExists: the id is taken. ErrNotFound: the account has ended.
// Two sign-ins at once make one.
func (s *Store) firstSight(ctx context.Context, tx pgx.Tx, user issuer.ExternalUser, origin issuer.Origin) (made bool, err error) {
	var known bool
	err = tx.QueryRow(ctx, s.db.sql(`SELECT true FROM {s}.gpt_identities WHERE authority = $1 AND subject = $2`), user.Authority, user.Subject).Scan(&known)
	if !errors.Is(err, pgx.ErrNoRows) {
		return false, err
	}
	if err := s.accountGoesOn(ctx, tx, user); err != nil {
		return false, err
	}
	// A session whose user has the name of a client would pass for one in which
	// the client acts for itself.
	tag, err := tx.Exec(ctx, s.db.sql(`
		WITH made AS (
			INSERT INTO {s}.gpt_users (id, name) SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM {s}.gpt_clients WHERE client_id = $1)
			ON CONFLICT (id) DO NOTHING RETURNING id)
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id, metadata)
		SELECT 'gpt.oauth.user_created', id, $3::text, $4::text, jsonb_build_object('authority', $5::text) FROM made`),
		user.UserID, orNull(user.Name), address(origin), requestID(origin), user.Authority)
	if err != nil {
		return false, err
	}
	if tag.RowsAffected() == 1 {
		_, err = tx.Exec(ctx, s.db.sql(`INSERT INTO {s}.gpt_identities (authority, subject, user_id) VALUES ($1, $2, $3)`), user.Authority, user.Subject, user.UserID)
		if hasCode(err, "23505") { // the subject has become another user meanwhile
			return false, issuer.ErrExists
		}
		return true, err
	}
	// The same first sight on another node, whose transaction was waited for?
	err = tx.QueryRow(ctx, s.db.sql(`SELECT true FROM {s}.gpt_identities WHERE authority = $1 AND subject = $2`), user.Authority, user.Subject).Scan(&known)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, issuer.ErrExists
	}
	return false, err
}

// UseOnce is described at issuer.ReplayStore.
func (s *Store) UseOnce(ctx context.Context, purpose string, digest issuer.Digest, ttl time.Duration) error {
	return s.db.write(ctx, "use once", inTx(func(ctx context.Context, tx pgx.Tx) error {
		return s.useOnce(ctx, tx, purpose, digest, ttl)
	}))
}

// useOnce is UseOnce as part of a step.
func (s *Store) useOnce(ctx context.Context, tx pgx.Tx, purpose string, digest issuer.Digest, ttl time.Duration) error {
	tag, err := tx.Exec(ctx, s.db.sql(`
		INSERT INTO {s}.gpt_used_once AS u (purpose, digest, expires_at) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3::float8))
		ON CONFLICT (purpose, digest) DO UPDATE SET expires_at = excluded.expires_at WHERE u.expires_at <= clock_timestamp()`),
		purpose, digest[:], ttl.Seconds())
	if err == nil && tag.RowsAffected() == 0 {
		return issuer.ErrReplayed
	}
	return err
}
