package postgres

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// RegistrationRecord is a client that registered itself, as an operator sees it.
type RegistrationRecord struct {
	ClientID, Name string
	Kind           issuer.RegistrationKind
	Metadata       []byte    // JSON, what the client says of itself
	Confidential   bool      // it has a secret here
	IssuedAt       time.Time // when it was first seen
	UsedAt         *time.Time
	DisabledAt     *time.Time
}

const registrationRecords = `(
	(SELECT r.client_id, c.name, 'dynamic' AS kind, r.metadata::text, r.secret_hash IS NOT NULL, r.issued_at, r.used_at, c.disabled_at
		FROM {s}.gpt_client_registrations r JOIN {s}.gpt_clients c USING (client_id) WHERE r.client_id {which} ORDER BY r.client_id LIMIT $2)
	UNION ALL
	(SELECT d.client_id, c.name, 'document', d.document, false, d.issued_at, d.used_at, c.disabled_at
		FROM {s}.gpt_client_documents d JOIN {s}.gpt_clients c USING (client_id) WHERE d.client_id {which} ORDER BY d.client_id LIMIT $2)
	ORDER BY 1 LIMIT $2)`

func scanRegistrationRecord(row pgx.Row) (r RegistrationRecord, err error) {
	err = row.Scan(&r.ClientID, &r.Name, &r.Kind, &r.Metadata, &r.Confidential, &r.IssuedAt, &r.UsedAt, &r.DisabledAt)
	return r, err
}

// ListRegistrations returns clients that registered themselves, ordered by id:
// those after the given one, at most limit.
func (s *Store) ListRegistrations(ctx context.Context, after string, limit int) ([]RegistrationRecord, error) {
	return list(ctx, s.db, "list registrations", scanRegistrationRecord, registrationsSQL(`> $1`), after, limit)
}

// FindRegistrationRecord returns one of them. ErrNotFound.
func (s *Store) FindRegistrationRecord(ctx context.Context, clientID string) (r RegistrationRecord, err error) {
	err = s.db.read(ctx, "find registration record", func(ctx context.Context, conn *pgxpool.Conn) error {
		r, err = scanRegistrationRecord(conn.QueryRow(ctx, s.db.sql(registrationsSQL(`= $1`)), clientID, 1))
		return err
	})
	return r, err
}

func registrationsSQL(which string) string {
	return strings.ReplaceAll(registrationRecords, "{which}", which)
}
