package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

const passkeyColumns = `p.id::text, p.credential_id, p.user_id, p.name, p.public_key, p.sign_count, p.backup_eligible, p.backed_up, p.transports, p.created_at, p.last_used_at`

func scanPasskey(row pgx.Row) (p issuer.Passkey, err error) {
	var used *time.Time
	err = row.Scan(&p.ID, &p.CredentialID, &p.UserID, &p.Name, &p.PublicKey, &p.SignCount, &p.BackupEligible, &p.BackedUp, &p.Transports, &p.CreatedAt, &used)
	if used != nil {
		p.LastUsed = *used
	}
	return p, err
}

// Passkeys is described at issuer.PasskeyStore.
func (s *Store) Passkeys(ctx context.Context, userID string) ([]issuer.Passkey, error) {
	return list(ctx, s.db, "list passkeys", scanPasskey,
		`SELECT `+passkeyColumns+` FROM {s}.gpt_passkeys p WHERE p.user_id = $1 ORDER BY p.created_at, p.id`, userID)
}

// FindPasskey is described at issuer.PasskeyStore.
func (s *Store) FindPasskey(ctx context.Context, credentialID []byte) (p issuer.Passkey, err error) {
	err = s.db.read(ctx, "find passkey", func(ctx context.Context, conn *pgxpool.Conn) error {
		p, err = scanPasskey(conn.QueryRow(ctx, s.db.sql(`
			SELECT `+passkeyColumns+` FROM {s}.gpt_passkeys p
			JOIN {s}.gpt_users u ON u.id = p.user_id AND u.email IS NOT NULL AND u.disabled_at IS NULL
			WHERE p.credential_id = $1`), credentialID))
		return err
	})
	return p, err
}

// AddPasskey is described at issuer.PasskeyStore.
func (s *Store) AddPasskey(ctx context.Context, p issuer.Passkey, limit int, login issuer.RenewedLogin, origin issuer.Origin) error {
	return s.db.write(ctx, "add passkey", inTx(func(ctx context.Context, tx pgx.Tx) error {
		// The user's row is held, so that two at once do not both see room.
		var count int
		if err := tx.QueryRow(ctx, s.db.sql(`
			WITH account AS MATERIALIZED (
				SELECT id FROM {s}.gpt_users WHERE id = $1 AND email IS NOT NULL AND disabled_at IS NULL FOR NO KEY UPDATE)
			SELECT (SELECT count(*) FROM {s}.gpt_passkeys WHERE user_id = $1) FROM account`), p.UserID).Scan(&count); err != nil {
			return err
		}
		if count >= limit {
			return issuer.ErrTooManyPasskeys
		}
		_, err := tx.Exec(ctx, s.db.sql(`
			WITH added AS (
				INSERT INTO {s}.gpt_passkeys (credential_id, user_id, name, public_key, sign_count, backup_eligible, backed_up, transports)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id, user_id)
			INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id, metadata)
			SELECT 'gpt.oauth.passkey_added', user_id, $9::text, $10::text, jsonb_build_object('passkey', id) FROM added`),
			p.CredentialID, p.UserID, p.Name, p.PublicKey, p.SignCount, p.BackupEligible, p.BackedUp, p.Transports, address(origin), requestID(origin))
		if hasCode(err, "23505") {
			return issuer.ErrExists
		}
		if err != nil {
			return err
		}
		return s.renewLogin(ctx, tx, p.UserID, login)
	}))
}

// RenamePasskey is described at issuer.PasskeyStore.
func (s *Store) RenamePasskey(ctx context.Context, userID, passkeyID, name string) error {
	id, ok := parseID(passkeyID)
	if !ok {
		return issuer.ErrNotFound
	}
	return s.db.write(ctx, "rename passkey", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.db.sql(`UPDATE {s}.gpt_passkeys SET name = $3 WHERE id = $1 AND user_id = $2 RETURNING true`), id, userID, name).Scan(new(bool))
	})
}

// RemovePasskey is described at issuer.PasskeyStore.
func (s *Store) RemovePasskey(ctx context.Context, userID, passkeyID string, keep issuer.Digest, origin issuer.Origin) error {
	id, ok := parseID(passkeyID)
	if !ok {
		return issuer.ErrNotFound
	}
	return s.db.write(ctx, "remove passkey", inTx(func(ctx context.Context, tx pgx.Tx) error {
		// The row is held: a sign-in with it either has made its login, or will
		// find nothing.
		if err := tx.QueryRow(ctx, s.db.sql(`SELECT true FROM {s}.gpt_passkeys WHERE id = $1 AND user_id = $2 FOR UPDATE`), id, userID).Scan(new(bool)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, s.db.sql(`DELETE FROM {s}.gpt_logins WHERE passkey_id = $1 AND digest <> $2`), id, keep[:]); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, s.db.sql(`
			WITH removed AS (DELETE FROM {s}.gpt_passkeys WHERE id = $1 RETURNING id, user_id)
			INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id, metadata)
			SELECT 'gpt.oauth.passkey_removed', user_id, $2::text, $3::text, jsonb_build_object('passkey', id) FROM removed`), id, address(origin), requestID(origin))
		return err
	}))
}

// CreatePasskeyLogin is described at issuer.PasskeyStore.
func (s *Store) CreatePasskeyLogin(ctx context.Context, digest issuer.Digest, p issuer.Passkey, ttl time.Duration, origin issuer.Origin) (login issuer.Login, err error) {
	id, ok := parseID(p.ID)
	if !ok {
		return login, issuer.ErrNotFound
	}
	replayed := false
	err = s.db.write(ctx, "create login", inTx(func(ctx context.Context, tx pgx.Tx) error {
		// The user's row is held: disabling it meanwhile waits and finds the login.
		if err := tx.QueryRow(ctx, s.db.sql(`
			SELECT id, email FROM {s}.gpt_users WHERE id = $1 AND email IS NOT NULL AND disabled_at IS NULL FOR SHARE`), p.UserID).Scan(&login.UserID, &login.Name); err != nil {
			return err
		}
		var stored int64
		if err := tx.QueryRow(ctx, s.db.sql(`SELECT sign_count FROM {s}.gpt_passkeys WHERE id = $1 AND user_id = $2 FOR UPDATE`), id, p.UserID).Scan(&stored); err != nil {
			return err
		}
		if replayed = p.SignCount <= stored && (p.SignCount > 0 || stored > 0); replayed {
			_, err := tx.Exec(ctx, s.db.sql(`
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id, metadata)
				VALUES ('gpt.oauth.passkey_copied', $1, $2::text, $3::text, jsonb_build_object('passkey', $4::uuid, 'count', $5::bigint, 'stored', $6::bigint))`),
				p.UserID, address(origin), requestID(origin), id, p.SignCount, stored)
			return err
		}
		if _, err := tx.Exec(ctx, s.db.sql(`UPDATE {s}.gpt_passkeys SET sign_count = $2, backed_up = $3, last_used_at = clock_timestamp() WHERE id = $1`), id, p.SignCount, p.BackedUp); err != nil {
			return err
		}
		login.Method = issuer.PasskeyMethod
		return tx.QueryRow(ctx, s.db.sql(`
			WITH login AS (
				INSERT INTO {s}.gpt_logins (digest, user_id, method, passkey_id, auth_time, expires_at)
				VALUES ($1, $2, $3, $4, clock_timestamp(), clock_timestamp() + make_interval(secs => $5::float8))
				RETURNING id, user_id, auth_time, expires_at),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id, metadata)
				SELECT 'gpt.oauth.login', user_id, $6::text, $7::text, jsonb_build_object('method', $3::text, 'passkey', $4::uuid) FROM login)
			SELECT id::text, auth_time, expires_at FROM login`), digest[:], login.UserID, login.Method, id, ttl.Seconds(), address(origin), requestID(origin)).
			Scan(&login.ID, &login.AuthTime, &login.ExpiresAt)
	}))
	if err == nil && replayed {
		return issuer.Login{}, issuer.ErrReplayed
	}
	return login, err
}
