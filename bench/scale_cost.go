package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// scaleOperation is what an operation costs in databases of different size.
type scaleOperation struct {
	Name string `json:"name"`
	// Costs by size, in the order of the results' rows; each has one for each round.
	Costs [][]scaleCost `json:"costs"`
}

// scaleCost is of one operation.
type scaleCost struct {
	GatewayMicros  float64 `json:"gateway_us"` // zero: no gateway is asked
	PostgresMicros float64 `json:"postgres_us"`
	Buffers        float64 `json:"buffers"` // pages of 8 KiB that were looked at
	WAL            float64 `json:"wal_bytes"`
}

func cpuOf(c scaleCost) float64     { return c.GatewayMicros + c.PostgresMicros }
func gatewayOf(c scaleCost) float64 { return c.GatewayMicros }
func serverOf(c scaleCost) float64  { return c.PostgresMicros }
func buffersOf(c scaleCost) float64 { return c.Buffers }
func walOf(c scaleCost) float64     { return c.WAL }

func (o *scaleOperation) values(size int, of func(scaleCost) float64) []float64 {
	values := make([]float64, len(o.Costs[size]))
	for i, c := range o.Costs[size] {
		values[i] = of(c)
	}
	return values
}

// ratio compares the large with the small database, round by round.
func (o *scaleOperation) ratio(of func(scaleCost) float64) estimate {
	ratios := o.values(1, of)
	for i, small := range o.values(0, of) {
		ratios[i] /= small
	}
	return estimateOf(ratios)
}

// compareSizes lets the databases take turns, after a checkpoint and a round
// that does not count.
func compareSizes(ctx context.Context, databases []*sized, works []*scaleWork, rounds int) ([]*scaleOperation, error) {
	operations := make([]*scaleOperation, len(works))
	for i, w := range works {
		operations[i] = &scaleOperation{w.name, make([][]scaleCost, len(databases))}
	}
	if _, err := databases[0].conn.Exec(ctx, `CHECKPOINT`); err != nil {
		return nil, err
	}
	for round := range rounds + 1 {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round, rounds)
		for i, w := range works {
			for turn := range databases {
				size := (turn + round) % len(databases) // each is first in its turn
				d := databases[size]
				cost, err := d.cost(ctx, w)
				if err != nil {
					return nil, fmt.Errorf("%s, %d rows: %w", w.name, d.rows, err)
				}
				if round > 0 {
					operations[i].Costs[size] = append(operations[i].Costs[size], cost)
				}
			}
		}
	}
	return operations, nil
}

// byItself matches statements that gateways send by themselves: those that follow
// revocations, clean up, and write what sessions did.
const byItself = `gpt_revocations|OF r SKIP LOCKED|INTO [^ ]*gpt_session_calls`

// cost does the work and returns what one operation took.
func (d *sized) cost(ctx context.Context, w *scaleWork) (c scaleCost, err error) {
	if w.prepare != nil {
		if err := w.prepare(ctx, d); err != nil {
			return c, fmt.Errorf("prepare: %w", err)
		}
	}
	if _, err := d.conn.Exec(ctx, `SELECT pg_stat_statements_reset()`); err != nil {
		return c, err
	}
	before, err := d.meter(ctx, w)
	if err != nil {
		return c, err
	}
	if err := w.do(ctx, d); err != nil {
		return c, err
	}
	after, err := d.meter(ctx, w)
	if err != nil {
		return c, err
	}
	err = d.conn.QueryRow(ctx, `SELECT coalesce(sum(shared_blks_hit + shared_blks_read), 0)::float8 FROM pg_stat_statements
		JOIN pg_database ON oid = dbid WHERE datname = current_database() AND query !~ $1 AND query !~ 'pg_stat_statements'
			AND ($2 OR query !~ 'SET last_active')`, byItself, w.through == nil).Scan(&c.Buffers)
	c.Buffers /= float64(w.count)
	c.GatewayMicros = micros(after.gateway-before.gateway, w.count)
	c.PostgresMicros = micros(after.postgres-before.postgres, w.count)
	c.WAL = float64(after.wal-before.wal) / float64(w.count)
	return c, err
}

// scaleMeter is what has been used so far.
type scaleMeter struct {
	gateway, postgres time.Duration
	wal               int64
}

func (d *sized) meter(ctx context.Context, w *scaleWork) (m scaleMeter, err error) {
	if w.through != nil {
		if m.gateway, err = w.through(d).cpuTime(); err != nil {
			return m, err
		}
	}
	if err := d.conn.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn() - '0/0'`).Scan(&m.wal); err != nil {
		return m, err
	}
	m.postgres, err = postgresCPU(d.postmaster)
	return m, err
}
