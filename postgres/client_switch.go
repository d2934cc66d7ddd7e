package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// DisableClient switches off a client of any kind; a trigger ends its sessions,
// in the same transaction. Where there are many, EndSessions comes first. It
// changes nothing when the client is disabled already. ErrNotFound.
func (s *Store) DisableClient(ctx context.Context, clientID string) error {
	return s.switchClient(ctx, "disable client", `disabled_at = clock_timestamp()`, `disabled_at IS NULL`, "gpt.oauth.client_disabled", clientID)
}

// EnableClient undoes DisableClient, but no session comes back. ErrNotFound.
func (s *Store) EnableClient(ctx context.Context, clientID string) error {
	return s.switchClient(ctx, "enable client", `disabled_at = NULL`, `disabled_at IS NOT NULL`, "gpt.oauth.client_enabled", clientID)
}

func (s *Store) switchClient(ctx context.Context, step, set, unless, event, clientID string) error {
	return s.db.write(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		var found bool
		return conn.QueryRow(ctx, s.db.sql(`
			WITH changed AS (UPDATE {s}.gpt_clients SET `+set+`, updated_at = clock_timestamp() WHERE client_id = $1 AND `+unless+` RETURNING client_id),
			event AS (INSERT INTO {s}.gpt_oauth_events (event_type, client_id, metadata) SELECT '`+event+`', client_id, '`+byOperator+`' FROM changed)
			SELECT true FROM {s}.gpt_clients WHERE client_id = $1`), clientID).Scan(&found)
	})
}

// RemoveClient deletes a client that is not of the configuration, with all that
// belongs to it. Its sessions go first, in batches: see DeleteSessions.
// ErrNotFound.
func (s *Store) RemoveClient(ctx context.Context, clientID string) error {
	return s.db.write(ctx, "remove client", func(ctx context.Context, conn *pgxpool.Conn) error {
		var removed bool
		return conn.QueryRow(ctx, s.db.sql(`
			WITH removed AS (DELETE FROM {s}.gpt_clients c WHERE client_id = $1 AND (
				EXISTS (SELECT FROM {s}.gpt_operator_clients o WHERE o.client_id = c.client_id)
				OR EXISTS (SELECT FROM {s}.gpt_client_registrations r WHERE r.client_id = c.client_id)
				OR EXISTS (SELECT FROM {s}.gpt_client_documents d WHERE d.client_id = c.client_id)) RETURNING client_id),
			event AS (INSERT INTO {s}.gpt_oauth_events (event_type, client_id, metadata) SELECT 'gpt.oauth.client_deleted', client_id, '`+byOperator+`' FROM removed)
			SELECT true FROM removed`), clientID).Scan(&removed)
	})
}

// DeleteSessions deletes rows of sessions of a client, at most limit, and says
// how many. Nodes hear of those that were alive.
func (s *Store) DeleteSessions(ctx context.Context, clientID string, limit int) (deleted int, err error) {
	err = s.db.write(ctx, "delete sessions", func(ctx context.Context, conn *pgxpool.Conn) error {
		tag, err := conn.Exec(ctx, s.db.sql(`DELETE FROM {s}.gpt_sessions WHERE id IN (
			SELECT id FROM {s}.gpt_sessions WHERE client_id = $1 ORDER BY created_at, id LIMIT $2)`), clientID, limit)
		deleted = int(tag.RowsAffected())
		return err
	})
	return deleted, err
}

// DisabledClients returns those of the clients that are disabled, and since when.
func (s *Store) DisabledClients(ctx context.Context, clientIDs []string) (since map[string]time.Time, err error) {
	since = make(map[string]time.Time)
	err = s.db.read(ctx, "find disabled clients", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, s.db.sql(`SELECT client_id, disabled_at FROM {s}.gpt_clients WHERE client_id = ANY ($1) AND disabled_at IS NOT NULL`),
			pgtype.FlatArray[string](clientIDs))
		if err != nil {
			return err
		}
		var id string
		var at time.Time
		_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error { since[id] = at; return nil })
		return err
	})
	return since, err
}
