package postgres

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
)

const (
	accountEvent = "account event"
	accountEnded = "account ended"
	// rememberUnknown is how long somebody who is not known here is kept out: what
	// proves who they are, such as the token of another app, may outlive the account.
	rememberUnknown = time.Hour
)

// accountSQL finds the user whom the authority ($1) calls $2, or whose id that is
// where there is no authority. A subject that never signed in here may be the id
// of a user of the system that went before; but not that of a user whom another
// authority names or who has a password, and never a client.
const accountSQL = `SELECT coalesce(
	(SELECT user_id FROM {s}.gpt_identities WHERE authority = $1 AND subject = $2),
	(SELECT $2::text WHERE NOT EXISTS (SELECT FROM {s}.gpt_clients WHERE client_id = $2)
		AND ($1 = '' OR NOT EXISTS (SELECT FROM {s}.gpt_identities WHERE user_id = $2)
			AND NOT EXISTS (SELECT FROM {s}.gpt_users WHERE id = $2 AND email IS NOT NULL))
		AND (EXISTS (SELECT FROM {s}.gpt_users WHERE id = $2) OR EXISTS (SELECT FROM {s}.gpt_sessions WHERE user_id = $2))))`

// EndAccount is described at issuer.AccountStore.
func (s *Store) EndAccount(ctx context.Context, end issuer.AccountEnd, origin issuer.Origin) (userID string, err error) {
	err = s.db.write(ctx, "end account", inTx(func(ctx context.Context, tx pgx.Tx) error {
		userID = ""
		if err := s.useOnce(ctx, tx, accountEvent, end.EventID, end.RememberFor); err != nil {
			return err
		}
		if err := lockAccounts(ctx, tx, end.Subject); err != nil {
			return err
		}
		var known *string
		if err := tx.QueryRow(ctx, s.db.sql(accountSQL), end.Authority, end.Subject).Scan(&known); err != nil {
			return err
		}
		if known == nil { // committed: the event is used
			return s.keepOut(ctx, tx, accountEnded, digestOf(end.Authority, end.Subject), rememberUnknown)
		}
		userID = *known
		return s.endAccount(ctx, tx, userID, end, origin)
	}))
	if err == nil && userID == "" {
		err = issuer.ErrNotFound
	}
	return userID, err
}

// endAccount disables the user: a trigger ends logins and sessions. A user of the
// system that went before becomes one here first, so that they stay out. Of one
// who was deleted nothing personal is left.
func (s *Store) endAccount(ctx context.Context, tx pgx.Tx, userID string, end issuer.AccountEnd, origin issuer.Origin) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('gpt_user'), hashtext($1))`, userID); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, s.db.sql(`INSERT INTO {s}.gpt_users (id) VALUES ($1) ON CONFLICT (id) DO NOTHING`), userID); err != nil {
		return err
	}
	if end.Authority != "" {
		if _, err := tx.Exec(ctx, s.db.sql(`INSERT INTO {s}.gpt_identities (authority, subject, user_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`),
			end.Authority, end.Subject, userID); err != nil {
			return err
		}
	}
	forget, gone := "", []string{"gpt_password_resets"} // no link outlives the account until it is enabled again
	if end.Deleted {
		gone = append(gone, "gpt_passkeys", "gpt_second_factors")
		forget = `, name = NULL, email = NULL, password_hash = NULL, claims = '{}', profile = '{}'`
	}
	for _, table := range gone {
		if _, err := tx.Exec(ctx, s.db.sql(`DELETE FROM {s}.`+table+` WHERE user_id = $1`), userID); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, s.db.sql(`
		WITH ended AS (
			UPDATE {s}.gpt_users SET disabled_at = coalesce(disabled_at, clock_timestamp()), updated_at = clock_timestamp()`+forget+` WHERE id = $1 RETURNING id)
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id, metadata)
		SELECT 'gpt.oauth.account_ended', id, $2::text, $3::text, jsonb_build_object('source', $4::text, 'deleted', $5::bool) FROM ended`),
		userID, address(origin), requestID(origin), end.Source, end.Deleted)
	return err
}

// keepOut notes what must make no login for so long.
func (s *Store) keepOut(ctx context.Context, tx pgx.Tx, purpose string, digest issuer.Digest, ttl time.Duration) error {
	err := s.useOnce(ctx, tx, purpose, digest, ttl)
	if errors.Is(err, issuer.ErrReplayed) { // kept out already
		return nil
	}
	return err
}

// lockAccounts orders the end of an account and a first sign-in of it: of the two,
// the one that comes second sees the other.
func lockAccounts(ctx context.Context, tx pgx.Tx, names ...string) error {
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('gpt_account'), hashtext($1))`, name); err != nil {
			return err
		}
	}
	return nil
}

// accountGoesOn refuses a sign-in of an account that has ended before anybody here
// knew it.
func (s *Store) accountGoesOn(ctx context.Context, tx pgx.Tx, user issuer.ExternalUser) error {
	if err := lockAccounts(ctx, tx, user.Subject, user.UserID); err != nil {
		return err
	}
	return s.notKeptOut(ctx, tx, accountEnded, digestOf(user.Authority, user.Subject), digestOf("", user.UserID))
}

// notKeptOut: ErrNotFound if one of the digests is kept out.
func (s *Store) notKeptOut(ctx context.Context, tx pgx.Tx, purpose string, digests ...issuer.Digest) error {
	raw := make([][]byte, len(digests))
	for i := range digests {
		raw[i] = digests[i][:]
	}
	var out bool
	err := tx.QueryRow(ctx, s.db.sql(`SELECT EXISTS (SELECT FROM {s}.gpt_used_once WHERE purpose = $1 AND digest = ANY ($2) AND expires_at > clock_timestamp())`), purpose, raw).Scan(&out)
	if err == nil && out {
		return issuer.ErrNotFound
	}
	return err
}
