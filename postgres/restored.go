package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Ended is what EndRestored ended.
type Ended struct{ Sessions, Logins, Requests int64 }

// requestTables hold what is under way: codes, links, and requests of clients.
// What an adopted database brought along has expired.
var requestTables = []string{"gpt_authorization_codes WHERE NOT adopted", "gpt_device_codes", "gpt_pushed_requests", "gpt_password_resets"}

// EndRestored leaves nothing valid that was made before now: no session, login,
// code, device code, pushed request or link to set a password. It is for a
// database that was restored from a backup: what of it was revoked, used or signed
// out after the backup is alive again, and nothing tells it from the rest. It is one
// transaction. Calling it again ends what was made since.
func (s *Store) EndRestored(ctx context.Context) (ended Ended, err error) {
	err = s.db.long(ctx, "end what was restored", pgx.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		count := func(sql string, n *int64) error {
			tag, err := tx.Exec(ctx, s.db.sql(sql))
			*n += tag.RowsAffected()
			return err
		}
		// Logins and codes first: what is just being made of them is then a session
		// that the next statement sees.
		if err := count(`DELETE FROM {s}.gpt_logins`, &ended.Logins); err != nil {
			return err
		}
		for _, table := range requestTables {
			if err := count(`DELETE FROM {s}.`+table, &ended.Requests); err != nil {
				return err
			}
		}
		if err := count(`UPDATE {s}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'restored' WHERE revoked_at IS NULL`, &ended.Sessions); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, s.db.sql(`INSERT INTO {s}.gpt_oauth_events (event_type, metadata)
			VALUES ('gpt.oauth.restored', jsonb_build_object('sessions', $1::bigint, 'logins', $2::bigint, 'requests', $3::bigint))`), ended.Sessions, ended.Logins, ended.Requests)
		return err
	})
	return ended, err
}
