package jobboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-scope/caddy-scope/identity"
)

// Where the APIs and the MCP server listen: loopback only.
const (
	JobsAddress   = "127.0.0.1:9001"
	PeopleAddress = "127.0.0.1:9002"
	ToolsAddress  = "127.0.0.1:9003"
)

// maxBody bounds a request body, in bytes.
const maxBody = 64 << 10

// Board holds everything. It is safe for concurrent use.
type Board struct {
	// Gate, if set, is the only way in: requests must bring its signed proof, and
	// the user is who stands in that. Default: X-User-Id is believed.
	Gate *identity.Verifier

	jobs []Job // never changes
	now  func() time.Time

	mu              sync.Mutex
	applications    map[string][]Application // by user, oldest first
	lastApplication int
}

// New returns a board with its jobs and no applications.
func New() *Board {
	return &Board{jobs: seedJobs, now: time.Now, applications: make(map[string][]Application)}
}

// ListenAndServe serves the APIs and the MCP server on their addresses until ctx
// ends, then lets requests that are under way finish. It calls started once all
// listen.
func (b *Board) ListenAndServe(ctx context.Context, jobs, people, tools string, started func()) error {
	apis := []struct {
		address string
		handler http.Handler
	}{{jobs, b.JobsHandler()}, {people, b.PeopleHandler()}, {tools, b.ToolsHandler()}}

	failed := make(chan error, len(apis))
	for _, api := range apis {
		listener, err := net.Listen("tcp", api.address)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		server := &http.Server{Handler: b.Guarded(api.handler), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
		defer func() {
			grace, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			_ = server.Shutdown(grace)
		}()
		go func() { failed <- server.Serve(listener) }()
	}
	if started != nil {
		started()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	}
}

// forUser takes the caller from X-User-Id.
func forUser(h func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ids := r.Header.Values("X-User-Id")
		if len(ids) != 1 || ids[0] == "" {
			(&problem{http.StatusBadRequest, "no_user", "one X-User-Id header is expected", ""}).write(w)
			return
		}
		h(w, r, ids[0])
	}
}

func health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// problem is an answer for a request that cannot be served.
type problem struct {
	status  int
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}

func invalid(field, message string) *problem {
	return &problem{http.StatusUnprocessableEntity, "invalid", field + " " + message, field}
}

func notFound(message string) *problem {
	return &problem{http.StatusNotFound, "not_found", message, ""}
}

func (p *problem) write(w http.ResponseWriter) {
	writeJSON(w, p.status, map[string]*problem{"error": p})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(v) // the caller is gone: nobody is left to tell
}

// readJSON reads one JSON object and nothing after it.
func readJSON(w http.ResponseWriter, r *http.Request, v any) *problem {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		return &problem{http.StatusUnsupportedMediaType, "unsupported_media_type", "the body must be application/json", ""}
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(v)
	if err == nil && decoder.Decode(&struct{}{}) != io.EOF {
		err = errors.New("something follows the JSON object")
	}
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return &problem{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body is larger than %d bytes", maxBody), ""}
	case errors.As(err, &wrongType):
		return &problem{http.StatusBadRequest, "malformed", "a value has the wrong type", wrongType.Field}
	case strings.HasPrefix(err.Error(), "json: unknown field"):
		return &problem{http.StatusBadRequest, "malformed", "the body has an unknown field", ""}
	default:
		return &problem{http.StatusBadRequest, "malformed", "the body is not one JSON object", ""}
	}
}

// page is a part of a list.
type page struct{ number, size int }

func parsePage(query url.Values) (page, *problem) {
	number, ok := parseCount(query, "page", 1, 10_000)
	if !ok {
		return page{}, invalid("page", "must be a number from 1 to 10000")
	}
	size, ok := parseCount(query, "per_page", 20, 100)
	if !ok {
		return page{}, invalid("per_page", "must be a number from 1 to 100")
	}
	return page{number, size}, nil
}

func parseCount(query url.Values, name string, otherwise, highest int) (int, bool) {
	if !query.Has(name) {
		return otherwise, true
	}
	n, err := strconv.Atoi(query.Get(name))
	return n, err == nil && n >= 1 && n <= highest
}

func writePage[T any](w http.ResponseWriter, name string, all []T, p page) {
	from := min((p.number-1)*p.size, len(all))
	to := min(from+p.size, len(all))
	answer := map[string]any{name: append([]T{}, all[from:to]...), "page": p.number, "per_page": p.size, "total": len(all)}
	if to < len(all) {
		answer["next_page"] = p.number + 1
	}
	writeJSON(w, http.StatusOK, answer)
}

// withJSONErrors answers 404 and 405 of the mux in the same form as all else.
func withJSONErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		refused := &statusOnly{header: make(http.Header)}
		mux.ServeHTTP(refused, r)
		if refused.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", refused.header.Get("Allow"))
			(&problem{http.StatusMethodNotAllowed, "method_not_allowed", "the method is not allowed here", ""}).write(w)
			return
		}
		notFound("no such path").write(w)
	})
}

// statusOnly notes what a handler would have answered.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }
