//go:build unix

package postgres_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// The replaced system's tables after its first migration (PROTOCOL 1.1).
const oldFirst = `
CREATE TABLE gpt_refresh_tokens (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), token_hash text NOT NULL UNIQUE, clerk_user_id text NOT NULL,
	expires_at timestamptz NOT NULL, revoked_at timestamptz, rotated_to uuid REFERENCES gpt_refresh_tokens, created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX idx_gpt_refresh_tokens_hash ON gpt_refresh_tokens (token_hash);
CREATE TABLE gpt_authorization_codes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), code text NOT NULL UNIQUE, code_challenge text NOT NULL,
	code_challenge_method text NOT NULL DEFAULT 'S256' CHECK (code_challenge_method IN ('S256', 'plain')), clerk_user_id text NOT NULL, redirect_uri text NOT NULL,
	expires_at timestamptz NOT NULL, used_at timestamptz, created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX idx_gpt_auth_codes_code ON gpt_authorization_codes (code);
CREATE INDEX idx_gpt_auth_codes_active ON gpt_authorization_codes (code) WHERE used_at IS NULL;
CREATE TABLE gpt_sessions (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), clerk_user_id text NOT NULL, refresh_token_id uuid REFERENCES gpt_refresh_tokens,
	last_active timestamptz NOT NULL DEFAULT now(), created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE gpt_oauth_events (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_type text NOT NULL, clerk_user_id text, metadata jsonb DEFAULT '{}',
	ip_address text, created_at timestamptz NOT NULL DEFAULT now());
ALTER TABLE gpt_sessions ENABLE ROW LEVEL SECURITY;`

const oldSecond = `
ALTER TABLE gpt_authorization_codes ADD scopes text[] NOT NULL DEFAULT '{}';
ALTER TABLE gpt_sessions ADD scopes text[] NOT NULL DEFAULT '{}', ADD granted_scopes text[] NOT NULL DEFAULT '{}';`

const oldThird = `
ALTER TABLE gpt_authorization_codes ALTER code_challenge DROP NOT NULL, ALTER code_challenge_method DROP NOT NULL;`

func oldToken(name string) (token string, hash string, d issuer.Digest) {
	sum := sha256.Sum256([]byte(name))
	token = "gpt_rt_" + strings.Repeat(hex.EncodeToString(sum[:16]), 3)
	d = sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(d[:]), d
}

func oldRows() string {
	var b strings.Builder
	id := func(n int) string { return fmt.Sprintf("'00000000-0000-4000-8000-%012d'", n) }
	for n, name := range []string{"", "live", "newer", "expired", "revoked"} {
		if n == 0 {
			continue
		}
		_, hash, _ := oldToken(name)
		expires, revoked := "now() + interval '20 days'", "NULL"
		switch name {
		case "expired":
			expires = "now() - interval '1 day'"
		case "revoked":
			revoked = "now() - interval '1 day'"
		}
		fmt.Fprintf(&b, "INSERT INTO gpt_refresh_tokens (id, token_hash, clerk_user_id, expires_at, revoked_at) VALUES (%s, '%s', 'user_%d', %s, %s);\n", id(n), hash, n, expires, revoked)
		fmt.Fprintf(&b, "INSERT INTO gpt_sessions (id, clerk_user_id, refresh_token_id) VALUES (%s, 'user_%d', %s);\n", id(100+n), n, id(n))
	}
	_, hash, _ := oldToken("rotated")
	fmt.Fprintf(&b, "INSERT INTO gpt_refresh_tokens (id, token_hash, clerk_user_id, expires_at, revoked_at, rotated_to) VALUES (%s, '%s', 'user_2', now() + interval '9 days', now(), %s);\n", id(9), hash, id(2))
	fmt.Fprintf(&b, "INSERT INTO gpt_sessions (id, clerk_user_id) VALUES (%s, 'user_9');\n", id(109))
	b.WriteString("INSERT INTO gpt_authorization_codes (code, code_challenge, clerk_user_id, redirect_uri, expires_at) VALUES ('plain-code', 'c', 'user_1', 'https://x', now() + interval '5 minutes');\n")
	b.WriteString("INSERT INTO gpt_oauth_events (event_type, clerk_user_id) VALUES ('gpt.oauth.authorize', 'user_1');\n")
	return b.String()
}

func TestAdoptionInPlaceOfEachStateOfTheReplacedSystem(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]string{"first": oldFirst, "second": oldFirst + oldSecond, "third": oldFirst + oldSecond + oldThird} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			dsn := postgrestest.New(t)
			sql, err := pgx.Connect(ctx, dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer sql.Close(ctx)
			if _, err := sql.Exec(ctx, schema+oldRows()); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(schema, "granted_scopes") {
				if _, err := sql.Exec(ctx, `UPDATE gpt_sessions SET scopes = '{jobs:read}', granted_scopes = '{resume:read}'`); err != nil {
					t.Fatal(err)
				}
			}
			count := func(table string) (n int) {
				if err := sql.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			before := [4]int{count("gpt_sessions"), count("gpt_refresh_tokens"), count("gpt_authorization_codes"), count("gpt_oauth_events")}

			// Without the word nothing changes.
			err = postgres.Migrate(ctx, postgres.MigrateConfig{DSN: dsn})
			if !errors.Is(err, postgres.ErrAdoptionNeeded) || !strings.Contains(err.Error(), "caddy oauth migrate --adopt") {
				t.Fatalf("got %v", err)
			}
			if n := count("pg_class WHERE relname IN ('gpt_schema_migrations', 'gpt_clients')"); n != 0 {
				t.Fatal("the refusal left something behind")
			}

			cfg := postgres.MigrateConfig{DSN: dsn, AdoptFor: "gpt's"}
			for _, version := range []int{4, 0, 4, 4} {
				if version == 0 {
					err = postgres.MigrateDown(ctx, cfg, 0)
				} else {
					err = postgres.Migrate(ctx, cfg)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if after := [4]int{count("gpt_sessions"), count("gpt_refresh_tokens"), count("gpt_authorization_codes"), count("gpt_oauth_events")}; after != before {
				t.Fatalf("rows before %v, after %v", before, after)
			}
			if n := count("gpt_sessions WHERE client_id = 'gpt''s' AND granted_scopes @> scopes AND user_id <> ''"); n != before[0] {
				t.Fatalf("%d sessions converted", n)
			}
			if n := count("gpt_sessions WHERE revoked_at IS NULL AND expires_at > now()"); n != 2 {
				t.Fatalf("%d sessions alive, want those of the two live tokens", n)
			}
			checkAdoptedTokens(t, dsn)
		})
	}
}

func checkAdoptedTokens(t *testing.T, dsn string) {
	ctx := context.Background()
	db, err := postgres.Open(ctx, postgres.Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store := postgres.NewStore(db)
	find := func(name string, grace time.Duration) (issuer.Session, error) {
		_, _, d := oldToken(name)
		return store.FindAdoptedRefreshToken(ctx, d, "gpt's", grace, issuer.Origin{})
	}
	for _, dead := range []string{"expired", "revoked", "unknown"} {
		if _, err := find(dead, time.Minute); !errors.Is(err, issuer.ErrNotFound) {
			t.Errorf("%s: %v", dead, err)
		}
	}
	session, err := find("live", time.Minute)
	if err != nil || session.Counter != 0 || session.UserID != "user_1" {
		t.Fatalf("%+v, %v", session, err)
	}
	rotation := issuer.Rotation{SessionID: session.ID, ClientID: "gpt's", Grace: time.Minute, AccessTokenTTL: time.Minute}
	for _, resource := range []string{"https://api.test", "https://other.test", ""} { // what was noted first stays
		rotation.Resource = resource
		if r, err := store.RotateRefreshToken(ctx, rotation, issuer.Origin{}); err != nil || r.Session.Counter != 1 || r.Session.Resource != "https://api.test" {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	// Rotated by the replaced system: within the grace as good as its successor, later a replay.
	if _, err := find("rotated", time.Hour); err != nil {
		t.Errorf("within the grace: %v", err)
	}
	if _, err := find("rotated", 0); !errors.Is(err, issuer.ErrReplayed) {
		t.Errorf("past the grace: %v", err)
	}
	if _, err := find("newer", time.Minute); !errors.Is(err, issuer.ErrNotFound) {
		t.Errorf("the replayed session lives: %v", err)
	}
}
