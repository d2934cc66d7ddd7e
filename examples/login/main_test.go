package main

import (
	"net/http/httptest"
	"testing"
)

func TestCallbackTakesOnlyTheAnswerItWaitsFor(t *testing.T) {
	t.Parallel()
	const issuer = "http://localhost:8080"
	for name, c := range map[string]struct {
		query  string
		status int
		code   string
		failed bool
	}{
		"code":           {"?state=s&iss=http://localhost:8080&code=c", 200, "c", false},
		"denied":         {"?state=s&iss=http://localhost:8080&error=access_denied", 200, "", true},
		"other state":    {"?state=x&iss=http://localhost:8080&code=c", 400, "", false},
		"no state":       {"?iss=http://localhost:8080&code=c", 400, "", false},
		"another issuer": {"?state=s&iss=http://evil.example&code=c", 400, "", false},
		"no issuer":      {"?state=s&code=c", 400, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answers := make(chan answer, 1)
			w := httptest.NewRecorder()
			callback(issuer, "s", answers).ServeHTTP(w, httptest.NewRequest("GET", "/callback"+c.query, nil))
			var got answer
			select {
			case got = <-answers:
			default:
			}
			if w.Code != c.status || got.code != c.code || (got.err != nil) != c.failed {
				t.Errorf("status %d, answer %+v; want %d, code %q, failed %v", w.Code, got, c.status, c.code, c.failed)
			}
		})
	}
}
