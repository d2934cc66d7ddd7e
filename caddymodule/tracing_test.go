package caddymodule

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// traceReceiver is a collector of traces that remembers them.
type traceReceiver struct {
	mu    sync.Mutex
	spans []*otlp.Span
	raw   bytes.Buffer
}

func newTraceReceiver(t *testing.T) *traceReceiver {
	t.Helper()
	received := new(traceReceiver)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			t.Error(err)
			return
		}
		received.mu.Lock()
		defer received.mu.Unlock()
		received.raw.Write(body)
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				received.spans = append(received.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_BSP_SCHEDULE_DELAY": "20",
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "always_on",
	} {
		t.Setenv(name, value)
	}
	return received
}

// await returns the names of the spans below Caddy's, once there are n of these,
// each with those above it: "request > oauth: token > postgres: …".
func (t *traceReceiver) await(test *testing.T, n int) []string {
	test.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		t.mu.Lock()
		byID := make(map[string]*otlp.Span)
		roots := 0
		for _, span := range t.spans {
			byID[string(span.SpanId)] = span
			if len(span.ParentSpanId) == 0 {
				roots++
			}
		}
		var names []string
		for _, span := range t.spans {
			path := span.Name
			for up := byID[string(span.ParentSpanId)]; up != nil; up = byID[string(up.ParentSpanId)] {
				path = up.Name + " > " + path
			}
			if len(span.ParentSpanId) > 0 {
				names = append(names, path)
			}
		}
		t.mu.Unlock()
		if roots >= n {
			return names
		}
		if time.Now().After(deadline) {
			test.Fatalf("%d requests were traced, want %d", roots, n)
		}
	}
}

// TestTracesShowWhatRequestsWaitFor: below the span of Caddy's directive there are
// those of the token endpoint, of a signature and of the calls of the database; a
// known token waits for nothing and has none. No span holds a secret. MET-08.
func TestTracesShowWhatRequestsWaitFor(t *testing.T) {
	received := newTraceReceiver(t)
	s := prepareGateScene(t)
	s.dsn, s.real = postgrestest.New(t), true
	s.load("", "tracing {\nspan request\n}\nroute {\noauth_server\noauth_protect {\nGET /jobs jobs:read\n}\nreverse_proxy UPSTREAM\n}")
	db, err := pgx.Connect(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	if _, err := db.Exec(t.Context(), `INSERT INTO gpt_sessions (id, user_id, client_id, scopes, granted_scopes, expires_at)
		VALUES ($1, 'user-1', 'gpt', '{jobs:read}', '{jobs:read}', now() + interval '1 day')`, testSession); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !running.Load().runtime.view.State().Fresh; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the view is not fresh")
		}
	}

	// First sight verifies the signature and reads the session.
	token := s.token()
	request := "GET /jobs HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: Bearer " + token + "\n\n"
	if got := s.raw(request); got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	spans := received.await(t, 1)
	if !slices.ContainsFunc(spans, func(path string) bool { return strings.HasPrefix(path, "request > postgres: ") }) {
		t.Errorf("first sight: %q", spans)
	}
	if !slices.Contains(spans, "request > gate: verify token") {
		t.Errorf("first sight: %q", spans)
	}

	// The token endpoint, and what it reads.
	if got := s.askForTokens(sceneSecret); got.status != http.StatusBadRequest {
		t.Errorf("%+v", got)
	}
	after := received.await(t, 2)
	if !slices.Contains(after, "request > oauth: token") ||
		!slices.ContainsFunc(after, func(path string) bool { return strings.HasPrefix(path, "request > oauth: token > postgres: ") }) {
		t.Errorf("token endpoint: %q", after)
	}

	// A token that is known waits for nothing, once the view follows its session.
	for deadline := time.Now().Add(30 * time.Second); ; {
		before, requests := len(received.await(t, 0)), received.roots()
		s.raw(request)
		if len(received.await(t, requests+1)) == before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("each request has spans of its own")
		}
	}
	received.mu.Lock()
	defer received.mu.Unlock()
	for name, secret := range map[string]string{"access token": token, "client secret": sceneSecret} {
		if bytes.Contains(received.raw.Bytes(), []byte(secret)) {
			t.Errorf("the traces hold the %s", name)
		}
	}
}

// roots is how many requests were traced.
func (t *traceReceiver) roots() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, span := range t.spans {
		if len(span.ParentSpanId) == 0 {
			n++
		}
	}
	return n
}
