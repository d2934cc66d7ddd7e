//go:build unix

package postgres_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

const webhookKey = "0123456789abcdef0123456789abcdef"

// receiver is somebody's log system behind a webhook.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(n int) int // the status of the nth request
	asked  int
	took   []string // metadata.n of each event, in the order in which they came
	ids    []string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{answer: func(int) int { return http.StatusNoContent }}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked++
		status := r.answer(r.asked)
		w.Header().Set("Location", "/elsewhere") // of a redirect
		w.WriteHeader(status)
		body, err := io.ReadAll(request.Body)
		// As the standard has it, and in no words of ours.
		mac := hmac.New(sha256.New, []byte(webhookKey))
		fmt.Fprintf(mac, "%s.%s.%s", request.Header.Get("webhook-id"), request.Header.Get("webhook-timestamp"), body)
		signed := slices.Contains(strings.Split(request.Header.Get("webhook-signature"), " "), "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		if err != nil || !signed || request.Method != http.MethodPost || request.URL.Path != "/hook" {
			t.Errorf("%s %s: signed %t (%v)", request.Method, request.URL, signed, err)
		}
		var event struct {
			ID, Type  string
			Timestamp time.Time
			Data      struct{ Metadata struct{ N string } }
		}
		if err := json.Unmarshal(body, &event); err != nil || event.ID != request.Header.Get("webhook-id") || time.Since(event.Timestamp).Abs() > time.Hour {
			t.Errorf("%s: %v", body, err)
		}
		if status/100 == 2 {
			r.took, r.ids = append(r.took, event.Data.Metadata.N), append(r.ids, event.ID)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// answers sets the status of the nth request from now on.
func (r *receiver) answers(status func(n int) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer, r.asked = status, 0
}

func (r *receiver) seen() (took []string, asked int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.took), r.asked
}

// silent is a tally that nobody reads.
type silent struct{}

func (silent) EventDelivered() {}
func (silent) EventFailed()    {}

// feedScene has a server of its own: whoever writes in another database of the
// server keeps back what goes.
type feedScene struct {
	*scene
	receiver *receiver
	upkeep   *postgres.Upkeep
	logged   *observer.ObservedLogs
	logger   *zap.Logger
}

func newFeedScene(t *testing.T) *feedScene {
	t.Helper()
	server := postgrestest.NewServer(t, postgrestest.ServerConfig{})
	core, logged := observer.New(zap.InfoLevel)
	dsn := server.DSN()
	s := &feedScene{scene: sceneOn(t, dsn, postgres.Config{DSN: dsn, Timeout: 10 * time.Second}), receiver: newReceiver(t), logged: logged, logger: zap.New(core)}
	s.upkeep = postgres.NewUpkeep(s.db)
	return s
}

// sender starts a node's sender, on its own connections, and returns what ends it.
func (s *feedScene) sender(types ...string) (*issuer.WebhookSender, func()) {
	s.Helper()
	webhook, err := issuer.NewWebhook(issuer.WebhookConfig{URL: s.receiver.URL + "/hook", Secrets: [][]byte{[]byte("another secret, the next one"), []byte(webhookKey)}, Types: types})
	s.must(err)
	sender := &issuer.WebhookSender{Webhook: webhook, Feed: postgres.NewEventFeed(s.db, s.upkeep), Tally: silent{}, Logger: s.logger}
	ctx, stop := context.WithCancel(s.ctx)
	var ended sync.WaitGroup
	ended.Go(func() { sender.Run(ctx) })
	end := func() { stop(); ended.Wait() }
	s.Cleanup(end)
	s.eventually("the cursor is there", func() bool { return s.count(`SELECT count(*) FROM gpt_event_cursors`) == 1 })
	return sender, end
}

func (s *feedScene) write(kind string, numbers ...string) {
	s.Helper()
	for _, n := range numbers {
		s.exec(`INSERT INTO gpt_oauth_events (event_type, metadata) VALUES ('gpt.oauth.' || $1::text, jsonb_build_object('n', $2::text))`, kind, n)
	}
}

// takes waits until the receiver has taken these, in this order, and nothing else.
func (s *feedScene) takes(want ...string) {
	s.Helper()
	defer func() {
		if s.Failed() {
			took, asked := s.receiver.seen()
			s.Logf("taken: %q in %d requests, want %q; the log: %v", took, asked, want, s.logged.All())
		}
	}()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if took, _ := s.receiver.seen(); len(took) >= len(want) {
			break
		}
	}
	if took, _ := s.receiver.seen(); !slices.Equal(took, want) {
		s.Fatalf("taken: %q, want %q", took, want)
	}
}

func numbers(from, to int) (texts []string) {
	for n := from; n <= to; n++ {
		texts = append(texts, fmt.Sprint(n))
	}
	return texts
}

// TestWebhookTakesEveryEventInOrder: those of after it was configured, signed, also
// those that it would not take at first, and after a new start from where it was.
// EVS-10, EVS-11.
func TestWebhookTakesEveryEventInOrder(t *testing.T) {
	t.Parallel()
	s := newFeedScene(t)
	s.write("login", "before")
	sender, end := s.sender()
	s.write("login", numbers(1, 3)...)
	s.takes(numbers(1, 3)...)

	// A receiver that fails, and one that sends elsewhere.
	s.receiver.answers(func(n int) int { return []int{500, 302, 204, 503, 204}[min(n, 5)-1] })
	s.write("login", numbers(4, 60)...)
	s.eventually("the oldest waits", func() bool { _, asked := s.receiver.seen(); return asked > 0 && sender.Lag() > 0 })
	s.takes(numbers(1, 60)...)
	if _, asked := s.receiver.seen(); asked != 57+3 {
		t.Errorf("%d requests for 57 events of which three were refused once", asked)
	}
	s.eventually("nothing waits", func() bool { return sender.Lag() == 0 })
	if s.logged.FilterMessageSnippet("cannot be delivered").Len() == 0 || s.logged.FilterMessageSnippet("delivered again").Len() == 0 {
		t.Errorf("the log: %v", s.logged.All())
	}

	// A new configuration goes on from there.
	end()
	s.write("login", numbers(61, 62)...)
	s.sender()
	s.takes(numbers(1, 62)...)
}

// TestWebhookWaitsForTransactionsThatCommitLate: what comes after one waits, so
// that it is not passed over. EVS-12.
func TestWebhookWaitsForTransactionsThatCommitLate(t *testing.T) {
	t.Parallel()
	s := newFeedScene(t)
	sender, _ := s.sender()
	late, err := connect(t, s.dsn).Begin(s.ctx)
	s.must(err)
	defer late.Rollback(s.ctx)
	_, err = late.Exec(s.ctx, `INSERT INTO gpt_oauth_events (event_type, metadata) VALUES ('gpt.oauth.login', '{"n":"1"}')`)
	s.must(err)
	s.write("login", numbers(2, 3)...)
	s.eventually("what is committed is seen to wait", func() bool { return sender.Lag() > 0 })
	if took, _ := s.receiver.seen(); len(took) != 0 {
		t.Errorf("went past a transaction under way: %q", took)
	}
	s.must(late.Commit(s.ctx))
	s.takes(numbers(1, 3)...)
}

// TestWebhookOfTwoNodesTakesEachEventOnce, as long as nothing fails; one of them
// goes through a transaction pooler. EVS-13.
func TestWebhookOfTwoNodesTakesEachEventOnce(t *testing.T) {
	t.Parallel()
	s := newFeedScene(t)
	_, end := s.sender()
	pooled, err := postgres.Open(s.ctx, postgres.Config{DSN: postgrestest.Pgbouncer(t, s.dsn), Pooled: true, Timeout: 10 * time.Second})
	s.must(err)
	t.Cleanup(pooled.Close)
	s.db = pooled
	s.sender()
	// It takes its time: two that sent at once would meet.
	s.receiver.answers(func(int) int { time.Sleep(10 * time.Millisecond); return http.StatusNoContent })
	s.write("login", numbers(1, 120)...)
	s.takes(numbers(1, 120)...)
	end()
	s.write("login", numbers(121, 130)...)
	s.takes(numbers(1, 130)...)
}

// TestWebhookTakesTheTypesThatAreWanted. EVS-14.
func TestWebhookTakesTheTypesThatAreWanted(t *testing.T) {
	t.Parallel()
	s := newFeedScene(t)
	s.sender("session_revoked", "logout")
	s.write("login", numbers(1, 70)...)
	s.write("session_revoked", "71")
	s.write("login", "72")
	s.write("logout", "73")
	s.takes("71", "73")
}

// TestWebhookFindsItsPlaceInACopyOfTheTable: the transactions are those of another
// server, whose numbers went further, or not so far. What had not gone goes, and
// what had gone long ago does not. EVS-15.
func TestWebhookFindsItsPlaceInACopyOfTheTable(t *testing.T) {
	t.Parallel()
	s := newFeedScene(t)
	_, end := s.sender()
	s.write("login", numbers(1, 2)...)
	s.takes(numbers(1, 2)...)
	end()
	for round, change := range []string{
		`UPDATE gpt_event_cursors SET xact = '99999999', place = 'elsewhere'`, // a dump
		`UPDATE gpt_event_cursors SET xact = '99999999'`,                      // ids went back
		`UPDATE gpt_event_cursors SET xact = '0', place = ''`,                 // an import
	} {
		s.exec(`UPDATE gpt_oauth_events SET created_at = now() - interval '1 hour', xact = '88888888'`) // gone long ago
		fresh := []string{fmt.Sprint(round, " a"), fmt.Sprint(round, " b")}
		s.write("login", fresh...)
		s.exec(`UPDATE gpt_oauth_events SET xact = '99999990' WHERE metadata->>'n' = $1`, fresh[0])
		s.exec(change)
		before, _ := s.receiver.seen()
		_, end := s.sender()
		s.write("login", fmt.Sprint(round, " c"))
		s.takes(append(before, append(fresh, fmt.Sprint(round, " c"))...)...)
		end()
	}
}

// TestWebhookTellsOfEventsThatWereRemoved before they went. EVS-16.
func TestWebhookTellsOfEventsThatWereRemoved(t *testing.T) {
	t.Parallel()
	s := newFeedScene(t)
	s.exec(`UPDATE gpt_schema_migrations SET applied_at = now() - interval '5 years'`)
	s.upkeep.KeepEvents(24 * time.Hour)
	_, end := s.sender()
	s.write("login", "1")
	s.takes("1")
	end()
	s.exec(`UPDATE gpt_event_cursors SET seen_at = now() - interval '3 days'`)
	s.write("login", "2", "3")
	s.exec(`UPDATE gpt_oauth_events SET created_at = now() - interval '2 days' WHERE metadata->>'n' = '2'`)
	s.must(s.clean(s.upkeep))
	s.sender()
	s.takes("1", "3")
	if s.logged.FilterMessageSnippet("removed before the webhook took them").Len() != 1 {
		t.Errorf("the log: %v", s.logged.All())
	}
}
