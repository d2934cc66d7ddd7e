//go:build unix

package postgres_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/postgres"
)

// ADM-06: TestListsGoByAnIndexAndStopAtABound: whatever is asked for, a statement
// looks at a bounded number of rows of an index that has them in order, as the
// connections of the pool plan it.
func TestListsGoByAnIndexAndStopAtABound(t *testing.T) {
	s := newScene(t)
	const rows = 5000
	s.exec(`INSERT INTO gpt_sessions (user_id, client_id, scopes, created_at, last_active, expires_at, client_address)
		SELECT 'user-' || n % 1000, CASE WHEN n % 2 = 0 THEN 'app' ELSE 'other' END, '{jobs:read}', now() - n * interval '1 second', now(), now() + interval '1 day', '192.0.2.1'
		FROM generate_series(1, $1) n`, rows)
	s.exec(`INSERT INTO gpt_oauth_events (event_type, user_id, client_id, session_id, created_at)
		SELECT 'x', 'user-' || n % 1000, CASE WHEN n < 9 THEN 'few' ELSE 'app' END, gen_random_uuid(), now() - n * interval '1 second' FROM generate_series(1, $1) n`, rows)
	s.exec(`ANALYZE gpt_sessions, gpt_oauth_events`)
	s.exec(`SET plan_cache_mode = force_generic_plan`)
	s.exec(`SET enable_seqscan = off`)
	s.exec(`SET jit = off`)
	s.exec(`SET enable_bitmapscan = off`)
	at := postgres.Position{At: time.Now().Add(-time.Minute), ID: uuid.New()}
	network := netip.MustParsePrefix("203.0.113.0/24")
	for name, c := range map[string]struct {
		sql   string
		args  []any
		index string
	}{
		"all sessions":                      explained(postgres.SessionFilter{}.Statement(at, 50))("gpt_sessions_listed_idx"),
		"first page":                        explained(postgres.SessionFilter{}.Statement(postgres.Position{}, 50))("gpt_sessions_listed_idx"),
		"sessions of a user":                explained(postgres.SessionFilter{UserID: "user-7"}.Statement(at, 50))("gpt_sessions_live_idx"),
		"sessions of a client":              explained(postgres.SessionFilter{ClientID: "app"}.Statement(at, 50))("gpt_sessions_client_listed_idx"),
		"sessions with a scope":             explained(postgres.SessionFilter{Scope: "nope"}.Statement(at, 50))("gpt_sessions_listed_idx"),
		"sessions from a network":           explained(postgres.SessionFilter{Addresses: network}.Statement(at, 50))("gpt_sessions_listed_idx"),
		"old sessions":                      explained(postgres.SessionFilter{Before: time.Now().Add(-time.Minute), IdleSince: time.Now().Add(-time.Minute)}.Statement(at, 50))("gpt_sessions_listed_idx"),
		"old sessions of a client":          explained(postgres.SessionFilter{ClientID: "app", Before: time.Now().Add(-time.Hour)}.Statement(postgres.Position{}, 50))("gpt_sessions_client_listed_idx"),
		"sessions of a client that has few": explained(postgres.SessionFilter{ClientID: "few"}.Statement(at, 50))("gpt_sessions_client_listed_idx"),
		"events of a client that has few":   explained(postgres.EventFilter{ClientID: "few", Since: time.Now().Add(-time.Hour)}.Statement(postgres.Position{}, 50))("gpt_events_client_idx"),
		"all events":                        explained(postgres.EventFilter{}.Statement(at, 50))("idx_gpt_oauth_events_created_at"),
		"events of a user":                  explained(postgres.EventFilter{UserID: "user-7"}.Statement(at, 50))("gpt_events_user_idx"),
		"events of a client":                explained(postgres.EventFilter{ClientID: "app"}.Statement(at, 50))("gpt_events_client_idx"),
		"events of a session":               explained(postgres.EventFilter{SessionID: uuid.New()}.Statement(at, 50))("gpt_events_session_idx"),
		"events of a type, lately":          explained(postgres.EventFilter{Type: "y", Since: time.Now().Add(-time.Hour)}.Statement(at, 50))("idx_gpt_oauth_events_created_at"),
	} {
		plan := s.plan(c.sql, c.args...)
		if !strings.Contains(plan, c.index) || strings.Contains(plan, "Seq Scan") {
			t.Errorf("%s goes another way than by %s:\n%s", name, c.index, plan)
		}
		if looked := mostRows(plan); looked > 2000+32 { // an incremental sort reads a group ahead
			t.Errorf("%s looked at %d rows:\n%s", name, looked, plan)
		}
	}

	// What matches nowhere takes as many steps as there are rows for, and ends.
	steps, from := 0, postgres.Position{}
	for more := true; more; steps++ {
		found, next, again, err := s.store.ListSessions(s.ctx, postgres.SessionFilter{Scope: "nope"}, from, 50)
		s.must(err)
		if len(found) != 0 || steps > rows {
			t.Fatalf("step %d: %d sessions", steps, len(found))
		}
		from, more = next, again
	}
	if want := rows/2000 + 1; steps != want {
		t.Errorf("%d steps, want %d", steps, want)
	}
}

type planned = struct {
	sql   string
	args  []any
	index string
}

func explained(sql string, args []any) func(index string) planned {
	return func(index string) planned { return planned{sql, args, index} }
}

// plan is how the statement was executed, as the pool plans it: for any
// arguments.
func (s *scene) plan(sql string, args ...any) string {
	s.Helper()
	s.exec(`PREPARE listed AS ` + sql)
	defer s.exec(`DEALLOCATE listed`)
	values := make([]string, len(args))
	for i, arg := range args {
		if at, ok := arg.(time.Time); ok {
			arg = at.Format(time.RFC3339Nano)
		}
		values[i] = fmt.Sprintf("'%v'", arg)
	}
	execute := `EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE listed`
	if len(values) > 0 {
		execute += `(` + strings.Join(values, ", ") + `)`
	}
	rows, err := s.sql.Query(s.ctx, execute)
	s.must(err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	s.must(err)
	return strings.Join(lines, "\n")
}

// mostRows is the largest number of rows that a step of the plan yielded or threw
// away.
func mostRows(plan string) (most int) {
	for line := range strings.Lines(plan) {
		for _, before := range []string{"actual rows=", "Rows Removed by Filter: "} {
			if _, rest, ok := strings.Cut(line, before); ok {
				var n float64
				if _, err := fmt.Sscanf(rest, "%f", &n); err == nil {
					most = max(most, int(n))
				}
			}
		}
	}
	return most
}
