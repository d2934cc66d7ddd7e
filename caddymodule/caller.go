package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-scope/caddy-scope/validator"
)

// caller is what the rest of the configuration may know about a request that
// passed: {http.auth.…} and fields of the access log. Both are asked for rarely
// and are made when they are; five values in the replacer's map would be a
// third of what the gate costs.
type caller struct {
	rule     string
	identity validator.Identity // zero: nobody in particular
}

// placeholders of a caller; see the value of each in placeholder.
const (
	placeholderRule    = "http.auth.rule"
	placeholderUser    = "http.auth.user.id"
	placeholderClient  = "http.auth.user.client_id"
	placeholderSession = "http.auth.user.session_id"
	placeholderScope   = "http.auth.user.scope"
)

// introduce makes the caller known to the handlers behind the gate.
func (c *caller) introduce(r *http.Request) {
	ctx := r.Context()
	repl := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if c.known() {
		// A value that was set wins over one that is looked up. Whoever another
		// handler thought was calling is not who is.
		repl.Delete(placeholderUser)
		repl.Delete(placeholderClient)
		repl.Delete(placeholderSession)
		repl.Delete(placeholderScope)
	}
	repl.Map(c.placeholder)
	// Where no access log is kept, its fields would be the dearest part.
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.Logs == nil {
		return
	}
	if fields, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		fields.Add(zap.Inline(c))
	}
}

func (c *caller) known() bool { return c.identity.SessionID != "" }

func (c *caller) placeholder(name string) (any, bool) {
	if name == placeholderRule {
		return c.rule, true
	}
	if !c.known() {
		return nil, false
	}
	switch name {
	case placeholderUser:
		return c.identity.UserID, true
	case placeholderClient:
		return c.identity.ClientID, true
	case placeholderSession:
		return c.identity.SessionID, true
	case placeholderScope:
		return c.identity.Scopes, true
	}
	return nil, false
}

// MarshalLogObject adds the caller to a line of the access log.
func (c *caller) MarshalLogObject(line zapcore.ObjectEncoder) error {
	line.AddString("oauth_rule", c.rule)
	if c.known() {
		line.AddString("client_id", c.identity.ClientID)
		line.AddString("session_id", c.identity.SessionID)
	}
	return nil
}
