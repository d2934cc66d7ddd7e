package caddymodule

import (
	"encoding/json"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// parseGlobalOption reads the global option. Every line but issuer, postgres
// and at least one scope may be left out.
//
//	oauth {
//		issuer        <url>
//		remote        <issuer> {                  # in place of issuer: this Caddy only gates
//			client <client_id> <secret>           # or postgres
//		}
//		postgres      <dsn> | embedded [<data_dir>] {
//			schema      <name>
//			migrate_dsn <dsn>
//			pooled
//			adopt_for   <client_id>
//		}
//		secret        <secret>                    # again for each old one
//		signing_key   <key>                       # again for keys that only verify
//		key_rotation_interval <duration>          # 90d
//
//		scope         <name> <description> {
//			implies   <name...>
//			optional
//			link      <url>
//			in        <language> <description>    # again for each
//		}
//		scopes_from   <file>                      # an OpenAPI document; again for each
//		resource      <identifier> <scope...>     # whose gate is elsewhere; again for each
//		apps_scope    <name>
//		theme         { ... }                     # see parseTheme
//		client        <client_id> {
//			name          <text>
//			secret        <secret>                # again while it is being replaced
//			jwks          <json>                  # or jwks_file <path>: for private_key_jwt
//			jwks_file     <path>
//			redirect_uri  <uri>                   # again for each
//			post_logout_redirect_uri <uri>        # again for each; of openid
//			pkce          required|optional       # required
//			auth_method   client_secret_basic|client_secret_post|private_key_jwt|none ...
//			grants        authorization_code|refresh_token|client_credentials|device_code|jwt_bearer ...
//			resource      <identifier>
//			scope         <name...>
//			introspect    <resource...>
//			token_exchange <resource...>
//			require_pushed_authorization_requests
//			dpop_bound_access_tokens
//			access_token_ttl  <duration>
//			refresh_token_ttl <duration>
//			refresh_idle_ttl  <duration>
//			refresh_grace     <duration>
//		}
//
//		grants        client_credentials|device_code|jwt_bearer ...  # those of the clients above
//		openid                                    # off
//
//		registration  {                           # both ways are off
//			dynamic
//			metadata_documents
//			allow_address        <cidr...>
//			allow_port           <port...>
//			initial_access_token <token>          # again for each
//			client_ttl           <duration>       # 90d
//		}
//		client_policy <pattern> {                 # again for each
//			scopes <name...>
//			deny
//		}
//		identity_provider <issuer> {              # again for each
//			jwks_uri      <url>
//			user_claim    <claim>                 # sub
//			name_claim    <claim>
//			claims        <claim...>
//			require       <claim> <value...>      # again for each claim
//			known_users
//			allow_address <cidr...>
//			allow_port    <port...>
//		}
//		login         <method> [<arguments...>]   # password, oidc, jwt, forward; again for each
//		events        svix|hmac { ... }           # see parseEvents; again for each
//		events_webhook <url> {                    # again for each
//			secret <secret>                       # again while it is being replaced
//			types  <type...>                      # all
//		}
//		login_ttl     <duration>                  # 12h
//		session_limit <number>                    # no limit
//		rate_limit    {                           # as often as they like
//			<endpoint>      <number>/<window> per client|user|address
//			token [<grant>] <number>/<window> per client|user|address
//		}
//		session_check live|strict                 # live
//		max_staleness <duration>                  # 1s, of session_check live
//
//		access_token_ttl  <duration>              # 15m
//		code_ttl          <duration>              # 5m
//		refresh_token_ttl <duration>              # 30d
//		refresh_idle_ttl  <duration>              # no bound
//		refresh_grace     <duration>              # 60s
//		event_retention   <duration>|off          # 365d
//	}
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // the name of the option
	if existing != nil {
		return nil, d.Err("oauth is already configured; there is one authorization server in a Caddyfile")
	}
	if d.NextArg() {
		return nil, d.Errf("oauth: unexpected %q", d.Val())
	}
	s := Settings{Sources: make(map[string][]string)}
	block := source(d)
	err := parseBlockAt(d, map[string]word{
		"issuer":                once(text(&s.Issuer)),
		"remote":                once(s.parseRemote),
		"resource":              many(s.parseResource),
		"postgres":              once(s.parsePostgres),
		"secret":                many(appendText(&s.Secrets)),
		"signing_key":           many(appendText(&s.SigningKeys)),
		"key_rotation_interval": once(period(&s.KeyRotationInterval)),
		"scope":                 many(s.parseScope),
		"scopes_from":           many(appendText(&s.ScopesFrom)),
		"apps_scope":            once(text(&s.AppsScope)),
		"theme":                 once(s.parseTheme),
		"client":                many(s.parseClient),
		"grants":                once(texts(&s.Grants)),
		"openid":                once(flag(&s.OpenID)),
		"registration":          once(s.parseRegistration),
		"client_policy":         many(s.parseClientPolicy),
		"identity_provider":     many(s.parseIdentityProvider),
		"login":                 many(s.parseLogin),
		"events":                many(s.parseEvents),
		"events_webhook":        many(s.parseEventsWebhook),
		"login_ttl":             once(period(&s.LoginTTL)),
		"session_limit":         once(count(&s.SessionLimit)),
		"rate_limit":            once(s.parseRateLimit),
		"session_check":         once(s.parseSessionCheck),
		"max_staleness":         once(period(&s.MaxStaleness)),
		"access_token_ttl":      once(period(&s.AccessTokenTTL)),
		"code_ttl":              once(period(&s.CodeTTL)),
		"refresh_token_ttl":     once(period(&s.RefreshTokenTTL)),
		"refresh_idle_ttl":      once(period(&s.RefreshIdleTTL)),
		"refresh_grace":         once(periodOf(&s.RefreshGrace, 0)),
		"event_retention":       once(s.parseEventRetention),
	}, s.Sources)
	if err != nil {
		return nil, err
	}
	delete(s.Sources, "scope") // these know their own
	delete(s.Sources, "resource")
	delete(s.Sources, "client")
	delete(s.Sources, "client_policy")
	delete(s.Sources, "identity_provider")
	s.Sources["oauth"] = []string{block}
	return httpcaddyfile.App{Name: appName, Value: caddyconfig.JSON(s, nil)}, nil
}

// parseEventRetention reads
//
//	event_retention <duration>|off
func (s *Settings) parseEventRetention(d *caddyfile.Dispenser) error {
	if d.NextArg() && d.Val() == "off" {
		s.EventRetention = new(caddy.Duration)
		return nil
	}
	d.Prev()
	return periodOf(&s.EventRetention, 1)(d)
}

// parsePostgres reads
//
//	postgres <dsn> | embedded [<data_dir>] {
//		schema      <name>
//		migrate_dsn <dsn>
//		pooled
//		adopt_for   <client_id>
//	}
func (s *Settings) parsePostgres(d *caddyfile.Dispenser) error {
	p := &PostgresSettings{}
	first, err := value(d)
	if err != nil {
		return err
	}
	if first == "embedded" {
		p.Embedded = true
		if d.NextArg() {
			p.DataDir = d.Val()
		}
	} else {
		p.DSN = first
	}
	if d.NextArg() {
		return d.Errf("postgres: unexpected %q; a connection string with spaces needs quotes", d.Val())
	}
	s.Postgres = p
	return parseBlock(d, map[string]word{
		"schema":      once(text(&p.Schema)),
		"migrate_dsn": once(unlessEmbedded(p, text(&p.MigrateDSN))),
		"pooled":      once(unlessEmbedded(p, flag(&p.Pooled))),
		"adopt_for":   once(text(&p.AdoptFor)),
	})
}

func unlessEmbedded(p *PostgresSettings, parse func(*caddyfile.Dispenser) error) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if p.Embedded {
			return d.Errf("%s contradicts postgres embedded", d.Val())
		}
		return parse(d)
	}
}

// parseScope reads
//
//	scope <name> <description> {
//		implies  <name...>
//		optional
//		link     <url>
//		in       <language> <description>
//	}
func (s *Settings) parseScope(d *caddyfile.Dispenser) error {
	scope := ScopeSettings{Source: source(d)}
	if !d.AllArgs(&scope.Name, &scope.Description) {
		return d.Err("scope: a name and, in quotes, the words that users read are expected")
	}
	if i := slices.IndexFunc(s.Scopes, func(o ScopeSettings) bool { return o.Name == scope.Name }); i >= 0 {
		return d.Errf("scope %s is already declared, at %s", scope.Name, s.Scopes[i].Source)
	}
	if err := parseBlock(d, map[string]word{
		"implies":  many(texts(&scope.Implies)),
		"optional": once(flag(&scope.Optional)),
		"link":     once(text(&scope.Link)),
		"in":       many(parseTranslation(&scope.In)),
	}); err != nil {
		return err
	}
	s.Scopes = append(s.Scopes, scope)
	return nil
}

// parseClient reads a client; parseGlobalOption shows its block.
func (s *Settings) parseClient(d *caddyfile.Dispenser) error {
	c := ClientSettings{Source: source(d)}
	if !d.NextArg() || d.Val() == "" {
		return d.Err("client: a client_id is missing")
	}
	c.ID = d.Val()
	if d.NextArg() {
		return d.Errf("client %s: unexpected %q", c.ID, d.Val())
	}
	if i := slices.IndexFunc(s.Clients, func(o ClientSettings) bool { return o.ID == c.ID }); i >= 0 {
		return d.Errf("client %s is already declared, at %s", c.ID, s.Clients[i].Source)
	}
	if err := parseBlock(d, map[string]word{
		"name":                                  once(text(&c.Name)),
		"secret":                                many(appendText(&c.Secrets)),
		"jwks":                                  once(text(&c.JWKS)),
		"jwks_file":                             once(text(&c.JWKSFile)),
		"redirect_uri":                          many(appendText(&c.RedirectURIs)),
		"post_logout_redirect_uri":              many(appendText(&c.PostLogoutRedirectURIs)),
		"pkce":                                  once(oneOf(&c.PKCE, "required", "optional")),
		"auth_method":                           once(texts(&c.AuthMethods)),
		"grants":                                once(texts(&c.Grants)),
		"resource":                              once(text(&c.Resource)),
		"scope":                                 once(texts(&c.Scopes)),
		"introspect":                            once(texts(&c.Introspect)),
		"token_exchange":                        once(texts(&c.TokenExchange)),
		"require_pushed_authorization_requests": once(flag(&c.RequirePushedAuthorizationRequests)),
		"dpop_bound_access_tokens":              once(flag(&c.DPoPBoundAccessTokens)),
		"access_token_ttl":                      once(periodOf(&c.AccessTokenTTL, 1)),
		"refresh_token_ttl":                     once(periodOf(&c.RefreshTokenTTL, 1)),
		"refresh_idle_ttl":                      once(periodOf(&c.RefreshIdleTTL, 1)),
		"refresh_grace":                         once(periodOf(&c.RefreshGrace, 0)),
	}); err != nil {
		return err
	}
	s.Clients = append(s.Clients, c)
	return nil
}

// parseLogin reads
//
//	login <method> [<arguments...>] [{ ... }]
//
// The rest of the line belongs to the module oauth.login.<method>.
func (s *Settings) parseLogin(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Err("login: a method is missing, such as password")
	}
	method := d.Val()
	id := loginNamespace + "." + method
	if _, err := caddy.GetModule(id); err != nil {
		return d.Errf("login: %q is not a method that this Caddy has", method)
	}
	module, err := caddyfile.UnmarshalModule(d, id)
	if err != nil {
		return err
	}
	if method == "password" { // the others may stand more than once, by name
		for _, raw := range s.LoginsRaw {
			var other struct{ Method string }
			if err := json.Unmarshal(raw, &other); err == nil && other.Method == method {
				return d.Errf("login %s is already set", method)
			}
		}
	}
	s.LoginsRaw = append(s.LoginsRaw, caddyconfig.JSONModuleObject(module, "method", method, nil))
	return nil
}

// parseSessionCheck reads
//
//	session_check live|strict
func (s *Settings) parseSessionCheck(d *caddyfile.Dispenser) error {
	v, err := value(d)
	if err != nil {
		return err
	}
	if v != "live" && v != "strict" {
		return d.Errf("session_check: %q is neither live nor strict", v)
	}
	s.SessionCheck = v
	return nil
}
