package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// learnStatements takes the statements from the server, while the gateway runs
// them or has just run them, so that pgbench runs exactly those. For each there
// is a request that makes it the last one of its connection.
func (t *tokenEndpoint) learnStatements(ctx context.Context) (err error) {
	first, err := t.makeCodes(ctx, 1)
	if err != nil {
		return err
	}
	c, err := dial(t.proxy.address)
	if err != nil {
		return err
	}
	defer func() { _ = c.conn.Close() }()

	// 1. A code that nobody issued is looked for and not found.
	if _, _, err := c.exchange(t.exchangeRequest(-1)); err != nil {
		return err
	}
	if t.find, err = t.lastStatement(ctx, "%SELECT c.code_hash%"); err != nil {
		return err
	}
	// 2. A redemption waits for the lock of its user. It ends with the redemption.
	var token []byte
	t.lock, err = t.whileHeld(ctx, `SELECT pg_advisory_xact_lock(hashtext('gpt_user'), hashtext($1))`, "user-"+codeText(first),
		"%pg_advisory_xact_lock%gpt_authorization_codes%", func() (err error) {
			token, err = refreshTokenOf(c.exchange(t.exchangeRequest(first)))
			return err
		})
	if err != nil {
		return err
	}
	if t.redeem, err = t.lastStatement(ctx, "%code AS MATERIALIZED%"); err != nil {
		return err
	}
	// 3. A refresh whose row is held goes alone, with the statement for one row.
	t.rotate, err = t.whileHeld(ctx, `SELECT FROM gpt_sessions WHERE user_id = $1 FOR UPDATE`, "user-"+codeText(first),
		"%rt_rotation%make_interval(secs => $6%", func() error {
			_, err := refreshTokenOf(c.exchange(t.refreshRequest(token)))
			return err
		})
	return err
}

// whileHeld returns the statement that waits during work for what lock holds.
func (t *tokenEndpoint) whileHeld(ctx context.Context, lock, argument, like string, work func() error) (statement string, err error) {
	holder, err := pgx.Connect(ctx, t.scene.dsn)
	if err != nil {
		return "", err
	}
	defer func() { _ = holder.Close(context.WithoutCancel(ctx)) }()
	if _, err := holder.Exec(ctx, "BEGIN"); err != nil {
		return "", err
	}
	if _, err := holder.Exec(ctx, lock, argument); err != nil {
		return "", err
	}
	done := make(chan error, 1)
	go func() { done <- work() }()
	for range 100 {
		if statement, err = t.lastStatement(ctx, like); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, unlocked := holder.Exec(ctx, "ROLLBACK")
	return statement, errors.Join(err, unlocked, <-done)
}

func (t *tokenEndpoint) lastStatement(ctx context.Context, like string) (string, error) {
	var statement string
	err := t.conn.QueryRow(ctx, `SELECT query FROM pg_stat_activity WHERE query LIKE $1 AND pid <> pg_backend_pid() LIMIT 1`, like).Scan(&statement)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", like, err)
	}
	return statement, nil
}
