package caddymodule

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
	"github.com/caddy-scope/caddy-scope/caddymodule/rules"
	"github.com/caddy-scope/caddy-scope/validator"
)

// verdict is what becomes of requests of one class, whoever sends them.
type verdict struct {
	outcome  string // as rules.Side
	rule     *validator.Rule
	gate     string
	resource string
}

// verdict sends one request without credentials.
func (h *rehearsal) verdict(name, host, method, path string) verdict {
	server := h.serverAt(name)
	if server == nil {
		return verdict{outcome: "nothing"}
	}
	if host == anyHost {
		host = "any-host.invalid"
	}
	e, err := h.send(server, rehearsedRequest{method: method, path: path, host: strings.Replace(host, "*", "any", 1)}, "")
	if err != nil { // no class holds a request that is none
		return verdict{outcome: "nothing"}
	}
	v := verdict{gate: e.Gate, resource: e.Resource}
	answered := e.Answer != nil && e.Answer.Status < http.StatusMultipleChoices // by `respond`
	passed := e.Handler != "" || answered
	switch {
	case e.Outcome == explain.AuthorizationServer:
		v.outcome = "authorization_server"
	case e.Outcome == explain.Observed && !passed:
		v.outcome = "nothing"
	case e.Outcome == explain.Observed:
		v.outcome = "observed"
		if h.decided != nil {
			v.rule = h.same(h.decided)
		}
	case h.decided != nil:
		v.outcome, v.rule = "rule", h.same(h.decided)
	case e.Outcome == explain.Refused:
		v.outcome = "no_rule"
	case e.Outcome == explain.NotGated && passed:
		v.outcome = "open"
	case (e.Outcome == explain.Bypass || e.Outcome == explain.Unmatched) && passed:
		v.outcome = string(e.Outcome)
	default:
		v.outcome = "nothing"
	}
	return v
}

// same returns one and the same rule for what gates of one table each have.
func (h *rehearsal) same(rule *validator.Rule) *validator.Rule {
	key := rule.String() + " " + rule.Source
	if h.rules == nil {
		h.rules = make(map[string]*validator.Rule)
	}
	if h.rules[key] == nil {
		h.rules[key] = rule
	}
	return h.rules[key]
}

// bypassAt returns the matchers of the gate at source that let requests through
// untouched, in JSON; "": there are none.
func (h *rehearsal) bypassAt(source string) string {
	for _, gate := range h.app.gates {
		if gate.Source == source {
			return gate.bypassing
		}
	}
	return ""
}

func (v verdict) side() rules.Side {
	s := rules.Side{Outcome: v.outcome, Gate: v.gate, Resource: v.resource}
	if v.rule != nil {
		s.Rule, s.Source = v.rule.String(), v.rule.Source
	}
	return s
}

// required returns what callers of the class need. which is 0 for the old
// configuration, 1 for the new one.
func (c *comparison) required(which int, v verdict) rules.Requirement {
	switch v.outcome {
	case "rule":
		return c.hierarchy[which].Of(v.rule)
	case "open", "bypass", "unmatched", "observed":
		return rules.Open
	}
	return rules.Never
}

// requiredForTool returns what callers of a tool need.
func (c *comparison) requiredForTool(which int, v verdict, tool string) rules.Requirement {
	needed := c.required(which, v)
	if v.rule == nil || v.rule.Tools == nil || v.outcome == "observed" {
		return needed
	}
	for i := range v.rule.Tools.Rules {
		if r := &v.rule.Tools.Rules[i]; r.Tool == tool {
			return needed.And(c.hierarchy[which].Of(r))
		}
	}
	return rules.Never
}

// toolsOf returns the tools that either rule names.
func toolsOf(was, is *validator.Rule) []string {
	var tools []string
	for _, rule := range []*validator.Rule{was, is} {
		if rule == nil || rule.Tools == nil {
			continue
		}
		for _, r := range rule.Tools.Rules {
			if !slices.Contains(tools, r.Tool) {
				tools = append(tools, r.Tool)
			}
		}
	}
	slices.Sort(tools)
	return tools
}
