package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"
)

// startedSQL tells servers apart, and the lives of one, as a number: two are not
// started in the same microsecond.
const startedSQL = `(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint`

// serverParts tell who answers. After promotion of an asynchronous standby
// transaction ids go back, so each poll asks. The start alone would do; what else
// a managed service lets be asked makes sure.
var serverParts = []struct{ what, sql string }{
	{"system identifier", `(SELECT 'system ' || system_identifier FROM pg_control_system())`},
	{"timeline", `CASE WHEN NOT pg_is_in_recovery() THEN 'timeline ' || left(pg_walfile_name(pg_current_wal_lsn()), 8) END`},
}

// askServer finds out what can be asked of this server, and returns the SQL that
// asks it.
func (c *viewConn) askServer(ctx context.Context, logger *zap.Logger) error {
	parts := []string{`'started ' || to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`}
	for _, part := range serverParts {
		_, err := c.Exec(ctx, `SELECT `+part.sql)
		if notOffered(err) {
			logger.Debug("the server does not tell its "+part.what, zap.Error(err))
			continue
		}
		if err != nil {
			return fmt.Errorf("ask who the server is: %w", err)
		}
		parts = append(parts, part.sql)
	}
	c.server = `concat_ws(', ', ` + strings.Join(parts, ", ") + `)`
	return nil
}

// notOffered reports whether the server lacks what was asked for, or keeps it
// from this role.
func notOffered(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && slices.Contains([]string{"42501", "42883", "0A000"}, pgErr.Code)
}
