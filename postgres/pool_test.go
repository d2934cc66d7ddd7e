//go:build unix

package postgres_test

import (
	"net/url"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// TestEveryHostOfTheDSNIsTried: with several hosts, one that is down does not
// keep the gateway from starting. SECURITY-CASES 3.2.
func TestEveryHostOfTheDSNIsTried(t *testing.T) {
	t.Parallel()
	dsn, err := url.Parse(postgrestest.Migrated(t))
	if err != nil {
		t.Fatal(err)
	}
	query := dsn.Query()
	query.Set("host", t.TempDir()+","+query.Get("host")) // nobody listens in the first
	query.Set("port", "5432,"+query.Get("port"))
	query.Set("target_session_attrs", "read-write")
	dsn.RawQuery = query.Encode()
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn.String(), ConnectWait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
}

// TestServerThatMayLoseCommitsIsReported at start; the server of the tests runs
// without fsync. SECURITY-CASES 3.3.
func TestServerThatMayLoseCommitsIsReported(t *testing.T) {
	t.Parallel()
	logs, seen := observer.New(zap.WarnLevel)
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: postgrestest.Migrated(t), Logger: zap.New(logs)})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if seen.FilterMessageSnippet("may lose commits in a crash").Len() != 1 {
		t.Errorf("logged: %v", seen.All())
	}
}
