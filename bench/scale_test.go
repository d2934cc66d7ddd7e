package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// The small form of `make scale`: the steps of the store alone, and buffers
// alone, in tables of which the larger ones have B-trees a level higher.
func TestCostDoesNotGrowWithTheTables(t *testing.T) {
	const inUse, most = 500, 1.2
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s, err := newScene(ctx, sceneConfig{sessions: inUse, settings: map[string]string{
		"shared_preload_libraries": "pg_stat_statements", "autovacuum": "off", "fsync": "off",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := giveUsers(ctx, conn); err != nil {
		t.Fatal(err)
	}
	var databases []*sized
	for _, n := range []int{1000, 100_000} {
		if err := s.fill(ctx, n); err != nil {
			t.Fatal(err)
		}
		d, err := s.open(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		defer d.close(ctx)
		databases = append(databases, d)
	}
	operations, err := compareSizes(ctx, databases, append(tokenWorks(inUse), storeWorks(inUse)...), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range operations {
		small, large, ratio := median(o.values(0, buffersOf)), median(o.values(1, buffersOf)), o.ratio(buffersOf).median
		t.Logf("%s: %.1f buffers, then %.1f", o.Name, small, large)
		if !(small > 0 && ratio <= most) {
			t.Errorf("%s: %.2f times the buffers (%.1f, then %.1f), at most %.1f wanted", o.Name, ratio, small, large, most)
		}
	}
}

// tokenWorks are what the gate and the token endpoint ask the store for.
func tokenWorks(inUse int) []*scaleWork {
	var counter int64
	var codes []issuer.Digest
	return []*scaleWork{
		{name: "session of a request", count: inUse, do: func(ctx context.Context, d *sized) error {
			reader := postgres.NewSessionReader(d.db)
			return each(inUse, func(ctx context.Context, d *sized, i int) error {
				_, err := reader.ReadSession(ctx, d.sessions[i].String())
				return err
			})(ctx, d)
		}},
		{name: "refresh", count: inUse, prepare: func(ctx context.Context, d *sized) error {
			return d.conn.QueryRow(ctx, `SELECT rt_counter FROM gpt_sessions WHERE id = $1`, d.sessions[0]).Scan(&counter)
		}, do: each(inUse, func(ctx context.Context, d *sized, i int) error {
			_, err := d.store.RotateRefreshToken(ctx, issuer.Rotation{SessionID: d.sessions[i].String(), ClientID: clientID, Counter: counter, AccessTokenTTL: time.Minute}, issuer.Origin{})
			return err
		})},
		{name: "code exchange", count: inUse / 5, prepare: func(ctx context.Context, d *sized) (err error) {
			codes, err = makeCodes(ctx, d, inUse/5)
			return err
		}, do: each(inUse/5, func(ctx context.Context, d *sized, i int) error {
			if _, err := d.store.FindAuthorizationCode(ctx, codes[i]); err != nil {
				return err
			}
			_, err := d.store.RedeemAuthorizationCode(ctx, codes[i], issuer.SessionLifetime{TTL: time.Hour, AccessTokenTTL: time.Minute, Limit: 5}, issuer.Origin{})
			return err
		})},
	}
}

func makeCodes(ctx context.Context, d *sized, count int) ([]issuer.Digest, error) {
	codes := make([]issuer.Digest, count)
	for i := range codes {
		codes[i] = newDigest()
		login, err := d.store.CreateLogin(ctx, newDigest(), d.users[i], "password", time.Hour, issuer.Origin{})
		if err != nil {
			return nil, fmt.Errorf("create login: %w", err)
		}
		code := issuer.AuthorizationCode{Digest: codes[i], RequestID: uuid.NewString(), ClientID: clientID, UserID: d.users[i], LoginID: login.ID,
			RedirectURI: redirectURI, Resource: "https://api.example.com", AuthTime: time.Now()}
		if err := d.store.CreateAuthorizationCode(ctx, code, time.Minute, issuer.Origin{}); err != nil {
			return nil, fmt.Errorf("create code: %w", err)
		}
	}
	_, err := d.conn.Exec(ctx, `VACUUM (ANALYZE) gpt_logins, gpt_authorization_codes`)
	return codes, err
}
