package jobboard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/identity"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// answer is what the board said.
type answer struct {
	status int
	header http.Header
	body   map[string]any
}

func ask(t *testing.T, h http.Handler, method, target, userID, body string) answer {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if userID != "" {
		r.Header.Set("X-User-Id", userID)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header()}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s: Content-Type %q, want application/json", method, target, got)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil {
		t.Fatalf("%s %s: body %q: %v", method, target, w.Body, err)
	}
	return a
}

func TestJobsAreSearchedAndPaged(t *testing.T) {
	t.Parallel()
	h := New().JobsHandler()
	for name, c := range map[string]struct {
		query string
		total float64
		shown int
	}{
		"all":                         {"", 12, 12},
		"every word must be found":    {"?q=go+postgresql", 1, 1},
		"case does not matter":        {"?q=PAYMENTS", 1, 1},
		"by place":                    {"?location=berlin", 2, 2},
		"only remote":                 {"?remote=true", 8, 8},
		"never remote":                {"?remote=false", 4, 4},
		"by skill":                    {"?skill=go", 3, 3},
		"words, place and skill meet": {"?q=engineer&location=berlin&skill=react", 1, 1},
		"nothing found":               {"?q=astronaut", 0, 0},
		"last page is short":          {"?page=3&per_page=5", 12, 2},
		"past the end":                {"?page=9", 12, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ask(t, h, "GET", "/jobs"+c.query, "", "")
			jobs, _ := got.body["jobs"].([]any)
			if got.status != 200 || got.body["total"] != c.total || len(jobs) != c.shown {
				t.Errorf("status %d, total %v, %d shown; want 200, %v, %d", got.status, got.body["total"], len(jobs), c.total, c.shown)
			}
		})
	}
}

func TestJobIsFoundByID(t *testing.T) {
	t.Parallel()
	h := New().JobsHandler()
	if got := ask(t, h, "GET", "/jobs/job-108", "", ""); got.status != 200 || got.body["title"] != "Security Engineer" {
		t.Errorf("got %d %v", got.status, got.body)
	}
	if got := ask(t, h, "GET", "/jobs/nowhere", "", ""); got.status != 404 {
		t.Errorf("unknown job: status %d, want 404", got.status)
	}
}

func TestApplicationsBelongToTheirUser(t *testing.T) {
	t.Parallel()
	h := New().PeopleHandler()
	made := ask(t, h, "POST", "/applications", "ann", `{"job_id":"job-112","cover_letter":"Hello"}`)
	if made.status != 201 {
		t.Fatalf("submit: %d %v", made.status, made.body)
	}
	where := made.header.Get("Location")
	if got := ask(t, h, "GET", where, "ann", ""); got.status != 200 || got.body["job_title"] != "Backend Engineer, Payments" {
		t.Errorf("own application: %d %v", got.status, got.body)
	}
	if got := ask(t, h, "GET", where, "bob", ""); got.status != 404 {
		t.Errorf("somebody else's application: status %d, want 404", got.status)
	}
	if got := ask(t, h, "GET", "/applications", "bob", ""); got.body["total"] != 0.0 {
		t.Errorf("bob sees %v applications, want 0", got.body["total"])
	}
	if got := ask(t, h, "GET", "/applications?status=submitted", "ann", ""); got.body["total"] != 1.0 {
		t.Errorf("ann sees %v applications, want 1", got.body["total"])
	}
	if got := ask(t, h, "POST", "/applications", "ann", `{"job_id":"job-112"}`); got.status != 409 {
		t.Errorf("second application for one job: status %d, want 409", got.status)
	}
	if got := ask(t, h, "POST", "/applications", "bob", `{"job_id":"job-112"}`); got.status != 201 {
		t.Errorf("another user's application: status %d, want 201", got.status)
	}
}

func TestResumeIsComparedWithJob(t *testing.T) {
	t.Parallel()
	h := New().PeopleHandler()
	if got := ask(t, h, "GET", "/resume", "ann", ""); got.status != 200 || got.body["user_id"] != "ann" {
		t.Errorf("resume: %d %v", got.status, got.body)
	}
	got := ask(t, h, "POST", "/resume/analyze", "ann", `{"job_id":"job-112"}`)
	if got.status != 200 || got.body["score"] != 66.0 {
		t.Errorf("analysis: %d %v, want score 66", got.status, got.body)
	}
}

func TestMistakesGetClearAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, target, user, body string
		status                     int
		code                       string
	}{
		"page is no number":         {"GET", "/applications?page=x", "ann", "", 422, "invalid"},
		"page is zero":              {"GET", "/applications?page=0", "ann", "", 422, "invalid"},
		"page too large":            {"GET", "/applications?per_page=101", "ann", "", 422, "invalid"},
		"unknown status":            {"GET", "/applications?status=lost", "ann", "", 422, "invalid"},
		"no user":                   {"GET", "/applications", "", "", 400, "no_user"},
		"no job named":              {"POST", "/applications", "ann", `{}`, 422, "invalid"},
		"unknown job":               {"POST", "/applications", "ann", `{"job_id":"job-1"}`, 422, "invalid"},
		"letter too long":           {"POST", "/applications", "ann", `{"job_id":"job-101","cover_letter":"` + strings.Repeat("x", 5001) + `"}`, 422, "invalid"},
		"not JSON":                  {"POST", "/applications", "ann", `job_id=1`, 400, "malformed"},
		"wrong type":                {"POST", "/applications", "ann", `{"job_id":1}`, 400, "malformed"},
		"unknown field":             {"POST", "/applications", "ann", `{"job":"job-101"}`, 400, "malformed"},
		"two objects":               {"POST", "/applications", "ann", `{"job_id":"job-101"}{}`, 400, "malformed"},
		"body too large":            {"POST", "/applications", "ann", `{"cover_letter":"` + strings.Repeat("x", 70_000) + `"}`, 413, "too_large"},
		"unknown job in analysis":   {"POST", "/resume/analyze", "ann", `{"job_id":"?"}`, 422, "invalid"},
		"method that is not served": {"DELETE", "/applications", "ann", "", 405, "method_not_allowed"},
		"path that is not served":   {"GET", "/cats", "ann", "", 404, "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ask(t, New().PeopleHandler(), c.method, c.target, c.user, c.body)
			problem, _ := got.body["error"].(map[string]any)
			if got.status != c.status || problem["code"] != c.code {
				t.Errorf("got %d %v, want %d %s", got.status, got.body, c.status, c.code)
			}
		})
	}
}

func TestBodyMustBeJSON(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/applications", strings.NewReader("job_id=job-101"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("X-User-Id", "ann")
	w := httptest.NewRecorder()
	New().PeopleHandler().ServeHTTP(w, r)
	if w.Code != http.StatusUnsupportedMediaType {
		t.Errorf("status %d, want 415", w.Code)
	}
}

func TestTwoUserHeadersAreRefused(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("GET", "/resume", nil)
	r.Header["X-User-Id"] = []string{"ann", "bob"}
	w := httptest.NewRecorder()
	New().PeopleHandler().ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest {
		t.Errorf("status %d, want 400", w.Code)
	}
}

func TestBothAPIsAreHealthy(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.Handler{"jobs": New().JobsHandler(), "people": New().PeopleHandler()} {
		if got := ask(t, h, "GET", "/health", "", ""); got.status != 200 {
			t.Errorf("%s: status %d, want 200", name, got.status)
		}
	}
}

// The upstream changes nothing when the gate is put before it: it must not
// know of it.
func TestBoardKnowsNothingOfOAuth(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		file, err := os.Open(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"oauth", "token", "scope\"", "bearer", "caddyserver"} {
			if strings.Contains(strings.ToLower(string(text)), word) {
				t.Errorf("%s speaks of %q", entry.Name(), word)
			}
		}
	}
}

// ringKeys finds the keys of a key ring.
type ringKeys struct{ *issuer.KeyRing }

func (k ringKeys) FindKey(_ context.Context, kid string) (*ecdsa.PublicKey, error) {
	if key, ok := k.VerificationKey(kid); ok {
		return key, nil
	}
	return nil, oauth.ErrUnknownKey
}

// UPS-06: told which gate it is behind, the board serves nobody else, and the user
// is who stands in the token, whatever X-User-Id says.
func TestBoardBelievesOnlyItsGate(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := issuer.NewStaticKeyRing([]*ecdsa.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	const issuer = "https://api.example.com"
	minter, err := identity.NewMinter(issuer, issuer+"#upstream", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	board := New()
	if board.Gate, err = identity.NewVerifier(identity.VerifierConfig{Issuer: issuer, Audience: issuer + "#upstream", Keys: ringKeys{ring}}); err != nil {
		t.Fatal(err)
	}
	api := board.Guarded(board.PeopleHandler())
	get := func(caller *identity.Caller) int {
		r := httptest.NewRequest("GET", "https://api.example.com/applications", nil)
		r.Header.Set("X-User-Id", "mallory")
		if caller != nil {
			token, err := minter.Token(ring, r, caller)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Identity-Token", token)
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		if strings.Contains(w.Body.String(), "app-of-mallory") {
			t.Errorf("mallory's: %s", w.Body)
		}
		return w.Code
	}
	board.applications["mallory"] = []Application{{ID: "app-of-mallory"}}
	if status := get(nil); status != http.StatusForbidden {
		t.Errorf("around the gate: %d", status)
	}
	if status := get(&identity.Caller{UserID: "ada", ClientID: "gpt"}); status != http.StatusOK {
		t.Errorf("ada: %d", status)
	}
	if status := get(&identity.Caller{}); status != http.StatusBadRequest {
		t.Errorf("through the gate, but nobody: %d", status)
	}
}
