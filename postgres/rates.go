package postgres

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// Rates adds up what nodes have counted of their callers.
type Rates struct{ db *DB }

// NewRates returns what is counted in db, whose schema must be migrated.
func NewRates(db *DB) *Rates { return &Rates{db} }

// exchangeRatesSQL adds to each key what was spent, and returns what all nodes
// together have spent and is not made good yet. now() is the statement's own: it
// is a transaction by itself, and must not drift between the rows. It waits for no
// disk: what is lost in a crash is a caller's debt of some seconds.
const exchangeRatesSQL = `
	INSERT INTO {s}.gpt_rates AS r (key, whole_at)
	SELECT u.key, now() + make_interval(secs => u.spent)
	FROM unnest($1::bytea[], $2::float8[]) AS u (key, spent), (SELECT set_config('synchronous_commit', 'off', true)) AS quick
	ON CONFLICT (key) DO UPDATE SET whole_at = greatest(r.whole_at, now()) + (excluded.whole_at - now())
	RETURNING key, extract(epoch FROM whole_at - now())::float8`

// Exchange is a ratelimit.Exchange.
func (r *Rates) Exchange(ctx context.Context, spent []ratelimit.Spent) ([]ratelimit.Spent, error) {
	// In one order, so that two nodes do not wait for each other in a circle.
	ordered := slices.SortedFunc(slices.Values(spent), func(a, b ratelimit.Spent) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	keys, times := make([][]byte, len(ordered)), make([]float64, len(ordered))
	for i, s := range ordered {
		keys[i], times[i] = s.Key[:], s.Time.Seconds()
	}
	standing := make([]ratelimit.Spent, 0, len(spent))
	err := r.db.maintain(func(ctx context.Context, conn *pgxpool.Conn) error {
		standing = standing[:0]
		rows, err := conn.Query(ctx, r.db.sql(exchangeRatesSQL), keys, times)
		if err != nil {
			return err
		}
		var key []byte
		var seconds float64
		_, err = pgx.ForEachRow(rows, []any{&key, &seconds}, func() error {
			standing = append(standing, ratelimit.Spent{Key: ratelimit.Key(key), Time: time.Duration(seconds * float64(time.Second))})
			return nil
		})
		return err
	})
	return standing, wrap("exchange rates", err)
}
