package postgres

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// SessionFilter is a condition of live sessions; the zero value: all.
type SessionFilter struct {
	UserID, ClientID, Scope string
	// Addresses is where the user was who allowed it, or where its client last
	// fetched tokens. Invalid: anywhere.
	Addresses netip.Prefix
	Before    time.Time // that were made by then; zero: all
	IdleSince time.Time // that were not active since then; zero: all
}

// SessionRecord is a session as an operator sees it.
type SessionRecord struct {
	ID, UserID, ClientID, Resource, RedirectURI string
	Scopes, GrantedScopes                       oauth.ScopeSet
	CreatedAt, LastActive, ExpiresAt            time.Time
	RevokedAt                                   *time.Time
	RevokeReason                                string
	LoginMethod, AssertedBy                     string
	Consent, Client                             issuer.Place
}

const sessionRecordColumns = `s.id::text, s.user_id, s.client_id, coalesce(s.resource, ''), coalesce(s.redirect_uri, ''), s.scopes, s.granted_scopes,
	s.created_at, s.last_active, s.expires_at, s.revoked_at, coalesce(s.revoke_reason, ''), coalesce(s.login_method, ''), coalesce(s.asserted_by, ''),
	coalesce(s.consent_address, ''), coalesce(s.consent_agent, ''), coalesce(s.client_address, ''), coalesce(s.client_agent, '')`

func scanSessionRecord(row pgx.Row) (r SessionRecord, err error) {
	var scopes, granted []string
	err = row.Scan(&r.ID, &r.UserID, &r.ClientID, &r.Resource, &r.RedirectURI, &scopes, &granted, &r.CreatedAt, &r.LastActive, &r.ExpiresAt, &r.RevokedAt,
		&r.RevokeReason, &r.LoginMethod, &r.AssertedBy, &r.Consent.Address, &r.Consent.Agent, &r.Client.Address, &r.Client.Agent)
	r.Scopes, r.GrantedScopes = oauth.NewScopeSet(scopes...), oauth.NewScopeSet(granted...)
	return r, err
}

// lastID is above every other in the order of a list.
var lastID = uuid.Max

// sql is a query of the sessions from the position on, newest first: of
// scanAtMost rows of an index, those that match, at most limit. It yields
// `scanned`, and of that `found`.
//
// The order names the column that is looked up, and that is held between bounds
// in place of being equal: so only the index that begins with it has the order,
// and no estimate makes the server go through all sessions for those of a client
// that has few.
func (f *SessionFilter) sql(from Position, limit int, a *args) string {
	if until := (Position{At: f.Before, ID: lastID}); !f.Before.IsZero() && (from == (Position{}) || until.At.Before(from.At)) {
		from = until
	}
	where, order, matches := `revoked_at IS NULL`, `created_at DESC, id DESC`, live
	position := func() (at, id string) { return a.add(from.At), a.add(from.ID) }
	switch started := from != (Position{}); {
	case f.UserID != "": // of whom there are few
		user := a.add(f.UserID)
		where, order = where+` AND user_id >= `+user+` AND user_id <= `+user, `user_id, `+order
		if started {
			at, id := position()
			where += ` AND created_at <= ` + at + ` AND (created_at, id) < (` + at + `, ` + id + `)`
		}
	case f.ClientID != "":
		client := a.add(f.ClientID)
		where, order = where+` AND client_id >= `+client+` AND client_id <= `+client, `client_id DESC, `+order
		if started {
			at, id := position()
			where += ` AND (client_id, created_at, id) < (` + client + `, ` + at + `, ` + id + `)`
		}
	case started:
		at, id := position()
		where += ` AND (created_at, id) < (` + at + `, ` + id + `)`
	}
	if f.ClientID != "" && f.UserID != "" {
		matches += ` AND client_id = ` + a.add(f.ClientID)
	}
	if f.Scope != "" {
		matches += ` AND ` + a.add(f.Scope) + `::text = ANY (scopes)`
	}
	if !f.IdleSince.IsZero() {
		matches += ` AND last_active < ` + a.add(f.IdleSince)
	}
	if f.Addresses.IsValid() {
		network := a.add(f.Addresses.String())
		matches += ` AND (` + inNetwork("consent_address", network) + ` OR ` + inNetwork("client_address", network) + `)`
	}
	return scanSQL("gpt_sessions", matches, where, order, a.add(limit))
}

// inNetwork compares an address that was written down as text. One with a zone
// is of this machine's own network, and no inet.
func inNetwork(column, network string) string {
	return `CASE WHEN ` + column + ` !~ '%' THEN ` + column + `::inet <<= ` + network + `::text::inet ELSE false END`
}

// ListSessions returns live sessions that match, newest first: those after the
// position, at most limit, which may be none although there are more. more: the
// list goes on at next.
func (s *Store) ListSessions(ctx context.Context, filter SessionFilter, from Position, limit int) (sessions []SessionRecord, next Position, more bool, err error) {
	return page[SessionRecord]{
		step:     "list sessions",
		filter:   filter.sql,
		columns:  sessionRecordColumns + ` FROM found JOIN {s}.gpt_sessions s USING (id) ORDER BY s.created_at DESC, s.id DESC`,
		scan:     scanSessionRecord,
		position: func(r SessionRecord) Position { return Position{r.CreatedAt, uuid.MustParse(r.ID)} },
	}.read(ctx, s.db, from, limit)
}

// FindSessionRecord returns a session, also one that has ended. ErrNotFound.
func (s *Store) FindSessionRecord(ctx context.Context, sessionID string) (r SessionRecord, err error) {
	const step = "find session record"
	id, ok := parseID(sessionID)
	if !ok {
		return r, wrap(step, issuer.ErrNotFound)
	}
	err = s.db.read(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		r, err = scanSessionRecord(conn.QueryRow(ctx, s.db.sql(`SELECT `+sessionRecordColumns+` FROM {s}.gpt_sessions s WHERE id = $1`), id))
		return err
	})
	return r, err
}

// EndSessions ends live sessions that match, newest first: those after the
// position, at most limit, in one transaction, with an event each. It returns how
// many, and where the next call goes on.
func (s *Store) EndSessions(ctx context.Context, filter SessionFilter, reason string, from Position, limit int) (ended int, next Position, more bool, err error) {
	err = s.db.write(ctx, "end sessions", inOrder(pgx.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		var a args
		var end scanEnd
		var last Position
		var lastID *uuid.UUID
		var lastAt *time.Time
		var found int
		with := `WITH ` + filter.sql(from, limit, &a)
		why := a.add(reason)
		err := tx.QueryRow(ctx, s.db.sql(with+`,
			revoked AS (
				UPDATE {s}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = `+why+`
				WHERE id IN (SELECT id FROM found) AND revoked_at IS NULL RETURNING id, user_id, client_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, metadata)
				SELECT 'gpt.oauth.session_revoked', user_id, client_id, id, jsonb_build_object('by', 'operator', 'reason', `+why+`::text) FROM revoked)
			SELECT (SELECT count(*) FROM revoked), (SELECT count(*) FROM found), (SELECT id FROM found ORDER BY created_at, id LIMIT 1),
				(SELECT created_at FROM found ORDER BY created_at, id LIMIT 1), `+nextSQL), a...).
			Scan(&ended, &found, &lastID, &lastAt, &end.rows, &end.id, &end.at)
		if err != nil {
			return err
		}
		if found > 0 {
			last = Position{*lastAt, *lastID}
		}
		if next, more = end.next(found, limit, last); found == 0 && !more {
			return s.confirmNone(ctx, tx)
		}
		return nil
	}))
	return ended, next, more, err
}

// confirmNone is confirmEnded for a step that looked for whatever there is: where
// a standby has to confirm, it has one commit confirmed, and with it all before:
// the lock that sessions take of their client.
func (s *Store) confirmNone(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, s.db.sql(`SELECT FROM {s}.gpt_clients WHERE current_setting('synchronous_standby_names') <> '' LIMIT 1 FOR KEY SHARE`))
	return err
}

// CountSessions counts live sessions that match among those that one page looks
// at, as EndSessions would end them.
func (s *Store) CountSessions(ctx context.Context, filter SessionFilter, from Position) (count int, next Position, more bool, err error) {
	err = s.db.read(ctx, "count sessions", inOrder(oneSnapshot, func(ctx context.Context, tx pgx.Tx) error {
		var a args
		var end scanEnd
		with := `WITH ` + filter.sql(from, scanAtMost, &a)
		if err := tx.QueryRow(ctx, s.db.sql(with+` SELECT (SELECT count(*) FROM found), `+nextSQL), a...).Scan(&count, &end.rows, &end.id, &end.at); err != nil {
			return err
		}
		if next, more = (Position{}), end.rows == scanAtMost; more {
			next = Position{*end.at, *end.id}
		}
		return nil
	}))
	return count, next, more, err
}

// Now is the time of the database.
func (s *Store) Now(ctx context.Context) (now time.Time, err error) {
	err = s.db.read(ctx, "read the clock", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	})
	return now, err
}

// EndSession ends one live session. ErrNotFound.
func (s *Store) EndSession(ctx context.Context, sessionID, reason string) error {
	const step = "end session"
	id, ok := parseID(sessionID)
	if !ok {
		return wrap(step, issuer.ErrNotFound)
	}
	return s.db.write(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		var ended bool
		err := conn.QueryRow(ctx, s.db.sql(`
			WITH revoked AS (
				UPDATE {s}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = $2 WHERE id = $1 AND `+live+` RETURNING id, user_id, client_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, metadata)
				SELECT 'gpt.oauth.session_revoked', user_id, client_id, id, jsonb_build_object('by', 'operator', 'reason', $2::text) FROM revoked)
			SELECT true FROM revoked`), id, reason).Scan(&ended)
		if errors.Is(err, pgx.ErrNoRows) {
			return cmp.Or(s.confirmEnded(ctx, conn, `id = $1`, id), err)
		}
		return err
	})
}
