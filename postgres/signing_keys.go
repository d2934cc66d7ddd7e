package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

type makeKey = func() (issuer.SealedKey, error)

// MaintainSigningKeys is described at issuer.KeyStore.
func (s *Store) MaintainSigningKeys(ctx context.Context, policy issuer.KeyPolicy, newKey makeKey) ([]issuer.SealedKey, error) {
	return s.withKeys(ctx, "maintain signing keys", func(k *keyTurn) error { return k.maintain(policy, newKey) })
}

// SigningKeys is described at issuer.KeyStore.
func (s *Store) SigningKeys(ctx context.Context) (keys []issuer.SealedKey, err error) {
	err = s.db.read(ctx, "read signing keys", func(ctx context.Context, conn *pgxpool.Conn) error {
		found, err := loadKeys(ctx, s.db, conn)
		keys = nil
		for _, key := range found {
			keys = append(keys, *key)
		}
		return err
	})
	return keys, err
}

// PublishSigningKey is described at issuer.KeyStore.
func (s *Store) PublishSigningKey(ctx context.Context, policy issuer.KeyPolicy, another bool, newKey makeKey) ([]issuer.SealedKey, error) {
	return s.withKeys(ctx, "publish signing key", func(k *keyTurn) error {
		if err := k.maintain(policy, newKey); err != nil {
			return err
		}
		if !another && k.in(issuer.KeyPublished) != nil {
			return nil // one is on its way already
		}
		return k.add(issuer.KeyPublished, newKey)
	})
}

// ReplaceSigningKey is described at issuer.KeyStore.
func (s *Store) ReplaceSigningKey(ctx context.Context, kid string) ([]issuer.SealedKey, error) {
	return s.withKeys(ctx, "replace signing key", func(k *keyTurn) error {
		i := slices.IndexFunc(k.keys, func(key *issuer.SealedKey) bool { return key.KID == kid && key.Phase == issuer.KeyPublished })
		if i < 0 {
			return issuer.ErrNotFound
		}
		if active := k.in(issuer.KeyActive); active != nil {
			if err := k.move(active, issuer.KeyGone); err != nil {
				return err
			}
		}
		return k.move(k.keys[i], issuer.KeyActive)
	})
}

// ResealSigningKey is described at issuer.KeyStore.
func (s *Store) ResealSigningKey(ctx context.Context, kid string, sealed []byte) error {
	return s.db.write(ctx, "reseal signing key", func(ctx context.Context, conn *pgxpool.Conn) error {
		tag, err := conn.Exec(ctx, s.db.sql(`UPDATE {s}.gpt_signing_keys SET sealed = $2 WHERE kid = $1 AND phase <> 'gone'`), kid, sealed)
		if err == nil && tag.RowsAffected() == 0 {
			return issuer.ErrNotFound
		}
		return err
	})
}

// keyTurn is one node's turn at the keys, under the lock that all nodes share.
type keyTurn struct {
	ctx  context.Context
	db   *DB
	tx   pgx.Tx
	now  time.Time // of the database
	keys []*issuer.SealedKey
}

func (s *Store) withKeys(ctx context.Context, step string, do func(*keyTurn) error) (keys []issuer.SealedKey, err error) {
	err = s.db.write(ctx, step, inTx(func(ctx context.Context, tx pgx.Tx) error {
		k := &keyTurn{ctx: ctx, db: s.db, tx: tx}
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext($1), hashtext('signing_keys'))`, "gpt:"+s.db.schema); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		if err := k.load(); err != nil {
			return fmt.Errorf("load: %w", err)
		}
		if err := do(k); err != nil {
			return err
		}
		keys = nil
		for _, key := range k.keys {
			if key.Phase != issuer.KeyGone {
				keys = append(keys, *key)
			}
		}
		return nil
	}))
	return keys, err
}

func (k *keyTurn) load() error {
	if err := k.tx.QueryRow(k.ctx, `SELECT clock_timestamp()`).Scan(&k.now); err != nil {
		return err
	}
	var err error
	k.keys, err = loadKeys(k.ctx, k.db, k.tx)
	return err
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// loadKeys reads the keys that are not gone, oldest first.
func loadKeys(ctx context.Context, db *DB, from querier) ([]*issuer.SealedKey, error) {
	rows, err := from.Query(ctx, db.sql(`SELECT kid, phase, public::text, sealed, since, created_at FROM {s}.gpt_signing_keys WHERE phase <> 'gone' ORDER BY created_at, kid`))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*issuer.SealedKey, error) {
		var key issuer.SealedKey
		var public string
		err := row.Scan(&key.KID, &key.Phase, &public, &key.Sealed, &key.Since, &key.CreatedAt)
		key.Public = []byte(public)
		return &key, err
	})
}

// maintain moves each key on. A published key takes over once every cache of
// the JWKS must have it; it is made so early that it does so on schedule.
func (k *keyTurn) maintain(policy issuer.KeyPolicy, newKey makeKey) error {
	for _, key := range k.keys {
		if key.Phase == issuer.KeyRetiring && !k.now.Before(key.Since.Add(policy.RetireFor)) {
			if err := k.move(key, issuer.KeyGone); err != nil {
				return err
			}
		}
	}
	active, next := k.in(issuer.KeyActive), k.in(issuer.KeyPublished)
	switch {
	case active == nil && next != nil:
		return k.move(next, issuer.KeyActive)
	case active == nil: // the very first key signs at once
		return k.add(issuer.KeyActive, newKey)
	case next != nil && !k.now.Before(next.Since.Add(policy.PublishFor)):
		if err := k.move(active, issuer.KeyRetiring); err != nil {
			return err
		}
		return k.move(next, issuer.KeyActive)
	case next == nil && policy.RotateEvery > 0 && !k.now.Before(active.Since.Add(policy.RotateEvery-policy.PublishFor)):
		return k.add(issuer.KeyPublished, newKey)
	}
	return nil
}

func (k *keyTurn) in(phase issuer.KeyPhase) *issuer.SealedKey {
	i := slices.IndexFunc(k.keys, func(key *issuer.SealedKey) bool { return key.Phase == phase })
	if i < 0 {
		return nil
	}
	return k.keys[i]
}

func (k *keyTurn) move(key *issuer.SealedKey, phase issuer.KeyPhase) error {
	key.Phase, key.Since = phase, k.now
	_, err := k.tx.Exec(k.ctx, k.db.sql(`UPDATE {s}.gpt_signing_keys SET phase = $2, since = $3, sealed = CASE WHEN $2 = 'gone' THEN NULL ELSE sealed END WHERE kid = $1`),
		key.KID, string(phase), k.now)
	if err != nil {
		return fmt.Errorf("move key %s to phase %s: %w", key.KID, phase, err)
	}
	return nil
}

func (k *keyTurn) add(phase issuer.KeyPhase, newKey makeKey) error {
	key, err := newKey()
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	key.Phase, key.Since, key.CreatedAt = phase, k.now, k.now
	_, err = k.tx.Exec(k.ctx, k.db.sql(`INSERT INTO {s}.gpt_signing_keys (kid, phase, public, sealed, since, created_at) VALUES ($1, $2, $3, $4, $5, $5)`),
		key.KID, string(phase), string(key.Public), key.Sealed, k.now)
	if err != nil {
		return fmt.Errorf("store key %s: %w", key.KID, err)
	}
	k.keys = append(k.keys, &key)
	return nil
}
