package postgres

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
)

const (
	// erasing begins the key of the setting that holds the secret of an erasure
	// that is not done: whoever goes on with it makes the same pseudonyms. It goes
	// with the last step, and then nobody can make them again.
	erasing = "erasing user "
	// eraseBatch bounds the events that one transaction rewrites.
	eraseBatch = 1000
	// erasePasses bounds how often what requests in progress left behind is looked
	// for. Sign-ins of somebody who comes back at once might otherwise never end it.
	erasePasses = 10
)

// keptOfEvents are the members of an event's metadata that say what happened, and
// of nobody in particular. Whatever else is there goes.
var keptOfEvents = []string{"all", "authority", "by", "count", "deleted", "factors_removed", "from", "logins", "method", "presented",
	"provider", "reason", "row", "sessions", "sessions_ended", "source", "stored", "to", "what"}

// EraseUser removes all that is held about a user. Sessions and logins end with
// the first transaction. The audit trail stays: in all of it the user gets one
// pseudonym, each session another id, and addresses, request ids and what is not known to be
// harmless go. The pseudonyms are made with a secret that is then forgotten.
//
// It may be stopped at any point and called again. told, unless nil, hears how
// many events are rewritten. It returns the pseudonym. ErrNotFound: nothing is
// held.
func (s *Store) EraseUser(ctx context.Context, userID string, told func(events int)) (pseudonym string, err error) {
	const step = "erase a user"
	events, found := 0, false
	for range erasePasses {
		secret, deleted, err := s.deleteHeld(ctx, userID)
		if errors.Is(err, issuer.ErrNotFound) && !found {
			return "", wrap(step, issuer.ErrNotFound)
		}
		if err != nil {
			return "", wrap(step, err)
		}
		found = true
		name := pseudonymOf(secret, userID)
		rewritten := 0
		for {
			n, err := s.rewriteEvents(ctx, userID, name, secret)
			if err != nil {
				return "", wrap(step, err)
			}
			rewritten += n
			if events += n; told != nil {
				told(events)
			}
			if n < eraseBatch {
				break
			}
		}
		if deleted == 0 && rewritten == 0 {
			return name, wrap(step, s.endErasure(ctx, userID, name))
		}
	}
	return "", fmt.Errorf("%s: requests of this user go on all the time; disable the user where they sign in, then do it again", step)
}

// deleteHeld deletes the rows about a user, and returns the secret of the
// erasure. ErrNotFound: there is nothing, and no erasure was begun.
func (s *Store) deleteHeld(ctx context.Context, userID string) (secret []byte, deleted int64, err error) {
	err = s.db.long(ctx, "delete what is held", pgx.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		// With the sign-ins and the ends of the same account, one after the other.
		if err := lockAccounts(ctx, tx, userID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('gpt_user'), hashtext($1))`, userID); err != nil {
			return err
		}
		var begun bool
		if secret, begun, err = s.eraseSecret(ctx, tx, userID); err != nil {
			return err
		}
		tables, err := s.personalTables(ctx, tx)
		if err != nil {
			return err
		}
		for _, table := range tables {
			if table.stays {
				continue
			}
			tag, err := tx.Exec(ctx, s.db.sql(`DELETE FROM {s}.`+table.name+` WHERE `+table.of), userID)
			if err != nil {
				return fmt.Errorf("%s: %w", table.name, err)
			}
			deleted += tag.RowsAffected()
		}
		if deleted > 0 || begun {
			return nil
		}
		var events bool
		if err := tx.QueryRow(ctx, s.db.sql(`SELECT EXISTS (SELECT FROM {s}.gpt_oauth_events WHERE user_id = $1)`), userID).Scan(&events); err != nil {
			return err
		}
		if !events {
			return pgx.ErrNoRows
		}
		return nil
	})
	return secret, deleted, err
}

// eraseSecret is the secret of the erasure that was begun, or of a new one.
func (s *Store) eraseSecret(ctx context.Context, tx pgx.Tx, userID string) (secret []byte, begun bool, err error) {
	secret = make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // never fails
	tag, err := tx.Exec(ctx, s.db.sql(`INSERT INTO {s}.gpt_settings (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`), erasing+userID, hex.EncodeToString(secret))
	if err != nil || tag.RowsAffected() == 1 {
		return secret, false, err
	}
	var stored string
	if err := tx.QueryRow(ctx, s.db.sql(`SELECT value FROM {s}.gpt_settings WHERE key = $1`), erasing+userID).Scan(&stored); err != nil {
		return nil, true, err
	}
	secret, err = hex.DecodeString(stored)
	return secret, true, err
}

// pseudonymOf is a digest of the secret, which is as long as the digest, and the
// id: nothing is learned of either.
func pseudonymOf(secret []byte, userID string) string {
	digest := sha256.Sum256(append(append([]byte{}, secret...), userID...))
	return "erased-" + hex.EncodeToString(digest[:16])
}

// rewriteEvents rewrites a batch of the user's events, and returns how many.
func (s *Store) rewriteEvents(ctx context.Context, userID, pseudonym string, secret []byte) (rewritten int, err error) {
	err = s.db.long(ctx, "rewrite events", pgx.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, s.db.sql(`
			UPDATE {s}.gpt_oauth_events SET user_id = $2, ip_address = NULL, request_id = NULL,
				session_id = encode(substr(sha256($3::bytea || uuid_send(session_id)), 1, 16), 'hex')::uuid,
				metadata = CASE WHEN jsonb_typeof(metadata) = 'object' THEN
					(SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(metadata) WHERE key = ANY ($4::text[])) ELSE '{}' END
			WHERE id IN (SELECT id FROM {s}.gpt_oauth_events WHERE user_id = $1 LIMIT $5)`), userID, pseudonym, secret, keptOfEvents, eraseBatch)
		rewritten = int(tag.RowsAffected())
		return err
	})
	return rewritten, err
}

// endErasure forgets the secret, and says in the trail what happened.
func (s *Store) endErasure(ctx context.Context, userID, pseudonym string) error {
	return s.db.long(ctx, "end the erasure", pgx.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, s.db.sql(`
			WITH done AS (DELETE FROM {s}.gpt_settings WHERE key = $1 RETURNING key)
			INSERT INTO {s}.gpt_oauth_events (event_type, user_id) SELECT 'gpt.oauth.user_erased', $2 FROM done`), erasing+userID, pseudonym)
		return err
	})
}
