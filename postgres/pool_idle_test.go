package postgres_test

import (
	"context"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// TestIdleConnectionKeepsNothingOfItsCaller: a pool outlives the configurations
// that use it, and pgx keeps the context of a connection's last use with the
// connection. That of a request leads to all of its configuration.
func TestIdleConnectionKeepsNothingOfItsCaller(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	session := s.session("jobs:read")
	for name, call := range map[string]func(context.Context) error{
		"a read": func(ctx context.Context) error { _, err := s.store.FindUserByEmail(ctx, s.user.Email); return err },
		"a transaction": func(ctx context.Context) error {
			return s.store.RevokeSession(ctx, session.ID, "app", "test", issuer.Origin{})
		},
		"a ping": s.db.Ready,
	} {
		request := s.calledWith(call)
		for deadline := time.Now().Add(30 * time.Second); request.Value() != nil; runtime.GC() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the request can still be reached", name)
			}
		}
	}
}

// calledWith calls with the context of something that is then gone.
func (s *scene) calledWith(call func(context.Context) error) weak.Pointer[[1 << 10]byte] {
	s.Helper()
	request := new([1 << 10]byte)
	type key struct{}
	s.must(call(context.WithValue(s.ctx, key{}, request)))
	return weak.Make(request)
}
