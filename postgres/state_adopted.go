package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// adoptableTables are those of the replaced system, empty, for adoption to make of
// them what it makes: a database that was adopted is moved with its tokens.
const adoptableTables = `
	CREATE TABLE {{schema}}.gpt_refresh_tokens (
		id uuid PRIMARY KEY DEFAULT gen_random_uuid(), token_hash text NOT NULL UNIQUE, clerk_user_id text NOT NULL, expires_at timestamptz NOT NULL,
		revoked_at timestamptz, rotated_to uuid REFERENCES {{schema}}.gpt_refresh_tokens DEFERRABLE, created_at timestamptz NOT NULL DEFAULT now());
	CREATE TABLE {{schema}}.gpt_authorization_codes (
		id uuid PRIMARY KEY DEFAULT gen_random_uuid(), code text NOT NULL UNIQUE, code_challenge text,
		code_challenge_method text DEFAULT 'S256' CHECK (code_challenge_method IN ('S256', 'plain')),
		clerk_user_id text NOT NULL, redirect_uri text NOT NULL, expires_at timestamptz NOT NULL, used_at timestamptz,
		created_at timestamptz NOT NULL DEFAULT now());
	CREATE TABLE {{schema}}.gpt_sessions (
		id uuid PRIMARY KEY DEFAULT gen_random_uuid(), clerk_user_id text NOT NULL, refresh_token_id uuid REFERENCES {{schema}}.gpt_refresh_tokens,
		last_active timestamptz NOT NULL DEFAULT now(), created_at timestamptz NOT NULL DEFAULT now());
	CREATE TABLE {{schema}}.gpt_oauth_events (
		id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_type text NOT NULL, clerk_user_id text, metadata jsonb DEFAULT '{}', ip_address text,
		created_at timestamptz NOT NULL DEFAULT now());
	CREATE INDEX idx_gpt_oauth_events_user_id ON {{schema}}.gpt_oauth_events (clerk_user_id);
	CREATE INDEX idx_gpt_oauth_events_created_at ON {{schema}}.gpt_oauth_events (created_at DESC)`

// createAdoptable makes them; where they are already, they must be empty, as an
// import leaves them that was interrupted before their adoption.
func createAdoptable(ctx context.Context, cfg MigrateConfig) error {
	if err := withMigrator(ctx, cfg, func(ctx context.Context, m *migrator) error {
		return pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
			s, err := m.state(ctx, tx)
			if err != nil || s.version > 0 {
				return err
			}
			if s.old {
				return m.refuseRows(ctx, tx)
			}
			if err := m.createSchema(ctx, tx); err != nil {
				return err
			}
			_, err = tx.Exec(ctx, m.sql(adoptableTables))
			return err
		})
	}); err != nil {
		return fmt.Errorf("the tables of an adopted database: %w", err)
	}
	return nil
}

func (m *migrator) refuseRows(ctx context.Context, tx pgx.Tx) error {
	var used bool
	err := tx.QueryRow(ctx, m.sql(`SELECT EXISTS (SELECT FROM {{schema}}.gpt_refresh_tokens) OR EXISTS (SELECT FROM {{schema}}.gpt_authorization_codes)
		OR EXISTS (SELECT FROM {{schema}}.gpt_sessions) OR EXISTS (SELECT FROM {{schema}}.gpt_oauth_events)`)).Scan(&used)
	if err == nil && used {
		return fmt.Errorf("%w: it holds the tables of another OAuth system; name an empty database or schema", ErrStateNotEmpty)
	}
	return err
}
