package caddymodule

import (
	"encoding/json"
	"errors"
	"html"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-scope/caddy-scope/postgres"
)

// TestStatusTellsWhetherANodeIsHealthy, as text, as JSON and as a page, and by its
// exit status. STA-01.
func TestStatusTellsWhetherANodeIsHealthy(t *testing.T) {
	s, wire := monitoredScene(t)
	admin := adminServer(t)
	ask := func(args ...string) (string, error) {
		return runCommand(t, append([]string{"status", "--address", admin}, args...)...)
	}
	page := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		if err := serveStatusPage(w, httptest.NewRequest(http.MethodGet, "http://localhost:2019/oauth/", nil)); err != nil {
			t.Fatal(err)
		}
		return w
	}

	out, err := ask()
	if err != nil {
		t.Fatalf("healthy: %v\n%s", err, out)
	}
	for _, want := range []string{
		admin + "  healthy", "issuer    " + testIssuer, "database  answers: Postgres 1", "view      fresh: ", "clocks    ",
		"up to date", "key       " + s.thumbprint() + "  active", "clients   1 in the configuration", "sessions  0 on record", "upkeep    last pass ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	for _, l := range running.Load().status(httptest.NewRequest(http.MethodGet, "/", nil)).Resources {
		if len(l.Rules) == 0 {
			t.Errorf("%+v", l)
		}
	}
	if shown := html.UnescapeString(page().Body.String()); !strings.Contains(shown, ">healthy<") || !strings.Contains(shown, s.thumbprint()) {
		t.Error(shown)
	}

	wire.Refuse()
	wire.Cut()
	for deadline := time.Now().Add(30 * time.Second); running.Load().runtime.view.State().Fresh; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the view stays fresh without a database")
		}
	}
	s.get("/jobs") // is answered 503, and logged
	out, err = ask()
	if err == nil || !strings.Contains(out, "NOT HEALTHY") || !strings.Contains(out, "problem   the database does not answer") ||
		!strings.Contains(out, "problem   the view is not fresh") || !strings.Contains(out, "error     ") || !strings.Contains(out, "request cannot be decided") {
		t.Errorf("cut off: %v\n%s", err, out)
	}
	var told status
	if out, err = ask("--json"); err == nil || json.Unmarshal([]byte(out), &told) != nil || told.Healthy || len(told.Problems) < 2 || told.Database.LastFailure == "" || len(told.Errors) == 0 {
		t.Errorf("cut off: %v %s", err, out)
	}
	if shown := page().Body.String(); !strings.Contains(shown, ">not healthy<") || !strings.Contains(shown, "request cannot be decided") {
		t.Error(shown)
	}
	if strings.Contains(out, sceneSecret) {
		t.Error("the status holds a client's secret")
	}

	if out, err := runCommand(t, "status", "--address", "127.0.0.1:1"); err == nil || strings.Contains(out, "healthy") || !strings.Contains(err.Error(), "--address HOST:PORT") {
		t.Errorf("nobody there: %v %s", err, out)
	}
}

// Each state that is not healthy is named. STA-02.
func TestEachProblemIsNamed(t *testing.T) {
	now := time.Now()
	earlier := now.Add(-time.Hour)
	for name, tc := range map[string]struct {
		spoil func(*status)
		want  string
	}{
		"well":           {func(*status) {}, ""},
		"database":       {func(s *status) { s.Ready = false }, "the database does not answer"},
		"view":           {func(s *status) { s.View.Fresh = false }, "the view is not fresh"},
		"clock ahead":    {func(s *status) { s.ClockSkew = 3 }, "differ by 3.0 s"},
		"clock behind":   {func(s *status) { s.ClockSkew = -3 }, "differ by -3.0 s"},
		"old schema":     {func(s *status) { s.Schema.Version = 20 }, "run caddy oauth migrate"},
		"new schema":     {func(s *status) { s.Schema.Version = 22 }, "does not know"},
		"no key":         {func(s *status) { s.Keys = []keyHealth{{KID: "a", Phase: "retiring"}} }, "no key signs"},
		"upkeep stopped": {func(s *status) { s.Upkeep.Cleaned = &earlier }, "1h0m0s ago for the last time"},
	} {
		s := status{Ready: true, View: &viewStatus{Fresh: true}, health: health{
			Schema: &schemaHealth{21, 21}, Keys: []keyHealth{{KID: "a", Phase: "active"}}, Upkeep: &upkeepHealth{Cleaned: &now},
		}}
		tc.spoil(&s)
		s.judge(now)
		if got := strings.Join(s.Problems, "; "); s.Healthy != (tc.want == "") || !strings.Contains(got, tc.want) || tc.want == "" && got != "" {
			t.Errorf("%s: healthy %v: %q, want %q", name, s.Healthy, got, tc.want)
		}
	}
}

// The page says nothing that a browser would follow or run, whoever wrote it.
// STA-03.
func TestStatusPageEscapesWhatItShows(t *testing.T) {
	const hostile = `<script>alert(1)</script><img src=x onerror=alert(1)>"'`
	w := httptest.NewRecorder()
	writeStatusPage(w, []nodeStatus{{Address: hostile, status: status{
		Issuer: hostile, View: &viewStatus{Failure: hostile}, health: health{
			Problems: []string{hostile}, Database: &databaseHealth{Answers: true, Server: hostile}, Keys: []keyHealth{{KID: hostile, Phase: hostile}},
			Errors: []loggedError{{Level: hostile, Message: hostile, Cause: hostile}},
		},
	}}})
	if body := w.Body.String(); strings.Contains(body, "<script") || strings.Contains(body, "<img") || strings.Count(body, "&lt;script&gt;") < 8 {
		t.Error(body)
	}
	if policy := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Error(policy)
	}
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestLastErrorsAreKept(t *testing.T) {
	core, _ := observer.New(zap.DebugLevel)
	ring := new(errorRing)
	logger := ring.watch(zap.New(core)).With(zap.String("node", "1"))
	logger.Info("not this")
	for range keptErrors + 5 {
		logger.Warn("many")
	}
	logger.Named("part").Error("last", zap.String("field", "left out"), zap.Error(errors.New("the cause "+strings.Repeat("x", 2*maxCause))))
	kept := ring.list()
	if len(kept) != keptErrors || kept[0].Message != "last" || kept[0].Level != "error" || !strings.HasPrefix(kept[0].Cause, "the cause x") || len(kept[0].Cause) != maxCause || kept[1].Message != "many" {
		t.Errorf("%+v", kept)
	}
}

func TestRowsAreWrittenForPeople(t *testing.T) {
	for want, count := range map[string]postgres.RowCount{"0": {}, "999": {Rows: 999}, "1,000": {Rows: 1000}, "about 12,345,678": {Rows: 12345678, Estimated: true}} {
		if got := rows(count); got != want {
			t.Errorf("%v is written %s, want %s", count, got, want)
		}
	}
}
