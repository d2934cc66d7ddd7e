package caddymodule

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// tellingStore tells Caddy's app `events` what a step has ended, once it has.
type tellingStore struct {
	issuer.Store
	events *caddyEvents
}

// withOrigin appends where a step came from.
func withOrigin(origin issuer.Origin, data ...any) []any {
	if origin.Address.IsValid() {
		data = append(data, "ip_address", origin.Address.String())
	}
	return append(data, "request_id", origin.RequestID)
}

// RotateRefreshToken implements issuer.SessionStore.
func (s *tellingStore) RotateRefreshToken(ctx context.Context, r issuer.Rotation, origin issuer.Origin) (issuer.Rotated, error) {
	rotated, err := s.Store.RotateRefreshToken(ctx, r, origin)
	if errors.Is(err, issuer.ErrReplayed) {
		s.events.tell(eventRefreshReuse, withOrigin(origin, "session_id", r.SessionID, "client_id", r.ClientID)...)
	}
	return rotated, err
}

// FindAdoptedRefreshToken implements issuer.SessionStore.
func (s *tellingStore) FindAdoptedRefreshToken(ctx context.Context, digest issuer.Digest, clientID string, grace time.Duration, origin issuer.Origin) (issuer.Session, error) {
	session, err := s.Store.FindAdoptedRefreshToken(ctx, digest, clientID, grace, origin)
	if errors.Is(err, issuer.ErrReplayed) {
		s.events.tell(eventRefreshReuse, withOrigin(origin, "client_id", clientID)...)
	}
	return session, err
}

// ReplayAuthorizationCode implements issuer.CodeStore.
func (s *tellingStore) ReplayAuthorizationCode(ctx context.Context, digest issuer.Digest, tolerance time.Duration, origin issuer.Origin) error {
	err := s.Store.ReplayAuthorizationCode(ctx, digest, tolerance, origin)
	if errors.Is(err, issuer.ErrReplayed) {
		s.events.tell(eventCodeReuse, withOrigin(origin)...)
	}
	return err
}

// RevokeSession implements issuer.SessionStore.
func (s *tellingStore) RevokeSession(ctx context.Context, sessionID, clientID, reason string, origin issuer.Origin) error {
	err := s.Store.RevokeSession(ctx, sessionID, clientID, reason, origin)
	if err == nil {
		s.events.tell(eventSessionRevoked, withOrigin(origin, "session_id", sessionID, "client_id", clientID, "reason", reason)...)
	}
	return err
}

// EndUserSession implements issuer.SessionStore.
func (s *tellingStore) EndUserSession(ctx context.Context, sessionID, userID string, origin issuer.Origin) error {
	err := s.Store.EndUserSession(ctx, sessionID, userID, origin)
	if err == nil {
		s.events.tell(eventSessionRevoked, withOrigin(origin, "session_id", sessionID, "user_id", userID, "reason", "ended_by_user")...)
	}
	return err
}

// EndUserSessions implements issuer.AppStore.
func (s *tellingStore) EndUserSessions(ctx context.Context, userID string, origin issuer.Origin) (ended int, err error) {
	ended, err = s.Store.EndUserSessions(ctx, userID, origin)
	if err == nil && ended > 0 {
		s.events.tell(eventSessionsRevoked, withOrigin(origin, "user_id", userID, "sessions", ended, "reason", "ended_by_user")...)
	}
	return ended, err
}

// EndProviderLogins implements issuer.LoginStore.
func (s *tellingStore) EndProviderLogins(ctx context.Context, logout issuer.ProviderLogout, origin issuer.Origin) (logins, sessions int, err error) {
	logins, sessions, err = s.Store.EndProviderLogins(ctx, logout, origin)
	if err == nil && sessions > 0 {
		s.events.tell(eventSessionsRevoked, withOrigin(origin, "sessions", sessions, "reason", "provider_logout")...)
	}
	return logins, sessions, err
}

// EndAccount implements issuer.AccountStore.
func (s *tellingStore) EndAccount(ctx context.Context, end issuer.AccountEnd, origin issuer.Origin) (userID string, err error) {
	userID, err = s.Store.EndAccount(ctx, end, origin)
	if err == nil {
		s.events.tell(eventAccountEnded, withOrigin(origin, "user_id", userID, "source", end.Source, "deleted", end.Deleted)...)
	}
	return userID, err
}

// tellingTally is a tally that tells of limits that were reached.
type tellingTally struct {
	tally
	events *caddyEvents
}

// SignedIn implements issuer.Tally.
func (t tellingTally) SignedIn(method, outcome string) {
	t.tally.SignedIn(method, outcome)
	if outcome == "throttled" {
		t.events.tellLimited(method)
	}
}
