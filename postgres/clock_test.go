package postgres

import (
	"testing"
	"time"
)

// TestClocksThatDifferLetNoTokenLiveLonger: the node's clock is the injected
// one. A token that some node dates at a moment never lives longer than its
// nominal life at any node, whichever clock is wrong and however it was set
// meanwhile. R-09.
func TestClocksThatDifferLetNoTokenLiveLonger(t *testing.T) {
	t.Parallel()
	const life, jump = 15 * time.Minute, time.Hour
	// What each clock shows beside the true time, when the token is issued and
	// when it is judged.
	type clocks struct{ node, database time.Duration }
	for name, c := range map[string]struct {
		issued, judged clocks
		// lives: the token still passes for so long of its life.
		lives time.Duration
	}{
		"all agree":                          {clocks{}, clocks{}, life},
		"a second apart is none":             {clocks{time.Second, 0}, clocks{}, life + time.Second},
		"issued by a node that is behind":    {clocks{node: -5 * time.Minute}, clocks{}, life},
		"issued by a node that is ahead":     {clocks{node: 5 * time.Minute}, clocks{}, life},
		"judged by a node that is behind":    {clocks{}, clocks{node: -5 * time.Minute}, life},
		"judged by a node that is ahead":     {clocks{}, clocks{node: 5 * time.Minute}, life - 5*time.Minute},
		"a node that was set back":           {clocks{}, clocks{node: -jump}, life},
		"a database that is behind":          {clocks{database: -10 * time.Minute}, clocks{database: -10 * time.Minute}, life - 10*time.Minute},
		"a database that is ahead":           {clocks{database: 10 * time.Minute}, clocks{database: 10 * time.Minute}, life},
		"a database that was set back":       {clocks{}, clocks{database: -jump}, life},
		"a database that was set ahead":      {clocks{}, clocks{database: 10 * time.Minute}, life - 10*time.Minute},
		"node and database, each in its way": {clocks{node: 5 * time.Minute, database: -time.Minute}, clocks{node: -5 * time.Minute}, life - time.Minute},
	} {
		true0 := time.Now()
		issuer := clockAt(c.issued.node, c.issued.database)
		expires := issuer.Issuing().Add(life)
		judge := clockAt(c.judged.node, c.judged.database)
		lives := expires.Sub(judge.Judging()) + time.Since(true0)
		if slack := lives - c.lives; slack < -time.Second || slack > time.Second {
			t.Errorf("%s: a token lives %s, want %s", name, lives, c.lives)
		}
		if lives > life+5*time.Second {
			t.Errorf("%s: a token lives %s", name, lives)
		}
	}
}

// clockAt is a clock that has just read the database.
func clockAt(node, database time.Duration) *Clock {
	c := NewClock(nil, func() time.Time { return time.Now().Add(node) })
	c.take(&clockReading{time.Now().Add(database).Round(0), time.Now()})
	return c
}

// TestDatabaseThatIsSetBackIsNotFollowed, unless the node's clock agrees with
// it; and a node that is set back is found out before the next reading. R-09.
func TestDatabaseThatIsSetBackIsNotFollowed(t *testing.T) {
	t.Parallel()
	var node time.Duration
	c := NewClock(nil, func() time.Time { return time.Now().Add(node) })
	read := func(database time.Duration) {
		c.take(&clockReading{time.Now().Add(database).Round(0), time.Now()})
	}
	near := func(what string, got time.Time, want time.Duration) {
		t.Helper()
		if off := time.Until(got) - want; off < -time.Second || off > time.Second {
			t.Errorf("%s: %s from now, want %s", what, time.Until(got), want)
		}
	}
	read(0)
	read(-time.Hour)
	near("issuing, the database alone was set back", c.Issuing(), 0)
	near("judging, the database alone was set back", c.Judging(), 0)
	read(0)
	node = -time.Hour
	near("issuing, the node alone was set back", c.Issuing(), 0)
	near("judging, the node alone was set back", c.Judging(), 0)
	node = 0
	read(10 * time.Minute)
	near("issuing, the database was set ahead", c.Issuing(), 10*time.Minute)
	read(0)
	near("issuing, and put right again", c.Issuing(), 0)
	near("judging, and put right again", c.Judging(), 0)
	node = -time.Hour
	read(-time.Hour)
	near("issuing, both were set back", c.Issuing(), -time.Hour)
}
