package caddymodule

import (
	"context"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// hearingStore lets this node's view hear of what a step has ended before the
// step is answered. Other nodes hear of it within milliseconds.
type hearingStore struct {
	*postgres.Store
	view *postgres.SessionView
}

var _ issuer.Store = (*hearingStore)(nil)

// RevokeSession implements issuer.SessionStore.
func (s *hearingStore) RevokeSession(ctx context.Context, sessionID, clientID, reason string, origin issuer.Origin) error {
	defer s.view.CatchUp(ctx)
	return s.Store.RevokeSession(ctx, sessionID, clientID, reason, origin)
}

// EndUserSession implements issuer.SessionStore.
func (s *hearingStore) EndUserSession(ctx context.Context, sessionID, userID string, origin issuer.Origin) error {
	defer s.view.CatchUp(ctx)
	return s.Store.EndUserSession(ctx, sessionID, userID, origin)
}

// EndUserSessions implements issuer.AppStore.
func (s *hearingStore) EndUserSessions(ctx context.Context, userID string, origin issuer.Origin) (ended int, err error) {
	defer s.view.CatchUp(ctx)
	return s.Store.EndUserSessions(ctx, userID, origin)
}

// NarrowSession implements issuer.AppStore.
func (s *hearingStore) NarrowSession(ctx context.Context, userID, sessionID string, from, keep oauth.ScopeSet, origin issuer.Origin) error {
	defer s.view.CatchUp(ctx)
	return s.Store.NarrowSession(ctx, userID, sessionID, from, keep, origin)
}

// EndProviderLogins implements issuer.LoginStore.
func (s *hearingStore) EndProviderLogins(ctx context.Context, logout issuer.ProviderLogout, origin issuer.Origin) (logins, sessions int, err error) {
	defer s.view.CatchUp(ctx)
	return s.Store.EndProviderLogins(ctx, logout, origin)
}

// EndAccount implements issuer.AccountStore.
func (s *hearingStore) EndAccount(ctx context.Context, end issuer.AccountEnd, origin issuer.Origin) (userID string, err error) {
	defer s.view.CatchUp(ctx)
	return s.Store.EndAccount(ctx, end, origin)
}

// UseReset implements issuer.ResetStore.
func (s *hearingStore) UseReset(ctx context.Context, digest issuer.Digest, passwordHash string, origin issuer.Origin) error {
	defer s.view.CatchUp(ctx)
	return s.Store.UseReset(ctx, digest, passwordHash, origin)
}
