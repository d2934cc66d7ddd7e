package caddymodule

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// handlerMark is the response header by which a stand-in tells what it stands
// in for.
const handlerMark = "Oauth-Rehearsed-Handler"

// What a handler may do in a rehearsal, by its name in JSON.
var (
	// kept: they only look at the request, change it, or answer from the
	// configuration.
	kept = []string{"subroute", "invoke", "oauth_protect", "oauth_server", "rewrite", "vars", "map", "headers", "error", "static_response"}
	// answering: nothing is run behind them.
	answering = []string{"reverse_proxy", "file_server", "acme_server", "metrics"}
	// idle: they have no say in where a request goes.
	idle = []string{"encode", "request_body", "tracing", "log_append", "intercept", "templates", "push", "timeouts", "copy_response", "copy_response_headers"}
)

// withoutEffects returns the configuration with handlers that reach beyond this
// process, and secrets that are not here, replaced by stand-ins, and notes of
// what may have had a say.
func withoutEffects(config []byte) ([]byte, []string, error) {
	var tree map[string]any
	if err := json.Unmarshal(config, &tree); err != nil {
		return nil, nil, fmt.Errorf("read the configuration: %w", err)
	}
	delete(tree, "admin")
	s := &standIns{}
	s.secrets(object(tree, "apps", appName))
	for _, server := range object(tree, "apps", "http", "servers") {
		server, _ := server.(map[string]any)
		delete(server, "logs")
		s.routes(server["routes"])
		s.routes(object(server, "errors")["routes"])
		for _, route := range object(server, "named_routes") {
			s.routes([]any{route})
		}
	}
	changed, err := json.Marshal(tree)
	slices.Sort(s.notes)
	return changed, slices.Compact(s.notes), err
}

// object walks down the names; nil where there is no object.
func object(tree map[string]any, names ...string) map[string]any {
	for _, name := range names {
		tree, _ = tree[name].(map[string]any)
	}
	return tree
}

type standIns struct{ notes []string }

func (s *standIns) routes(list any) {
	routes, _ := list.([]any)
	for _, route := range routes {
		route, _ := route.(map[string]any)
		handlers, _ := route["handle"].([]any)
		var standing []any
		for _, handler := range handlers {
			if handler, ok := handler.(map[string]any); ok {
				standing = append(standing, s.handler(handler)...)
			}
		}
		if len(handlers) > 0 {
			route["handle"] = standing
		}
	}
}

func (s *standIns) handler(handler map[string]any) []any {
	name, _ := handler["handler"].(string)
	switch {
	case name == "subroute":
		s.routes(handler["routes"])
		s.routes(object(handler, "errors")["routes"])
		return []any{handler}
	case name == "static_response":
		delete(handler, "abort")
		return []any{handler}
	case slices.Contains(kept, name):
		return []any{handler}
	case slices.Contains(idle, name):
		return nil
	case name == "reverse_proxy" && object(handler, "rewrite")["method"] == "GET" && handler["handle_response"] != nil:
		s.note("forward_auth")
		return nil
	case slices.Contains(answering, name):
		stop := map[string]any{
			"handler": "static_response", "status_code": 200,
			"headers": map[string]any{handlerMark: []string{describeHandler(handler)}},
		}
		if rewrite := handler["rewrite"]; name == "reverse_proxy" && rewrite != nil {
			// Never reached; it is there for the check of what stands behind a gate.
			return []any{stop, map[string]any{"handler": name, "rewrite": rewrite}}
		}
		return []any{stop}
	}
	s.note(name)
	return nil
}

func (s *standIns) note(name string) {
	s.notes = append(s.notes, "not asked, because it may reach beyond this process: "+name)
}

func describeHandler(handler map[string]any) string {
	words := []string{fmt.Sprint(handler["handler"])}
	upstreams, _ := handler["upstreams"].([]any)
	for _, upstream := range upstreams {
		if dial, ok := upstream.(map[string]any)["dial"].(string); ok {
			words = append(words, dial)
		}
	}
	return strings.Join(words, " ")
}

// quietLogging keeps lines below the level from the terminal.
func quietLogging(level string) *caddy.Logging {
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: level}}}}
}
