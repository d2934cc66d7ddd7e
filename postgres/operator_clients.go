package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// OperatorClient is a client that an operator has added.
type OperatorClient struct {
	ID, Name string
	Settings []byte // JSON; what stands in it is the caller's affair
	// Secret is the digest of its secret; nil: it has none. Previous is that of the
	// one before while it still holds, by the database's clock.
	Secret, Previous *issuer.Digest
	SecretSince      *time.Time
	PreviousUntil    *time.Time // nil unless Previous is set
	CreatedAt        time.Time
	DisabledAt       *time.Time
}

const operatorClientColumns = `o.client_id, c.name, o.settings, o.secret_hash, o.secret_since,
	CASE WHEN o.previous_until > clock_timestamp() THEN o.previous_hash END,
	CASE WHEN o.previous_until > clock_timestamp() THEN o.previous_until END, o.created_at, c.disabled_at`

func scanOperatorClient(row pgx.Row, more ...any) (c OperatorClient, err error) {
	var secret, previous []byte
	err = row.Scan(append([]any{&c.ID, &c.Name, &c.Settings, &secret, &c.SecretSince, &previous, &c.PreviousUntil, &c.CreatedAt, &c.DisabledAt}, more...)...)
	if err == nil && secret != nil {
		digest := issuer.Digest(secret)
		c.Secret = &digest
	}
	if err == nil && previous != nil {
		digest := issuer.Digest(previous)
		c.Previous = &digest
	}
	return c, err
}

// FindOperatorClient returns the client, also when it is disabled. ErrNotFound.
// It is asked by every request of such a client; concurrent ones share round
// trips.
func (s *Store) FindOperatorClient(ctx context.Context, clientID string) (OperatorClient, error) {
	const step = "find operator client"
	if !isText(clientID) {
		return OperatorClient{}, wrap(step, issuer.ErrNotFound)
	}
	client, err := s.operatorClients.join(ctx, clientID)
	return client, wrap(step, err)
}

func (s *Store) findOperatorClients(ctx context.Context, batch []*passenger[string, OperatorClient]) {
	ids := make(pgtype.FlatArray[string], len(batch))
	for i, p := range batch {
		ids[i] = p.ask
	}
	lookUp[string, OperatorClient]{
		step: "read operator clients",
		sql: `SELECT ` + operatorClientColumns + `, ` + takesWrites + `
			FROM {s}.gpt_operator_clients o JOIN {s}.gpt_clients c USING (client_id) WHERE o.client_id = ANY ($1)`, args: []any{ids},
		scan: func(row pgx.Row) (string, OperatorClient, error) {
			var primary bool
			client, err := scanOperatorClient(row, &primary)
			if err == nil && !primary { // a secret may hold there that holds no more
				err = errReadOnly
			}
			return client.ID, client, err
		},
	}.answer(ctx, s.db, batch)
}

// OperatorClients returns clients ordered by id, those after the given one, at
// most limit, also disabled ones.
func (s *Store) OperatorClients(ctx context.Context, after string, limit int) ([]OperatorClient, error) {
	return list(ctx, s.db, "list operator clients", func(row pgx.Row) (OperatorClient, error) { return scanOperatorClient(row) }, `
		SELECT `+operatorClientColumns+`
		FROM {s}.gpt_operator_clients o JOIN {s}.gpt_clients c USING (client_id) WHERE o.client_id > $1 ORDER BY o.client_id LIMIT $2`, after, limit)
}

// AddOperatorClient stores a new client: ID, Name, Settings and Secret.
// issuer.ErrExists: a client or a user has this id; a user with the name of a
// client would pass for one that acts for itself.
func (s *Store) AddOperatorClient(ctx context.Context, c OperatorClient) error {
	return s.db.write(ctx, "add operator client", func(ctx context.Context, conn *pgxpool.Conn) error {
		tag, err := conn.Exec(ctx, s.db.sql(`
			WITH client AS (
				INSERT INTO {s}.gpt_clients (client_id, name) SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM {s}.gpt_users WHERE id = $1)
				ON CONFLICT DO NOTHING RETURNING client_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, client_id, metadata) SELECT 'gpt.oauth.client_added', client_id, '`+byOperator+`' FROM client)
			INSERT INTO {s}.gpt_operator_clients (client_id, settings, secret_hash, secret_since)
			SELECT client_id, $3::text::json, $4::bytea, CASE WHEN $4::bytea IS NOT NULL THEN clock_timestamp() END FROM client`),
			c.ID, c.Name, string(c.Settings), orNoDigest(c.Secret))
		if err == nil && tag.RowsAffected() == 0 {
			return issuer.ErrExists
		}
		return err
	})
}

// byOperator is in the metadata of what no request of a client or user did.
const byOperator = `{"by":"operator"}`

// RotateOperatorSecret gives the client another secret; the one before goes on
// for overlap, and that before it ends. ErrNotFound: there is no such client, or
// it has no secret.
func (s *Store) RotateOperatorSecret(ctx context.Context, clientID string, secret issuer.Digest, overlap time.Duration) error {
	return s.db.write(ctx, "rotate client secret", func(ctx context.Context, conn *pgxpool.Conn) error {
		var rotated bool
		return conn.QueryRow(ctx, s.db.sql(`
			WITH rotated AS (
				UPDATE {s}.gpt_operator_clients SET secret_hash = $2, secret_since = clock_timestamp(),
					previous_hash = CASE WHEN $3::float8 > 0 THEN secret_hash END,
					previous_until = CASE WHEN $3::float8 > 0 THEN clock_timestamp() + make_interval(secs => $3::float8) END
				WHERE client_id = $1 AND secret_hash IS NOT NULL RETURNING client_id, previous_until),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, client_id, metadata)
				SELECT 'gpt.oauth.client_secret_rotated', client_id, jsonb_build_object('by', 'operator', 'previous_until', previous_until) FROM rotated)
			SELECT true FROM rotated`), clientID, secret[:], overlap.Seconds()).Scan(&rotated)
	})
}
