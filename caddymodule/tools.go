package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// The values of tool_list.
const (
	toolListCallable = "callable"
	toolListDeclared = "declared"
)

// parseTool reads
//
//	tool <name> <requirement> {
//		rate <number>/<window> per <key>
//	}
func (p *Protect) parseTool(h httpcaddyfile.Helper) error {
	tool := ToolSettings{Source: source(h.Dispenser)}
	args := h.RemainingArgs()
	switch {
	case len(args) == 0 || args[0] == "":
		return h.Err("tool: a name and a requirement are missing (an unset {$VARIABLE} leaves nothing)")
	case len(args) == 1:
		return h.Errf("tool %s: a requirement is missing: scopes, any SCOPES, authenticated or public", args[0])
	}
	tool.Name = shorthands.Replace(args[0])
	for _, other := range p.Tools {
		if other.Name == tool.Name {
			return h.Errf("tool %s has a rule already, at %s", tool.Name, other.Source)
		}
	}
	required, err := parseRequirement(h, args[1:])
	if err != nil {
		return err
	}
	tool.Access, tool.Scopes, tool.User = required.access, required.scopes, required.user
	if tool.Rates, err = parseRates(h.Dispenser); err != nil {
		return err
	}
	p.Tools = append(p.Tools, tool)
	return nil
}

// compileTools turns settings into rules of the validator; nil: there are none.
// rules are those of the gate.
func (p *Protect) compileTools(rules []RuleSettings) (*validator.Tools, error) {
	if len(p.Tools) == 0 {
		if p.ToolList != "" {
			return nil, errors.New("tool_list says how tools are listed, but no tool has a rule")
		}
		return nil, nil
	}
	if !slices.ContainsFunc(rules, takesMessages) {
		return nil, fmt.Errorf("tool %s at %s is unreachable: tools are called by POST, and no rule of the gate is for that method", p.Tools[0].Name, place(p.Tools[0].Source))
	}
	tools := &validator.Tools{ListDeclared: p.ToolList == toolListDeclared}
	for _, t := range p.Tools {
		rule := validator.Rule{Tool: t.Name, Access: validator.Access(t.Access), User: t.User, Source: t.Source}
		if rule.Access == "" {
			rule.Access = validator.AccessScopes
		}
		for i := range t.Rates {
			rate, err := t.Rates[i].rate(false)
			if err != nil {
				return nil, atSource(t.Source, "tool "+t.Name, err)
			}
			rule.Rates = append(rule.Rates, rate)
		}
		if len(t.Scopes) > 0 {
			rule.Scopes = oauth.NewScopeSet(t.Scopes...)
		}
		tools.Rules = append(tools.Rules, rule)
	}
	return tools, nil
}

func takesMessages(rule RuleSettings) bool {
	return len(rule.Methods) == 0 || slices.Contains(rule.Methods, http.MethodPost)
}

// textOf returns the rule as it is written.
func (p *Protect) textOf(rule *validator.Rule) string {
	if own := &p.rules[rule.Index()]; own.rule == rule {
		return own.text
	}
	return rule.String() // of several tools
}

// serveNext has the request answered. An answer that may list tools is filtered
// on its way.
func (p *Protect) serveNext(w *gatedResponse, r *http.Request, next caddyhttp.Handler, decision *validator.Decision) error {
	filter := decision.FilterTools(w)
	if filter == nil || w.lenient {
		return next.ServeHTTP(w, r)
	}
	r.Header.Set("Accept-Encoding", "identity")
	if err := next.ServeHTTP(filter, r); err != nil {
		return err
	}
	if err := filter.Close(); err != nil {
		p.logger.Error("the list of tools was not passed on", zap.String("gate", p.Source), zap.String("path", r.URL.Path), zap.Error(err))
		if filter.Streams() {
			panic(http.ErrAbortHandler) // or half a stream would end like a whole one
		}
	}
	return nil
}

// warnAboutTools tells the owner of what MCP clients stumble over.
func (p *Protect) warnAboutTools(identifier string) {
	if len(p.Tools) > 0 && identifier == p.app.issuer {
		p.logger.Warn(fmt.Sprintf("%s: the gate has rules for tools, and its resource is the issuer: MCP clients expect the URL that their users type; write for example: resource /mcp", p.Source))
	}
}
