package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A file of all state is lines of JSON: a header (StateHeader), a line for each
// row, which is an object of one member, the row by its table, and a trailer
// (stateTrailer) by which a file that was cut off or changed is known.
const (
	stateFormat  = "caddy-scope state"
	stateVersion = 1
	// maxStateLine bounds a row. None comes near: what clients and users may make
	// large is bounded by kilobytes.
	maxStateLine = 16 << 20
)

// Why a file of state is not imported. Nothing was changed.
var (
	// ErrStateFile: it is none, or another version's, or damaged.
	ErrStateFile = errors.New("this file cannot be imported")
	// ErrStateNotEmpty: the schema holds something.
	ErrStateNotEmpty = errors.New("the schema is in use")
	// ErrStateSecret: it was written with another root secret.
	ErrStateSecret = errors.New("the file was written with another root secret")
)

// StateConfig says which schema to export, or to import into.
type StateConfig struct {
	// DSN of the role that owns the tables. Required.
	DSN string
	// Schema; empty: public.
	Schema string
	// Issuer goes into the header of an export, for whoever finds the file.
	Issuer string
	// Fingerprints of the root secrets, as for Store.CheckRootSecret. Import only.
	Fingerprints []string
	// Told, unless nil, hears how many rows have been written or read.
	Told func(rows int)
}

// StateHeader is the first line of a file.
type StateHeader struct {
	Format        string    `json:"format"`
	Version       int       `json:"version"`
	SchemaVersion int       `json:"schema_version"`
	Issuer        string    `json:"issuer,omitempty"`
	Fingerprint   string    `json:"root_secret_fingerprint"`
	ExportedAt    time.Time `json:"exported_at"`
	// Tables are those of the file, with their columns.
	Tables map[string][]string `json:"tables"`
}

// stateTrailer is the last line.
type stateTrailer struct {
	End struct {
		Rows map[string]int64 `json:"rows"`
		// SHA256 of every byte before this line, in hex.
		SHA256 string `json:"sha256"`
	} `json:"end"`
}

// stateTable is a table whose rows a file holds.
type stateTable struct {
	name string
	// not are columns that mean nothing in another server.
	not []string
}

// adoptedTokens is a table of adopted databases only.
const adoptedTokens = "gpt_refresh_tokens"

// stateTables are all tables but gpt_schema_migrations, which comes with the schema,
// gpt_rates, whose quotas are whole again in a moment, and gpt_revocations, which tells running nodes what has changed: none runs on a
// schema that is imported into, and that a session has ended is in its row. Each comes
// after those that it refers to.
var stateTables = []stateTable{
	{name: "gpt_settings"},
	{name: "gpt_clients"},
	{name: "gpt_operator_clients"},
	{name: "gpt_client_registrations"},
	{name: "gpt_client_documents"},
	{name: "gpt_client_assertions"},
	{name: "gpt_pushed_requests"},
	{name: "gpt_signing_keys"},
	{name: "gpt_users"},
	{name: "gpt_identities"},
	{name: "gpt_passkeys"},
	{name: "gpt_second_factors"},
	{name: "gpt_recovery_codes"},
	{name: "gpt_password_resets"},
	{name: "gpt_logins"},
	{name: adoptedTokens},
	// rt_rotation is a transaction of the server. In another one it may come to be
	// the transaction of a refresh, which would then take a repetition for a move.
	{name: "gpt_sessions", not: []string{"rt_rotation"}},
	{name: "gpt_session_calls"},
	{name: "gpt_delegated_sessions"},
	{name: "gpt_authorization_codes"},
	{name: "gpt_device_codes"},
	{name: "gpt_client_approvals"},
	{name: "gpt_dpop_proofs"},
	{name: "gpt_used_once"},
	{name: "gpt_oauth_events", not: []string{"xact"}},
	// What had not gone to a webhook goes from the new server, by seen_at.
	{name: "gpt_event_cursors", not: []string{"place", "xact"}},
}

// stateConn is a connection to one schema. It is not of the pool: it may belong to
// another role, and nothing else goes on in the schema.
type stateConn struct {
	*pgx.Conn
	schema string // quoted
}

func connectState(ctx context.Context, cfg StateConfig) (*stateConn, error) {
	schema, err := quoteSchema(cfg.Schema)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(cfg.DSN)
	if err != nil {
		return nil, errors.New("the DSN cannot be parsed") // pgx's error may quote it
	}
	// No named statement, for poolers.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectLimit
	}
	config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite // a standby may be behind
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", hostsOf(&config.Config), err)
	}
	return &stateConn{conn, schema}, nil
}

// exactly has values written so that any server reads them as the same, and no
// rows left out that row level security hides.
const exactly = `SELECT set_config(name, value, true) FROM (VALUES
	('timezone', 'UTC'), ('intervalstyle', 'postgres'), ('bytea_output', 'hex'), ('row_security', 'off')) AS s (name, value)`

// begin runs the one transaction of an export or import. Once it has come to
// COMMIT it is not interrupted: nobody would know what became of it.
func (c *stateConn) begin(ctx context.Context, options pgx.TxOptions, do func(pgx.Tx) error) error {
	tx, err := c.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	lasting := context.WithoutCancel(ctx)
	defer func() { _ = tx.Rollback(lasting) }() // nothing, after COMMIT
	for _, set := range []string{unhurried, exactly} {
		if _, err := tx.Exec(ctx, set); err != nil {
			return err
		}
	}
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit(lasting)
}

// columns are those of each table of a file, in order, as the schema has them.
func (c *stateConn) columns(ctx context.Context, tx pgx.Tx) (map[string][]string, error) {
	columns := make(map[string][]string)
	for _, table := range stateTables {
		var names []string
		err := tx.QueryRow(ctx, `SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
			WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`, c.table(table.name)).Scan(&names)
		switch {
		case err != nil:
			return nil, err
		case names != nil:
			columns[table.name] = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(table.not, name) })
		case table.name != adoptedTokens:
			return nil, fmt.Errorf("there is no table %s; bring the schema up to date: caddy oauth migrate", c.table(table.name))
		}
	}
	return columns, nil
}

func (c *stateConn) table(name string) string { return c.schema + "." + name }

func quoteAll(names []string) []string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = pgx.Identifier{name}.Sanitize()
	}
	return quoted
}
