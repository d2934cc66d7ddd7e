package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// maxSelfRegistered bounds the clients that registered themselves and that no
// user has allowed yet. A flood ends there; what was allowed before is not in
// its way.
const maxSelfRegistered = 10_000

// roomForClientSQL takes turns, so that many at once do not each see the last
// place. It is a statement of its own: the next one's snapshot is taken after
// the wait.
const roomForClientSQL = `SELECT pg_advisory_xact_lock(hashtext('gpt_client_registration'), 0)`

const countUnusedSQL = `
	SELECT (SELECT count(*) FROM {s}.gpt_client_registrations WHERE used_at IS NULL)
		+ (SELECT count(*) FROM {s}.gpt_client_documents WHERE used_at IS NULL)`

// makeRoom holds the place of one more client until the transaction ends.
func (s *Store) makeRoom(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, roomForClientSQL); err != nil {
		return err
	}
	var unused int
	if err := tx.QueryRow(ctx, s.db.sql(countUnusedSQL)).Scan(&unused); err != nil {
		return err
	}
	if unused >= maxSelfRegistered {
		return issuer.ErrTooManyClients
	}
	return nil
}

// RegisterClient is described at issuer.RegistrationStore.
func (s *Store) RegisterClient(ctx context.Context, r issuer.ClientRegistration, unusedTTL time.Duration, origin issuer.Origin) error {
	return s.db.write(ctx, "register client", inTx(func(ctx context.Context, tx pgx.Tx) error {
		if err := s.makeRoom(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, s.db.sql(`
			WITH client AS (
				INSERT INTO {s}.gpt_clients (client_id, name) VALUES ($1, $2)),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, client_id, ip_address, request_id) VALUES ('gpt.oauth.client_registered', $1, $7::text, $8::text))
			INSERT INTO {s}.gpt_client_registrations (client_id, metadata, secret_hash, token_hash, unused_ttl)
			VALUES ($1, $3::text::json, $4, $5, make_interval(secs => $6::float8))`),
			r.ClientID, r.Name, string(r.Metadata), orNoDigest(r.Secret), r.AccessToken[:], unusedTTL.Seconds(), address(origin), requestID(origin))
		return err
	}))
}

// FindRegistration is described at issuer.RegistrationStore.
func (s *Store) FindRegistration(ctx context.Context, clientID string) (r issuer.ClientRegistration, err error) {
	const step = "find registration"
	if !isText(clientID) {
		return r, wrap(step, issuer.ErrNotFound)
	}
	err = s.db.read(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		var secret, token []byte
		err := conn.QueryRow(ctx, s.db.sql(`
			SELECT c.client_id, c.name, r.metadata, r.secret_hash, r.token_hash, r.issued_at
			FROM {s}.gpt_client_registrations r JOIN {s}.gpt_clients c USING (client_id)
			WHERE c.client_id = $1 AND c.disabled_at IS NULL`), clientID).Scan(&r.ClientID, &r.Name, &r.Metadata, &secret, &token, &r.IssuedAt)
		if err != nil {
			return err
		}
		r.AccessToken = issuer.Digest(token)
		if secret != nil {
			digest := issuer.Digest(secret)
			r.Secret = &digest
		}
		return nil
	})
	if err != nil {
		return issuer.ClientRegistration{}, err
	}
	return r, nil
}

// UpdateRegistration is described at issuer.RegistrationStore.
func (s *Store) UpdateRegistration(ctx context.Context, r issuer.ClientRegistration, origin issuer.Origin) error {
	return s.db.write(ctx, "update registration", func(ctx context.Context, conn *pgxpool.Conn) error {
		var updated bool
		return conn.QueryRow(ctx, s.db.sql(`
			WITH registration AS (
				UPDATE {s}.gpt_client_registrations r SET metadata = $3::text::json, secret_hash = $4
				FROM {s}.gpt_clients c WHERE r.client_id = $1 AND r.token_hash = $5 AND c.client_id = r.client_id AND c.disabled_at IS NULL
				RETURNING r.client_id),
			client AS (
				UPDATE {s}.gpt_clients c SET name = $2, updated_at = clock_timestamp() FROM registration r WHERE c.client_id = r.client_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, client_id, ip_address, request_id)
				SELECT 'gpt.oauth.client_updated', client_id, $6::text, $7::text FROM registration)
			SELECT true FROM registration`),
			r.ClientID, r.Name, string(r.Metadata), orNoDigest(r.Secret), r.AccessToken[:], address(origin), requestID(origin)).Scan(&updated)
	})
}

// DeleteRegistration is described at issuer.RegistrationStore. The sessions go
// with the client, and their trigger tells every node.
func (s *Store) DeleteRegistration(ctx context.Context, clientID string, accessToken issuer.Digest, origin issuer.Origin) error {
	return s.db.write(ctx, "delete registration", func(ctx context.Context, conn *pgxpool.Conn) error {
		var deleted bool
		return conn.QueryRow(ctx, s.db.sql(`
			WITH client AS (
				DELETE FROM {s}.gpt_clients c USING {s}.gpt_client_registrations r
				WHERE c.client_id = $1 AND r.client_id = c.client_id AND r.token_hash = $2
				RETURNING c.client_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, client_id, ip_address, request_id)
				SELECT 'gpt.oauth.client_deleted', client_id, $3::text, $4::text FROM client)
			SELECT true FROM client`), clientID, accessToken[:], address(origin), requestID(origin)).Scan(&deleted)
	})
}

func orNoDigest(d *issuer.Digest) []byte {
	if d == nil {
		return nil
	}
	return d[:]
}
