package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
	"github.com/caddy-scope/caddy-scope/validator"
)

const (
	requestIDOff     = "off"
	defaultRequestID = "X-Request-Id"
)

// refusedPath is where the admin API explains requests that were refused.
const refusedPath = "/oauth/requests/"

// keptRefusals bounds the memory: some two KiB each.
const keptRefusals = 1024

// lastRefused outlives reloads, as the clients' questions do.
var lastRefused = &refusedRing{byID: make(map[string]*explain.Explanation)}

// refusedRing keeps the last refused requests. Safe for concurrent use.
type refusedRing struct {
	mu   sync.Mutex
	ids  [keptRefusals]string
	next int
	byID map[string]*explain.Explanation
}

func (f *refusedRing) put(e *explain.Explanation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byID, f.ids[f.next])
	f.ids[f.next], f.byID[e.ID] = e.ID, e
	f.next = (f.next + 1) % keptRefusals
}

func (f *refusedRing) get(id string) *explain.Explanation {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byID[id]
}

func (p *Protect) provisionRequestID() error {
	if p.RequestID == "" {
		p.RequestID = defaultRequestID
	}
	if !httpguts.ValidHeaderFieldName(p.RequestID) {
		return fmt.Errorf("request_id: %q is neither the name of a header nor off", p.RequestID)
	}
	return nil
}

// requestID is Caddy's id of the request, {http.request.uuid}, so that the
// access log can carry it too.
func requestID(r *http.Request) string {
	id, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).GetString("http.request.uuid")
	return id
}

// keepRefusal remembers why a request was refused.
func (p *Protect) keepRefusal(header http.Header, r *http.Request, refusal *validator.Refusal, id string) {
	p.keep(p.explainRefusal(header.Clone(), r, refusal), refusal, id)
}

func (p *Protect) explainRefusal(header http.Header, r *http.Request, refusal *validator.Refusal) *explain.Explanation {
	e := explain.Request(r)
	e.Gate, e.Resource = p.Source, p.resource.Identifier()
	body := ""
	if p.Errors != "caddy" {
		body = validator.RefusalBody(r, refusal)
	} else {
		e.Notes = append(e.Notes, "the answer goes through handle_errors (errors caddy), which writes the body")
	}
	e.Refuse(refusal, header, body)
	return e
}

func (p *Protect) keep(e *explain.Explanation, refusal *validator.Refusal, id string) {
	if p.app.rehearsal != nil {
		h := p.app.rehearsal
		h.explanation, h.decided, h.refused = e, refusal.Rule, refusal
		return
	}
	e.ID, e.Time = id, time.Now()
	lastRefused.put(e)
}

// serveRefused answers why the request of an id was refused. It tells what the
// log and the answer told, and no credential.
func serveRefused(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Message: "method not allowed"}
	}
	e := lastRefused.get(strings.TrimPrefix(r.URL.Path, refusedPath))
	if e == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Message: fmt.Sprintf("no refused request has this id; the last %d of this node are known until it is restarted", keptRefusals)}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(e)
}
