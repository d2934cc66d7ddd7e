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
func (s *Store) TrySecondFactor(ctx context.Context, userID string, lately, daily issuer.AttemptBound) (f issuer.SecondFactor, err error) {
	var tooMany *issuer.TooManyAttempts
	err = s.db.write(ctx, "try second factor", inTx(func(ctx context.Context, tx pgx.Tx) error {
		var recent, today int
		var recentEnds, todayEnds float64 // seconds from now
		// The row is held, so that attempts at once are counted one by one.
		if err := tx.QueryRow(ctx, s.db.sql(`
			SELECT CASE WHEN recent_ends > 0 THEN attempts ELSE 0 END, recent_ends, CASE WHEN day_ends > 0 THEN day_attempts ELSE 0 END, day_ends
			FROM (SELECT attempts, day_attempts,
					$2::float8 - extract(epoch FROM clock_timestamp() - attempts_since)::float8 AS recent_ends,
					$3::float8 - extract(epoch FROM clock_timestamp() - day_since)::float8 AS day_ends
				FROM {s}.gpt_second_factors WHERE user_id = $1 FOR UPDATE) f`),
			userID, lately.Window.Seconds(), daily.Window.Seconds()).Scan(&recent, &recentEnds, &today, &todayEnds); err != nil {
			return err
		}
		switch {
		case today >= daily.Limit:
			tooMany = &issuer.TooManyAttempts{For: time.Duration(todayEnds * float64(time.Second))}
			return nil
		case recent >= lately.Limit:
			tooMany = &issuer.TooManyAttempts{For: time.Duration(recentEnds * float64(time.Second))}
			return nil
		}
		f, err = scanFactor(tx.QueryRow(ctx, s.db.sql(`
			UPDATE {s}.gpt_second_factors f SET
				attempts = $2::integer + 1, attempts_since = CASE WHEN $2::integer = 0 THEN clock_timestamp() ELSE attempts_since END,
				day_attempts = $3::integer + 1, day_since = CASE WHEN $3::integer = 0 THEN clock_timestamp() ELSE day_since END
			WHERE f.user_id = $1 RETURNING `+factorColumns), userID, recent, today))
		return err
	}))
	if err == nil && tooMany != nil {
		return f, tooMany
	}
	return f, err
}

// UseSecondFactor is described at issuer.FactorStore.
func (s *Store) UseSecondFactor(ctx context.Context, userID string, step int64, resealed []byte) error {
	err := s.db.write(ctx, "use second factor", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.db.sql(`
			UPDATE {s}.gpt_second_factors SET last_step = $2, attempts = 0, day_attempts = greatest(day_attempts - 1, 0), sealed = coalesce($3, sealed)
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
func (s *Store) SetSecondFactor(ctx context.Context, userID string, f issuer.SecondFactor, codes []issuer.Digest, login issuer.RenewedLogin, origin issuer.Origin) error {
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
		if _, err := tx.Exec(ctx, s.db.sql(`DELETE FROM {s}.gpt_logins WHERE user_id = $1 AND method = 'password' AND digest <> $2`), userID, login.Before[:]); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, s.db.sql(`UPDATE {s}.gpt_logins SET method = 'password+otp' WHERE user_id = $1 AND method = 'password' AND digest = $2`), userID, login.Before[:]); err != nil {
			return err
		}
		if err := s.renewLogin(ctx, tx, userID, login); err != nil {
			return err
		}
		return s.factorEvent(ctx, tx, "second_factor_added", userID, origin)
	}))
}

// renewLogin gives the login another cookie, if it still is one of the user's.
func (s *Store) renewLogin(ctx context.Context, tx pgx.Tx, userID string, login issuer.RenewedLogin) error {
	_, err := tx.Exec(ctx, s.db.sql(`UPDATE {s}.gpt_logins SET digest = $3 WHERE user_id = $1 AND digest = $2`), userID, login.Before[:], login.After[:])
	return err
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
