package doctor

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// DOC-04: a product gives up before a slow server answers. The slowest answer
// counts, not the last one.
func TestSlowServerFailsTheTimeoutOfTheProduct(t *testing.T) {
	t.Parallel()
	const slow = 50 * time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(slow) // what is measured
		}
	}))
	t.Cleanup(server.Close)
	for patience, want := range map[time.Duration]Outcome{slow: Fail, time.Minute: Pass} {
		e := &examination{stage: &Stage{Live: http.DefaultTransport}, wire: http.DefaultTransport, profile: &Profile{Timeout: &Timeout{Discovery: patience}}}
		for _, path := range []string{"/slow", "/"} {
			if _, err := e.ask(http.MethodGet, server.URL+path, ""); err != nil {
				t.Fatal(err)
			}
		}
		if got := e.checkTimeout(); got.Outcome != want {
			t.Errorf("within %s: %+v", patience, got)
		}
	}
}
