// Command middleware is a small service in Go that is not behind Caddy: it gates
// itself, with package httpgate. The issuer is a Caddy elsewhere; see README.md.
package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/caddy-scope/caddy-scope/httpgate"
)

func main() {
	gate, err := httpgate.New(httpgate.Config{
		Issuer:   env("ISSUER", "http://localhost:8080"),
		Resource: env("GATE", "http://localhost:8081"),
		Rules: []string{
			"GET  /jobs   jobs:read",
			"POST /jobs   jobs:write",
			"GET  /events jobs:read",
			"GET  /health public",
		},
		ClientID: "second-gate", ClientSecret: os.Getenv("GATE_SECRET"),
		MaxStaleness: 2 * time.Second,
		Logger:       slog.Default(),
	})
	if err != nil {
		slog.Error("the gate cannot be made", "error", err)
		os.Exit(2)
	}
	server := &http.Server{Addr: env("LISTEN", "127.0.0.1:8081"), Handler: gate.Handler(api()), ReadHeaderTimeout: 5 * time.Second}
	slog.Info("listening", "address", server.Addr)
	slog.Error("ended", "error", server.ListenAndServe())
	os.Exit(1)
}

// api is the service itself.
func api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]string{"status": "ok"}) })
	mux.HandleFunc("GET /jobs", func(w http.ResponseWriter, r *http.Request) {
		caller, _ := httpgate.FromContext(r.Context())
		answer(w, map[string]string{"client": caller.ClientID, "user": caller.UserID, "scopes": caller.Scopes})
	})
	// A stream that ends with its session, as it looks at the context of its request.
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for ticker := time.Tick(200 * time.Millisecond); ; {
			_, _ = w.Write([]byte("data: tick\n\n"))
			w.(http.Flusher).Flush()
			select {
			case <-ticker:
			case <-r.Context().Done():
				return
			}
		}
	})
	return mux
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
