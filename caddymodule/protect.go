package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
	"github.com/caddy-scope/caddy-scope/identity"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/ratelimit"
	"github.com/caddy-scope/caddy-scope/validator"
)

// Protect is the gate: it lets a request pass when a scope rule allows it, and
// tells the upstream who is calling.
type Protect struct {
	// Resource is the identifier that access tokens must be for (RFC 8707); a path
	// alone, such as /mcp, stands for the one on the issuer's host. Gates with the
	// same identifier share one table of rules. Placeholders. Default: the issuer.
	Resource string `json:"resource,omitempty"`

	// Rules are the scope rules; the most specific one decides, whatever their
	// order. A request without a rule is refused. At least one, here or in OpenAPI.
	Rules []RuleSettings `json:"rules,omitempty"`

	// OpenAPI are documents whose operations become rules beside Rules, by their
	// security requirements. A rule of Rules replaces what a document says for its
	// methods at its path. Default: none.
	OpenAPI []OpenAPISettings `json:"openapi,omitempty"`

	// Tools are the rules for the tools of the MCP server behind the gate. With
	// them, requests that bring a body must bring messages of MCP, a tool without a
	// rule cannot be called, and answers to tools/list leave out what the token may
	// not call. Default: bodies are not looked at.
	Tools []ToolSettings `json:"tools,omitempty"`

	// ToolList "declared" keeps every tool that has a rule in answers to
	// tools/list, so that clients ask for more scopes when they call one. Default:
	// "callable".
	ToolList string `json:"tool_list,omitempty"`

	// Short marks the short form: its rules are its own and not shared with other
	// gates of the same resource. Default: false.
	Short bool `json:"short,omitempty"`

	// PassUnmatched lets requests that no rule covers through, without
	// credentials or identity: the short form with a matcher. Default: false.
	PassUnmatched bool `json:"pass_unmatched,omitempty"`

	// BypassRaw are matchers of the owner's own traffic, which passes untouched
	// but for the identity headers. Default: none.
	BypassRaw caddyhttp.RawMatcherSets `json:"bypass,omitempty" caddy:"namespace=http.matchers"`

	// IdentityHeaders renames the headers that tell the upstream who is calling.
	IdentityHeaders *IdentityHeaderSettings `json:"identity_headers,omitempty"`

	// IdentityToken gives the upstream a signed proof of who is calling, for each
	// request. Default: none.
	IdentityToken *IdentityTokenSettings `json:"identity_token,omitempty"`

	// ForwardToken leaves Authorization and our cookies on the request to the
	// upstream. Default: false, they are removed.
	ForwardToken bool `json:"forward_token,omitempty"`

	// CORS are the origins whose preflights the gate answers itself; "*" is every
	// origin. Default: preflights are forwarded, without credentials.
	CORS []string `json:"cors,omitempty"`

	// Rates bound how often callers may come, counted over all requests that the
	// rules of this gate let in. Default: none.
	Rates []RateSettings `json:"rates,omitempty"`

	// Streams "until_close" lets WebSockets, event streams and downloads go on
	// when their token expires or their session ends. Default: they are closed.
	Streams string `json:"streams,omitempty"`

	// Errors "caddy" hands refusals to handle_errors. Default: the gate writes
	// its own JSON.
	Errors string `json:"errors,omitempty"`

	// RequestID is the header that gives a refused client the id of its request,
	// under which the log and the admin API know it; "off": none. Default:
	// X-Request-Id.
	RequestID string `json:"request_id,omitempty"`

	// Mode makes a rehearsal of the gate, for all or some of the callers. Default:
	// what is refused does not pass.
	Mode *ModeSettings `json:"mode,omitempty"`

	// Source is where the gate was written, such as "Caddyfile:31"; errors name it.
	Source string `json:"source,omitempty"`

	app       *App
	own       []validator.Rule // without those of other gates of the resource
	resource  *validator.Resource
	bypass    caddyhttp.MatcherSets
	bypassing string // bypass in JSON
	headers   *validator.HeaderPolicy
	minter    *identity.Minter // nil: the upstream gets no identity tokens
	rules     []gateRule       // by validator.Rule.Index
	ruleless  *decisions       // of requests that come under none
	streams   *openStreams
	logger    *zap.Logger
}

const streamsUntilClose = "until_close"

// noteUseEvery spares a busy token the look at when its session was last noted;
// last_active is written at most once a minute.
const noteUseEvery = 20 * time.Second

// CaddyModule returns the Caddy module information.
func (Protect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.oauth_protect", New: func() caddy.Module { return new(Protect) }}
}

// Provision checks the gate together with every other gate of the
// configuration, and compiles its rules. It opens nothing.
func (p *Protect) Provision(ctx caddy.Context) error {
	p.logger = lastErrors.watch(ctx.Logger())
	app, err := loadApp(ctx, p.Source, "oauth_protect")
	if err != nil {
		return err
	}
	p.app, p.streams = app, new(openStreams)
	if err := p.checkWords(); err != nil {
		return p.at(err)
	}
	routes, err := app.surveyRoutes(ctx)
	if err != nil {
		return err
	}
	identifier, err := app.resourceIdentifier(p)
	if err != nil {
		return p.at(err)
	}
	p.warnAboutTools(identifier)
	p.warnAboutMode()
	rules, err := routes.rulesFor(app, p, identifier)
	if err != nil {
		return err
	}
	if p.headers, err = validator.NewHeaderPolicy(p.headerNames()); err != nil {
		return p.at(err)
	}
	if err := p.provisionIdentityToken(identifier); err != nil {
		return p.at(err)
	}
	if err := p.checkClaims(rules); err != nil {
		return err
	}
	p.resource, err = validator.New(validator.Config{
		Issuer:        app.issuer,
		Resource:      identifier,
		Catalog:       app.catalog,
		Rules:         rules,
		PassUnmatched: p.PassUnmatched,
		Keys:          app,
		Sessions:      app.gateSessions(),
		Tokens:        app.tokens,
		ClientAllowed: app.clientAllowed,
		Proofs:        app.proofsForGates(),
		Limits:        app.limiter,
		ClientAddress: clientAddress,
		Now:           app.judging,
		RequestPath:   originalPath,
		CORSOrigins:   p.CORS,
	})
	if err != nil {
		var rule *validator.RuleError
		if errors.As(err, &rule) { // names its own lines
			return err
		}
		return p.at(err)
	}
	if err := p.provisionBypass(ctx); err != nil {
		return p.at(fmt.Errorf("bypass: %w", err))
	}
	p.provisionDecisions()
	app.gates = append(app.gates, p)
	return nil
}

// checkWords checks what can be checked without the other gates.
func (p *Protect) checkWords() error {
	if p.Errors != "" && p.Errors != "caddy" {
		return fmt.Errorf("errors: %q is not caddy", p.Errors)
	}
	if p.ToolList != "" && p.ToolList != toolListCallable && p.ToolList != toolListDeclared {
		return fmt.Errorf("tool_list: %q is neither %s nor %s", p.ToolList, toolListCallable, toolListDeclared)
	}
	if err := p.Mode.check(); err != nil {
		return err
	}
	if p.Streams != "" && p.Streams != streamsUntilClose {
		return fmt.Errorf("streams: %q is not %s", p.Streams, streamsUntilClose)
	}
	return p.provisionRequestID()
}

func (p *Protect) provisionBypass(ctx caddy.Context) error {
	if p.BypassRaw == nil {
		return nil
	}
	text, _ := json.Marshal(p.BypassRaw) // was read from JSON, and is gone when it is loaded
	p.bypassing = string(text)
	matchers, err := ctx.LoadModule(p, "BypassRaw")
	if err != nil {
		return err
	}
	return p.bypass.FromInterface(matchers)
}

// Cleanup lets go of the counters of rules that no configuration has any more.
func (p *Protect) Cleanup() error {
	p.releaseDecisions()
	return nil
}

// at names the place of the gate in an error.
func (p *Protect) at(err error) error {
	return atSource(p.Source, "oauth_protect", err)
}

// ServeHTTP decides the request and passes it on, with the caller's identity
// and without the caller's credentials.
func (p *Protect) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	p.app.requests.Add(1)
	defer p.app.requests.Add(-1)

	// 1. Whatever happens to the request, no identity but ours reaches the
	// upstream: not by a header of the client, not by a trailer, and not by a
	// Connection header that names ours. SECURITY-CASES M1, H-01 to H-04.
	p.headers.Strip(r)
	stripTrailers(r, p.headers)

	// 2. The owner's own traffic.
	if p.bypass != nil {
		own, err := p.bypass.AnyMatchWithError(r)
		if err != nil {
			return err
		}
		if own {
			p.ruleless.count(outcomeBypass)
			p.rehearsed(r, explain.Bypass, nil)
			return next.ServeHTTP(w, r)
		}
	}

	// 3. Right after a (re)start the keys may not be loaded yet.
	if err := p.app.awaitStart(r.Context()); err != nil {
		return p.refuse(w, r, next, &validator.Refusal{
			Status:      http.StatusServiceUnavailable,
			Code:        oauth.CodeTemporarilyUnavailable,
			Description: "The session cannot be confirmed right now. Try again shortly.",
			Cause:       err,
		})
	}

	// 4. The decision.
	decision, err := p.resource.Authorize(r)
	if err != nil {
		return p.refuse(w, r, next, err)
	}
	return p.forward(w, r, next, &decision)
}

// forward passes the request on.
func (p *Protect) forward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, decision *validator.Decision) error {
	switch {
	case decision.Rule == nil:
		p.ruleless.count(outcomeUnmatched)
		p.rehearsed(r, explain.Unmatched, decision)
		return next.ServeHTTP(w, r)
	case decision.Preflight:
		p.decisionsOf(decision.Rule).count(outcomePreflight)
		p.rehearsed(r, explain.Preflight, decision)
		if p.resource.AnswersPreflights() {
			p.resource.AnswerPreflight(w, r)
			return nil
		}
	default:
		p.decisionsOf(decision.Rule).count(outcomeAllowed)
		p.rehearsed(r, explain.Allowed, decision)
	}
	if !p.ForwardToken || decision.Preflight {
		validator.StripCredentials(r.Header)
	}
	if decision.Preflight {
		delete(r.Header, "Cookie")
	}
	gated := &gatedResponse{
		ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		gate:                  p, request: r, grant: decision.Grant(),
		caller:  caller{p.textOf(decision.Rule), decision.Identity},
		lenient: p.observesRule(r, decision.Rule, &decision.Identity),
	}
	gated.caller.introduce(r)
	if decision.Authenticated() {
		p.headers.SetIdentity(r.Header, &decision.Identity)
		if decision.NoteUse(noteUseEvery, time.Now()) {
			p.app.touchSession(decision.Identity.SessionID)
		}
		decision.CountUse(p.app.runtime.usage)
		defer gated.done()
	}
	if err := p.proveIdentity(r, decision); err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	if decision.NextNonce != "" {
		w.Header().Set("DPoP-Nonce", decision.NextNonce)
	}
	if decision.Limits != nil {
		ratelimit.SetHeader(w.Header(), decision.Limits)
	}
	err := p.serveNext(gated, r, next, decision)
	if gated.cut.Load() {
		panic(http.ErrAbortHandler) // or half an answer would end like a whole one
	}
	return err
}

// originalPath is the escaped path that the client sent, before `rewrite`,
// `handle_path` and the like.
func originalPath(r *http.Request) string {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		return original.URL.EscapedPath()
	}
	return r.URL.EscapedPath()
}

// refuse answers a request that does not pass, unless it is only observed.
func (p *Protect) refuse(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, err error) error {
	var refusal *validator.Refusal
	if !errors.As(err, &refusal) { // a fault of ours never opens the gate
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	if p.observes(r, refusal) {
		p.observe(r, refusal)
		return next.ServeHTTP(w, r)
	}
	p.decisionsOf(refusal.Rule).count(outcomeOf(refusal))
	id := requestID(r)
	p.logRefusal(r, refusal, id)
	p.resource.SetCORSHeader(w.Header(), r)
	if p.RequestID != requestIDOff {
		w.Header().Set(p.RequestID, id)
	}
	if p.Errors == "caddy" {
		validator.WriteRefusalHeader(w.Header(), refusal)
		p.keepRefusal(w.Header(), r, refusal, id)
		return caddyhttp.Error(refusal.Status, refusal)
	}
	validator.WriteRefusal(w, r, refusal)
	p.keepRefusal(w.Header(), r, refusal, id)
	return nil
}

// logRefusal tells the owner why, where that is worth a line: no rule (often a
// rule that was forgotten), and what could not be decided. Everything else is
// the caller's affair and in the access log.
func (p *Protect) logRefusal(r *http.Request, refusal *validator.Refusal, id string) {
	if refusal.Limits != nil {
		p.logExhausted(r, refusal, id)
		return
	}
	level, message := zap.DebugLevel, "request refused"
	switch {
	case refusal.Code == oauth.CodeAccessDenied:
		level, message = zap.InfoLevel, "no rule"
	case refusal.Status >= http.StatusInternalServerError:
		level, message = zap.ErrorLevel, "request cannot be decided"
	}
	if entry := p.logger.Check(level, message); entry != nil {
		entry.Write(zap.String("request_id", id), zap.String("gate", p.Source), zap.String("method", r.Method), zap.String("path", r.URL.Path),
			zap.Int("status", refusal.Status), zap.NamedError("cause", refusal.Cause))
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Protect)(nil)
	_ caddy.CleanerUpper          = (*Protect)(nil)
	_ caddyhttp.MiddlewareHandler = (*Protect)(nil)
)
