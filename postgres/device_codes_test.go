//go:build unix

package postgres_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// F-02: of many polls on several nodes after the approval one makes a session.
func TestOneOfManyNodesRedeemsADeviceCode(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var nodes []*postgres.Store
	for range 3 {
		db, err := postgres.Open(s.ctx, postgres.Config{DSN: s.dsn, Timeout: 10 * time.Second})
		s.must(err)
		t.Cleanup(db.Close)
		nodes = append(nodes, postgres.NewStore(db))
	}
	code := issuer.DeviceCode{Digest: digest(), UserCode: digest(), ClientID: "app", Resource: "https://api.test", Scopes: oauth.NewScopeSet("a")}
	s.must(nodes[0].CreateDeviceCode(s.ctx, code, time.Second, time.Minute))
	again := code
	again.Digest = digest()
	if err := nodes[1].CreateDeviceCode(s.ctx, again, time.Second, time.Minute); !errors.Is(err, issuer.ErrExists) {
		t.Errorf("a user code given twice: %v", err)
	}
	found, err := nodes[1].EnterUserCode(s.ctx, code.UserCode)
	s.must(err)
	if found.Digest != code.Digest || found.ClientID != "app" {
		t.Errorf("%+v", found)
	}
	s.must(nodes[2].DecideDeviceCode(s.ctx, code.UserCode, issuer.DeviceDecision{Allow: true, UserID: s.user.ID, LoginID: s.login.ID, AuthTime: time.Now()}, issuer.Origin{}))
	var sessions atomic.Int32
	parallel(30, func(i int) {
		_, err := nodes[i%3].RedeemDeviceCode(s.ctx, code.Digest, "app", lifetime, issuer.Origin{})
		switch {
		case err == nil:
			sessions.Add(1)
		case !errors.Is(err, issuer.ErrNotFound) && !errors.Is(err, issuer.ErrDevicePolledEarly):
			t.Errorf("%v", err)
		}
	})
	if n := s.count("SELECT count(*) FROM gpt_sessions"); n != 1 || sessions.Load() != 1 {
		t.Errorf("%d sessions in the table, %d handed out", n, sessions.Load())
	}
}

// What has expired goes: devices after an hour, pushed requests and used
// assertions at once.
func TestUpkeepRemovesExpiredGrants(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, old := range []bool{true, false} {
		s.must(s.store.CreateDeviceCode(s.ctx, issuer.DeviceCode{Digest: digest(), UserCode: digest(), ClientID: "app", Resource: "https://api.test"}, time.Second, time.Minute))
		s.must(s.store.PushRequest(s.ctx, digest(), "app", "a=b", time.Minute))
		s.must(s.store.UseAssertion(s.ctx, "app", digest(), time.Minute))
		if old {
			for _, table := range []string{"gpt_device_codes", "gpt_pushed_requests", "gpt_client_assertions"} {
				s.exec("UPDATE " + table + " SET expires_at = now() - interval '2 hours'")
			}
		}
	}
	s.must(postgres.NewUpkeep(s.db).Clean(s.ctx))
	for _, table := range []string{"gpt_device_codes", "gpt_pushed_requests", "gpt_client_assertions"} {
		if n := s.count("SELECT count(*) FROM " + table); n != 1 {
			t.Errorf("%s: %d rows", table, n)
		}
	}
}
