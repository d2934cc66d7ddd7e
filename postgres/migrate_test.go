package postgres_test

import (
	"context"
	"testing"

	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

func TestMigrationsGoUpDownAndUpAgain(t *testing.T) {
	t.Parallel()
	cfg := postgres.MigrateConfig{DSN: postgrestest.New(t), Schema: "my-scope"}
	for range 2 {
		if err := postgres.Migrate(context.Background(), cfg); err != nil {
			t.Fatal(err)
		}
		if err := postgres.MigrateDown(context.Background(), cfg, 0); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := postgres.MigrationStatus(context.Background(), cfg); err != nil || s.Version != 0 {
		t.Fatalf("status after down: %+v, %v", s, err)
	}
}
