package caddymodule

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-scope/caddy-scope/caddymodule/observe"
	"github.com/caddy-scope/caddy-scope/validator"
)

// observedPath is where the admin API tells who would break.
const observedPath = "/oauth/report"

// observed outlives reloads: a rehearsal goes on while its rules are mended.
var observed = new(observe.Log)

// observe notes a request that passes although it is refused.
func (p *Protect) observe(r *http.Request, refusal *validator.Refusal) {
	id := requestID(r)
	header := make(http.Header)
	validator.WriteRefusalHeader(header, refusal)
	e := p.explainRefusal(header, r, refusal)
	e.Observe()
	p.keep(e, refusal, id)
	if p.app.rehearsal != nil {
		return
	}
	p.decisionsOf(refusal.Rule).count(outcomeObserved)
	kind := observe.KindOf(place(p.Source), r, refusal)
	count := observed.Add(kind, id, e.Path, time.Now())
	level := zapcore.DebugLevel
	if milestone(count) {
		level = zapcore.InfoLevel
	}
	if entry := p.logger.Check(level, "would be refused"); entry != nil {
		entry.Write(zap.String("request_id", id), zap.String("gate", p.Source), zap.String("method", r.Method), zap.String("path", r.URL.Path),
			zap.Int("status", refusal.Status), zap.String("code", refusal.Code), zap.String("rule", kind.Rule), zap.String("rule_source", kind.Source),
			zap.String("client_id", kind.Client), zap.String("agent", kind.Agent), zap.String("missing_scopes", kind.Missing),
			zap.Uint64("count", count), zap.NamedError("cause", refusal.Cause))
	}
}

// milestone spares the log: of each kind the first request is worth a line, the
// tenth, the hundredth and so on.
func milestone(count uint64) bool {
	for count >= 10 && count%10 == 0 {
		count /= 10
	}
	return count == 1
}

// serveReport answers who would break.
func serveReport(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Message: "method not allowed"}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(observed.Report())
}

// observes reports whether a gate of the configuration is a rehearsal.
func (a *App) observes() bool {
	return slices.ContainsFunc(a.gates, func(p *Protect) bool {
		return p.Mode != nil || slices.ContainsFunc(p.own, func(r validator.Rule) bool { return r.Observe })
	})
}
