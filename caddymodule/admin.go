package caddymodule

import (
	"cmp"
	"encoding/json"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-scope/caddy-scope/authserver"
	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
)

// adminAPI is the module admin.api.oauth. The admin listener knows no users: who
// may talk to it may load any configuration, and so may do what operators do
// (ADR 30). Of secrets it tells the one that a request has just made.
//
//	GET /oauth/status          how the node does
//	GET /oauth/                the same for a browser
//	GET /oauth/requests/{id}   why a request was refused
//	GET /oauth/report          who would break if gates that observe were in earnest
//	/oauth/clients, /oauth/sessions, /oauth/events, /oauth/registrations, /oauth/keys, /oauth/users: see package admin
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.oauth", New: func() caddy.Module { return new(adminAPI) }}
}

// Routes implements caddy.AdminRouter.
func (adminAPI) Routes() []caddy.AdminRoute {
	routes := []caddy.AdminRoute{
		{Pattern: statusPath, Handler: caddy.AdminHandlerFunc(serveStatus)},
		{Pattern: statusPagePath + "{$}", Handler: caddy.AdminHandlerFunc(serveStatusPage)},
		{Pattern: observedPath, Handler: caddy.AdminHandlerFunc(serveReport)},
		{Pattern: refusedPath, Handler: caddy.AdminHandlerFunc(serveRefused)},
	}
	for _, name := range admin.Routes() {
		for _, pattern := range []string{admin.Prefix + name, admin.Prefix + name + "/"} {
			routes = append(routes, caddy.AdminRoute{Pattern: pattern, Handler: caddy.AdminHandlerFunc(serveAdministration)})
		}
	}
	return routes
}

// serveAdministration does what an operator asks for, on the configuration in
// force.
func serveAdministration(w http.ResponseWriter, r *http.Request) error {
	app := running.Load()
	switch {
	case app != nil && app.Remote != nil:
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Message: app.onlyGates()}
	case app == nil || app.runtime.db == nil:
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Message: "the oauth app is not running"}
	}
	desk := app.administration(app.runtime)
	desk.Steps = admin.Patience
	desk.Tell = func(what string, data ...any) { app.caddyEvents.tell(eventPrefix+what, data...) }
	return desk.ServeHTTP(w, r)
}

// status is the answer of /oauth/status.
type status struct {
	health
	Issuer    string           `json:"issuer"`
	Remote    string           `json:"remote,omitempty"`   // this node only gates; how it asks about sessions: introspection or postgres
	Ready     bool             `json:"ready"`              // the database answers; by introspection: the keys are known
	View      *viewStatus      `json:"view,omitempty"`     // of session_check live
	ClockSkew float64          `json:"clock_skew_seconds"` // how far this node's clock is ahead of the database's
	Clients   []string         `json:"clients,omitempty"`
	Resources []resourceStatus `json:"resources,omitempty"`
	// AnswersCount is for how long an answer of introspection does.
	AnswersCount float64 `json:"answers_count_seconds,omitempty"`
}

// viewStatus is postgres.ViewState; see there.
type viewStatus struct {
	Fresh        bool    `json:"fresh"`                 // it decides; else every request reads Postgres
	Staleness    float64 `json:"staleness_seconds"`     // since the last completed poll was sent
	MaxStaleness float64 `json:"max_staleness_seconds"` // beyond it the view is not fresh
	Revocations  int     `json:"revocations"`           // sessions it refuses by itself, about
	Known        int     `json:"known_sessions"`        // that it admits by itself, about
	KnownBytes   uint64  `json:"known_bytes"`
	Reads        int64   `json:"reads"`            // requests it could not decide, which read Postgres
	Restarts     int64   `json:"restarts"`         // how often it forgot all sessions, to be sure
	LastRestart  string  `json:"last_restart"`     // why
	Server       string  `json:"server,omitempty"` // that it follows, and in which of its lives
	PollFailures int64   `json:"poll_failures"`
	Failure      string  `json:"failure,omitempty"` // of the last poll
}

type resourceStatus struct {
	Identifier string       `json:"identifier"`
	Gate       string       `json:"gate,omitempty"` // where it is configured
	Rules      []ruleStatus `json:"rules"`
}

type ruleStatus struct {
	Rule   string `json:"rule"`
	Source string `json:"source,omitempty"`
}

func serveStatus(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Message: "method not allowed"}
	}
	app := running.Load()
	if app == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Message: "the oauth app is not running"}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(app.status(r))
}

func (a *App) status(r *http.Request) status {
	s := status{Issuer: a.issuer, Ready: a.runtime.ready(r.Context()) == nil}
	if view := a.runtime.view; view != nil {
		state := view.State()
		s.View = &viewStatus{
			Fresh: state.Fresh, Staleness: state.Staleness.Seconds(), MaxStaleness: state.MaxStaleness.Seconds(),
			Revocations: state.Revocations, Known: state.Known, KnownBytes: state.KnownBytes, Reads: state.Reads,
			Restarts: state.Restarts, LastRestart: state.Restart, Server: state.Server,
			PollFailures: state.Failures, Failure: state.Failure,
		}
	}
	switch {
	case a.Remote != nil && a.Postgres == nil:
		counts := cmp.Or(time.Duration(a.MaxStaleness), authserver.DefaultMaxStaleness)
		s.Remote, s.AnswersCount = remoteIntrospection, counts.Seconds()
	case a.Remote != nil:
		s.Remote = remotePostgres
	}
	if a.runtime.clock != nil {
		s.ClockSkew = a.runtime.clock.Skew().Seconds()
	}
	for _, client := range a.Clients {
		s.Clients = append(s.Clients, client.ID)
	}
	for _, gate := range a.gates {
		res := resourceStatus{Identifier: gate.resource.Identifier(), Gate: gate.Source}
		for _, rule := range gate.own {
			res.Rules = append(res.Rules, ruleStatus{rule.String(), rule.Source})
		}
		s.Resources = append(s.Resources, res)
	}
	s.health = a.health(r.Context(), s.Ready)
	s.judge(time.Now())
	return s
}

var _ caddy.AdminRouter = (*adminAPI)(nil)
