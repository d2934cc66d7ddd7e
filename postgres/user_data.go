package postgres

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// personalTable holds what is known about users.
type personalTable struct {
	name string
	// of is the condition of the rows about user $1.
	of string
	// secret are the columns that are not handed out: hashes and sealed values,
	// of which whoever has them could make something.
	secret []string
	// stays: erasing a user does not delete these rows.
	stays bool
}

const ofUser, ofSessions = `user_id = $1`, `session_id IN (SELECT id FROM {s}.gpt_sessions WHERE user_id = $1)`

// personalTables are all that hold something about a user, in the order in which
// it is deleted. The row of the user goes first: a trigger then ends logins and
// sessions in the order that a sign-in and a redemption in progress bear. Codes
// go before the sessions that may just be made of them, sessions before the
// adopted tokens that they refer to.
var personalTables = []personalTable{
	{name: "gpt_users", of: `id = $1`, secret: []string{"password_hash"}},
	{name: "gpt_identities", of: ofUser},
	{name: "gpt_passkeys", of: ofUser},
	{name: "gpt_second_factors", of: ofUser, secret: []string{"sealed"}},
	{name: "gpt_recovery_codes", of: ofUser, secret: []string{"digest"}},
	{name: "gpt_password_resets", of: ofUser, secret: []string{"digest"}},
	{name: "gpt_logins", of: ofUser, secret: []string{"digest", "logout_hint"}},
	{name: "gpt_authorization_codes", of: ofUser, secret: []string{"code_hash", "code_challenge", "nonce"}},
	{name: "gpt_device_codes", of: ofUser, secret: []string{"device_hash", "user_code_hash"}},
	{name: "gpt_session_calls", of: ofSessions},
	{name: "gpt_delegated_sessions", of: ofSessions},
	// Nodes must hear of the sessions that end here. A row goes by itself, soon.
	{name: "gpt_revocations", of: ofSessions, stays: true},
	{name: "gpt_sessions", of: ofUser},
	{name: "gpt_refresh_tokens", of: ofUser, secret: []string{"token_hash"}}, // of an adopted database
	{name: "gpt_client_approvals", of: ofUser, secret: []string{"revision"}},
	// The audit trail is kept, about somebody whom nobody can name.
	{name: "gpt_oauth_events", of: ofUser, stays: true},
	// An erasure that was begun and is not done.
	{name: "gpt_settings", of: `key = '` + erasing + `' || $1`, secret: []string{"value"}, stays: true},
}

// HeldRows is how many rows of a table are about a user.
type HeldRows struct {
	Table string
	Rows  int64
	// Stays: the rows are no more about the user once the user is erased.
	Stays bool
}

// FindHeld returns the id of the user who has this address, or whose id it is,
// and how many rows of each table are about the user; tables without any are left
// out. A user need not have a row in gpt_users: who signed in at the system that
// went before may have sessions only. ErrNotFound: nothing is held.
// ErrExists: it is the address of one and the id of another user, or a client.
func (s *Store) FindHeld(ctx context.Context, name string) (userID string, held []HeldRows, err error) {
	err = s.db.long(ctx, "find what is held about a user", oneSnapshot, func(ctx context.Context, tx pgx.Tx) error {
		userID = name
		var byAddress *string
		var client bool
		err := tx.QueryRow(ctx, s.db.sql(`SELECT (SELECT id FROM {s}.gpt_users WHERE `+byEmail+`), EXISTS (SELECT FROM {s}.gpt_clients WHERE client_id = $1)`), name).Scan(&byAddress, &client)
		if err != nil {
			return err
		}
		if client {
			return fmt.Errorf("%s is the id of a client: %w", name, issuer.ErrExists)
		}
		if held, err = s.heldAbout(ctx, tx, name); err != nil || byAddress == nil || *byAddress == name {
			return err
		}
		if len(held) > 0 {
			return fmt.Errorf("%s is the id of a user, and the address of the user %s: %w", name, *byAddress, issuer.ErrExists)
		}
		userID = *byAddress
		held, err = s.heldAbout(ctx, tx, userID)
		return err
	})
	if err == nil && len(held) == 0 {
		err = wrap("find what is held about a user", issuer.ErrNotFound)
	}
	return userID, held, err
}

func (s *Store) heldAbout(ctx context.Context, tx pgx.Tx, userID string) (held []HeldRows, err error) {
	tables, err := s.personalTables(ctx, tx)
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		rows := HeldRows{Table: table.name, Stays: table.stays}
		if err := tx.QueryRow(ctx, s.db.sql(`SELECT count(*) FROM {s}.`+table.name+` WHERE `+table.of), userID).Scan(&rows.Rows); err != nil {
			return nil, err
		}
		if rows.Rows > 0 {
			held = append(held, rows)
		}
	}
	return held, nil
}

// personalTables are those that there are: gpt_refresh_tokens is only in an
// adopted database.
func (s *Store) personalTables(ctx context.Context, tx pgx.Tx) ([]personalTable, error) {
	var adopted bool
	err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, s.db.sql("{s}.gpt_refresh_tokens")).Scan(&adopted)
	return slices.DeleteFunc(slices.Clone(personalTables), func(t personalTable) bool { return t.name == "gpt_refresh_tokens" && !adopted }), err
}

// UserData is what a document about a user begins with.
type UserData struct {
	Format     string    `json:"format"`
	Version    int       `json:"version"`
	Issuer     string    `json:"issuer"`
	UserID     string    `json:"user_id"`
	ExportedAt time.Time `json:"exported_at"`
}

const (
	userDataFormat  = "caddy-scope user data"
	userDataVersion = 1
)

// ExportUser writes all that is held about a user as one JSON object: the members
// of UserData, and one for each table, named without gpt_, with its rows as they
// are but for secrets. It is all of one moment. told, unless nil, hears how many
// rows are written. When it fails, what was written is no JSON.
func (s *Store) ExportUser(ctx context.Context, w io.Writer, issuerID, userID string, told func(rows int)) error {
	return s.db.long(ctx, "export a user", oneSnapshot, func(ctx context.Context, tx pgx.Tx) error {
		data := UserData{Format: userDataFormat, Version: userDataVersion, Issuer: issuerID, UserID: userID}
		if err := tx.QueryRow(ctx, `SELECT now()`).Scan(&data.ExportedAt); err != nil {
			return err
		}
		head, err := json.MarshalIndent(data, "", "  ")
		if err != nil {
			return err
		}
		tables, err := s.personalTables(ctx, tx)
		if err != nil {
			return err
		}
		out := bufio.NewWriter(w) // it keeps the first error
		fmt.Fprintf(out, "%s", strings.TrimSuffix(string(head), "\n}"))
		written := 0
		for _, table := range tables {
			fmt.Fprintf(out, ",\n  %q: [", strings.TrimPrefix(table.name, "gpt_"))
			separator := "\n    "
			err := s.personalRows(ctx, tx, table, userID, func(row []byte) error {
				fmt.Fprintf(out, "%s%s", separator, row)
				separator = ",\n    "
				if written++; told != nil {
					told(written)
				}
				_, err := out.Write(nil) // nothing, but what became of the rest
				return err
			})
			if err != nil {
				return err
			}
			fmt.Fprint(out, "]")
		}
		fmt.Fprint(out, "\n}\n")
		return out.Flush()
	})
}

// personalRows gives each row about the user as a JSON object, without secrets.
func (s *Store) personalRows(ctx context.Context, tx pgx.Tx, table personalTable, userID string, each func(row []byte) error) error {
	var columns string
	err := tx.QueryRow(ctx, `SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND attname <> ALL ($2::text[])`, s.db.sql("{s}."+table.name), append([]string{}, table.secret...)).Scan(&columns)
	if err != nil {
		return err
	}
	order := "1"
	if table.name == "gpt_oauth_events" {
		order = "created_at, id"
	}
	rows, err := tx.Query(ctx, s.db.sql(`SELECT row_to_json(r)::text FROM (SELECT `+columns+` FROM {s}.`+table.name+` WHERE `+table.of+` ORDER BY `+order+`) r`), userID)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.RawValues()[0]); err != nil {
			return err
		}
	}
	return rows.Err()
}
