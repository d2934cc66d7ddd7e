package caddymodule

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// TestWebhookGetsEventsFromCaddyAndHoldsNobodyUp: a receiver that takes requests
// and answers none costs requests, and a reload, nothing; and it gets the event
// from the next configuration. EVS-17.
func TestWebhookGetsEventsFromCaddyAndHoldsNobodyUp(t *testing.T) {
	asked, taken := make(chan struct{}, 1000), make(chan string, 1000)
	hung := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked <- struct{}{}
		if r.URL.Path == "/hangs" {
			<-r.Context().Done()
			return
		}
		taken <- string(body)
	}))
	defer hung.Close()
	s := prepareGateScene(t)
	s.dsn, s.real = postgrestest.New(t), true
	secret := " {\nsecret whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n}\n"
	s.words = "events_webhook " + hung.URL + "/hangs" + secret + "events_webhook " + hung.URL + "/answers" + secret
	site := "route {\noauth_server\noauth_protect {\nGET /jobs jobs:read\nGET /health public\n}\nreverse_proxy UPSTREAM\n}"
	s.load("", site)
	sql, err := pgx.Connect(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer sql.Close(context.Background())
	within := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within 30 s: %s", what)
			}
		}
	}
	cursors := 0
	within("both are configured", func() bool {
		_ = sql.QueryRow(t.Context(), `SELECT count(*) FROM gpt_event_cursors`).Scan(&cursors)
		return cursors == 2
	})
	delivered := scrapeCaddy(t)[`{__name__="caddy_oauth_events_delivered_total", instance="node-1"}`]
	if _, err := sql.Exec(t.Context(), `INSERT INTO gpt_oauth_events (event_type, user_id, metadata) VALUES ('gpt.oauth.user_disabled', 'ada', '{"by":"operator"}')`); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one of them hangs
		select {
		case <-asked:
		case <-time.After(30 * time.Second):
			t.Fatal("no request came")
		}
	}
	if got := s.get("/health"); got.status != http.StatusOK {
		t.Errorf("while a receiver hangs: %+v", got)
	}
	body := <-taken
	for _, part := range []string{`"type":"gpt.oauth.user_disabled"`, `"data":{"user_id":"ada","metadata":{"by": "operator"}}`} {
		if !strings.Contains(strings.ReplaceAll(body, `{"by":"operator"}`, `{"by": "operator"}`), part) {
			t.Errorf("%s is not in %s", part, body)
		}
	}
	within("it is counted", func() bool {
		now := scrapeCaddy(t)
		return now[`{__name__="caddy_oauth_events_delivered_total", instance="node-1"}`] == delivered+1 && now[`{__name__="caddy_oauth_events_lag_seconds", instance="node-1"}`] > 0
	})
	s.load("", strings.Replace(site, "GET /health public", "GET /health public\nGET /more public", 1))
	if got := s.get("/more"); got.status != http.StatusOK {
		t.Errorf("after a reload: %+v", got)
	}
	select {
	case <-asked: // the event that hangs, by the new configuration
	case <-time.After(60 * time.Second):
		t.Fatal("the new configuration does not go on")
	}
	if len(taken) != 0 {
		t.Errorf("came again: %s", <-taken)
	}
}
