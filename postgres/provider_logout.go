package postgres

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
)

const (
	logoutToken          = "logout token"
	providerSessionEnded = "provider session ended"
	// rememberEnded is longer than a sign-in may take.
	rememberEnded = time.Hour
)

// digestOf is a digest of two texts, the first of which holds no NUL.
func digestOf(authority, name string) issuer.Digest {
	return sha256.Sum256([]byte(authority + "\x00" + name))
}

// EndProviderLogins is described at issuer.LoginStore.
func (s *Store) EndProviderLogins(ctx context.Context, logout issuer.ProviderLogout, origin issuer.Origin) (logins, sessions int, err error) {
	err = s.db.write(ctx, "end provider logins", inTx(func(ctx context.Context, tx pgx.Tx) error {
		logins, sessions = 0, 0
		if err := s.useOnce(ctx, tx, logoutToken, digestOf(logout.Authority, logout.TokenID), logout.RememberFor); err != nil {
			return err
		}
		if err := s.endProviderSession(ctx, tx, logout); err != nil {
			return err
		}
		users, err := s.usersOfLogout(ctx, tx, logout)
		if err != nil {
			return err
		}
		for _, user := range users {
			l, n, err := s.endUserLogins(ctx, tx, user, logout, origin)
			if err != nil {
				return err
			}
			logins, sessions = logins+l, sessions+n
		}
		return nil
	}))
	return logins, sessions, err
}

const lockProviderSessionSQL = `SELECT pg_advisory_xact_lock(hashtext('gpt_provider_session'), hashtext($1))`

// endProviderSession notes that the session of the provider is over, for sign-ins
// that were sent off in it and have not come back.
func (s *Store) endProviderSession(ctx context.Context, tx pgx.Tx, logout issuer.ProviderLogout) error {
	if logout.SessionID == "" {
		return nil
	}
	if _, err := tx.Exec(ctx, lockProviderSessionSQL, logout.SessionID); err != nil {
		return err
	}
	return s.keepOut(ctx, tx, providerSessionEnded, digestOf(logout.Authority, logout.SessionID), rememberEnded)
}

// providerSessionGoesOn refuses a login of a session that has ended. The lock is
// endProviderSession's: of the two, the one that comes second sees the other.
func (s *Store) providerSessionGoesOn(ctx context.Context, tx pgx.Tx, user issuer.ExternalUser) error {
	if user.SessionID == "" {
		return nil
	}
	if _, err := tx.Exec(ctx, lockProviderSessionSQL, user.SessionID); err != nil {
		return err
	}
	return s.notKeptOut(ctx, tx, providerSessionEnded, digestOf(user.Authority, user.SessionID))
}

// usersOfLogout finds whom it is about, each behind the lock that lets redemptions
// under way finish, so that their sessions are found.
func (s *Store) usersOfLogout(ctx context.Context, tx pgx.Tx, logout issuer.ProviderLogout) ([]string, error) {
	query, name := `SELECT user_id FROM {s}.gpt_identities WHERE authority = $1 AND subject = $2`, logout.Subject
	if name == "" { // in the order of locks
		query, name = `
			SELECT DISTINCT l.user_id FROM {s}.gpt_logins l JOIN {s}.gpt_identities i ON i.user_id = l.user_id AND i.authority = $1
			WHERE l.provider_session = $2 ORDER BY 1`, logout.SessionID
	}
	rows, err := tx.Query(ctx, s.db.sql(query), logout.Authority, name)
	if err != nil {
		return nil, err
	}
	users, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	for _, user := range users {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('gpt_user'), hashtext($1))`, user); err != nil {
			return nil, err
		}
	}
	return users, nil
}

// endUserLogins ends what the logout is about of one user. Codes lose their login
// first, without which none is redeemed.
func (s *Store) endUserLogins(ctx context.Context, tx pgx.Tx, userID string, logout issuer.ProviderLogout, origin issuer.Origin) (logins, sessions int, err error) {
	tag, err := tx.Exec(ctx, s.db.sql(`DELETE FROM {s}.gpt_logins WHERE user_id = $1 AND ($2 = '' OR provider_session = $2)`), userID, logout.SessionID)
	if err != nil {
		return 0, 0, err
	}
	logins = int(tag.RowsAffected())
	if logout.EndSessions {
		tag, err = tx.Exec(ctx, s.db.sql(`
			UPDATE {s}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'signed_out_at_provider'
			WHERE user_id = $1 AND `+live+` AND `+direct), userID)
		if err != nil {
			return 0, 0, err
		}
		sessions = int(tag.RowsAffected())
	}
	_, err = tx.Exec(ctx, s.db.sql(`
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id, metadata)
		VALUES ('gpt.oauth.provider_logout', $1, $2, $3, jsonb_build_object('authority', $4::text, 'logins', $5::int, 'sessions', $6::int))`),
		userID, address(origin), requestID(origin), logout.Authority, logins, sessions)
	return logins, sessions, err
}
