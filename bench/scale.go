package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/postgres"
)

const (
	// inUse sessions are used, the same ones whatever the size of the table.
	inUse = 10_000
	// scaleRounds that count.
	scaleRounds = 7
	// scaleBuffers is shared_buffers: the pages of what is in use fit.
	scaleBuffers = "2GB"
)

// scaleSettings let the server count buffers, and keep what it does by itself out
// of the figures.
func scaleSettings() map[string]string {
	return map[string]string{
		"shared_preload_libraries": "pg_stat_statements", "max_connections": "200",
		"shared_buffers": scaleBuffers, "maintenance_work_mem": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min",
		"autovacuum": "off", // all databases are vacuumed and analysed at the same point
	}
}

// scaleResults is the results file.
type scaleResults struct {
	Time       time.Time         `json:"time"`
	Machine    machine           `json:"machine"`
	Postgres   string            `json:"postgresql"`
	Rows       []int             `json:"rows"` // of each table
	Tables     []*scaleTable     `json:"tables"`
	Operations []*scaleOperation `json:"operations"`
	PollMicros float64           `json:"poll_us"` // of a view that hears of nothing, in Postgres
}

// scaleTable is the size of a table with its indexes, by size of the database.
type scaleTable struct {
	Name  string  `json:"name"`
	Bytes []int64 `json:"bytes"`
}

// runScale measures what operations cost in databases of different size.
func runScale(ctx context.Context, o options) error {
	rows, err := parseRows(o.rows)
	if err != nil {
		return err
	}
	s, err := newScene(ctx, sceneConfig{settings: scaleSettings(), data: o.data})
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.buildCaddy(ctx); err != nil {
		return err
	}
	// 1. The sessions in use, and the tables around them.
	tokens, err := s.seed(ctx)
	if err != nil {
		return fmt.Errorf("make sessions: %w", err)
	}
	for _, n := range rows {
		if err := s.fill(ctx, n); err != nil {
			return fmt.Errorf("fill %d rows: %w", n, err)
		}
	}
	if o.fill {
		return nil
	}
	// 2. Gateways before each.
	databases := make([]*sized, len(rows))
	for i, n := range rows {
		if databases[i], err = s.open(ctx, n); err != nil {
			return fmt.Errorf("open %d rows: %w", n, err)
		}
		defer databases[i].close(ctx)
		if err := databases[i].startGateways(ctx, tokens); err != nil {
			return fmt.Errorf("start gateways, %d rows: %w", n, err)
		}
	}
	// 3. What things cost.
	r := &scaleResults{Time: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(ctx), Rows: rows}
	if err := databases[0].conn.QueryRow(ctx, `SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1)`).Scan(&r.Postgres); err != nil {
		return err
	}
	if r.Operations, err = compareSizes(ctx, databases, slices.Concat(gatewayWorks(), storeWorks(inUse)), scaleRounds); err != nil {
		return err
	}
	if r.Tables, err = tableSizes(ctx, databases); err != nil {
		return err
	}
	if r.PollMicros, err = databases[len(databases)-1].pollTime(ctx); err != nil {
		return err
	}
	r.print(os.Stdout)
	return writeJSON(o.out, r)
}

func parseRows(text string) ([]int, error) {
	var rows []int
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < inUse || slices.Contains(rows, n) {
			return nil, fmt.Errorf("-rows %s: two sizes of at least %d", text, inUse)
		}
		rows = append(rows, n)
	}
	if len(rows) != 2 {
		return nil, fmt.Errorf("-rows %s: two sizes of at least %d", text, inUse)
	}
	return rows, nil
}

// sized is one of the databases.
type sized struct {
	scene
	rows       int
	conn       *pgx.Conn
	postmaster int // its process
	db         *postgres.DB
	store      *postgres.Store
	subjects   []string // of the users, at their provider
	revocable  []string // sessions

	// With gateways before it.
	live, strict *proxy
	endpoint     *tokenEndpoint // of live
	requests     [][]byte       // that come next
	refreshes    [][]byte       // requests, one for each session in use
}

// databaseDSN leads to the database with n rows, of the scene's server.
func (s *scene) databaseDSN(n int) (string, error) {
	u, err := url.Parse(s.database.DSN())
	if err != nil {
		return "", err
	}
	u.Path = "/" + databaseName(n)
	return u.String(), nil
}

// open connects to the database with n rows.
func (s *scene) open(ctx context.Context, n int) (d *sized, err error) {
	d = &sized{scene: *s, rows: n}
	d.sessions = nil
	defer func() {
		if err != nil {
			d.close(ctx)
		}
	}()
	if d.dsn, err = s.databaseDSN(n); err != nil {
		return d, err
	}
	if d.conn, err = pgx.Connect(ctx, d.dsn); err != nil {
		return d, err
	}
	if d.postmaster, err = parentOf(int(d.conn.PgConn().PID())); err != nil {
		return d, err
	}
	if err := d.findSessions(ctx); err != nil {
		return d, err
	}
	if d.db, err = postgres.Open(ctx, postgres.Config{DSN: d.dsn}); err != nil {
		return d, err
	}
	d.store = postgres.NewStore(d.db)
	return d, nil
}

// startGateways starts one for each kind of session check.
func (d *sized) startGateways(ctx context.Context, tokens [][]byte) (err error) {
	for into, name := range map[**proxy]string{&d.live: "live", &d.strict: "strict"} {
		gateway := scenarioOf(name)
		gateway.name += "-" + databaseName(d.rows) // it keeps files under its name
		if *into, err = startProxy(ctx, &d.scene, gateway); err != nil {
			return err
		}
	}
	if d.endpoint, err = newTokenEndpoint(ctx, &d.scene, d.live); err != nil {
		return err
	}
	// The same users in each round, whose pages are warm after the first.
	d.endpoint.user = func(code int) string { return d.users[code%exchangesPerRound] }
	for _, token := range tokens {
		d.refreshes = append(d.refreshes, d.endpoint.refreshRequest(token))
	}
	return nil
}

// findSessions takes the sessions in use back to before their first refresh,
// where their tokens are.
func (d *sized) findSessions(ctx context.Context) error {
	for _, sql := range []string{
		`UPDATE gpt_sessions s SET rt_counter = 0, rt_previous = NULL, rt_rotation = NULL, rotated_at = NULL FROM in_use u WHERE s.id = u.id`,
		`TRUNCATE gpt_authorization_codes, gpt_logins CASCADE`,
		`VACUUM (ANALYZE)`,
	} {
		if _, err := d.conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	rows, err := d.conn.Query(ctx, `SELECT id, user_id, `+fmt.Sprintf(scaleSubject, "user_id")+` FROM in_use ORDER BY id`)
	if err != nil {
		return err
	}
	var id uuid.UUID
	var user, subject string
	_, err = pgx.ForEachRow(rows, []any{&id, &user, &subject}, func() error {
		d.sessions, d.users, d.subjects = append(d.sessions, id), append(d.users, user), append(d.subjects, subject)
		return nil
	})
	if err == nil && len(d.sessions) == 0 {
		err = errors.New("no session is in use")
	}
	return err
}

func (d *sized) close(ctx context.Context) {
	if d.endpoint != nil {
		d.endpoint.close(ctx)
	}
	for _, p := range []*proxy{d.live, d.strict} {
		if p != nil {
			p.stop()
		}
	}
	if d.db != nil {
		d.db.Close()
	}
	if d.conn != nil {
		_ = d.conn.Close(context.WithoutCancel(ctx))
	}
}

// pollTime is the mean of the polls of some seconds.
func (d *sized) pollTime(ctx context.Context) (micros float64, err error) {
	if _, err := d.conn.Exec(ctx, `SELECT pg_stat_statements_reset()`); err != nil {
		return 0, err
	}
	time.Sleep(5 * time.Second)
	err = d.conn.QueryRow(ctx, `SELECT sum(total_exec_time) * 1000 / sum(calls) FROM pg_stat_statements
		JOIN pg_database ON oid = dbid WHERE datname = current_database() AND query LIKE '%pg_current_snapshot()%gpt_revocations%'`).Scan(&micros)
	return micros, err
}

// tableSizes are of the tables that grow.
func tableSizes(ctx context.Context, databases []*sized) (tables []*scaleTable, err error) {
	for _, name := range []string{"gpt_sessions", "gpt_session_calls", "gpt_users", "gpt_identities"} {
		table := &scaleTable{Name: name}
		for _, d := range databases {
			var bytes int64
			if err := d.conn.QueryRow(ctx, `SELECT pg_total_relation_size($1::regclass)`, name).Scan(&bytes); err != nil {
				return nil, err
			}
			table.Bytes = append(table.Bytes, bytes)
		}
		tables = append(tables, table)
	}
	return tables, nil
}
