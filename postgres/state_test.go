//go:build unix

package postgres_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// notMoved are the tables that a file of state leaves out, and why.
var notMoved = map[string]string{
	"gpt_schema_migrations": "comes with the tables",
	"gpt_rates":             "quotas, which are whole again in a moment",
	"gpt_revocations":       "tells running nodes, and none runs; by transactions of this server",
}

// OPS-07: TestEveryTableIsMovedOrKnownNotToBe, and no column goes along that means
// something in one server only.
func TestEveryTableIsMovedOrKnownNotToBe(t *testing.T) {
	t.Parallel()
	sql := connect(t, postgrestest.Migrated(t))
	moved := postgres.StateTables()
	rows, err := sql.Query(context.Background(), `SELECT table_name, column_name, udt_name FROM information_schema.columns WHERE table_schema = 'public'`)
	if err != nil {
		t.Fatal(err)
	}
	var table, column, kind string
	_, err = pgx.ForEachRow(rows, []any{&table, &column, &kind}, func() error {
		not, known := moved[table]
		if !known && notMoved[table] == "" {
			t.Errorf("%s would not be moved: add it to stateTables, or to this test", table)
		}
		if known && slices.Contains([]string{"xid", "xid8", "pg_lsn", "pg_snapshot", "oid", "regclass", "tid"}, kind) && !slices.Contains(not, column) {
			t.Errorf("%s.%s is a %s, which another server does not have", table, column, kind)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) export(told func(int)) string {
	s.Helper()
	var file bytes.Buffer
	s.must(postgres.ExportState(s.ctx, &file, postgres.StateConfig{DSN: s.dsn, Issuer: "https://api.test", Told: told}))
	return file.String()
}

// rowsOf are all rows of a table, each as text, without what is not moved.
func rowsOf(t *testing.T, sql *pgx.Conn, table string) []string {
	t.Helper()
	rows, err := sql.Query(context.Background(), `SELECT (to_jsonb(r) - '{rt_rotation,xact,place}'::text[])::text FROM `+table+` r ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// OPS-08: TestStateMovesWhole: every row of every table, as it was, and what it means:
// sessions go on, a refresh token once, and what has ended stays so.
func TestStateMovesWhole(t *testing.T) {
	t.Parallel()
	a := newAda(t)
	a.must(a.store.CheckRootSecret(a.ctx, []string{"fingerprint"}))
	for _, sql := range []string{
		`INSERT INTO gpt_signing_keys (kid, phase, public, sealed, since, created_at) VALUES ('k', 'active', '{"kty" : "EC",  "b":1e2}', '\x00ff', 'infinity', now())`,
		`INSERT INTO gpt_client_registrations (client_id, metadata, token_hash, unused_ttl) VALUES ('other', '{"client_name":"\u00e9\"\\ \u2028"}', decode(repeat('b1', 32), 'hex'), '1 mon 2 days 03:04:05.678')`,
		`INSERT INTO gpt_clients (client_id) VALUES ('https://app.test/client'), ('op_partner')`,
		`INSERT INTO gpt_operator_clients (client_id, settings, secret_hash, secret_since) VALUES ('op_partner', '{}', sha256('s'), now())`,
		`INSERT INTO gpt_client_documents (client_id, document, fetched_at, fresh_until, unused_ttl) VALUES ('https://app.test/client', E'line\none\ttab \\ " é 𝄞', now(), now(), '90 days')`,
		`INSERT INTO gpt_client_assertions (client_id, jti_hash, expires_at) VALUES ('app', sha256('x'), now())`,
		`INSERT INTO gpt_pushed_requests (digest, client_id, parameters, expires_at) VALUES (sha256('y'), 'app', 'a=b&c=%22', now())`,
		`INSERT INTO gpt_dpop_proofs (digest, expires_at) VALUES (sha256('z'), now())`,
		`INSERT INTO gpt_used_once (purpose, digest, expires_at) VALUES ('p', sha256('u'), now())`,
		`INSERT INTO gpt_event_cursors (destination, place, xact) VALUES ('siem.test#0', '1/2', '7')`,
		`INSERT INTO gpt_oauth_events (event_type, metadata) SELECT 'many', jsonb_build_object('n', n) FROM generate_series(1, 2500) n`,
	} {
		a.exec(sql)
	}
	rotated, err := a.rotate(a.session, 0, time.Minute)
	a.must(err)
	told := 0
	file := a.export(func(n int) { told = n })
	if strings.Contains(file, "rt_rotation") {
		t.Error("a transaction of this server is in the file: in another it may be that of a refresh")
	}

	dsn := postgrestest.New(t)
	read := 0
	header, rows, err := postgres.ImportState(a.ctx, strings.NewReader(file), postgres.StateConfig{DSN: dsn, Schema: "moved", Fingerprints: []string{"new", "fingerprint"}, Told: func(n int) { read = n }})
	a.must(err)
	if rows != told || read != told || rows < 2500 || header.Issuer != "https://api.test" || header.Fingerprint != "fingerprint" {
		t.Errorf("%d rows written, %d read, %d imported; %+v", told, read, rows, header)
	}
	sql := connect(t, dsn)
	_, err = sql.Exec(a.ctx, `SET search_path = moved`)
	a.must(err)
	for table := range postgres.StateTables() {
		if table == "gpt_refresh_tokens" {
			continue
		}
		was, is := rowsOf(t, a.sql, table), rowsOf(t, sql, table)
		if len(was) == 0 || !slices.Equal(was, is) {
			t.Errorf("%s: %d rows before, %d after\n%.500s\n%.500s", table, len(was), len(is), was, is)
		}
	}
	// As bytes, too: a public key is compared so.
	var public string
	a.must(sql.QueryRow(a.ctx, `SELECT public::text FROM gpt_signing_keys`).Scan(&public))
	if public != `{"kty" : "EC",  "b":1e2}` {
		t.Errorf("the public key became %s", public)
	}
	m := sceneOn(t, dsn, postgres.Config{DSN: dsn, Schema: "moved", Timeout: 10 * time.Second})
	again, err := m.rotate(a.session, 1, 0)
	if err != nil || again.Repeated || again.Session.Counter != rotated.Session.Counter+1 {
		t.Errorf("the refresh token: %+v %v", again, err)
	}
	if _, err := m.rotate(a.session, 0, 0); err == nil {
		t.Error("the one before it works again")
	}
	if n := m.count(`SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NOT NULL AND revoke_reason = 'x'`); n != 1 {
		t.Errorf("%d sessions are revoked, want 1", n)
	}
}

// OPS-09: TestDamagedFilesAreRefused before anything is committed: cut off at any line or
// within one, changed, with rows more or less, of another version, of nothing.
func TestDamagedFilesAreRefused(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.session("jobs:read")
	s.must(s.store.CheckRootSecret(s.ctx, []string{"fingerprint"}))
	file := s.export(nil)
	lines := strings.SplitAfter(file, "\n")
	lines = lines[:len(lines)-1]
	without := func(i int) string { return strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "") }
	twice := func(i int) string { return strings.Join(slices.Insert(slices.Clone(lines), i, lines[i]), "") }
	target := postgrestest.Migrated(t)
	cfg := postgres.StateConfig{DSN: target, Fingerprints: []string{"fingerprint"}}
	sql := connect(t, target)
	cases := map[string]string{
		"empty":              "",
		"no state":           "{}\n",
		"no JSON":            "PGDMP\x00\x01",
		"header only":        lines[0],
		"a row less":         without(len(lines) / 2),
		"a row twice":        twice(len(lines) - 2),
		"a letter changed":   strings.Replace(file, "emo@", "eva@", 1),
		"a scope more":       strings.Replace(file, `"scopes":["jobs:read"]`, `"scopes":["admin"]`, 1),
		"a later version":    strings.Replace(file, `"version":1`, `"version":2`, 1),
		"another schema":     strings.Replace(file, `"schema_version":`, `"schema_version":1`, 1),
		"a column more":      strings.Replace(file, `"gpt_users":["id"`, `"gpt_users":["shoe_size"`, 1),
		"an unknown table":   strings.Replace(file, `{"gpt_users":{`, `{"gpt_others":{`, 1),
		"something after it": file + "{}\n",
		"two of them":        file + file,
	}
	for i := 1; i < len(lines); i++ {
		whole := strings.Join(lines[:i], "")
		cases[fmt.Sprintf("cut after line %d", i)] = whole
		cases[fmt.Sprintf("cut within line %d", i+1)] = whole + lines[i][:len(lines[i])/2]
	}
	for name, text := range cases {
		if text == file {
			t.Errorf("%s: not damaged", name)
		}
		if _, _, err := postgres.ImportState(s.ctx, strings.NewReader(text), cfg); !errors.Is(err, postgres.ErrStateFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for table := range postgres.StateTables() {
		if table != "gpt_refresh_tokens" && len(rowsOf(t, sql, table)) > 0 {
			t.Errorf("rows of %s are there", table)
		}
	}
	// What was refused is no harm to what comes after.
	if _, _, err := postgres.ImportState(s.ctx, strings.NewReader(strings.TrimSuffix(file, "\n")), cfg); err != nil {
		t.Error(err)
	}
}

// OPS-10: TestImportRefusesWhatItWouldSpoil: a schema in use, another root secret, and the
// tables of another system.
func TestImportRefusesWhatItWouldSpoil(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.must(s.store.CheckRootSecret(s.ctx, []string{"fingerprint"}))
	file := s.export(nil)
	try := func(dsn string, fingerprints ...string) error {
		_, _, err := postgres.ImportState(s.ctx, strings.NewReader(file), postgres.StateConfig{DSN: dsn, Fingerprints: fingerprints})
		return err
	}
	if err := try(s.dsn, "fingerprint"); !errors.Is(err, postgres.ErrStateNotEmpty) || !strings.Contains(err.Error(), "migrate --down 0") {
		t.Errorf("its own database: %v", err)
	}
	empty := postgrestest.New(t)
	if err := try(empty, "another"); !errors.Is(err, postgres.ErrStateSecret) || !strings.Contains(err.Error(), "secret NEW OLD") {
		t.Errorf("another secret: %v", err)
	}
	if err := try(empty); !errors.Is(err, postgres.ErrStateSecret) {
		t.Errorf("no secret: %v", err)
	}
	var tables int
	s.must(connect(t, empty).QueryRow(s.ctx, `SELECT count(*) FROM pg_class WHERE relname LIKE 'gpt%'`).Scan(&tables))
	if tables > 0 {
		t.Error("a refused file made tables")
	}
	old := postgrestest.New(t)
	_, err := connect(t, old).Exec(s.ctx, oldFirst+oldSecond+oldThird+oldRows())
	s.must(err)
	if err := try(old, "fingerprint"); !errors.Is(err, postgres.ErrStateNotEmpty) {
		t.Errorf("another system: %v", err)
	}
	held := postgrestest.Migrated(t)
	holder := connect(t, held)
	_, err = holder.Exec(s.ctx, `BEGIN; INSERT INTO gpt_clients (client_id) VALUES ('x')`)
	s.must(err)
	if err := try(held, "fingerprint"); !errors.Is(err, postgres.ErrStateNotEmpty) || !strings.Contains(err.Error(), "stop the servers") {
		t.Errorf("a server that starts: %v", err)
	}
}

// OPS-11: TestAdoptedStateMovesWithItsTokens: those of the replaced system are exchanged at
// the new place, once.
func TestAdoptedStateMovesWithItsTokens(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dsn := postgrestest.New(t)
	if _, err := connect(t, dsn).Exec(ctx, oldFirst+oldSecond+oldThird+oldRows()); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(ctx, postgres.MigrateConfig{DSN: dsn, AdoptFor: "gpt's"}); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := postgres.ExportState(ctx, &file, postgres.StateConfig{DSN: dsn}); err != nil {
		t.Fatal(err)
	}
	target := postgrestest.New(t)
	// An import that was stopped leaves the tables, and no harm.
	if _, _, err := postgres.ImportState(ctx, bytes.NewReader(file.Bytes()[:file.Len()/2]), postgres.StateConfig{DSN: target}); !errors.Is(err, postgres.ErrStateFile) {
		t.Fatal(err)
	}
	if _, _, err := postgres.ImportState(ctx, &file, postgres.StateConfig{DSN: target}); err != nil {
		t.Fatal(err)
	}
	checkAdoptedTokens(t, target)
	for _, table := range []string{"gpt_clients", "gpt_sessions", "gpt_authorization_codes", "gpt_oauth_events"} {
		if table != "gpt_sessions" && table != "gpt_oauth_events" && !slices.Equal(rowsOf(t, connect(t, dsn), table), rowsOf(t, connect(t, target), table)) {
			t.Errorf("%s differs", table)
		}
	}
	into := postgrestest.Migrated(t)
	var again bytes.Buffer
	if err := postgres.ExportState(ctx, &again, postgres.StateConfig{DSN: target}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := postgres.ImportState(ctx, &again, postgres.StateConfig{DSN: into}); !errors.Is(err, postgres.ErrStateFile) && !errors.Is(err, postgres.ErrStateNotEmpty) {
		t.Errorf("into tables without those of the replaced system: %v", err)
	}
}

// OPS-12: TestStateIsStreamed: neither side gets ahead of the other by more than what is on
// the way, however large the state is; and stopping leaves nothing behind.
func TestStateIsStreamed(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const rows, ahead = 60_000, 4 << 20
	s.exec(`INSERT INTO gpt_oauth_events (event_type, metadata) SELECT 'many', jsonb_build_object('reason', repeat('x', 500)) FROM generate_series(1, $1)`, rows)
	from, to := io.Pipe()
	var written atomic.Int64
	exported := make(chan error, 1)
	go func() {
		err := postgres.ExportState(s.ctx, to, postgres.StateConfig{DSN: s.dsn, Told: func(n int) { written.Store(int64(n)) }})
		to.CloseWithError(err)
		exported <- err
	}()
	lines := bufio.NewReaderSize(from, 64<<10)
	read := 0
	take := func(n int) (part []byte) {
		for range n {
			line, err := lines.ReadBytes('\n')
			s.must(err)
			part = append(part, line...)
			read++
		}
		return part
	}
	first := take(20_000)
	if most := int64(read + ahead/500); written.Load() > most {
		t.Errorf("%d rows were written when %d had been read", written.Load(), read)
	}
	// The other side: it inserts what it has been given, and waits.
	target := postgrestest.New(t)
	given, giver := io.Pipe()
	ctx, stop := context.WithCancel(s.ctx)
	imported := make(chan error, 1)
	var taken atomic.Int64
	go func() {
		_, _, err := postgres.ImportState(ctx, given, postgres.StateConfig{DSN: target, Told: func(n int) { taken.Store(int64(n)) }})
		imported <- err
	}()
	_, err := giver.Write(first)
	s.must(err)
	if taken.Load() < 20_000-ahead/500 {
		t.Errorf("%d of 20000 rows were taken when all had been given", taken.Load())
	}
	stop()
	giver.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-imported; err == nil {
		t.Error("an import that was stopped is done")
	}
	if n := len(rowsOf(t, connect(t, target), "gpt_oauth_events")); n > 0 {
		t.Errorf("%d rows were left behind", n)
	}
	_, err = io.Copy(io.Discard, lines)
	s.must(err)
	s.must(<-exported)
	if written.Load() < rows {
		t.Errorf("%d rows", written.Load())
	}
}

// OPS-13: TestExportIsOfOneMoment: what is written meanwhile is not in it, half or whole.
func TestExportIsOfOneMoment(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.session("jobs:read")
	var once bool
	file := s.export(func(int) {
		if !once { // after the first row
			once = true
			s.session("jobs:read")
			s.must(s.store.RevokeSession(s.ctx, first.ID, "app", "meanwhile", issuer.Origin{}))
		}
	})
	if n := strings.Count(file, `{"gpt_sessions":{`); n != 1 || strings.Contains(file, "meanwhile") {
		t.Errorf("%d sessions", n)
	}
}

// TestExportHidesNoRows: row level security shows none to a role that is not the
// owner; the attack is a backup that is empty and looks well.
func TestExportHidesNoRows(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	role := "reader_" + strings.ToLower(rand.Text())
	s.exec(`CREATE ROLE ` + role + ` LOGIN PASSWORD 'reader'`)
	t.Cleanup(func() {
		s.exec(`DROP OWNED BY ` + role)
		s.exec(`DROP ROLE ` + role)
	})
	s.exec(`GRANT SELECT ON ALL TABLES IN SCHEMA public TO ` + role)
	dsn, err := url.Parse(s.dsn)
	s.must(err)
	dsn.User = url.UserPassword(role, "reader")
	for _, want := range []string{"does not own the tables", "row-level security"} {
		err = postgres.ExportState(s.ctx, io.Discard, postgres.StateConfig{DSN: dsn.String()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
		s.exec(`DROP POLICY IF EXISTS readable ON gpt_schema_migrations`)
		s.exec(`CREATE POLICY readable ON gpt_schema_migrations FOR SELECT TO ` + role + ` USING (true)`)
	}
}
