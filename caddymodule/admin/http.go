package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Prefix stands before every path of Routes.
const Prefix = "/oauth/"

// Routes are the first segments of what ServeHTTP answers.
func Routes() []string {
	return []string{"clients", "sessions", "events", "registrations", "keys", "users"}
}

// route is one line of the table below; * is one segment of the path.
type route struct {
	method, path string
	answer       func(a *Admin, ctx context.Context, q *question) (any, error)
}

// question is a request, read.
type question struct {
	name  string // what stood for *
	query url.Values
	body  []byte // a JSON object, empty: none
	known []string
}

var routes = []route{
	{"GET", "clients", func(a *Admin, ctx context.Context, q *question) (any, error) {
		return listed(q, func(p Paging) (Page[Client], error) { return a.Clients(ctx, p) })
	}},
	{"POST", "clients", func(a *Admin, ctx context.Context, q *question) (any, error) {
		return told(q, func(n NewClient) (Client, error) { return a.AddClient(ctx, n) })
	}},
	{"GET", "clients/*", func(a *Admin, ctx context.Context, q *question) (any, error) { return a.Client(ctx, q.name) }},
	{"DELETE", "clients/*", func(a *Admin, ctx context.Context, q *question) (any, error) { return a.RemoveClient(ctx, q.name) }},
	{"POST", "clients/*/disable", func(a *Admin, ctx context.Context, q *question) (any, error) {
		return told(q, func(struct{}) (Switched, error) { return a.DisableClient(ctx, q.name) })
	}},
	{"POST", "clients/*/enable", func(a *Admin, ctx context.Context, q *question) (any, error) {
		return told(q, func(struct{}) (Switched, error) { return a.EnableClient(ctx, q.name) })
	}},
	{"POST", "clients/*/rotate", func(a *Admin, ctx context.Context, q *question) (any, error) {
		return told(q, func(said struct {
			Overlap *string `json:"overlap"`
		}) (Client, error) {
			overlap, err := DefaultOverlap, error(nil)
			if said.Overlap != nil {
				overlap, err = caddy.ParseDuration(*said.Overlap)
			}
			if err != nil {
				return Client{}, invalid("overlap: %q is not a time such as 0s, 90m or 24h", *said.Overlap)
			}
			return a.RotateSecret(ctx, q.name, overlap)
		})
	}},
	{"GET", "sessions", func(a *Admin, ctx context.Context, q *question) (any, error) {
		query := SessionQuery{q.get("user"), q.get("client"), q.get("scope"), q.get("address"), q.get("older_than"), q.get("idle_for")}
		return listed(q, func(p Paging) (Page[Session], error) { return a.Sessions(ctx, query, p) })
	}},
	{"POST", "sessions/revoke", func(a *Admin, ctx context.Context, q *question) (any, error) {
		return told(q, func(said struct {
			SessionQuery
			All    bool   `json:"all"`
			DryRun bool   `json:"dry_run"`
			After  string `json:"after"`
		}) (Ended, error) {
			return a.RevokeSessions(ctx, said.SessionQuery, said.All, said.DryRun, said.After)
		})
	}},
	{"GET", "sessions/*", func(a *Admin, ctx context.Context, q *question) (any, error) { return a.Session(ctx, q.name) }},
	{"DELETE", "sessions/*", func(a *Admin, ctx context.Context, q *question) (any, error) { return a.RevokeSession(ctx, q.name) }},
	{"GET", "events", func(a *Admin, ctx context.Context, q *question) (any, error) {
		query := EventQuery{q.get("user"), q.get("client"), q.get("session"), q.get("type"), q.get("since")}
		return listed(q, func(p Paging) (Page[Event], error) { return a.Events(ctx, query, p) })
	}},
	{"GET", "registrations", func(a *Admin, ctx context.Context, q *question) (any, error) {
		return listed(q, func(p Paging) (Page[Registration], error) { return a.Registrations(ctx, p) })
	}},
	{"GET", "registrations/*", func(a *Admin, ctx context.Context, q *question) (any, error) { return a.Registration(ctx, q.name) }},
	{"DELETE", "registrations/*", func(a *Admin, ctx context.Context, q *question) (any, error) {
		return a.RemoveRegistration(ctx, q.name)
	}},
	{"GET", "users", func(a *Admin, ctx context.Context, q *question) (any, error) {
		return listed(q, func(p Paging) (Page[User], error) { return a.Users(ctx, p) })
	}},
	{"GET", "keys", func(a *Admin, ctx context.Context, _ *question) (any, error) { return a.SigningKeys(ctx) }},
	{"POST", "keys/rotate", func(a *Admin, ctx context.Context, q *question) (any, error) {
		return told(q, func(said struct {
			Now bool `json:"now"`
		}) (Page[Key], error) {
			return a.RotateKeys(ctx, said.Now)
		})
	}},
}

// ServeHTTP answers a request of the admin API. The API holds Host and Origin;
// what changes something also needs a method or a media type that no page of
// another origin can send unasked.
func (a *Admin) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store") // a secret may be in it
	matched, name, err := find(r)
	if err != nil {
		return apiError(err)
	}
	q := &question{name: name, query: r.URL.Query()}
	if matched.method == http.MethodPost {
		if q.body, err = readJSON(w, r); err != nil {
			return apiError(err)
		}
	}
	if err := q.check(); err != nil {
		return apiError(err)
	}
	if matched.method == http.MethodDelete { // before anything goes
		if err := q.unknown(); err != nil {
			return apiError(err)
		}
	}
	answer, err := matched.answer(a, r.Context(), q)
	if err == nil {
		err = q.unknown()
	}
	if err != nil {
		return apiError(err)
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(answer)
}

// find looks the path up byte for byte; names in it are escaped, since those of
// clients may be URLs.
func find(r *http.Request) (matched route, name string, err error) {
	path := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), Prefix), "/")
	known := false
	for _, candidate := range routes {
		pattern := strings.Split(candidate.path, "/")
		star := slices.Index(pattern, "*")
		if len(pattern) != len(path) {
			continue
		}
		if star >= 0 {
			if name, err = url.PathUnescape(path[star]); err != nil || name == "" {
				continue
			}
			pattern[star] = path[star]
		}
		if !slices.Equal(pattern, path) {
			continue
		}
		if known = true; candidate.method == r.Method {
			return candidate, name, nil
		}
	}
	if known {
		return matched, "", &Error{http.StatusMethodNotAllowed, "the path has no such method"}
	}
	return matched, "", missing("there is no such path; those that are there stand in docs/commands.md")
}

const maxBody = 64 << 10

// readJSON reads the body of a POST. The media type is what makes a browser ask
// first, so that it is needed even with no body.
func readJSON(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if mediaType != "application/json" {
		return nil, &Error{http.StatusUnsupportedMediaType, "send JSON, with Content-Type: application/json"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, &Error{http.StatusRequestEntityTooLarge, "the body is too large or could not be read"}
	}
	return body, nil
}

// get reads a parameter of the query, which then counts as known.
func (q *question) get(name string) string {
	q.known = append(q.known, name)
	return q.query.Get(name)
}

// unknown refuses parameters that nobody read: a filter that is misspelt would
// filter nothing.
func (q *question) unknown() error {
	for name, values := range q.query {
		if !slices.Contains(q.known, name) || len(values) > 1 {
			return invalid("the parameter %q is not known here, or stands there twice", name)
		}
	}
	return nil
}

// listed answers with a page.
func listed[T any](q *question, list func(Paging) (Page[T], error)) (any, error) {
	p := Paging{After: q.get("after")}
	if text := q.get("limit"); text != "" {
		var err error
		if p.Limit, err = strconv.Atoi(text); err != nil || p.Limit == 0 {
			return nil, invalid("limit %q is not a number from 1 to %d", text, MaxLimit)
		}
	}
	if err := q.unknown(); err != nil {
		return nil, err
	}
	return list(p)
}

// told answers to a body, of which every member must be known.
func told[In, Out any](q *question, do func(In) (Out, error)) (any, error) {
	var in In
	if len(q.body) > 0 {
		decoder := json.NewDecoder(strings.NewReader(string(q.body)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&in); err != nil {
			return nil, invalid("the body is not the JSON object that is wanted here: %v", err)
		}
		if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
			return nil, invalid("the body is more than one JSON object")
		}
	}
	if err := q.unknown(); err != nil {
		return nil, err
	}
	return do(in)
}

// apiError is the answer of Caddy's admin API. What is not an *Error is a fault
// behind us.
func apiError(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return caddy.APIError{HTTPStatus: e.Status, Err: err, Message: e.Text}
	}
	return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err, Message: err.Error()}
}

// Patience bounds a call of the API that goes over many rows, in steps of a
// transaction each; the answer says where to go on.
const Patience = 25
