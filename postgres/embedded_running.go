//go:build unix

package postgres

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// RunningEmbeddedDSN returns the connection string of the embedded server that
// another process runs on dataDir, and whether there is one. It changes
// nothing.
func RunningEmbeddedDSN(ctx context.Context, dataDir string) (string, bool) {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return "", false
	}
	for _, place := range []string{dir, filepath.Join("/var/lib/caddy-scope", "postgres-"+shortHash(dir))} {
		if _, err := os.Stat(filepath.Join(place, "password")); err != nil {
			continue
		}
		e := &Embedded{cfg: EmbeddedConfig{Logger: zap.NewNop()}, dir: place, run: filepath.Join(place, "run")}
		if len(e.run) > socketPathMax {
			e.run = filepath.Join("/tmp", "caddy-scope-"+shortHash(place))
		}
		if e.password, err = e.loadPassword(); err != nil {
			continue
		}
		probe, stop := context.WithTimeout(ctx, 2*time.Second)
		conn, err := pgx.Connect(probe, e.DSN())
		stop()
		if err == nil {
			_ = conn.Close(ctx)
			return e.DSN(), true
		}
	}
	return "", false
}
