package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// EventFilter is a condition of events; the zero value: all.
type EventFilter struct {
	UserID, ClientID, Type string
	SessionID              uuid.UUID // uuid.Nil: any
	Since                  time.Time // zero: ever
}

// ListEvents returns events that match, newest first: those after the position,
// at most limit, which may be none although there are more. more: the list goes
// on at next.
func (s *Store) ListEvents(ctx context.Context, filter EventFilter, from Position, limit int) (events []issuer.AuditEvent, next Position, more bool, err error) {
	return page[issuer.AuditEvent]{
		step:     "list events",
		filter:   filter.sql,
		columns:  auditEventSQL + ` FROM found JOIN {s}.gpt_oauth_events e USING (id) ORDER BY e.created_at DESC, e.id DESC`,
		scan:     func(row pgx.Row) (e issuer.AuditEvent, err error) { return e, row.Scan(auditEvent(&e)...) },
		position: func(e issuer.AuditEvent) Position { return Position{e.At, uuid.MustParse(e.ID)} },
	}.read(ctx, s.db, from, limit)
}

// auditEventSQL are the columns of gpt_oauth_events e that auditEvent takes.
const auditEventSQL = `e.id::text, e.event_type, coalesce(e.user_id, ''), coalesce(e.client_id, ''), coalesce(e.session_id::text, ''), coalesce(e.request_id, ''),
	coalesce(e.ip_address, ''), e.created_at, coalesce(e.metadata, '{}')`

func auditEvent(e *issuer.AuditEvent) []any {
	return []any{&e.ID, &e.Type, &e.UserID, &e.ClientID, &e.SessionID, &e.RequestID, &e.Address, &e.At, &e.Metadata}
}

// sql is as that of SessionFilter. What no index has is looked for among
// scanAtMost rows.
func (f *EventFilter) sql(from Position, limit int, a *args) string {
	where, order, matches := `true`, `created_at DESC, id DESC`, `true`
	columns, before := `created_at, id`, ``
	for _, by := range []struct {
		column string
		value  any
		set    bool
	}{{"session_id", f.SessionID, f.SessionID != uuid.Nil}, {"user_id", f.UserID, f.UserID != ""}, {"client_id", f.ClientID, f.ClientID != ""}} {
		switch value := ""; {
		case !by.set:
		case before == "":
			value = a.add(by.value)
			where, order = by.column+` >= `+value+` AND `+by.column+` <= `+value, by.column+` DESC, `+order
			columns, before = by.column+`, `+columns, value+`, `
		default:
			matches += ` AND ` + by.column + ` = ` + a.add(by.value)
		}
	}
	if !f.Since.IsZero() {
		where += ` AND (` + columns + `) >= (` + before + a.add(f.Since) + `, ` + a.add(uuid.Nil) + `)`
	}
	if from != (Position{}) {
		where += ` AND (` + columns + `) < (` + before + a.add(from.At) + `, ` + a.add(from.ID) + `)`
	}
	if f.Type != "" {
		matches += ` AND event_type = ` + a.add(f.Type)
	}
	return scanSQL("gpt_oauth_events", matches, where, order, a.add(limit))
}
