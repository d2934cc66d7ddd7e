//go:build unix

package postgres_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// impersonal are the tables that hold nothing about a user, and why not.
var impersonal = map[string]string{
	"gpt_clients":              "clients",
	"gpt_client_registrations": "clients",
	"gpt_client_documents":     "clients",
	"gpt_operator_clients":     "clients",
	"gpt_client_assertions":    "digests, of what clients sent",
	"gpt_pushed_requests":      "of nobody yet, and gone in a minute",
	"gpt_dpop_proofs":          "digests, for three minutes",
	"gpt_used_once":            "digests, gone in an hour at most",
	"gpt_rates":                "digests under a key that is not there, gone within a day and minutes",
	"gpt_signing_keys":         "keys",
	"gpt_event_cursors":        "places in the audit trail",
	"gpt_schema_migrations":    "versions",
}

// handedOut are columns of bytes that are no secret.
var handedOut = []string{"gpt_passkeys.credential_id", "gpt_passkeys.public_key"}

// OPS-01: TestEveryTableIsKnownToHoldSomethingAboutUsersOrNot, and every column that
// could be a secret to be one: a new table, or column, that nobody thought of
// fails here. Whatever names a user, a session or an address is personal.
func TestEveryTableIsKnownToHoldSomethingAboutUsersOrNot(t *testing.T) {
	t.Parallel()
	adopted := postgrestest.New(t)
	ctx := context.Background()
	sql := connect(t, adopted)
	if _, err := sql.Exec(ctx, oldFirst+oldSecond+oldThird); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(ctx, postgres.MigrateConfig{DSN: adopted, AdoptFor: "gpt"}); err != nil {
		t.Fatal(err)
	}
	personal := postgres.PersonalTables()
	for name, sql := range map[string]*pgx.Conn{"new": connect(t, postgrestest.Migrated(t)), "adopted": sql} {
		rows, err := sql.Query(ctx, `SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, ordinal_position`)
		if err != nil {
			t.Fatal(err)
		}
		var table, column, kind, told string
		seen := 0
		_, err = pgx.ForEachRow(rows, []any{&table, &column, &kind}, func() error {
			seen++
			secret, known := personal[table]
			if !known && impersonal[table] == "" && table != told {
				told = table
				t.Errorf("%s: nobody says whether %s holds something about users: add it to personalTables, or to this test", name, table)
			}
			for _, word := range []string{"user", "session", "login", "address", "agent", "email", "subject"} {
				if strings.Contains(column, word) && !known {
					t.Errorf("%s: %s.%s seems to be personal, and is not in personalTables", name, table, column)
				}
			}
			sensitive := kind == "bytea" || strings.Contains(column, "hash") || strings.Contains(column, "secret") || strings.Contains(column, "sealed")
			if known && sensitive && !slices.Contains(secret, column) && !slices.Contains(handedOut, table+"."+column) {
				t.Errorf("%s: %s.%s would be handed out", name, table, column)
			}
			return nil
		})
		if err != nil || seen < 100 {
			t.Fatalf("%s: %d columns: %v", name, seen, err)
		}
	}
}

var adasOrigin = issuer.Origin{Address: netip.MustParseAddr("2001:db8::9"), RequestID: "request-of-ada", Agent: "Engine/1"}

// ada is a user of whom every table holds something. Each secret is made of a
// letter.
type ada struct {
	*scene
	session, delegated string
	told               []string // what a trace of her would hold
}

func newAda(t *testing.T) *ada {
	t.Helper()
	s := newScene(t)
	a := &ada{scene: s}
	s.exec(`UPDATE gpt_users SET password_hash = repeat('p', 90), profile = '{"given_name":"Augusta"}', claims = '{"roles":["countess"]}' WHERE id = $1`, s.user.ID)
	session, err := s.store.RedeemAuthorizationCode(s.ctx, s.code("jobs:read"), lifetime, adasOrigin)
	s.must(err)
	a.session = session.ID
	delegated, err := s.store.DelegateSession(s.ctx, issuer.Delegation{ParentID: session.ID, ParentClientID: "app", ClientID: "other", Resource: "https://second.test", Scopes: session.Scopes, AccessTokenTTL: time.Minute}, adasOrigin)
	s.must(err)
	a.delegated = delegated.ID
	ended := s.session("jobs:read")
	s.must(s.store.RevokeSession(s.ctx, ended.ID, "app", "x", adasOrigin))
	for _, sql := range []string{
		`INSERT INTO gpt_identities (authority, subject, user_id) VALUES ('https://id.test', 'augusta-ada', $1)`,
		`INSERT INTO gpt_passkeys (credential_id, user_id, name, public_key, sign_count, backup_eligible, backed_up) VALUES ('k', $1, 'Her engine', 'q', 1, true, true)`,
		`INSERT INTO gpt_second_factors (user_id, sealed, last_step) VALUES ($1, decode(repeat('5e', 40), 'hex'), 1)`,
		`INSERT INTO gpt_recovery_codes (user_id, digest) VALUES ($1, decode(repeat('c0', 32), 'hex'))`,
		`INSERT INTO gpt_password_resets (digest, user_id, ends_sessions, removes_factors, expires_at) VALUES (decode(repeat('d1', 32), 'hex'), $1, true, true, now() + interval '1 hour')`,
		`UPDATE gpt_logins SET logout_hint = decode(repeat('e1', 32), 'hex') WHERE user_id = $1`,
		`UPDATE gpt_authorization_codes SET nonce = repeat('n', 20), code_challenge = repeat('y', 43), address = '203.0.113.9', agent = 'Engine/1' WHERE user_id = $1`,
		`INSERT INTO gpt_device_codes (device_hash, user_code_hash, client_id, resource, scopes, poll_interval, allowed, user_id, auth_time, expires_at, address)
			VALUES (decode(repeat('a1', 32), 'hex'), decode(repeat('a2', 32), 'hex'), 'app', 'https://api.test', '{}', 5, true, $1, now(), now() + interval '1 hour', '203.0.113.9')`,
		`INSERT INTO gpt_session_calls (session_id, day, scope, calls) SELECT id, current_date, 'jobs:read', 3 FROM gpt_sessions WHERE user_id = $1`,
		`INSERT INTO gpt_client_approvals (client_id, user_id, revision) VALUES ('app', $1, decode(repeat('f1', 32), 'hex'))`,
		`UPDATE gpt_sessions SET consent_address = '203.0.113.9', client_address = '203.0.113.9', consent_agent = 'Engine/1' WHERE user_id = $1`,
		`INSERT INTO gpt_oauth_events (event_type, user_id, ip_address, request_id, metadata) VALUES ('old.event', $1, '203.0.113.9', 'request-of-ada', '{"email":"demo@example.com","reason":"x"}')`,
	} {
		s.exec(sql, s.user.ID)
	}
	a.told = []string{s.user.ID, "emo@example.com", "203.0.113.9", "2001:db8::9", "Engine/1", "Her engine", "augusta", "Augusta", "countess", "request-of-ada", session.ID, delegated.ID, s.login.ID}
	return a
}

// traces are the rows that hold one of what is told of her.
func (a *ada) traces() (found []string) {
	a.Helper()
	rows, err := a.sql.Query(a.ctx, `SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_name <> 'gpt_revocations'`)
	a.must(err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	a.must(err)
	for _, table := range tables {
		rows, err := a.sql.Query(a.ctx, `SELECT row_to_json(r)::text FROM `+table+` r`)
		a.must(err)
		texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
		a.must(err)
		for _, text := range texts {
			for _, told := range a.told {
				if strings.Contains(text, told) {
					found = append(found, table+": "+told+" in "+text)
				}
			}
		}
	}
	return found
}

// OPS-02: TestExportHoldsAllAboutAUserButSecrets
func TestExportHoldsAllAboutAUserButSecrets(t *testing.T) {
	t.Parallel()
	a := newAda(t)
	_, err := a.store.CreateUser(a.ctx, "bob@example.com", "hash", issuer.Origin{})
	a.must(err)
	for _, name := range []string{"demo@example.com", a.user.ID} {
		if id, held, err := a.store.FindHeld(a.ctx, name); err != nil || id != a.user.ID || len(held) < 14 {
			t.Errorf("%s: %s %v %v", name, id, held, err)
		}
	}
	var text bytes.Buffer
	rows := 0
	a.must(a.store.ExportUser(a.ctx, &text, "https://api.test", a.user.ID, func(n int) { rows = n }))
	var document map[string]json.RawMessage
	if err := json.Unmarshal(text.Bytes(), &document); err != nil {
		t.Fatalf("%v\n%s", err, &text)
	}
	total := 0
	for table := range postgres.PersonalTables() {
		var part []map[string]any
		if err := json.Unmarshal(document[strings.TrimPrefix(table, "gpt_")], &part); err != nil && table != "gpt_refresh_tokens" {
			t.Errorf("%s: %v", table, err)
		}
		if len(part) == 0 && table != "gpt_refresh_tokens" && table != "gpt_settings" {
			t.Errorf("nothing of %s", table)
		}
		total += len(part)
	}
	if rows != total || string(document["version"]) != "1" || string(document["user_id"]) != `"`+a.user.ID+`"` {
		t.Errorf("%d rows told, %d written; %s %s", rows, total, document["version"], document["user_id"])
	}
	for _, told := range a.told {
		if !strings.Contains(text.String(), told) {
			t.Errorf("the document lacks %q", told)
		}
	}
	for name, secret := range map[string]string{"password": "pppp", "second factor": "5e5e", "recovery code": "c0c0", "reset": "d1d1", "logout hint": "e1e1", "nonce": "nnnn",
		"challenge": "yyyy", "device code": "a1a1", "user code": "a2a2", "revision": "f1f1", "another user": "bob@example.com"} {
		if strings.Contains(text.String(), secret) {
			t.Errorf("the document holds the %s", name)
		}
	}
	if err := a.store.ExportUser(a.ctx, failing{}, "https://api.test", a.user.ID, nil); !errors.Is(err, errFull) {
		t.Errorf("a full disk: %v", err)
	}
}

var errFull = errors.New("no space left")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }

// OPS-03: TestErasedUserIsNowhere: the attack is to look for her afterwards in all
// that is stored, with what an old token, log or export of hers holds.
func TestErasedUserIsNowhere(t *testing.T) {
	t.Parallel()
	a := newAda(t)
	if len(a.traces()) < 20 {
		t.Fatalf("there is little of her: %q", a.traces())
	}
	before := a.count(`SELECT count(*) FROM gpt_oauth_events WHERE user_id = $1`, a.user.ID)
	pseudonym, err := a.store.EraseUser(a.ctx, a.user.ID, nil)
	a.must(err)
	for _, trace := range a.traces() {
		t.Error(trace)
	}
	// The trail tells one story: that of before, how it ended, and the erasure.
	if n := a.count(`SELECT count(*) FROM gpt_oauth_events WHERE user_id = $1`, pseudonym); n != before+2 {
		t.Errorf("%d events, want %d", n, before+2)
	}
	if n := a.count(`SELECT count(*) FROM gpt_oauth_events a JOIN gpt_oauth_events b USING (user_id, session_id)
		WHERE a.event_type = 'gpt.oauth.token_exchanged' AND b.event_type = 'gpt.oauth.session_revoked' AND b.metadata = '{"reason":"x"}'`); n != 1 {
		t.Errorf("%d stories of a session that began and was revoked, want 1", n)
	}
	if n := a.count(`SELECT count(*) FROM gpt_oauth_events WHERE user_id = $1 AND (ip_address IS NOT NULL OR request_id IS NOT NULL)`, pseudonym); n > 0 {
		t.Errorf("%d events with an address or the id of a request", n)
	}
	if n := a.count(`SELECT count(*) FROM gpt_revocations WHERE ended AND session_id::text IN ($1, $2)`, a.session, a.delegated); n < 2 {
		t.Errorf("nodes hear of %d ends, want 2", n)
	}
	// Again, and of somebody who was never here.
	for _, name := range []string{a.user.ID, "demo@example.com", "nobody"} {
		if _, _, err := a.store.FindHeld(a.ctx, name); !errors.Is(err, issuer.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := a.store.EraseUser(a.ctx, name, nil); !errors.Is(err, issuer.ErrNotFound) {
			t.Errorf("erase %s: %v", name, err)
		}
	}
	if n := a.count(`SELECT count(*) FROM gpt_settings WHERE key LIKE 'erasing%'`); n > 0 {
		t.Error("the secret of the erasure is there")
	}
	// Whoever comes back is somebody new.
	back, err := a.store.CreateUser(a.ctx, "Demo@Example.com", "hash", issuer.Origin{})
	a.must(err)
	second, err := a.store.EraseUser(a.ctx, back.ID, nil)
	a.must(err)
	if second == pseudonym {
		t.Error("two erasures have one pseudonym")
	}
}

// OPS-04: TestErasureGoesOnWhereItWasStopped: at any of its steps; sessions have ended
// with the first, and the trail has one pseudonym in the end.
func TestErasureGoesOnWhereItWasStopped(t *testing.T) {
	t.Parallel()
	a := newAda(t)
	a.exec(`INSERT INTO gpt_oauth_events (event_type, user_id, session_id, ip_address) SELECT 'many', $1, $2, '203.0.113.9' FROM generate_series(1, 3500)`, a.user.ID, a.session)
	stops := 0
	for done := false; !done; stops++ {
		ctx, cancel := context.WithCancel(a.ctx)
		told := 0
		_, err := a.store.EraseUser(ctx, a.user.ID, func(int) {
			if told++; told == 1 {
				cancel()
			}
		})
		cancel()
		done = err == nil
		if !done && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if n := a.count(`SELECT count(*) FROM gpt_sessions WHERE user_id = $1`, a.user.ID); n > 0 {
			t.Errorf("%d sessions after the first step", n)
		}
		if _, held, err := a.store.FindHeld(a.ctx, a.user.ID); !done && err != nil {
			t.Fatalf("stopped %d times, and nobody knows: %v %v", stops+1, held, err)
		}
		if stops == 4 { // one batch each time would never see that it is done
			_, err = a.store.EraseUser(a.ctx, a.user.ID, nil)
			a.must(err)
			break
		}
	}
	for _, trace := range a.traces() {
		t.Error(trace)
	}
	if n := a.count(`SELECT count(DISTINCT user_id) FROM gpt_oauth_events`); n != 1 {
		t.Errorf("%d pseudonyms", n)
	}
	if n := a.count(`SELECT count(DISTINCT session_id) FROM gpt_oauth_events WHERE event_type IN ('many', 'gpt.oauth.session_delegated')`); n != 2 {
		t.Errorf("%d sessions in the trail, want 2", n)
	}
}

// TestErasureOfUsersWithoutARow, as the system that went before leaves them, and
// of none whose name is a client's.
func TestErasureOfUsersWithoutARow(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	ctx := context.Background()
	if _, err := connect(t, dsn).Exec(ctx, oldFirst+oldSecond+oldThird+oldRows()); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(ctx, postgres.MigrateConfig{DSN: dsn, AdoptFor: "app"}); err != nil {
		t.Fatal(err)
	}
	s := sceneOn(t, dsn, postgres.Config{DSN: dsn, Timeout: 10 * time.Second})
	var text bytes.Buffer
	s.must(s.store.ExportUser(s.ctx, &text, "https://api.test", "user_2", nil))
	_, hash, _ := oldToken("newer")
	if !strings.Contains(text.String(), `"refresh_tokens": [`) || !strings.Contains(text.String(), "rotated_to") || strings.Contains(text.String(), hash) {
		t.Error(text.String())
	}
	_, err := s.store.EraseUser(s.ctx, "user_2", nil)
	s.must(err)
	for _, table := range []string{"gpt_sessions", "gpt_refresh_tokens", "gpt_authorization_codes", "gpt_oauth_events"} {
		if n := s.count(`SELECT count(*) FROM ` + table + ` WHERE user_id = 'user_2'`); n > 0 {
			t.Errorf("%d rows of %s", n, table)
		}
	}
	if _, _, err := s.store.FindHeld(s.ctx, "app"); !errors.Is(err, issuer.ErrExists) {
		t.Errorf("a client: %v", err)
	}
	s.exec(`INSERT INTO gpt_sessions (user_id, client_id, expires_at) VALUES ('x@example.com', 'app', now())`)
	_, err = s.store.CreateUser(s.ctx, "x@example.com", "hash", issuer.Origin{})
	s.must(err)
	if _, _, err := s.store.FindHeld(s.ctx, "x@example.com"); !errors.Is(err, issuer.ErrExists) {
		t.Errorf("an address that is another's id: %v", err)
	}
}
