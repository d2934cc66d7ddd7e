package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

const factorColumns = `f.sealed, f.last_step, f.created_at, (SELECT count(*) FROM {s}.gpt_recovery_codes c WHERE c.user_id = f.user_id)`

func scanFactor(row pgx.Row) (f issuer.SecondFactor, err error) {
	err = row.Scan(&f.Sealed, &f.Step, &f.CreatedAt, &f.RecoveryCodes)
	return f, err
}

// FindSecondFactor is described at issuer.FactorStore.
func (s *Store) FindSecondFactor(ctx context.Context, userID string) (f issuer.SecondFactor, err error) {
	err = s.db.read(ctx, "find second factor", func(ctx context.Context, conn *pgxpool.Conn) error {
		f, err = scanFactor(conn.QueryRow(ctx, s.db.sql(`SELECT `+factorColumns+` FROM {s}.gpt_second_factors f WHERE f.user_id = $1`), userID))
		return err
	})
	return f, err
}

// TrySecondFactor is described at issuer.FactorStore.
func (s *Store) TrySecondFactor(ctx context.Context, userID string, limit int, window time.Duration) (f issuer.SecondFactor, err error) {
	tooMany := false
	err = s.db.write(ctx, "try second factor", inTx(func(ctx context.Context, tx pgx.Tx) error {
		var attempts int
		// The row is held, so that attempts at once are counted one by one.
		if err := tx.QueryRow(ctx, s.db.sql(`
			SELECT CASE WHEN attempts_since > clock_timestamp() - make_interval(secs => $2::float8) THEN attempts ELSE 0 END
			FROM {s}.gpt_second_factors WHERE user_id = $1 FOR UPDATE`), userID, window.Seconds()).Scan(&attempts); err != nil {
			return err
		}
		if tooMany = attempts >= limit; tooMany {
			return nil
		}
		f, err = scanFactor(tx.QueryRow(ctx, s.db.sql(`
			UPDATE {s}.gpt_second_factors f SET attempts = $2::integer + 1, attempts_since = CASE WHEN $2::integer = 0 THEN clock_timestamp() ELSE attempts_since END
			WHERE f.user_id = $1 RETURNING `+factorColumns), userID, attempts))
		return err
	}))
	if err == nil && tooMany {
		err = issuer.ErrTooManyAttempts
	}
	return f, err
}

// UseSecondFactor is described at issuer.FactorStore.
func (s *Store) UseSecondFactor(ctx context.Context, userID string, step int64, resealed []byte) error {
	err := s.db.write(ctx, "use second factor", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.db.sql(`
			UPDATE {s}.gpt_second_factors SET last_step = $2, attempts = 0, sealed = coalesce($3, sealed)
			WHERE user_id = $1 AND last_step < $2 RETURNING true`), userID, step, resealed).Scan(new(bool))
	})
	if errors.Is(err, issuer.ErrNotFound) {
		return issuer.ErrReplayed
	}
	return err
}

// UseRecoveryCode is described at issuer.FactorStore.
func (s *Store) UseRecoveryCode(ctx context.Context, userID string, code issuer.Digest, origin issuer.Origin) error {
	return s.db.write(ctx, "use recovery code", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.db.sql(`
			WITH used AS (DELETE FROM {s}.gpt_recovery_codes WHERE user_id = $1 AND digest = $2 RETURNING user_id),
			forgiven AS (UPDATE {s}.gpt_second_factors f SET attempts = 0 FROM used WHERE f.user_id = used.user_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id)
				SELECT 'gpt.oauth.recovery_code_used', user_id, $3::text, $4::text FROM used)
			SELECT true FROM used`), userID, code[:], address(origin), requestID(origin)).Scan(new(bool))
	})
}

// SetSecondFactor is described at issuer.FactorStore.
func (s *Store) SetSecondFactor(ctx context.Context, userID string, f issuer.SecondFactor, codes []issuer.Digest, login issuer.Digest, origin issuer.Origin) error {
	return s.db.write(ctx, "set second factor", inTx(func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, s.db.sql(`
			INSERT INTO {s}.gpt_second_factors (user_id, sealed, last_step)
			SELECT id, $2, $3 FROM {s}.gpt_users WHERE id = $1 AND email IS NOT NULL AND disabled_at IS NULL
			ON CONFLICT (user_id) DO NOTHING`), userID, f.Sealed, f.Step)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return issuer.ErrExists
		}
		if err := s.setRecoveryCodes(ctx, tx, userID, codes); err != nil {
			return err
		}
		// Whoever is signed in elsewhere has shown one factor only.
		if _, err := tx.Exec(ctx, s.db.sql(`DELETE FROM {s}.gpt_logins WHERE user_id = $1 AND method = 'password' AND digest <> $2`), userID, login[:]); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, s.db.sql(`UPDATE {s}.gpt_logins SET method = 'password+otp' WHERE user_id = $1 AND method = 'password' AND digest = $2`), userID, login[:]); err != nil {
			return err
		}
		return s.factorEvent(ctx, tx, "second_factor_added", userID, origin)
	}))
}

// SetRecoveryCodes is described at issuer.FactorStore.
func (s *Store) SetRecoveryCodes(ctx context.Context, userID string, codes []issuer.Digest, origin issuer.Origin) error {
	return s.db.write(ctx, "set recovery codes", inTx(func(ctx context.Context, tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, s.db.sql(`SELECT true FROM {s}.gpt_second_factors WHERE user_id = $1 FOR UPDATE`), userID).Scan(new(bool)); err != nil {
			return err
		}
		if err := s.setRecoveryCodes(ctx, tx, userID, codes); err != nil {
			return err
		}
		return s.factorEvent(ctx, tx, "recovery_codes_made", userID, origin)
	}))
}

func (s *Store) setRecoveryCodes(ctx context.Context, tx pgx.Tx, userID string, codes []issuer.Digest) error {
	digests := make([][]byte, len(codes))
	for i := range codes {
		digests[i] = codes[i][:]
	}
	if _, err := tx.Exec(ctx, s.db.sql(`DELETE FROM {s}.gpt_recovery_codes WHERE user_id = $1`), userID); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, s.db.sql(`INSERT INTO {s}.gpt_recovery_codes (user_id, digest) SELECT $1, unnest($2::bytea[])`), userID, digests)
	return err
}

// RemoveSecondFactor is described at issuer.FactorStore.
func (s *Store) RemoveSecondFactor(ctx context.Context, userID string, origin issuer.Origin) error {
	return s.db.write(ctx, "remove second factor", inTx(func(ctx context.Context, tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, s.db.sql(`DELETE FROM {s}.gpt_second_factors WHERE user_id = $1 RETURNING true`), userID).Scan(new(bool)); err != nil {
			return err
		}
		return s.factorEvent(ctx, tx, "second_factor_removed", userID, origin)
	}))
}

func (s *Store) factorEvent(ctx context.Context, tx pgx.Tx, event, userID string, origin issuer.Origin) error {
	_, err := tx.Exec(ctx, s.db.sql(`INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id) VALUES ('gpt.oauth.' || $1::text, $2, $3::text, $4::text)`),
		event, userID, address(origin), requestID(origin))
	return err
}
