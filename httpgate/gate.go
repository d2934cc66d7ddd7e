package httpgate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-scope/caddy-scope/authserver"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// Config makes a Gate.
type Config struct {
	// Issuer of the access tokens, to the byte. Required.
	Issuer string
	// Resource is the identifier that they must be for. Required.
	Resource string
	// Rules are scope rules as they stand in a Caddyfile; see validator.ParseRule. The
	// most specific one decides; what none names is refused. Required.
	Rules []string
	// Scopes say what a scope implies, where one does. nil: those that the rules name,
	// none of which implies another.
	Scopes []oauth.Scope

	// ClientID and ClientSecret are by what sessions are asked about. Required, unless
	// there is Sessions.
	ClientID, ClientSecret string
	// Sessions tells of sessions instead, such as a postgres.SessionView.
	Sessions validator.SessionReader
	// MaxStaleness is how long an answer about a session counts. Zero: 5 seconds.
	MaxStaleness time.Duration
	// Server is the issuer, where several gates share one; its fields are then set
	// there, and not here. nil: one is made.
	Server *authserver.Server

	// Headers are those by which handlers may read who is calling, beside the context;
	// the zero value has those of the gate in Caddy (X-User-Id and so on). They are
	// removed from what comes in.
	Headers validator.IdentityHeaders
	// Logger is told what could not be decided, and what no rule names. nil: nobody.
	Logger *slog.Logger
}

const (
	// maxTokens and maxTokenBytes bound the verified tokens that are kept.
	maxTokens     = 10_000
	maxTokenBytes = 16 << 20
	// confirmEvery is how often a request that is still served is decided about again.
	confirmEvery = time.Second
)

// Gate lets requests through by scope rules. Safe for concurrent use.
type Gate struct {
	cfg      Config
	resource *validator.Resource
	headers  *validator.HeaderPolicy
}

// New checks the configuration. It sends nothing.
func New(cfg Config) (*Gate, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := oauth.CheckIdentifier("Resource", cfg.Resource); err != nil {
		return nil, fmt.Errorf("httpgate: %w", err)
	}
	rules, err := parseRules(&cfg)
	if err != nil {
		return nil, fmt.Errorf("httpgate: %w", err)
	}
	catalog, err := oauth.NewCatalog(cfg.Scopes)
	if err != nil {
		return nil, fmt.Errorf("httpgate: %w", err)
	}
	if cfg.Server == nil {
		if cfg.Server, err = authserver.New(authserver.Config{
			Issuer: cfg.Issuer, ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, MaxStaleness: cfg.MaxStaleness,
		}); err != nil {
			return nil, fmt.Errorf("httpgate: %w", err)
		}
	}
	if cfg.Sessions == nil {
		if !cfg.Server.Introspects() {
			return nil, errors.New("httpgate: say how sessions are asked about: ClientID and ClientSecret (introspection), or Sessions")
		}
		cfg.Sessions = cfg.Server
	}
	g := &Gate{cfg: cfg}
	if g.headers, err = validator.NewHeaderPolicy(cfg.Headers); err != nil {
		return nil, fmt.Errorf("httpgate: %w", err)
	}
	g.resource, err = validator.New(validator.Config{
		Issuer: cfg.Issuer, Resource: cfg.Resource, Catalog: catalog, Rules: rules, Keys: cfg.Server, Sessions: cfg.Sessions,
		Tokens: validator.NewTokenCache(maxTokens, maxTokenBytes),
	})
	return g, err
}

// parseRules reads the rules, and declares the scopes that they name where none are
// declared.
func parseRules(cfg *Config) ([]validator.Rule, error) {
	var rules []validator.Rule
	var named oauth.ScopeSet
	for i, line := range cfg.Rules {
		rule, err := validator.ParseRule(line, fmt.Sprintf("Rules[%d]", i))
		if err != nil {
			return nil, err
		}
		if len(rule.User) > 0 && cfg.Sessions == nil {
			return nil, fmt.Errorf("rule %d, %s: introspection tells nothing of users but who they are; give Sessions", i, rule)
		}
		rules, named = append(rules, rule), named.Union(rule.Scopes)
	}
	if len(rules) == 0 {
		return nil, errors.New("there is no rule, so nothing would pass")
	}
	if cfg.Scopes == nil {
		for _, name := range named {
			cfg.Scopes = append(cfg.Scopes, oauth.Scope{Name: name, Description: name})
		}
	}
	return rules, nil
}

type callerKey struct{}

// FromContext returns who is calling. ok is false where nobody had to say: at a
// public rule, or for a CORS preflight.
func FromContext(ctx context.Context) (caller validator.Identity, ok bool) {
	caller, ok = ctx.Value(callerKey{}).(validator.Identity)
	return caller, ok
}

// Handler serves what the rules let through, without the caller's credentials. It
// answers everything else itself, and the metadata of the resource (RFC 9728), by
// which clients find the issuer.
func (g *Gate) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.isMetadata(r) {
			g.serveMetadata(w, r)
			return
		}
		r = r.Clone(r.Context())
		g.headers.Strip(r)
		decision, err := g.resource.Authorize(r)
		if err != nil {
			g.refuse(w, r, err)
			return
		}
		validator.StripCredentials(r.Header)
		if !decision.Authenticated() {
			next.ServeHTTP(w, r)
			return
		}
		ctx, end := context.WithCancelCause(context.WithValue(r.Context(), callerKey{}, decision.Identity))
		defer end(nil)
		defer g.follow(ctx, decision.Grant(), end)()
		g.headers.SetIdentity(r.Header, &decision.Identity)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// follow ends the request when what it rests on is over. The caller stops it.
func (g *Gate) follow(ctx context.Context, grant validator.Grant, end context.CancelCauseFunc) (stop func()) {
	ticker, done := time.NewTimer(confirmEvery), make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			if err := g.resource.Confirm(ctx, grant); err != nil {
				end(err)
				return
			}
			ticker.Reset(confirmEvery)
		}
	}()
	return func() { ticker.Stop(); close(done) }
}

func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var refusal *validator.Refusal
	if !errors.As(err, &refusal) { // a fault of ours never opens the gate
		g.cfg.Logger.Error("request cannot be decided", "method", r.Method, "path", r.URL.Path, "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	switch {
	case refusal.Code == oauth.CodeAccessDenied:
		g.cfg.Logger.Info("no rule", "method", r.Method, "path", r.URL.Path)
	case refusal.Status >= http.StatusInternalServerError:
		g.cfg.Logger.Error("request cannot be decided", "method", r.Method, "path", r.URL.Path, "error", refusal.Cause)
	}
	g.resource.SetCORSHeader(w.Header(), r)
	validator.WriteRefusal(w, r, refusal)
}

func (g *Gate) isMetadata(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		oauth.Origin(g.cfg.Resource)+r.URL.Path == oauth.ResourceMetadataURL(g.cfg.Resource)
}

// serveMetadata answers RFC 9728. It is public, and holds what is configured.
func (g *Gate) serveMetadata(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"resource": g.cfg.Resource, "authorization_servers": []string{g.cfg.Issuer}, "bearer_methods_supported": []string{"header"},
		"scopes_supported": strings.Fields(g.resource.Scopes().String()),
	})
}
