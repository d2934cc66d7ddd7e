package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// scaleWork is an operation that is done count times, over what is in use.
type scaleWork struct {
	name  string
	count int
	// through is the gateway that is asked; nil: the store's step alone.
	through func(d *sized) *proxy
	// prepare makes what do needs, and does not count; nil: nothing.
	prepare func(ctx context.Context, d *sized) error
	do      func(ctx context.Context, d *sized) error
}

// Names of the operations that the worked example is made of.
const (
	opLive       = "gated request, `session_check live`"
	opStrict     = "gated request, `session_check strict`"
	opFirstSight = "gated request, its token seen first"
	opRefresh    = "refresh"
	opExchange   = "code exchange"
	opLogin      = "sign-in: the login is made"
	opLastActive = "`last_active`"
	opRevocation = "revocation"
)

const (
	// scaleConns are the connections to a gateway.
	scaleConns        = 64
	exchangesPerRound = inUse / 5
)

func live(d *sized) *proxy   { return d.live }
func strict(d *sized) *proxy { return d.strict }

// gatewayWorks go over HTTP.
func gatewayWorks() []*scaleWork {
	gated := func(gateway func(*sized) *proxy) func(context.Context, *sized) error {
		return func(_ context.Context, d *sized) error {
			d.requests = slices.Repeat(gateway(d).requests, 2)
			return nil
		}
	}
	return []*scaleWork{
		{name: opLive, count: 2 * inUse, through: live, prepare: gated(live), do: sendAll(live)},
		{name: opStrict, count: 2 * inUse, through: strict, prepare: gated(strict), do: sendAll(strict)},
		{name: opFirstSight, count: inUse, through: live, do: sendAll(live), prepare: func(_ context.Context, d *sized) (err error) {
			d.requests, err = d.live.makeRequests(d.sessions)
			return err
		}},
		{name: opRefresh, count: inUse, through: live, do: refreshAll},
		{name: opExchange, count: exchangesPerRound, through: live, do: sendAll(live), prepare: func(ctx context.Context, d *sized) error {
			first, err := d.endpoint.makeCodes(ctx, exchangesPerRound)
			d.requests = nil
			for i := range exchangesPerRound {
				d.requests = append(d.requests, d.endpoint.exchangeRequest(first+i))
			}
			return err
		}},
	}
}

// sendAll sends every request once; each must be answered with 200.
func sendAll(gateway func(*sized) *proxy) func(context.Context, *sized) error {
	return func(ctx context.Context, d *sized) error {
		loaded, err := closedLoop(ctx, gateway(d).address, scaleConns, 5*time.Minute, once(d.requests))
		if err == nil && (loaded.Requests != len(d.requests) || loaded.Errors > 0) {
			err = fmt.Errorf("%d of %d requests failed", len(d.requests)-loaded.Requests+loaded.Errors, len(d.requests))
		}
		return err
	}
}

// refreshAll refreshes every session in use once.
func refreshAll(_ context.Context, d *sized) error {
	_, err := onConnections(d.live.address, scaleConns, func(c *connection, i int, _ *sample) error {
		for n := i; n < len(d.refreshes); n += scaleConns {
			request := d.refreshes[n]
			successor, err := refreshTokenOf(c.exchange(request))
			if err != nil {
				return err
			}
			copy(request[len(request)-len(successor):], successor)
		}
		return nil
	})
	return err
}

// storeWorks are steps of the store that sign-in, pages and upkeep take.
func storeWorks(inUse int) []*scaleWork {
	origin := issuer.Origin{}
	return []*scaleWork{
		{name: "sign-in: the user by email address", count: inUse / 2, do: each(inUse/2, func(ctx context.Context, d *sized, i int) error {
			u, err := d.store.FindUserByEmail(ctx, strings.TrimPrefix(d.users[i], "user-")+"@example.com")
			if err == nil && u.ID != d.users[i] {
				err = errors.New("another user")
			}
			return err
		})},
		{name: opLogin, count: inUse / 5, do: each(inUse/5, func(ctx context.Context, d *sized, i int) error {
			_, err := d.store.CreateLogin(ctx, newDigest(), d.users[i], "password", time.Hour, origin)
			return err
		})},
		{name: "sign-in at a provider: the user is found, the login made", count: inUse / 5, do: each(inUse/5, func(ctx context.Context, d *sized, i int) error {
			user := issuer.ExternalUser{Authority: scaleAuthority, Subject: d.subjects[i], UserID: d.users[i]}
			login, err := d.store.CreateExternalLogin(ctx, newDigest(), "oidc", user, nil, time.Hour, origin)
			if err == nil && login.UserID != user.UserID {
				err = errors.New("another user")
			}
			return err
		})},
		{name: "page of connected apps: the login, the apps with what they did", count: inUse / 2, prepare: makeLogins, do: each(inUse/2, func(ctx context.Context, d *sized, i int) error {
			login, err := d.store.FindLogin(ctx, sha256.Sum256([]byte(d.sessions[i].String())))
			if err != nil {
				return err
			}
			apps, err := d.store.ConnectedApps(ctx, login.UserID, issuer.AppPosition{}, 20)
			if err == nil && !slices.ContainsFunc(apps, func(app issuer.ConnectedApp) bool { return app.Calls["jobs:read"] > 0 }) {
				err = errors.New("no app that did anything")
			}
			return err
		})},
		{name: opLastActive, count: inUse, do: func(ctx context.Context, d *sized) error {
			u := postgres.NewUpkeep(d.db)
			for _, id := range d.sessions {
				u.Touch(id.String())
			}
			return u.Flush(ctx)
		}, prepare: func(ctx context.Context, d *sized) error {
			_, err := d.conn.Exec(ctx, `UPDATE gpt_sessions s SET last_active = now() - interval '1 hour' FROM in_use u WHERE s.id = u.id`)
			return err
		}},
		{name: opRevocation, count: inUse / 5, prepare: findRevocable(inUse / 5), do: each(inUse/5, func(ctx context.Context, d *sized, i int) error {
			return d.store.RevokeSession(ctx, d.revocable[i], clientID, "bench", origin)
		})},
	}
}

// each does the step count times, a few at a time.
func each(count int, step func(ctx context.Context, d *sized, i int) error) func(context.Context, *sized) error {
	return func(ctx context.Context, d *sized) error {
		const atOnce = 4
		errs := make([]error, atOnce)
		var all sync.WaitGroup
		for first := range atOnce {
			all.Go(func() {
				for i := first; i < count && errs[first] == nil; i += atOnce {
					errs[first] = step(ctx, d, i)
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	}
}

func newDigest() issuer.Digest {
	id := uuid.New()
	return sha256.Sum256(id[:])
}

// makeLogins signs every user in use in; the cookie is the session's id.
func makeLogins(ctx context.Context, d *sized) error {
	_, err := d.conn.Exec(ctx, `INSERT INTO gpt_logins (digest, user_id, expires_at)
		SELECT sha256(id::text::bytea), user_id, now() + interval '1 hour' FROM in_use ON CONFLICT DO NOTHING`)
	return err
}

// findRevocable takes sessions that codes were exchanged for, of no further use.
func findRevocable(count int) func(context.Context, *sized) error {
	return func(ctx context.Context, d *sized) error {
		err := d.conn.QueryRow(ctx, `SELECT array_agg(id::text) FROM (SELECT s.id FROM gpt_authorization_codes c
			JOIN gpt_sessions s ON s.id = c.session_id WHERE s.revoked_at IS NULL LIMIT $1) AS made`, count).Scan(&d.revocable)
		if err == nil && len(d.revocable) != count {
			err = fmt.Errorf("%d sessions to revoke", len(d.revocable))
		}
		return err
	}
}
