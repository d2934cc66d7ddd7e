package admin

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// EventQuery says which events; the zero value: all.
type EventQuery struct {
	User    string // id, or email address
	Client  string
	Session string
	Type    string // such as session_revoked, or in full, gpt.oauth.session_revoked
	Since   string // a time ago, such as 24h, or a moment, such as 2026-11-25T21:00:00Z
}

// Event is one entry of the audit trail.
type Event struct {
	ID        string          `json:"event_id"`
	Type      string          `json:"type"`
	At        time.Time       `json:"at"`
	UserID    string          `json:"user_id,omitempty"`
	ClientID  string          `json:"client_id,omitempty"`
	SessionID string          `json:"session_id,omitempty"`
	RequestID string          `json:"request_id,omitempty"` // as in the log
	Address   string          `json:"address,omitempty"`
	Metadata  json.RawMessage `json:"metadata,omitempty"`
}

func eventOf(r issuer.AuditEvent) Event {
	event := Event{ID: r.ID, Type: r.Type, At: r.At, UserID: r.UserID, ClientID: r.ClientID, SessionID: r.SessionID, RequestID: r.RequestID, Address: r.Address}
	if string(r.Metadata) != "{}" {
		event.Metadata = r.Metadata
	}
	return event
}

// Events lists the audit trail, newest first.
func (a *Admin) Events(ctx context.Context, query EventQuery, paging Paging) (page Page[Event], err error) {
	filter, err := a.eventFilter(ctx, query)
	if err != nil {
		return page, err
	}
	return pageByTime(ctx, a, paging, filter, a.Store.ListEvents, eventOf)
}

func (a *Admin) eventFilter(ctx context.Context, q EventQuery) (f postgres.EventFilter, err error) {
	f = postgres.EventFilter{ClientID: q.Client, Type: q.Type}
	if f.UserID, err = a.UserID(ctx, q.User); err != nil {
		return f, err
	}
	if q.Type != "" && !strings.Contains(q.Type, ".") {
		f.Type = issuer.EventTypePrefix + q.Type
	}
	if q.Session != "" {
		if f.SessionID, err = uuid.Parse(q.Session); err != nil {
			return f, invalid("session: %q is not the id of a session", q.Session)
		}
	}
	if q.Since == "" {
		return f, nil
	}
	if f.Since, err = time.Parse(time.RFC3339, q.Since); err == nil {
		return f, nil
	}
	ago, err := caddy.ParseDuration(q.Since)
	if err != nil || ago <= 0 {
		return f, invalid("since: %q is neither a time ago, such as 24h or 7d, nor a moment such as 2026-11-25T21:00:00Z", q.Since)
	}
	now, err := a.Store.Now(ctx)
	f.Since = now.Add(-ago)
	return f, err
}
