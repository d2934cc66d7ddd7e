package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// FindDocument is described at issuer.RegistrationStore.
func (s *Store) FindDocument(ctx context.Context, clientID string) (d issuer.ClientDocument, err error) {
	err = s.db.read(ctx, "find client document", func(ctx context.Context, conn *pgxpool.Conn) error {
		var fresh float64
		err := conn.QueryRow(ctx, s.db.sql(`
			SELECT c.client_id, c.name, d.document, extract(epoch FROM d.fresh_until - clock_timestamp())::float8, c.disabled_at IS NOT NULL
			FROM {s}.gpt_client_documents d JOIN {s}.gpt_clients c USING (client_id) WHERE c.client_id = $1`), clientID).
			Scan(&d.ClientID, &d.Name, &d.Body, &fresh, &d.Disabled)
		d.Fresh = time.Duration(fresh * float64(time.Second))
		return err
	})
	if err != nil {
		return issuer.ClientDocument{}, err
	}
	return d, nil
}

const keepDocumentSQL = `
	WITH client AS (
		INSERT INTO {s}.gpt_clients AS c (client_id, name) VALUES ($1, $2)
		ON CONFLICT (client_id) DO UPDATE SET name = excluded.name, updated_at = clock_timestamp() WHERE c.disabled_at IS NULL
		RETURNING client_id)
	INSERT INTO {s}.gpt_client_documents AS d (client_id, document, fetched_at, fresh_until, unused_ttl)
	SELECT client_id, $3, clock_timestamp(), clock_timestamp() + make_interval(secs => $4::float8), make_interval(secs => $5::float8) FROM client
	ON CONFLICT (client_id) DO UPDATE SET document = excluded.document, fetched_at = excluded.fetched_at, fresh_until = excluded.fresh_until, unused_ttl = excluded.unused_ttl`

// KeepDocument is described at issuer.RegistrationStore.
func (s *Store) KeepDocument(ctx context.Context, d issuer.ClientDocument, unusedTTL time.Duration, origin issuer.Origin) error {
	return s.db.write(ctx, "keep client document", inTx(func(ctx context.Context, tx pgx.Tx) error {
		var known bool
		if err := tx.QueryRow(ctx, s.db.sql(`SELECT EXISTS (SELECT FROM {s}.gpt_client_documents WHERE client_id = $1)`), d.ClientID).Scan(&known); err != nil {
			return err
		}
		if !known {
			if err := s.makeRoom(ctx, tx); err != nil {
				return err
			}
		}
		tag, err := tx.Exec(ctx, s.db.sql(keepDocumentSQL), d.ClientID, d.Name, string(d.Body), d.Fresh.Seconds(), unusedTTL.Seconds())
		if err == nil && tag.RowsAffected() == 0 {
			return issuer.ErrNotFound
		}
		return err
	}))
}

// DropDocument is described at issuer.RegistrationStore. The row stays: the
// sessions of the client hang on it, and its host may think better of it.
func (s *Store) DropDocument(ctx context.Context, clientID string) error {
	return s.db.write(ctx, "drop client document", func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, s.db.sql(`UPDATE {s}.gpt_client_documents SET fresh_until = 'epoch' WHERE client_id = $1`), clientID)
		return err
	})
}

// ApproveClient is described at issuer.RegistrationStore.
func (s *Store) ApproveClient(ctx context.Context, clientID, userID string, revision issuer.Digest) error {
	return s.db.write(ctx, "approve client", inTx(func(ctx context.Context, tx pgx.Tx) error {
		for _, table := range []string{"gpt_client_registrations", "gpt_client_documents"} {
			if _, err := tx.Exec(ctx, s.db.sql(`UPDATE {s}.`+table+` SET used_at = clock_timestamp() WHERE client_id = $1`), clientID); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, s.db.sql(`
			INSERT INTO {s}.gpt_client_approvals (client_id, user_id, revision) VALUES ($1, $2, $3)
			ON CONFLICT (client_id, user_id) DO UPDATE SET revision = excluded.revision, approved_at = clock_timestamp()`), clientID, userID, revision[:])
		if hasCode(err, "23503") {
			return issuer.ErrNotFound
		}
		return err
	}))
}

// ClientApproval is described at issuer.RegistrationStore.
func (s *Store) ClientApproval(ctx context.Context, clientID, userID string) (revision issuer.Digest, err error) {
	err = s.db.read(ctx, "find client approval", func(ctx context.Context, conn *pgxpool.Conn) error {
		var kept []byte
		err := conn.QueryRow(ctx, s.db.sql(`SELECT revision FROM {s}.gpt_client_approvals WHERE client_id = $1 AND user_id = $2`), clientID, userID).Scan(&kept)
		if err == nil && copy(revision[:], kept) != len(revision) {
			return errors.New("the revision is cut off")
		}
		return err
	})
	return revision, err
}
