package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
)

// Config opens a DB.
type Config struct {
	// DSN of the database; several hosts may be named. Required.
	DSN string
	// Schema; empty: public.
	Schema string
	// Pooled: DSN leads through a transaction pooler. No named statements and no
	// LISTEN then. A pooler that is found out is treated so too.
	Pooled bool
	// MaxConns bounds the connections, and with them what a hung server can
	// keep busy. Zero: 10.
	MaxConns int
	// Timeout of every call. Zero: 2 seconds.
	Timeout time.Duration
	// ConnectWait bounds the wait for the server in Open. Zero: 15 seconds.
	ConnectWait time.Duration
	// Logger; nil: none.
	Logger *zap.Logger
}

// DB is a pool of connections to one schema. It is safe for concurrent use and
// recovers by itself when the server comes back.
type DB struct {
	pool    *pgxpool.Pool
	schema  string // quoted
	hosts   string
	timeout time.Duration
	pooled  atomic.Bool // through a transaction pooler
	logger  *zap.Logger
	breaker breaker
	// writing leaves some connections to the reads: writes can all hang in
	// COMMIT while a synchronous standby is away.
	writing  chan struct{}
	queries  sync.Map // query text -> text with the schema in it
	outcomes callOutcomes
}

// Open connects. The error of a server that cannot be reached in ConnectWait
// names the hosts, never the password.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	schema, err := quoteSchema(cfg.Schema)
	if err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 10
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.ConnectWait == 0 {
		cfg.ConnectWait = 15 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	pc, err := pgxpool.ParseConfig(cfg.DSN)
	if err != nil {
		return nil, errors.New("open postgres: the DSN cannot be parsed") // the cause may quote it
	}
	db := &DB{schema: schema, hosts: hostsOf(&pc.ConnConfig.Config), timeout: cfg.Timeout, logger: cfg.Logger,
		writing: make(chan struct{}, max(1, cfg.MaxConns-max(1, cfg.MaxConns/5)))}
	db.pooled.Store(cfg.Pooled)
	db.configure(pc, cfg)
	if db.pool, err = pgxpool.NewWithConfig(context.Background(), pc); err != nil { // it keeps the context
		return nil, fmt.Errorf("open postgres at %s: %w", db.hosts, err)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectWait)
	defer cancel()
	for {
		err := db.Ready(ctx)
		if err == nil {
			db.warnOfLossyCommits(ctx)
			return db, nil
		}
		select {
		case <-ctx.Done():
			db.pool.Close()
			return nil, fmt.Errorf("open postgres at %s: not reachable within %s: %w", db.hosts, cfg.ConnectWait, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

const (
	dialLimit = 2 * time.Second
	// connectLimit bounds all that comes before a connection can be used, of one
	// host: six answers, which a slow network brings late. No request waits for it
	// so long; the pool goes on by itself, or it would never get a connection.
	connectLimit = 5 * time.Second
)

func (db *DB) configure(pc *pgxpool.Config, cfg Config) {
	pc.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error { db.prepare(cc); return nil }
	pc.AfterConnect = db.planOnce
	pc.MaxConns = int32(cfg.MaxConns)
	pc.PingTimeout = time.Second
	pc.MaxConnIdleTime = 5 * time.Minute
	cc := pc.ConnConfig
	if cc.ConnectTimeout == 0 || cc.ConnectTimeout > connectLimit {
		cc.ConnectTimeout = connectLimit
	}
	cc.ValidateConnect = db.validate(cc.ValidateConnect)
	dialer := &net.Dialer{Timeout: dialLimit, Control: limitUnacked, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}}
	cc.DialFunc = dialer.DialContext
	cc.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool { return !brokenBy(err) }
	cc.OnNotice = func(conn *pgconn.PgConn, notice *pgconn.Notice) {
		if unreplicated(notice) {
			conn.CustomData()[unreplicatedKey] = true
		}
	}
}

// planOnce has the server keep the plan of each statement. All of them look rows
// up by their keys, whatever the arguments; left to itself, the server planned
// the exchange of a code anew each time, for longer than the exchange took. A plan
// is made for the table that will be: one of a few rows would be read as a whole,
// and still be when it has grown. A statement, not parameters of the connection:
// poolers refuse those that they do not know. A server that does not know it goes
// without.
func (db *DB) planOnce(ctx context.Context, conn *pgx.Conn) error {
	if db.pooled.Load() { // nothing is prepared
		return nil
	}
	_, err := conn.Exec(ctx, `SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off`)
	if conn.IsClosed() {
		return fmt.Errorf("set how statements are planned: %w", err)
	}
	return nil
}

// brokenBy reports whether the connection is of no more use: the server shuts
// down, or became a standby, on which an open connection would fail for ever.
func brokenBy(err *pgconn.PgError) bool {
	return strings.EqualFold(err.Severity, "FATAL") || strings.HasPrefix(err.Code, "08") ||
		slices.Contains([]string{"25006", "57P01", "57P02", "57P03"}, err.Code)
}

const unreplicatedKey = "unreplicated"

// unreplicated recognises "canceling wait for synchronous replication" in any
// language: the commit is on this server only, and gone if it fails now.
func unreplicated(n *pgconn.Notice) bool {
	return n.Routine == "SyncRepWaitForLSN" || n.File == "syncrep.c" || strings.Contains(n.Message, "synchronous replication")
}

// Ready reports why the database cannot serve writes now; nil: it can.
func (db *DB) Ready(ctx context.Context) error {
	return db.read(ctx, "ping", func(ctx context.Context, conn *pgxpool.Conn) error {
		var primary bool
		if err := conn.QueryRow(ctx, `SELECT `+takesWrites).Scan(&primary); err != nil {
			return err
		}
		if !primary {
			return errReadOnly
		}
		return nil
	})
}

// warnOfLossyCommits tells the owner when the server may forget what it has
// confirmed. A code redeemed or a session revoked just before a crash would
// then come back to life.
func (db *DB) warnOfLossyCommits(ctx context.Context) {
	var commit, sync string
	err := db.read(ctx, "read settings", func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, `SELECT current_setting('synchronous_commit'), current_setting('fsync')`).Scan(&commit, &sync)
	})
	if err != nil {
		db.logger.Debug("could not read the server's settings", zap.Error(err))
		return
	}
	if warning := lossyCommits(commit, sync); warning != "" {
		db.logger.Warn(warning, zap.String("synchronous_commit", commit), zap.String("fsync", sync))
	}
}

// lossyCommits says what the settings put at risk, or "".
func lossyCommits(commit, sync string) string {
	const consequence = ": revoked sessions and used codes would be valid again"
	switch {
	case sync == "off" || commit == "off":
		return "the Postgres server may lose commits in a crash" + consequence
	case commit == "local":
		return "the Postgres server does not wait for standbys and may lose commits in a failover" + consequence
	}
	return ""
}

// Close ends all connections, without waiting for those that hang.
func (db *DB) Close() {
	done := make(chan struct{})
	go func() {
		db.pool.Close()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(2 * db.timeout):
	}
}

// sql puts the schema into a query; {s} stands for it.
func (db *DB) sql(query string) string {
	if text, ok := db.queries.Load(query); ok {
		return text.(string)
	}
	text := strings.ReplaceAll(query, "{s}", db.schema)
	db.queries.Store(query, text)
	return text
}
