package caddymodule

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/caddyserver/caddy/v2"
	"github.com/jackc/pgx/v5"
)

// lonelySite keeps no connection to the upstream: with an idle one, Go and Caddy
// keep the transport, and with it the configuration, for another two minutes.
var lonelySite = strings.Replace(realSite, "reverse_proxy UPSTREAM", "reverse_proxy UPSTREAM {\n transport http {\n keepalive off\n }\n }", 1)

// eventually polls until done, which a busy machine may take its time for.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// TestReloadLeavesNothingOfTheOldConfiguration: the pool, the view and the tokens
// outlive it; the app and its gates can be reached from nowhere any more. R-14.
func TestReloadLeavesNothingOfTheOldConfiguration(t *testing.T) {
	s, _ := newRealScene(t)
	s.dsn += "&application_name=shared" // a pool and a view that a configuration of this test opens
	s.load("", lonelySite)
	var old []weak.Pointer[App]
	var gates []weak.Pointer[Protect]
	for i := range 5 {
		if got := s.get("/jobs"); got.status != http.StatusOK {
			t.Fatalf("%+v", got)
		}
		s.get("/unknown") // is remembered as refused
		old = append(old, weak.Make(running.Load()))
		gates = append(gates, weak.Make(running.Load().gates[0]))
		s.words = fmt.Sprintf("refresh_grace %ds", 61+i)
		s.load("", lonelySite)
	}
	eventually(t, "the old configurations are gone", func() bool {
		goruntime.GC()
		for i := range old {
			if old[i].Value() != nil || gates[i].Value() != nil {
				return false
			}
		}
		return true
	})
}

// TestRequestInFlightEndsWithTheDatabaseItBeganWith: a reload names another
// database while a request is being sent. What the old configuration had open is
// closed when the request has its answer, and not before. R-14.
func TestRequestInFlightEndsWithTheDatabaseItBeganWith(t *testing.T) {
	s, db := newRealScene(t)
	dsn := s.dsn
	s.dsn = dsn + "&application_name=old"
	s.load("", realSite)
	conn := s.dial()
	defer conn.Close()
	answers := bufio.NewReader(conn)
	fmt.Fprintf(conn, "POST /oauth/token HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n", len(unknownCode))
	if answer, err := http.ReadResponse(answers, nil); err != nil || answer.StatusCode != http.StatusContinue {
		t.Fatalf("the handler does not read the form: %v", err)
	}
	s.dsn = dsn
	s.load("", realSite)
	for reloaded := time.Now(); time.Since(reloaded) < 2*lateRequest; time.Sleep(leavingLookEvery) {
		if connections(t, db, "old") == 0 {
			t.Fatal("what a request needs is closed")
		}
	}
	if _, err := io.WriteString(conn, unknownCode); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusBadRequest { // invalid_grant, and not 503: the database was asked
		t.Errorf("the request in flight was answered %s", answer.Status)
	}
	eventually(t, "what it used is closed", func() bool { return connections(t, db, "old") == 0 })
}

// TestStreamGoesOnWithTheDatabaseItBeganWith: an answer that lasts rests on a
// session that is asked about again and again. R-14.
func TestStreamGoesOnWithTheDatabaseItBeganWith(t *testing.T) {
	s, db := newRealScene(t)
	end, stop := context.WithCancel(t.Context())
	defer stop()
	s.upstream.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-end.Done()
		_, _ = io.WriteString(w, "the end")
	})
	dsn := s.dsn
	s.dsn = dsn + "&application_name=old"
	s.load("", realSite)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.address+"/jobs", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.token())
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	s.dsn = dsn
	s.load("", realSite)
	for reloaded := time.Now(); time.Since(reloaded) < 2*lateRequest; time.Sleep(leavingLookEvery) {
		if connections(t, db, "old") == 0 {
			t.Fatal("what the stream needs is closed")
		}
	}
	stop()
	if text, err := io.ReadAll(answer.Body); err != nil || string(text) != "the end" {
		t.Errorf("the stream ended with %q: %v", text, err)
	}
	eventually(t, "what it used is closed", func() bool { return connections(t, db, "old") == 0 })
}

// unknownCode is a form whose answer is invalid_grant, which only the database can
// tell.
const unknownCode = "grant_type=authorization_code&code=gpt_ac_x&client_id=gpt&client_secret=" + sceneSecret

// connections counts those to the database that have the name.
func connections(t *testing.T, db *pgx.Conn, name string) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1`, name).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRefusedReloadLeavesWhatRuns: what a configuration has opened when it fails,
// it gives back, and the admin API and the metrics go on with the one in force.
//
func TestRefusedReloadLeavesWhatRuns(t *testing.T) {
	s, db := newRealScene(t, "secret 0123456789abcdef0123456789abcdef0123456789abcdef")
	inForce, words, dsn, address := running.Load(), s.words, s.dsn, s.address
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, sql := range []string{
		`UPDATE gpt_schema_migrations SET applied_at = now() - interval '1 year' WHERE version = 2`, // older events are their owner's to remove
		`INSERT INTO gpt_oauth_events (event_type, created_at) VALUES ('gpt.oauth.session_revoked', now() - interval '30 days')`,
	} {
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 { // Caddy starts apps in any order
		s.dsn, s.words, s.address = dsn+"&application_name=refused", strings.ReplaceAll(words, "a", "b"), address
		if err := s.tryLoad("", realSite); err == nil || !strings.Contains(err.Error(), "root secret") {
			t.Fatalf("another root secret: %v", err)
		}
		s.words, s.address = words, taken.Addr().String()
		for _, pool := range []string{s.dsn, dsn} { // of its own, and that of the configuration in force
			s.dsn = pool
			if err := s.tryLoad("", realSite); err == nil || !strings.Contains(err.Error(), "address already in use") {
				t.Fatalf("an address in use: %v", err)
			}
			s.words = words + "\nevent_retention 1d"
		}
		if running.Load() != inForce {
			t.Fatal("the admin API and the metrics do not look at the configuration in force")
		}
	}
	if err := inForce.runtime.upkeep.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	// And while one is starting that may yet be refused.
	aDay := caddy.Duration(24 * time.Hour)
	running.keepEvents(inForce.runtime.upkeep, &App{Settings: Settings{EventRetention: &aDay}})
	if err := inForce.runtime.upkeep.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	var kept int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM gpt_oauth_events WHERE created_at < now() - interval '29 days'`).Scan(&kept); err != nil || kept != 1 {
		t.Errorf("%v, or an event was removed that the configuration in force keeps", err)
	}
	eventually(t, "their connections are closed", func() bool { return connections(t, db, "refused") == 0 })
	s.address = address
	if got := s.get("/jobs"); got.status != http.StatusOK {
		t.Errorf("%+v", got)
	}
}

// TestWhatOutlivesAReloadLogsWhereTheConfigurationSays: the configuration that
// opened the pool is gone, and its log is closed.
func TestWhatOutlivesAReloadLogsWhereTheConfigurationSays(t *testing.T) {
	s, db := newRealScene(t)
	file := filepath.Join(t.TempDir(), "log")
	s.load("log to_file {\n output file "+file+"\n include oauth\n}", realSite)
	rows, err := db.Query(t.Context(), "SELECT current_database()")
	if err != nil {
		t.Fatal(err)
	}
	name, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), strings.Replace(s.dsn, "/"+name, "/postgres", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	for _, sql := range []string{
		"ALTER DATABASE " + name + " ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "'",
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _, _ = admin.Exec(context.Background(), "ALTER DATABASE "+name+" ALLOW_CONNECTIONS true") }()
	eventually(t, "the log tells that revocations cannot be followed", func() bool {
		text, _ := os.ReadFile(file)
		return strings.Contains(string(text), "revocations cannot be followed")
	})
}
