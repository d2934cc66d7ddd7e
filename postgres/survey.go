package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/migrations"
)

// Survey is what the database holds, at a glance.
type Survey struct {
	Server          string // version
	Version, Latest int    // of the schema, and the one that the binary knows
	Sessions        RowCount
	Users           RowCount
	Registered      RowCount // clients that registered themselves, both ways
	Events          RowCount
}

// RowCount is how many rows a table has: by count up to surveyCount, beyond as
// the server estimates, so that ten million cost no more than a few.
type RowCount struct {
	Rows      int64 `json:"rows"`
	Estimated bool  `json:"estimated,omitempty"`
}

// surveyCount is the most rows that are counted.
const surveyCount = 10_000

// surveyOf counts the rows of a table, up to one more than surveyCount, and reads
// the server's estimate.
func surveyOf(table string) string {
	return fmt.Sprintf(`SELECT (SELECT count(*) FROM (SELECT FROM {s}.%[1]s LIMIT %[2]d) counted), (SELECT reltuples::float8 FROM pg_class WHERE oid = '{s}.%[1]s'::regclass)`, table, surveyCount+1)
}

// Survey looks at the database. It costs some milliseconds, whatever is in there.
func (db *DB) Survey(ctx context.Context) (s Survey, err error) {
	all, err := migrations.All()
	if err != nil {
		return Survey{}, err
	}
	err = db.read(ctx, "survey", func(ctx context.Context, conn *pgxpool.Conn) error {
		s = Survey{Latest: len(all)}
		var documents RowCount
		batch := new(pgx.Batch)
		batch.Queue(db.sql(`SELECT current_setting('server_version'), coalesce(max(version), 0) FROM {s}.gpt_schema_migrations WHERE applied_at IS NOT NULL`)).
			QueryRow(func(row pgx.Row) error { return row.Scan(&s.Server, &s.Version) })
		for table, count := range map[string]*RowCount{
			"gpt_sessions": &s.Sessions, "gpt_users": &s.Users, "gpt_oauth_events": &s.Events,
			"gpt_client_registrations": &s.Registered, "gpt_client_documents": &documents,
		} {
			batch.Queue(db.sql(surveyOf(table))).QueryRow(count.scan)
		}
		if err := conn.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		s.Registered.Rows += documents.Rows
		s.Registered.Estimated = s.Registered.Estimated || documents.Estimated
		return nil
	})
	return s, err
}

func (c *RowCount) scan(row pgx.Row) error {
	var counted int64
	var estimate float64
	if err := row.Scan(&counted, &estimate); err != nil {
		return err
	}
	if *c = (RowCount{Rows: counted}); counted > surveyCount {
		*c = RowCount{Rows: max(counted, int64(estimate)), Estimated: true}
	}
	return nil
}
