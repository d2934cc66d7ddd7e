package postgres

import (
	"context"
	"strings"
	"time"
)

// TimePasses lets the upkeep wait so long, in no time.
func (u *Upkeep) TimePasses(d time.Duration) {
	if !u.heard.at.IsZero() {
		u.heard.at = u.heard.at.Add(-d)
	}
}

// Observe is what a pass does first.
func (u *Upkeep) Observe(ctx context.Context) error { return u.heard.move(ctx, u.db) }

// PersonalTables are the tables that hold something about users, each with the
// columns that are not handed out.
func PersonalTables() map[string][]string {
	tables := make(map[string][]string)
	for _, table := range personalTables {
		tables[table.name] = table.secret
	}
	return tables
}

// StateTables are the tables of a file of state, each with the columns that are
// not in it.
func StateTables() map[string][]string {
	tables := make(map[string][]string)
	for _, table := range stateTables {
		tables[table.name] = table.not
	}
	return tables
}

// Statement is the query of a page of sessions.
func (f SessionFilter) Statement(from Position, limit int) (string, []any) {
	var a args
	sql := "WITH " + f.sql(from, limit, &a) + " SELECT * FROM found"
	return strings.ReplaceAll(sql, "{s}.", ""), a
}

// Statement is the query of a page of events.
func (f EventFilter) Statement(from Position, limit int) (string, []any) {
	var a args
	sql := "WITH " + f.sql(from, limit, &a) + " SELECT * FROM found"
	return strings.ReplaceAll(sql, "{s}.", ""), a
}
