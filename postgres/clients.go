package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ClientRow is a configured client as the database knows it.
type ClientRow struct {
	ID   string
	Name string
}

// EnsureClients makes the configured clients known to the database, where codes
// and sessions refer to them. It disables and enables none.
func (s *Store) EnsureClients(ctx context.Context, clients []ClientRow) error {
	clients = slices.Clone(clients)
	slices.SortFunc(clients, func(a, b ClientRow) int { return compare(a.ID, b.ID) }) // one lock order for all nodes
	ids, names := make([]string, len(clients)), make([]string, len(clients))
	for i, c := range clients {
		ids[i], names[i] = c.ID, c.Name
	}
	return s.db.write(ctx, "ensure clients", func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, s.db.sql(`
			INSERT INTO {s}.gpt_clients AS c (client_id, name) SELECT * FROM unnest($1::text[], $2::text[])
			ON CONFLICT (client_id) DO UPDATE SET name = excluded.name, updated_at = clock_timestamp() WHERE c.name <> excluded.name`), ids, names)
		if err != nil {
			return err
		}
		// What the owner writes down is not a client that registered itself any
		// more, and does not go when it is not used.
		_, err = conn.Exec(ctx, s.db.sql(`DELETE FROM {s}.gpt_client_documents WHERE client_id = ANY($1)`), ids)
		return err
	})
}

// ClientEnabled reports whether the client is known and not switched off in SQL.
// It is asked by every request of a client; concurrent ones share round trips.
func (s *Store) ClientEnabled(ctx context.Context, clientID string) (bool, error) {
	return s.clients.join(ctx, clientID)
}

func (s *Store) findEnabledClients(ctx context.Context, batch []*passenger[string, bool]) {
	asked := make([]string, len(batch))
	for i, p := range batch {
		asked[i] = p.ask
	}
	enabled := make(map[string]bool)
	err := s.db.read(ctx, "find client", func(ctx context.Context, conn *pgxpool.Conn) error {
		clear(enabled) // of a first try
		rows, err := conn.Query(ctx, s.db.sql(`SELECT client_id, `+takesWrites+`
			FROM (VALUES (0)) AS always LEFT JOIN {s}.gpt_clients ON client_id = ANY($1) AND disabled_at IS NULL`), asked)
		if err != nil {
			return err
		}
		var id *string
		var primary bool
		_, err = pgx.ForEachRow(rows, []any{&id, &primary}, func() error {
			if !primary {
				return errReadOnly
			}
			if id != nil {
				enabled[*id] = true
			}
			return nil
		})
		return err
	})
	for _, p := range batch {
		p.answer, p.err = enabled[p.ask], err
	}
}

// CheckRootSecret compares the fingerprints of the configured root secrets, the
// current one first, with the one that the database was used with. Another or
// no secret is an error that says what to set: with it every refresh token and
// sealed key would be unreadable.
func (s *Store) CheckRootSecret(ctx context.Context, fingerprints []string) error {
	const step = "check the root secret"
	if len(fingerprints) == 0 {
		return fmt.Errorf("%s: none is configured; set `secret` to the one of the other nodes", step)
	}
	return s.db.write(ctx, step, inTx(func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, s.db.sql(`INSERT INTO {s}.gpt_settings (key, value) VALUES ('root_secret_fingerprint', $1) ON CONFLICT DO NOTHING`), fingerprints[0]); err != nil {
			return err
		}
		var stored string
		if err := tx.QueryRow(ctx, s.db.sql(`SELECT value FROM {s}.gpt_settings WHERE key = 'root_secret_fingerprint' FOR UPDATE`)).Scan(&stored); err != nil {
			return err
		}
		if stored == fingerprints[0] {
			return nil
		}
		if !slices.Contains(fingerprints, stored) {
			return fmt.Errorf("this database is used with another root secret (fingerprint %s; here it is %s): set `secret` to that one, or write it after the new one: `secret NEW OLD`", stored, fingerprints[0])
		}
		_, err := tx.Exec(ctx, s.db.sql(`UPDATE {s}.gpt_settings SET value = $1, updated_at = clock_timestamp() WHERE key = 'root_secret_fingerprint'`), fingerprints[0])
		return err
	}))
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
