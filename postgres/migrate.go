package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/migrations"
)

// Why a migration refuses. Nothing was changed.
var (
	// ErrNewerSchema: the database was migrated by a newer binary.
	ErrNewerSchema = errors.New("the database is newer than this binary")
	// ErrAdoptionNeeded: the database holds the tables of the replaced system,
	// and nobody said that they may be taken over.
	ErrAdoptionNeeded = errors.New("the database holds the tables of another OAuth system")
)

// MigrateConfig says which schema to bring up to date.
type MigrateConfig struct {
	// DSN of a role that may create tables. Required.
	DSN string
	// Schema; empty: public.
	Schema string
	// Pooled: DSN leads through a transaction pooler.
	Pooled bool
	// AdoptFor is the client to which the sessions of the replaced system then
	// belong; empty: such a database is refused.
	AdoptFor string
	// Wait bounds the whole; zero: 5 minutes.
	Wait time.Duration
	// Logger; nil: none.
	Logger *zap.Logger
}

// Status is where a schema stands.
type Status struct {
	Version, Latest int
	// Adoptable: the tables of the replaced system are there, not taken over.
	Adoptable bool
}

const (
	// leaseFor is how long a step outside transactions is left to its holder
	// after the last sign of life.
	leaseFor = 12 * time.Second
	pollFor  = 100 * time.Millisecond
)

// errBusy: another process is at work; poll.
var errBusy = errors.New("another process is migrating")

// Migrate brings the schema up to date. Any number of processes may call it at
// once: one applies a step, the others poll. Killed at any point, the next call
// goes on from there. ErrNewerSchema, ErrAdoptionNeeded.
func Migrate(ctx context.Context, cfg MigrateConfig) error {
	return withMigrator(ctx, cfg, func(ctx context.Context, m *migrator) error { return m.moveTo(ctx, len(m.all)) })
}

// MigrateDown takes the schema down to a version; 0 removes everything that is
// ours. Tables that were adopted are given back, with all rows.
func MigrateDown(ctx context.Context, cfg MigrateConfig, version int) error {
	if version < 0 {
		return fmt.Errorf("migrate down: there is no version %d", version)
	}
	return withMigrator(ctx, cfg, func(ctx context.Context, m *migrator) error { return m.moveTo(ctx, version) })
}

// MigrationStatus tells where the schema stands and changes nothing.
func MigrationStatus(ctx context.Context, cfg MigrateConfig) (Status, error) {
	var status Status
	err := withMigrator(ctx, cfg, func(ctx context.Context, m *migrator) error {
		s, err := m.state(ctx, m.conn)
		status = Status{Version: s.version, Latest: len(m.all), Adoptable: s.old && s.version < 2}
		return err
	})
	return status, err
}

type migrator struct {
	cfg    MigrateConfig
	all    []migrations.Migration
	conn   *pgx.Conn
	holder string
}

var schemaName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,62}$`)

// quoteSchema checks and quotes the schema's name; empty means public.
func quoteSchema(name string) (string, error) {
	if name == "" {
		name = "public"
	}
	if !schemaName.MatchString(name) {
		return "", fmt.Errorf("schema %q: letters, digits, _ and - only", name)
	}
	return pgx.Identifier{name}.Sanitize(), nil
}

func withMigrator(ctx context.Context, cfg MigrateConfig, do func(context.Context, *migrator) error) error {
	if cfg.Wait == 0 {
		cfg.Wait = 5 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Schema == "" {
		cfg.Schema = "public"
	}
	if _, err := quoteSchema(cfg.Schema); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	all, err := migrations.All()
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Wait)
	defer cancel()
	m := &migrator{cfg: cfg, all: all, holder: uuid.NewString()}
	if m.conn, err = m.connect(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer m.conn.Close(context.WithoutCancel(ctx))
	if err := do(ctx, m); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func (m *migrator) connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(m.cfg.DSN)
	if err != nil {
		return nil, errors.New("the DSN cannot be parsed") // pgx's error may quote it
	}
	// Scripts of several statements; and no named statement, for poolers.
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", hostsOf(&config.Config), err)
	}
	return conn, nil
}

// moveTo applies steps until the schema is at version.
func (m *migrator) moveTo(ctx context.Context, version int) error {
	for {
		at, err := m.step(ctx, version)
		var pgErr *pgconn.PgError
		switch {
		case err == nil && at == version:
			return nil
		case err == nil:
			continue
		case errors.Is(err, errBusy):
		case errors.As(err, &pgErr) && (pgErr.Code == "55P03" || pgErr.Code == "40P01" || pgErr.Code == "25P02"):
			// lock_timeout or deadlock: give way to the running traffic, then again.
			m.cfg.Logger.Info("migration gives way", zap.String("code", pgErr.Code))
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("schema is at version %d, wanted %d: %w (%w)", at, version, ctx.Err(), err)
		case <-time.After(pollFor):
		}
	}
}

type queryRower interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

type state struct {
	version int
	pending int // the step that runs, or was interrupted, outside transactions; 0: none
	leased  bool
	tables  bool // gpt_schema_migrations exists
	old     bool // gpt_refresh_tokens, which only the replaced system makes
	strange string
}

// state reads where the schema stands. It changes nothing.
func (m *migrator) state(ctx context.Context, q queryRower) (s state, err error) {
	var sessions, codes, events, clerk bool
	err = q.QueryRow(ctx, m.sql(`SELECT to_regclass($1) IS NOT NULL, to_regclass($2) IS NOT NULL, to_regclass($3) IS NOT NULL, to_regclass($4) IS NOT NULL, to_regclass($5) IS NOT NULL,
		EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($3) AND attname = 'clerk_user_id' AND NOT attisdropped)`),
		m.sql("{{schema}}.gpt_schema_migrations"), m.sql("{{schema}}.gpt_refresh_tokens"), m.sql("{{schema}}.gpt_sessions"),
		m.sql("{{schema}}.gpt_authorization_codes"), m.sql("{{schema}}.gpt_oauth_events")).
		Scan(&s.tables, &s.old, &sessions, &codes, &events, &clerk)
	if err != nil {
		return s, fmt.Errorf("read the state of the schema: %w", err)
	}
	var name string
	if s.tables {
		err = q.QueryRow(ctx, m.sql(`SELECT coalesce(max(version) FILTER (WHERE applied_at IS NOT NULL), 0),
			coalesce(max(version) FILTER (WHERE applied_at IS NULL), 0),
			coalesce(bool_or(applied_at IS NULL AND lease_holder <> $1 AND lease_until > clock_timestamp()), false),
			coalesce((SELECT name FROM {{schema}}.gpt_schema_migrations WHERE applied_at IS NOT NULL ORDER BY version DESC LIMIT 1), '')
			FROM {{schema}}.gpt_schema_migrations`), m.holder).Scan(&s.version, &s.pending, &s.leased, &name)
		if err != nil {
			return s, fmt.Errorf("read the state of the schema: %w", err)
		}
	}
	switch {
	case max(s.version, s.pending) > len(m.all):
		return s, fmt.Errorf("%w: schema %s is at version %d (%s), this binary knows versions up to %d; start the newer binary, or take the schema down with it first",
			ErrNewerSchema, m.cfg.Schema, max(s.version, s.pending), name, len(m.all))
	case s.version > 0 && name != m.all[s.version-1].Name:
		return s, fmt.Errorf("schema %s: version %d is called %q there and %q here; it is not this program's", m.cfg.Schema, s.version, name, m.all[s.version-1].Name)
	case s.version < 2 && (sessions || codes || events || s.old) && (!clerk || !sessions || !codes || !events || !s.old):
		s.strange = fmt.Sprintf("schema %s holds some gpt_ tables but not the four of the replaced system (gpt_sessions, gpt_authorization_codes, gpt_oauth_events, gpt_refresh_tokens with clerk_user_id); use another schema", m.cfg.Schema)
	}
	return s, nil
}

// step makes one step towards version and returns where the schema stands.
func (m *migrator) step(ctx context.Context, version int) (at int, err error) {
	s, err := m.state(ctx, m.conn)
	if err != nil || (s.version == version && s.pending == 0) {
		return s.version, err
	}
	if s.version > version && s.pending == 0 && version == len(m.all) {
		return s.version, nil
	}
	up := s.version < version
	if up && s.version < 2 {
		if s.strange != "" {
			return s.version, errors.New(s.strange)
		}
		if s.old && m.cfg.AdoptFor == "" {
			return s.version, fmt.Errorf("%w: schema %s has gpt_sessions with clerk_user_id. Nothing was changed. Stop the old service, then run `caddy oauth migrate --adopt CLIENT` "+
				"or write `postgres … { adopt_for CLIENT }`, where CLIENT is the confidential client of the Caddyfile to which the old sessions belong; or name another database or schema", ErrAdoptionNeeded, m.cfg.Schema)
		}
	}
	if s.leased {
		return s.version, errBusy
	}
	target := s.version
	switch {
	case up:
		target++
	case s.pending > 0: // interrupted outside transactions: take it back first
		target = s.pending
	}
	migration := m.all[target-1]
	script := migration.Up
	if !up {
		script = migration.Down
	}
	if s.old && up && migration.AdoptUp != "" {
		script = migration.AdoptUp
	}
	if s.old && !up && migration.AdoptDown != "" {
		script = migration.AdoptDown
	}
	script = m.sql(script)
	if strings.HasPrefix(script, migrations.NoTransaction) {
		err = m.runConcurrently(ctx, s, migration, script, up)
	} else {
		err = m.runInTransaction(ctx, s, migration, script, up)
	}
	if err != nil {
		return s.version, err
	}
	m.cfg.Logger.Info("schema migrated", zap.Int("version", migration.Version), zap.String("name", migration.Name), zap.Bool("up", up))
	if up {
		return target, nil
	}
	return target - 1, nil
}

// locked runs do in a transaction that holds the migration lock. The lock is
// only tried: who waits in it holds a snapshot, and CREATE INDEX CONCURRENTLY
// elsewhere waits for that.
func (m *migrator) locked(ctx context.Context, seen state, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
		var got bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(hashtext($1), hashtext('migrate'))`, "gpt:"+m.cfg.Schema).Scan(&got); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		if !got {
			return errBusy
		}
		now, err := m.state(ctx, tx)
		if err != nil {
			return err
		}
		if now.version != seen.version || now.pending != seen.pending || now.leased {
			return errBusy // somebody was faster: look again
		}
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '500ms'; SET LOCAL idle_in_transaction_session_timeout = '60s'`); err != nil {
			return err
		}
		if err := m.createSchema(ctx, tx); err != nil {
			return err
		}
		if !now.tables {
			if _, err := tx.Exec(ctx, m.sql(`CREATE TABLE {{schema}}.gpt_schema_migrations (
				version      int PRIMARY KEY CHECK (version > 0),
				name         text NOT NULL,
				applied_at   timestamptz, -- NULL: runs, or was interrupted, outside transactions
				lease_holder uuid,
				lease_until  timestamptz);
				ALTER TABLE {{schema}}.gpt_schema_migrations ENABLE ROW LEVEL SECURITY`)); err != nil {
				return fmt.Errorf("create the version table: %w", err)
			}
		}
		return do(tx)
	})
}

// createSchema creates the schema only where there is none: CREATE SCHEMA IF NOT
// EXISTS refuses a role that owns the schema and not the database.
func (m *migrator) createSchema(ctx context.Context, tx pgx.Tx) error {
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, m.cfg.Schema).Scan(&exists); err != nil || exists {
		return err
	}
	if _, err := tx.Exec(ctx, m.sql(`CREATE SCHEMA {{schema}}`)); err != nil {
		return fmt.Errorf("create schema %s: %w", m.cfg.Schema, err)
	}
	return nil
}

func (m *migrator) runInTransaction(ctx context.Context, s state, migration migrations.Migration, script string, up bool) error {
	return m.locked(ctx, s, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, script); err != nil {
			return fmt.Errorf("version %d (%s): %w", migration.Version, migration.Name, err)
		}
		return m.record(ctx, tx, migration, up)
	})
}

func (m *migrator) record(ctx context.Context, tx pgx.Tx, migration migrations.Migration, up bool) error {
	sql := `INSERT INTO {{schema}}.gpt_schema_migrations (version, name, applied_at) VALUES ($1, $2, clock_timestamp())
		ON CONFLICT (version) DO UPDATE SET applied_at = excluded.applied_at, lease_holder = NULL, lease_until = NULL`
	if !up {
		sql = `DELETE FROM {{schema}}.gpt_schema_migrations WHERE version = $1 AND name = $2`
	}
	if _, err := tx.Exec(ctx, m.sql(sql), migration.Version, migration.Name); err != nil {
		return fmt.Errorf("record version %d: %w", migration.Version, err)
	}
	if !up && migration.Version == 1 {
		if _, err := tx.Exec(ctx, m.sql(`DROP TABLE {{schema}}.gpt_schema_migrations`)); err != nil {
			return fmt.Errorf("drop the version table: %w", err)
		}
	}
	return nil
}

func (m *migrator) sql(text string) string {
	schema, _ := quoteSchema(m.cfg.Schema)
	client := "'" + strings.ReplaceAll(m.cfg.AdoptFor, "'", "''") + "'"
	return strings.ReplaceAll(strings.ReplaceAll(text, "{{schema}}", schema), "{{client}}", client)
}

// hostsOf names the servers of a configuration, never its password.
func hostsOf(config *pgconn.Config) string {
	hosts := []string{fmt.Sprintf("%s:%d", config.Host, config.Port)}
	for _, fallback := range config.Fallbacks {
		if host := fmt.Sprintf("%s:%d", fallback.Host, fallback.Port); host != hosts[len(hosts)-1] {
			hosts = append(hosts, host)
		}
	}
	return strings.Join(hosts, ", ")
}
