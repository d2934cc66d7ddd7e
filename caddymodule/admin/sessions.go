package admin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// SessionQuery says which live sessions; the zero value: all.
type SessionQuery struct {
	User      string `json:"user,omitempty"` // id, or email address
	Client    string `json:"client,omitempty"`
	Scope     string `json:"scope,omitempty"`      // that they hold
	Address   string `json:"address,omitempty"`    // or network, of the user at consent or of the client since
	OlderThan string `json:"older_than,omitempty"` // such as 30d
	IdleFor   string `json:"idle_for,omitempty"`
}

// Session is a session as an operator sees it.
type Session struct {
	ID            string         `json:"session_id"`
	UserID        string         `json:"user_id"`
	ClientID      string         `json:"client_id"`
	Resource      string         `json:"resource,omitempty"`
	RedirectURI   string         `json:"redirect_uri,omitempty"`
	Scopes        oauth.ScopeSet `json:"scopes"`
	GrantedScopes oauth.ScopeSet `json:"granted_scopes"` // that the user allowed at any time
	CreatedAt     time.Time      `json:"created_at"`
	LastActive    time.Time      `json:"last_active"` // to a minute
	ExpiresAt     time.Time      `json:"expires_at"`
	RevokedAt     *time.Time     `json:"revoked_at,omitempty"`
	RevokeReason  string         `json:"revoke_reason,omitempty"`
	LoginMethod   string         `json:"login_method,omitempty"`
	// AssertedBy is by whose word it exists, where that is not the user's: an
	// identity provider, or "operator".
	AssertedBy     string `json:"asserted_by,omitempty"`
	ConsentAddress string `json:"consent_address,omitempty"`
	ConsentAgent   string `json:"consent_agent,omitempty"`
	ClientAddress  string `json:"client_address,omitempty"` // where tokens were last fetched
	ClientAgent    string `json:"client_agent,omitempty"`
}

func sessionOf(r postgres.SessionRecord) Session {
	return Session{
		ID: r.ID, UserID: r.UserID, ClientID: r.ClientID, Resource: r.Resource, RedirectURI: r.RedirectURI,
		Scopes: noNil(r.Scopes), GrantedScopes: noNil(r.GrantedScopes), CreatedAt: r.CreatedAt, LastActive: r.LastActive, ExpiresAt: r.ExpiresAt,
		RevokedAt: r.RevokedAt, RevokeReason: r.RevokeReason, LoginMethod: r.LoginMethod, AssertedBy: r.AssertedBy,
		ConsentAddress: r.Consent.Address, ConsentAgent: r.Consent.Agent, ClientAddress: r.Client.Address, ClientAgent: r.Client.Agent,
	}
}

func noNil(s oauth.ScopeSet) oauth.ScopeSet { return append(oauth.ScopeSet{}, s...) }

// Sessions lists live sessions, newest first.
func (a *Admin) Sessions(ctx context.Context, query SessionQuery, paging Paging) (page Page[Session], err error) {
	filter, err := a.filter(ctx, query)
	if err != nil {
		return page, err
	}
	return pageByTime(ctx, a, paging, filter, a.Store.ListSessions, sessionOf)
}

// Session returns one, also one that has ended.
func (a *Admin) Session(ctx context.Context, id string) (Session, error) {
	record, err := a.Store.FindSessionRecord(ctx, id)
	if err != nil {
		return Session{}, orMissing(err, "there is no session %q; one that has ended is kept for 30 days", id)
	}
	return sessionOf(record), nil
}

// filter reads a query. Who is named by an address is looked up.
func (a *Admin) filter(ctx context.Context, q SessionQuery) (f postgres.SessionFilter, err error) {
	f = postgres.SessionFilter{ClientID: q.Client, Scope: q.Scope}
	if f.UserID, err = a.UserID(ctx, q.User); err != nil {
		return f, err
	}
	if q.Address != "" {
		if f.Addresses, err = network(q.Address); err != nil {
			return f, err
		}
	}
	older, err := age("older_than", q.OlderThan)
	if err != nil {
		return f, err
	}
	idle, err := age("idle_for", q.IdleFor)
	if err != nil || older == 0 && idle == 0 {
		return f, err
	}
	now, err := a.Store.Now(ctx)
	if f.Before = now.Add(-max(older, idle)); idle > 0 { // what was idle for so long is as old at least
		f.IdleSince = now.Add(-idle)
	}
	return f, err
}

// UserID is the id of a user who may be named by email address. Not everybody
// who has sessions is a user of this database.
func (a *Admin) UserID(ctx context.Context, name string) (string, error) {
	if !strings.Contains(name, "@") {
		return name, nil
	}
	user, err := a.Store.FindUserByEmail(ctx, name)
	switch {
	case errors.Is(err, issuer.ErrNotFound):
		return name, nil
	case err != nil:
		return "", err
	}
	return user.ID, nil
}

func network(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix.Addr().Is4In6() {
		return prefix, invalid("address: %q is neither an IP address nor a network such as 203.0.113.0/24", text)
	}
	return prefix.Masked(), nil
}

func age(word, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := caddy.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, invalid("%s: %q is not a time such as 90m, 24h or 30d", word, text)
	}
	return d, nil
}

// Ended is what a revocation did.
type Ended struct {
	Sessions int  `json:"sessions"`
	DryRun   bool `json:"dry_run,omitempty"` // nothing ended; so many would have
	// Next is where to go on; empty: that was all.
	Next string `json:"next,omitempty"`
}

const (
	batchSize = 500 // sessions that one transaction ends

	reasonOperator = "revoked_by_operator"
)

// RevokeSessions ends the live sessions that match and were there when it began,
// in batches: what has ended stays so, whatever becomes of the rest. everything
// must be said when the query is empty. Interrupted, the error says how far it
// came.
func (a *Admin) RevokeSessions(ctx context.Context, query SessionQuery, everything, dryRun bool, after string) (ended Ended, err error) {
	if query == (SessionQuery{}) != everything {
		return ended, invalid("say which sessions, by user, client, scope, address, older_than or idle_for; or that it is all of them")
	}
	from, err := Paging{After: after}.position()
	if err != nil {
		return ended, err
	}
	filter, err := a.filter(ctx, query)
	if err != nil {
		return ended, err
	}
	if filter.Before.IsZero() {
		if filter.Before, err = a.Store.Now(ctx); err != nil {
			return ended, err
		}
	}
	var next postgres.Position
	if dryRun {
		ended.DryRun = true
		ended.Sessions, next, err = a.countSessions(ctx, filter, from)
	} else {
		defer a.hear(ctx)
		ended.Sessions, next, err = a.endSessions(ctx, filter, reasonOperator, from, a.Steps)
		if ended.Sessions > 0 {
			a.tell("sessions_revoked", "sessions", ended.Sessions, "user_id", filter.UserID, "client_id", filter.ClientID, "reason", reasonOperator)
		}
	}
	if next != (postgres.Position{}) {
		ended.Next = timeCursor(next)
	}
	return ended, err
}

// endSessions ends sessions in at most so many batches, 0: in as many as it
// takes. next is where it goes on; the zero value: that was all.
func (a *Admin) endSessions(ctx context.Context, filter postgres.SessionFilter, reason string, from postgres.Position, batches int) (total int, next postgres.Position, err error) {
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return total, from, fmt.Errorf("interrupted after %d sessions had ended, which stay so; ask again for the rest: %w", total, err)
		}
		ended, next, more, err := a.Store.EndSessions(ctx, filter, reason, from, batchSize)
		if err != nil {
			return total, from, fmt.Errorf("%d sessions have ended, ask again for the rest: %w", total, err)
		}
		total += ended
		a.progress(total)
		if !more {
			return total, postgres.Position{}, nil
		}
		if from = next; n == batches {
			return total, next, nil
		}
	}
}

func (a *Admin) countSessions(ctx context.Context, filter postgres.SessionFilter, from postgres.Position) (total int, next postgres.Position, err error) {
	for steps := 1; ; steps++ {
		if err := ctx.Err(); err != nil {
			return total, from, err
		}
		count, next, more, err := a.Store.CountSessions(ctx, filter, from)
		if err != nil {
			return total, from, err
		}
		total += count
		a.progress(total)
		if !more {
			return total, postgres.Position{}, nil
		}
		if from = next; a.enough(steps) {
			return total, next, nil
		}
	}
}

// RevokeSession ends one live session.
func (a *Admin) RevokeSession(ctx context.Context, id string) (Ended, error) {
	defer a.hear(ctx)
	err := a.Store.EndSession(ctx, id, reasonOperator)
	if err != nil {
		return Ended{}, orMissing(err, "no live session has the id %q; whether it has ended: session show", id)
	}
	a.tell("session_revoked", "session_id", id, "reason", reasonOperator)
	return Ended{Sessions: 1}, nil
}
