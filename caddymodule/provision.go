package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// placeholder is one of Caddy's placeholders inside a value.
var placeholder = regexp.MustCompile(`\{([^{}]+)\}`)

// resolve replaces the global placeholders of a setting. The error names the
// word and what to set, never what the value is: it may be a secret.
func resolve(word, value string) (string, error) {
	repl := caddy.NewReplacer()
	for _, match := range placeholder.FindAllStringSubmatch(value, -1) {
		name := match[1]
		if strings.HasPrefix(strings.TrimSpace(name), `"`) { // a JWK, not a placeholder
			return value, nil
		}
		got, known := repl.GetString(name)
		variable, isVariable := strings.CutPrefix(name, "env.")
		file, isFile := strings.CutPrefix(name, "file.")
		switch {
		case known && got != "":
		case isVariable:
			return "", fmt.Errorf("%s: {%s} is empty: set the environment variable %s", word, name, variable)
		case isFile:
			return "", fmt.Errorf("%s: {%s} is empty: the file %s is not there, not readable or empty", word, name, file)
		default:
			return "", fmt.Errorf("%s: {%s} is not a placeholder that exists when the configuration is loaded, such as {env.NAME} or {file.PATH}", word, name)
		}
	}
	resolved, err := repl.ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: a placeholder cannot be resolved", word)
	}
	if resolved == "" {
		return "", fmt.Errorf("%s is empty", word)
	}
	return resolved, nil
}

func resolveAll(word string, values []string) ([]string, error) {
	resolved := make([]string, 0, len(values))
	for _, value := range values {
		v, err := resolve(word, value)
		if err != nil {
			return nil, err
		}
		resolved = append(resolved, v)
	}
	return resolved, nil
}

func (a *App) provisionClients() error {
	a.clients = make(map[string]*issuer.Client, len(a.Clients))
	for i := range a.Clients {
		settings := &a.Clients[i]
		if strings.HasPrefix(settings.ID, issuer.OperatorClientPrefix) {
			return atSource(settings.Source, "client "+settings.ID, fmt.Errorf("a client_id that begins with %s belongs to a client that an operator adds: caddy oauth client add", issuer.OperatorClientPrefix))
		}
		client, err := a.client(settings)
		if err != nil {
			return atSource(settings.Source, "client "+settings.ID, err)
		}
		if a.clients[client.ID] != nil {
			return atSource(settings.Source, "client "+settings.ID, errors.New("declared twice"))
		}
		a.clients[client.ID] = client
	}
	return nil
}

// shortestClientSecret is what an HTTP client cannot guess in the time the
// token endpoint gives it; anything shorter gets a warning.
const shortestClientSecret = 16

// grantTypes are the grant types by the names that the configuration has for
// them.
var grantTypes = map[string]string{
	"authorization_code": "authorization_code",
	"refresh_token":      "refresh_token",
	"client_credentials": "client_credentials",
	"device_code":        "urn:ietf:params:oauth:grant-type:device_code",
	"jwt_bearer":         jwtBearer,
}

// client checks the settings of one client and fills their defaults.
func (a *App) client(s *ClientSettings) (*issuer.Client, error) {
	secrets, err := resolveAll("secret", s.Secrets)
	if err != nil {
		return nil, err
	}
	var digests []issuer.Digest
	for _, secret := range secrets {
		if len(secret) < shortestClientSecret {
			a.logger.Warn("the secret of a client is short; make one with: openssl rand -hex 32", zap.String("client_id", s.ID))
		}
		digests = append(digests, issuer.HashClientSecret(secret))
	}
	return a.clientWith(s, digests)
}

// clientWith is client, of one whose secrets have these digests.
func (a *App) clientWith(s *ClientSettings, secrets []issuer.Digest) (*issuer.Client, error) {
	c := &issuer.Client{ID: s.ID, Name: s.Name, PKCEOptional: s.PKCE == "optional", RequirePushed: s.RequirePushedAuthorizationRequests,
		RequireDPoP: s.DPoPBoundAccessTokens}
	if c.ID == "" {
		return nil, errors.New("the client_id is empty")
	}
	if strings.HasPrefix(c.ID, issuer.DynamicClientPrefix) {
		return nil, fmt.Errorf("a client_id that begins with %s belongs to a client that registered itself", issuer.DynamicClientPrefix)
	}
	if c.Name == "" {
		c.Name = c.ID
	}
	c.SecretDigests = secrets
	var err error
	if c.JWKS, err = clientKeys(s); err != nil {
		return nil, err
	}
	if c.AuthMethods, err = authMethods(s.AuthMethods, len(secrets) > 0, c.JWKS != nil); err != nil {
		return nil, err
	}
	if s.PKCE != "" && s.PKCE != "required" && s.PKCE != "optional" {
		return nil, fmt.Errorf("pkce: %q is not one of required, optional", s.PKCE)
	}
	if c.PKCEOptional && !c.Confidential() {
		return nil, errors.New("pkce optional is for clients with a secret; without both, a stolen code is enough")
	}
	if c.Introspects, err = resolveAll("introspect", s.Introspect); err != nil {
		return nil, err
	}
	for _, resource := range c.Introspects {
		if err := oauth.CheckIdentifier("introspect", resource); err != nil {
			return nil, err
		}
	}
	if len(c.Introspects) > 0 && !c.Confidential() {
		return nil, errors.New("introspect is for a client that can prove who it is: give it a secret or keys")
	}
	resourceServer := len(c.Introspects) > 0 && len(s.RedirectURIs) == 0
	grants := s.Grants
	if len(grants) == 0 && !resourceServer {
		grants = []string{"authorization_code", "refresh_token"}
	}
	for _, name := range grants {
		grant, ok := grantTypes[name]
		switch {
		case !ok:
			return nil, fmt.Errorf("grants: %q is not one of %s", name, strings.Join(slices.Sorted(maps.Keys(grantTypes)), ", "))
		case (grant == "client_credentials" || grant == jwtBearer) && !c.Confidential():
			return nil, fmt.Errorf("grants: %s is for a client that can prove who it is: give it a secret or keys", name)
		case grant == jwtBearer && len(a.IdentityProviders) == 0:
			return nil, errors.New("grants: jwt_bearer needs an identity_provider whose assertions count")
		}
		c.Grants = append(c.Grants, grant)
	}
	if err := exchanges(c, s.TokenExchange); err != nil {
		return nil, err
	}
	if c.RedirectURIs, err = resolveAll("redirect_uri", s.RedirectURIs); err != nil {
		return nil, err
	}
	for _, uri := range c.RedirectURIs {
		if err := issuer.CheckRedirectURI(uri); err != nil {
			return nil, fmt.Errorf("redirect_uri %q: %w", uri, err)
		}
	}
	if c.PostLogoutRedirectURIs, err = a.postLogoutURIs(s.PostLogoutRedirectURIs); err != nil {
		return nil, err
	}
	if len(c.RedirectURIs) == 0 && slices.Contains(c.Grants, "authorization_code") {
		return nil, errors.New("redirect_uri is missing: where the client wants its codes")
	}
	if s.Resource != "" {
		if c.Resource, err = resolve("resource", s.Resource); err != nil {
			return nil, err
		}
		if err := oauth.CheckIdentifier("resource", c.Resource); err != nil {
			return nil, err
		}
	}
	for _, name := range s.Scopes {
		if err := a.checkAskable(name); err != nil {
			return nil, err
		}
	}
	if len(s.Scopes) > 0 {
		c.Scopes = oauth.NewScopeSet(s.Scopes...)
	}
	for word, d := range map[string]*caddy.Duration{
		"access_token_ttl": s.AccessTokenTTL, "refresh_token_ttl": s.RefreshTokenTTL, "refresh_idle_ttl": s.RefreshIdleTTL,
	} {
		if d != nil && *d <= 0 {
			return nil, fmt.Errorf("%s must be above zero", word)
		}
	}
	if s.RefreshGrace != nil && *s.RefreshGrace < 0 {
		return nil, errors.New("refresh_grace is below zero")
	}
	c.AccessTokenTTL = (*time.Duration)(s.AccessTokenTTL)
	c.RefreshTokenTTL = (*time.Duration)(s.RefreshTokenTTL)
	c.RefreshIdleTTL = (*time.Duration)(s.RefreshIdleTTL)
	c.RefreshGrace = (*time.Duration)(s.RefreshGrace)
	return c, nil
}

func (a *App) postLogoutURIs(settings []string) ([]string, error) {
	if len(settings) > 0 && !a.OpenID {
		return nil, errors.New("post_logout_redirect_uri is of OpenID Connect; turn it on with the word openid in the oauth block")
	}
	uris, err := resolveAll("post_logout_redirect_uri", settings)
	if err != nil {
		return nil, err
	}
	for _, uri := range uris {
		if err := issuer.CheckRedirectURI(uri); err != nil {
			return nil, fmt.Errorf("post_logout_redirect_uri %q: %w", uri, err)
		}
	}
	return uris, nil
}

// exchanges reads token_exchange.
func exchanges(c *issuer.Client, resources []string) (err error) {
	if len(resources) == 0 {
		return nil
	}
	if len(c.Introspects) == 0 {
		return errors.New("token_exchange: say with introspect which resources the client serves: their tokens are those that it may exchange")
	}
	if c.Exchanges, err = resolveAll("token_exchange", resources); err != nil {
		return err
	}
	for _, resource := range c.Exchanges {
		if err := oauth.CheckIdentifier("token_exchange", resource); err != nil {
			return err
		}
	}
	c.Grants = append(c.Grants, "urn:ietf:params:oauth:grant-type:token-exchange")
	return nil
}

// clientKeys reads the keys of a client; nil: it has none.
func clientKeys(s *ClientSettings) (func(context.Context) (issuer.ClientKeys, error), error) {
	document, word := []byte(s.JWKS), "jwks"
	switch {
	case s.JWKS == "" && s.JWKSFile == "":
		return nil, nil
	case s.JWKS != "" && s.JWKSFile != "":
		return nil, errors.New("jwks contradicts jwks_file")
	case s.JWKSFile != "":
		word = "jwks_file"
		path, err := resolve(word, s.JWKSFile)
		if err != nil {
			return nil, err
		}
		if document, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("%s: %w", word, err)
		}
	}
	keys, err := issuer.ParseClientKeys(document)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", word, err)
	}
	return issuer.StaticKeys(keys), nil
}

// authMethods checks the methods of a client, or takes those that fit what it
// has.
func authMethods(configured []string, secret, keys bool) ([]string, error) {
	for _, method := range configured {
		switch method {
		case "client_secret_basic", "client_secret_post":
			if !secret {
				return nil, fmt.Errorf("auth_method %s needs a secret", method)
			}
		case "private_key_jwt":
			if !keys {
				return nil, errors.New("auth_method private_key_jwt needs jwks or jwks_file")
			}
		case "none":
			if secret {
				return nil, errors.New("auth_method none contradicts secret")
			}
			if keys {
				return nil, errors.New("auth_method none contradicts jwks")
			}
		default:
			return nil, fmt.Errorf("auth_method: %q is not one of client_secret_basic, client_secret_post, private_key_jwt, none", method)
		}
	}
	if len(configured) > 0 {
		return configured, nil
	}
	var methods []string
	if secret {
		methods = append(methods, "client_secret_basic", "client_secret_post")
	}
	if keys {
		methods = append(methods, "private_key_jwt")
	}
	if len(methods) == 0 {
		methods = []string{"none"}
	}
	return methods, nil
}

// database is PostgresSettings with placeholders resolved and defaults filled.
type database struct {
	dsn, migrateDSN string
	embedded        bool
	dataDir         string
	schema          string
	pooled          bool
	adoptFor        string
}

func (a *App) provisionPostgres() error {
	d, err := a.resolvePostgres()
	if err != nil {
		return a.at("postgres", 0, err)
	}
	a.database = d
	return nil
}

func (a *App) resolvePostgres() (d database, err error) {
	s := a.Postgres
	switch {
	case s == nil || (s.DSN == "" && !s.Embedded):
		return d, errors.New("postgres is missing: postgres DSN, or postgres embedded")
	case s.Embedded && (s.DSN != "" || s.MigrateDSN != "" || s.Pooled):
		return d, errors.New("postgres: embedded contradicts dsn, migrate_dsn and pooled")
	case !s.Embedded && s.DataDir != "":
		return d, errors.New("postgres: data_dir is for embedded only")
	}
	d = database{embedded: s.Embedded, schema: s.Schema, pooled: s.Pooled, adoptFor: s.AdoptFor}
	if d.schema == "" {
		d.schema = "public"
	}
	if s.DSN != "" {
		if d.dsn, err = resolve("postgres", s.DSN); err != nil {
			return d, err
		}
	}
	if d.migrateDSN = d.dsn; s.MigrateDSN != "" {
		if d.migrateDSN, err = resolve("migrate_dsn", s.MigrateDSN); err != nil {
			return d, err
		}
	}
	if d.embedded {
		if d.dataDir = filepath.Join(caddy.AppDataDir(), "oauth-postgres"); s.DataDir != "" {
			if d.dataDir, err = resolve("postgres embedded", s.DataDir); err != nil {
				return d, err
			}
		}
		if d.dataDir, err = filepath.Abs(d.dataDir); err != nil {
			return d, fmt.Errorf("postgres embedded: %w", err)
		}
	}
	if d.adoptFor != "" {
		if c := a.clients[d.adoptFor]; c == nil || !c.Confidential() {
			return d, fmt.Errorf("postgres: adopt_for %q is not a client with a secret", d.adoptFor)
		}
	}
	return d, nil
}

func (a *App) provisionSecrets() error {
	if len(a.Secrets) == 0 {
		return nil
	}
	secrets := make([][]byte, len(a.Secrets))
	for i, setting := range a.Secrets {
		text, err := resolve("secret", setting)
		if err != nil {
			return a.at("secret", i, err)
		}
		secrets[i] = []byte(text)
		if _, err := issuer.NewRootSecrets(secrets[i]); err != nil { // alone, to name the line
			return a.at("secret", i, fmt.Errorf("secret: %w", err))
		}
	}
	var err error
	if a.secrets, err = issuer.NewRootSecrets(secrets[0], secrets[1:]...); err != nil {
		return a.at("secret", 0, fmt.Errorf("secret: %w", err))
	}
	return nil
}

func (a *App) provisionSigningKeys() error {
	if len(a.SigningKeys) > 0 && a.KeyRotationInterval != 0 {
		return a.at("key_rotation_interval", 0, errors.New("key_rotation_interval contradicts signing_key: only self-made keys are rotated"))
	}
	for i, setting := range a.SigningKeys {
		text, err := resolve("signing_key", setting)
		if err != nil {
			return a.at("signing_key", i, err)
		}
		content, err := keyText(text)
		if err != nil {
			return a.at("signing_key", i, fmt.Errorf("signing_key: %w", err))
		}
		key, err := issuer.ParseSigningKey(content)
		if err != nil {
			return a.at("signing_key", i, fmt.Errorf("signing_key: %w", err))
		}
		a.keys = append(a.keys, key)
	}
	return nil
}

// keyText returns the key itself: text, or the file that text names.
func keyText(text string) ([]byte, error) {
	const longestPath = 1024
	if len(text) > longestPath || strings.ContainsAny(text, "\n{") {
		return []byte(text), nil
	}
	if info, err := os.Stat(text); err == nil && info.Mode().IsRegular() {
		return os.ReadFile(text)
	}
	switch filepath.Ext(text) { // no base64 has such an end
	case ".pem", ".key", ".json", ".jwk":
		return nil, fmt.Errorf("the file %s is not there", text)
	}
	return []byte(text), nil
}
