package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
)

const (
	// clockEvery is how often the database is asked for the time.
	clockEvery = time.Second
	// clockTolerance is the difference of two clocks that is none: it is less
	// than the leeway of tokens, and more than what a slow answer adds.
	clockTolerance = 2 * time.Second
)

// Clock knows the time of the database, by which rows expire, beside the node's
// own. Access tokens are dated by the database's, so that all nodes date alike,
// and have expired when either clock says so: a node whose clock is behind, or
// was set back, lets no token live longer.
//
// Where the two differ by no more than clockTolerance, the node's is the time. A
// database that is set back while we run is not followed as long as the node's
// clock stands against it.
type Clock struct {
	db   *DB
	wall func() time.Time // of the node

	last atomic.Pointer[clockReading] // nil: not asked yet
}

// clockReading is the database's time at a moment of the monotonic clock, which
// nobody can set.
type clockReading struct {
	database time.Time
	at       time.Time
}

// now is the database's time by this reading.
func (r *clockReading) now(at time.Time) time.Time { return r.database.Add(at.Sub(r.at)) }

// NewClock returns a clock that does not know the database's time before Run.
// wall is the node's clock; nil: time.Now.
func NewClock(db *DB, wall func() time.Time) *Clock {
	if wall == nil {
		wall = time.Now
	}
	return &Clock{db: db, wall: wall}
}

// Skew is how far the node's clock is ahead of the database's; negative: it is
// behind. Zero before the database was asked.
func (c *Clock) Skew() time.Duration {
	_, skew := c.read()
	return skew
}

func (c *Clock) read() (wall time.Time, skew time.Duration) {
	wall = c.wall()
	if last := c.last.Load(); last != nil {
		skew = wall.Sub(last.now(time.Now()))
	}
	return wall, skew
}

// Issuing is by what a token is dated now.
func (c *Clock) Issuing() time.Time {
	wall, skew := c.read()
	if apart(skew) {
		return wall.Add(-skew)
	}
	return wall
}

// Judging is by what a token has expired now or not.
func (c *Clock) Judging() time.Time {
	wall, skew := c.read()
	if skew < -clockTolerance {
		return wall.Add(-skew)
	}
	return wall
}

func apart(skew time.Duration) bool { return skew < -clockTolerance || skew > clockTolerance }

// Run asks the database until ctx ends.
func (c *Clock) Run(ctx context.Context) {
	var said bool
	for {
		if err := c.ask(ctx); err == nil {
			if skew := c.Skew(); apart(skew) != said {
				said = !said
				c.report(said, skew)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(clockEvery):
		}
	}
}

func (c *Clock) report(differ bool, skew time.Duration) {
	if !differ {
		c.db.logger.Info("the clocks of this node and of the database agree again")
		return
	}
	c.db.logger.Error("the clocks of this node and of the database differ: tokens are dated by the database's and expire by the later of the two, and so may live shorter; set the clocks",
		zap.Duration("node_ahead_by", skew.Round(time.Millisecond)))
}

// ask reads the database's time once.
func (c *Clock) ask(ctx context.Context) error {
	var sent, answered, database time.Time
	err := c.db.read(ctx, "read the clock", func(ctx context.Context, conn *pgxpool.Conn) error {
		sent = time.Now()
		err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&database)
		answered = time.Now()
		return err
	})
	if err != nil || answered.Sub(sent) > clockTolerance/2 { // too slow to be exact
		return err
	}
	c.take(&clockReading{database.Round(0), sent.Add(answered.Sub(sent) / 2)})
	return nil
}

// take follows the database, unless it was set back and the node's clock says
// that it should not have been.
func (c *Clock) take(reading *clockReading) {
	if last := c.last.Load(); last != nil {
		expected := last.now(reading.at)
		setBack := expected.Sub(reading.database) > clockTolerance
		if setBack && apart(c.wall().Sub(reading.now(time.Now()))) {
			return
		}
	}
	c.last.Store(reading)
}
