package issuer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/caddy-scope/caddy-scope/dpop/dpoptest"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// JAG-01, JAG-02, JAG-03: an assertion of the provider is a token for its user,
// without a page, a refresh token or an ID token; and there is one session
// however often the client comes.
func TestOrganizationLetsAClientActForItsUser(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	var first map[string]any
	for range 3 {
		r := o.bring(o.assertion(claim("auth_time", o.Clock.Now().Add(-time.Hour).Unix())))
		if r.Status != 200 || r.JSON["token_type"] != "Bearer" || r.JSON["scope"] != "jobs:read" || r.JSON["refresh_token"] != nil || r.JSON["id_token"] != nil {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		claims := claimsOf(t, r.Tokens().Access)
		if claims["sub"] != "grace-1" || claims["client_id"] != agentID || claims["aud"] != o.URL || claims["auth_time"] != float64(o.Clock.Now().Add(-time.Hour).Unix()) {
			t.Errorf("%v", claims)
		}
		if introspect(o.Scene, agentID, r.Tokens().Access).JSON["active"] != true {
			t.Error("not alive")
		}
		if first == nil {
			first = claims
		}
		if claims["sid"] != first["sid"] {
			t.Error("another session")
		}
	}
	if rows := o.SQL(t, `SELECT u.name, s.asserted_by FROM gpt_sessions s JOIN gpt_users u ON u.id = s.user_id`); len(rows) != 1 || rows[0][0] != "grace@corp.example" || rows[0][1] != o.issuer() {
		t.Errorf("%v", rows)
	}
	if n := o.Count(t, `SELECT count(*) FROM gpt_oauth_events WHERE event_type = 'gpt.oauth.session_asserted'`); n != 1 {
		t.Errorf("%d events", n)
	}
	// Also for another user, whose session has ended, when several come at once.
	o.bring(o.assertion(claim("sub", "heidi-1")))
	o.SQL(t, `UPDATE gpt_sessions SET revoked_at = now() WHERE user_id = 'heidi-1'`)
	for _, r := range atOnce(8, func() issuertest.Response { return o.bring(o.assertion(claim("sub", "heidi-1"))) }) {
		if r.Status != 200 {
			t.Errorf("at once: %d %s", r.Status, r.Body)
		}
	}
	if n := o.Count(t, `SELECT count(*) FROM gpt_sessions WHERE user_id = 'heidi-1' AND revoked_at IS NULL`); n != 1 {
		t.Errorf("%d sessions of assertions at once", n)
	}
	// Nobody knows when the user signed in, unless the provider says so.
	if claims := claimsOf(t, o.bring(o.assertion()).Tokens().Access); claims["auth_time"] != nil {
		t.Errorf("%v", claims)
	}
	for _, algorithm := range []string{"RS256", "EdDSA"} {
		if r := o.bring(o.signed(algorithm, o.keys[algorithm])); r.Status != 200 {
			t.Errorf("%s: %s", algorithm, r.Body)
		}
	}
	if r := o.bring(o.assertion(func(header, claims map[string]any) {
		header["typ"], claims["aud"] = "application/oauth-id-jag+jwt", []string{o.URL}
	})); r.Status != 200 {
		t.Errorf("the same in another spelling: %s", r.Body)
	}
	server := o.Get("/.well-known/oauth-authorization-server")
	profiles, _ := server.JSON["authorization_grant_profiles_supported"].([]any)
	grants, _ := server.JSON["grant_types_supported"].([]any)
	if !slices.Contains(profiles, any("urn:ietf:params:oauth:grant-profile:id-jag")) || !slices.Contains(grants, any(bearerGrant)) || strings.Contains(server.Body, o.issuer()) {
		t.Errorf("metadata: %s", server.Body)
	}
	if off := issuertest.New(t).Get("/.well-known/oauth-authorization-server"); strings.Contains(off.Body, "jwt-bearer\"") || strings.Contains(off.Body, "id-jag") {
		t.Errorf("off: %s", off.Body)
	}
}

// JAG-04: each thing that an assertion must be fails one that only it can fail,
// and the client hears no more than that.
func TestAssertionsThatDoNotHoldAreRefused(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	now := o.Clock.Now()
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	public, err := jwk.FromRaw(o.keys["ES256"].Public())
	if err != nil {
		t.Fatal(err)
	}
	document, _ := json.Marshal(public)
	header := func(name string, value any) change { return func(header, _ map[string]any) { header[name] = value } }
	good := o.assertion()
	segments := strings.Split(good, ".")
	payload, _ := base64.RawURLEncoding.DecodeString(segments[1])
	raw := func(payload string) string { // signed as it is written
		headers := jws.NewHeaders()
		_ = headers.Set("typ", "oauth-id-jag+jwt")
		signed, err := jws.Sign([]byte(payload), jws.WithKey(jwa.ES256, o.keys["ES256"], jws.WithProtectedHeaders(headers)))
		if err != nil {
			t.Fatal(err)
		}
		return string(signed)
	}
	for name, assertion := range map[string]string{
		"an ID token of the provider":  o.assertion(header("typ", "JWT")),
		"a client assertion":           o.assertion(header("typ", "client-authentication+jwt")),
		"no typ":                       o.assertion(func(header, _ map[string]any) { delete(header, "typ") }),
		"typ in another case":          o.assertion(func(header, _ map[string]any) { delete(header, "typ"); header["Typ"] = "oauth-id-jag+jwt" }),
		"crit":                         o.assertion(func(header, _ map[string]any) { header["crit"], header["b64"] = []string{"b64"}, true }),
		"a name that no row can hold":  o.assertion(claim("email", "grace\x00@corp.example")),
		"a sid that no row can hold":   o.assertion(claim("sid", "\x00")),
		"a stranger's signature":       o.signed("ES256", stranger),
		"a key that is not published":  o.assertion(header("kid", "another")),
		"signed with the public key":   o.signed("HS256", document, header("kid", "ES256")),
		"unsigned":                     base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"oauth-id-jag+jwt"}`)) + "." + segments[1] + ".",
		"unsigned, with a signature":   base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"oauth-id-jag+jwt"}`)) + "." + segments[1] + "." + segments[2],
		"another payload":              segments[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), "grace-1", "admin", 1))) + "." + segments[2],
		"a claim twice":                raw(strings.Replace(string(payload), "{", `{"sub":"admin",`, 1)),
		"another issuer":               o.assertion(claim("iss", "https://evil.example")),
		"an issuer with a slash more":  o.assertion(claim("iss", o.issuer()+"/")),
		"no issuer":                    o.assertion(claim("iss", nil)),
		"no subject":                   o.assertion(claim("sub", nil)),
		"a subject that is no text":    o.assertion(claim("sub", 7)),
		"a control character":          o.assertion(claim("sub", "grace\n1")),
		"no audience":                  o.assertion(claim("aud", nil)),
		"another audience":             o.assertion(claim("aud", "https://evil.example")),
		"the token endpoint":           o.assertion(claim("aud", o.URL+"/oauth/token")),
		"an audience with a slash":     o.assertion(claim("aud", o.URL+"/")),
		"two audiences":                o.assertion(claim("aud", []string{o.URL, "https://evil.example"})),
		"the same audience twice":      o.assertion(claim("aud", []string{o.URL, o.URL})),
		"another client":               o.assertion(claim("client_id", issuertest.Confidential)),
		"no client":                    o.assertion(claim("client_id", nil)),
		"members in another case":      o.assertion(claim("client_id", nil), claim("Client_ID", agentID)),
		"no jti":                       o.assertion(claim("jti", nil)),
		"a long jti":                   o.assertion(claim("jti", strings.Repeat("j", 513))),
		"no iat":                       o.assertion(claim("iat", nil)),
		"of the future":                o.assertion(claim("iat", now.Add(5*time.Minute).Unix())),
		"not yet":                      o.assertion(claim("nbf", now.Add(5*time.Minute).Unix())),
		"signed in in the future":      o.assertion(claim("auth_time", now.Add(time.Hour).Unix())),
		"no exp":                       o.assertion(claim("exp", nil)),
		"expired":                      o.assertion(claim("exp", now.Add(-2*time.Minute).Unix())),
		"good for too long":            o.assertion(claim("exp", now.Add(2*time.Hour).Unix())),
		"exp as text":                  o.assertion(claim("exp", "2030-01-01")),
		"of a tenant":                  o.assertion(claim("tenant", "acme")),
		"with authorization_details":   o.assertion(claim("authorization_details", []any{map[string]any{"type": "x"}})),
		"with an actor":                o.assertion(claim("act", map[string]any{"sub": "robot"})),
		"bound to a key":               o.assertion(claim("cnf", map[string]any{"jkt": dpoptest.NewKey(t, "ES256").Thumbprint()})),
		"bound to a certificate":       o.assertion(claim("cnf", map[string]any{"x5t#S256": "x"})),
		"cnf that is empty":            o.assertion(claim("cnf", map[string]any{})),
		"bound to a key without name":  o.assertion(claim("cnf", map[string]any{"jkt": ""})),
		"too long":                     o.assertion(claim("more", strings.Repeat("x", 9000))),
		"garbage":                      "x.y.z",
		"five parts":                   good + ".x.y",
		"an access token of ours":      o.Tokens(t, issuertest.Public).Access,
		"a scope that is no scope":     o.assertion(claim("scope", `"jobs:read"`)),
		"in JSON serialization":        `{"payload":"` + segments[1] + `","protected":"` + segments[0] + `","signature":"` + segments[2] + `"}`,
		"whitespace inside":            segments[0] + "." + segments[1] + ".\n" + segments[2],
		"a name of one of our clients": o.assertion(claim("sub", issuertest.Machine)),
	} {
		t.Run(name, func(t *testing.T) {
			r := o.bring(assertion)
			if name == "a scope that is no scope" && r.Error() == "invalid_scope" {
				return
			}
			wantOAuthError(t, r, 400, "invalid_grant")
		})
	}
	if n := o.Count(t, `SELECT count(*) FROM gpt_sessions WHERE asserted_by IS NOT NULL`) + o.Count(t, `SELECT count(*) FROM gpt_used_once`) + o.Count(t, `SELECT count(*) FROM gpt_identities`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if o.Logs.FilterMessage("assertion refused").Len() < 30 {
		t.Error("the log does not say why")
	}
	if r := o.bring(good); r.Status != 200 {
		t.Errorf("the good one: %s", r.Body)
	}
	o.Clock.Advance(5*time.Minute + 59*time.Second) // the provider's clock may be a minute behind
	if r := o.bring(o.assertion(claim("iat", now.Unix()), claim("exp", now.Add(5*time.Minute).Unix()))); r.Status != 200 {
		t.Errorf("within the skew: %s", r.Body)
	}
	wantOAuthError(t, o.bring(""), 400, "invalid_request")
}

// JAG-05: an assertion is good once, among all nodes, and a refused request has
// not used it.
func TestIdentityAssertionIsGoodOnce(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	assertion := o.assertion()
	wantOAuthError(t, o.bring(assertion, issuertest.Set("scope", "resume:read")), 400, "invalid_scope")
	wantOAuthError(t, o.bring(assertion, issuertest.Set("resource", "https://evil.example")), 400, "invalid_target")
	succeeded := 0
	for _, r := range atOnce(20, func() issuertest.Response { return o.bring(assertion) }) {
		if r.Status == 200 {
			succeeded++
		} else {
			wantOAuthError(t, r, 400, "invalid_grant")
		}
	}
	if succeeded != 1 {
		t.Errorf("%d succeeded", succeeded)
	}
	// Of another provider, the same jti would be another one; of this one it is not,
	// whatever else it says.
	wantOAuthError(t, o.bring(o.assertion(claim("jti", claimsOf(t, assertion)["jti"]), claim("sub", "heidi-1"))), 400, "invalid_grant")

	o.SQL(t, `ALTER TABLE gpt_used_once RENAME TO gpt_used_once_away`) // nobody can say
	if r := o.bring(o.assertion()); r.Status != 503 || r.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// JAG-06: never more than the assertion says and the client may, whoever asks for
// more; and for a resource that the assertion is for.
func TestAssertionBoundsScopeAndResource(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	set := issuertest.Set
	for name, c := range map[string]struct {
		changes []change
		params  []issuertest.Param
		scope   string // or the error
		aud     string
	}{
		"what it says":             {[]change{claim("scope", "jobs:read applications:write")}, nil, "applications:write jobs:read", o.URL},
		"less, asked for":          {[]change{claim("scope", "jobs:read applications:write")}, []issuertest.Param{set("scope", "jobs:read")}, "jobs:read", o.URL},
		"implied, asked for":       {[]change{claim("scope", "applications:write")}, []issuertest.Param{set("scope", "applications:read")}, "applications:read", o.URL},
		"more than it says":        {nil, []issuertest.Param{set("scope", "jobs:read applications:write")}, "invalid_scope", ""},
		"more than the client may": {[]change{claim("scope", "resume:read jobs:read")}, nil, "jobs:read", o.URL},
		"only what it may not":     {[]change{claim("scope", "resume:read")}, nil, "invalid_scope", ""},
		"asked for and it may not": {[]change{claim("scope", "resume:read jobs:read")}, []issuertest.Param{set("scope", "resume:read")}, "invalid_scope", ""},
		"unknown scopes":           {[]change{claim("scope", "jobs:read crm:all")}, nil, "jobs:read", o.URL},
		"no scope at all":          {[]change{claim("scope", nil)}, nil, "invalid_scope", ""},
		"no scope, one asked for":  {[]change{claim("scope", nil)}, []issuertest.Param{set("scope", "jobs:read offline_access")}, "jobs:read", o.URL},
		"its resource":             {[]change{claim("resource", o.MCP()), claim("scope", "mcp:tools")}, nil, "mcp:tools", o.MCP()},
		"its resource, asked for":  {[]change{claim("resource", o.MCP()+"/"), claim("scope", "mcp:tools")}, []issuertest.Param{set("resource", o.MCP())}, "mcp:tools", o.MCP()},
		"another, asked for":       {[]change{claim("resource", o.MCP()), claim("scope", "mcp:tools")}, []issuertest.Param{set("resource", o.URL)}, "invalid_target", ""},
		"several, one of them ours": {[]change{claim("resource", []string{"https://crm.example", o.MCP()}), claim("scope", "mcp:tools")},
			nil, "mcp:tools", o.MCP()},
		"several of ours":           {[]change{claim("resource", []string{o.URL, o.MCP()})}, nil, "invalid_target", ""},
		"several of ours, one said": {[]change{claim("resource", []string{o.URL, o.MCP()})}, []issuertest.Param{set("resource", o.URL)}, "jobs:read", o.URL},
		"none of ours":              {[]change{claim("resource", "https://crm.example")}, nil, "invalid_target", ""},
		"an empty list":             {[]change{claim("resource", []string{})}, nil, "invalid_target", ""},
		"an empty list, one said":   {[]change{claim("resource", []string{})}, []issuertest.Param{set("resource", o.URL)}, "invalid_target", ""},
		"an empty scope":            {[]change{claim("scope", "")}, []issuertest.Param{set("scope", "jobs:read")}, "invalid_scope", ""},
		"not named, chosen":         {[]change{claim("scope", "mcp:tools")}, nil, "mcp:tools", o.MCP()},
	} {
		t.Run(name, func(t *testing.T) {
			r := o.bring(o.assertion(c.changes...), c.params...)
			if c.aud == "" {
				wantOAuthError(t, r, 400, c.scope)
				return
			}
			if claims := claimsOf(t, r.Tokens().Access); r.Status != 200 || r.JSON["scope"] != c.scope || claims["aud"] != c.aud || claims["scope"] != c.scope {
				t.Errorf("%d %s %v", r.Status, r.Body, claims)
			}
		})
	}
	o.Clients.Change(t, agentID, func(c *issuer.Client) { c.Ceiling = oauth.NewScopeSet("mcp:tools") })
	wantOAuthError(t, o.bring(o.assertion()), 400, "invalid_scope")
}

// JAG-07: the client must be one that proves who it is and has the grant.
func TestOnlyClientsWithTheGrantBringAssertions(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	public := o.assertion(claim("client_id", issuertest.Public))
	ask := func(form url.Values) issuertest.Response {
		form.Set("grant_type", bearerGrant)
		return o.PostForm("/oauth/token", form)
	}
	wantOAuthError(t, ask(url.Values{"assertion": {public}, "client_id": {issuertest.Public}}), 400, "unauthorized_client")
	o.Clients.Change(t, issuertest.Public, func(c *issuer.Client) { c.Grants = append(c.Grants, bearerGrant) })
	wantOAuthError(t, ask(url.Values{"assertion": {public}, "client_id": {issuertest.Public}}), 400, "unauthorized_client")
	wantOAuthError(t, ask(url.Values{"assertion": {o.assertion()}}), 401, "invalid_client")
	wantOAuthError(t, ask(url.Values{"assertion": {o.assertion()}, "client_id": {agentID}, "client_secret": {"wrong"}}), 401, "invalid_client")
	wantOAuthError(t, issuertest.New(t).PostForm("/oauth/token", url.Values{"grant_type": {bearerGrant}, "assertion": {public}, "client_id": {issuertest.Public}}), 400, "unsupported_grant_type")
}

// JAG-08: whom the assertion is about: the user who signs in by the same
// provider; one who is disabled is nobody; and with known users only, nobody is
// made.
func TestAssertionIsAboutAUserOfTheProvider(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	o.SQL(t, `INSERT INTO gpt_users (id, name) VALUES ('u-7', 'Grace')`)
	o.SQL(t, `INSERT INTO gpt_identities (authority, subject, user_id) VALUES ($1, 'grace-1', 'u-7')`, o.issuer())
	token := o.bring(o.assertion()).Tokens().Access
	if claims := claimsOf(t, token); claims["sub"] != "u-7" {
		t.Errorf("%v", claims)
	}
	// Somebody else's name.
	o.SQL(t, `INSERT INTO gpt_users (id, name) VALUES ('ivan-1', 'Ivan')`)
	wantOAuthError(t, o.bring(o.assertion(claim("sub", "ivan-1"))), 400, "invalid_grant")
	o.SQL(t, `UPDATE gpt_users SET disabled_at = now() WHERE id = 'u-7'`)
	wantInactive(t, "of a disabled user", introspect(o.Scene, agentID, token))
	wantOAuthError(t, o.bring(o.assertion()), 400, "invalid_grant")

	known := newOrganization(t, func(p *issuer.IdentityProvider) { p.KnownUsersOnly = true })
	wantOAuthError(t, known.bring(known.assertion()), 400, "invalid_grant")
	if n := known.Count(t, `SELECT count(*) FROM gpt_users WHERE id = 'grace-1'`); n != 0 {
		t.Error("a user was made")
	}
	known.SQL(t, `INSERT INTO gpt_users (id) VALUES ('u-8')`)
	known.SQL(t, `INSERT INTO gpt_identities (authority, subject, user_id) VALUES ($1, 'grace-1', 'u-8')`, known.issuer())
	if r := known.bring(known.assertion()); claimsOf(t, r.Tokens().Access)["sub"] != "u-8" {
		t.Errorf("%d %s", r.Status, r.Body)
	}

	acme := newOrganization(t, func(p *issuer.IdentityProvider) {
		claims := &login.Claims{Require: map[string][]string{"tenant": {"acme"}}, User: "aud_sub"}
		p.Tenant, p.User = true, func(all map[string]any) (issuer.ExternalUser, error) { return claims.UserOf(p.Issuer, all) }
	})
	wantOAuthError(t, acme.bring(acme.assertion()), 400, "invalid_grant")
	wantOAuthError(t, acme.bring(acme.assertion(claim("tenant", "evil"), claim("aud_sub", "u-9"))), 400, "invalid_grant")
	wantOAuthError(t, acme.bring(acme.assertion(claim("tenant", "acme"))), 400, "invalid_grant") // no user id
	if r := acme.bring(acme.assertion(claim("tenant", "acme"), claim("aud_sub", "u-9"))); claimsOf(t, r.Tokens().Access)["sub"] != "u-9" {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// JAG-09: an assertion that is bound to a key needs that key, and the token is
// bound to it as well.
func TestBoundAssertionNeedsItsKey(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	key, other := newProofKeys(t)
	bound := func() string { return o.assertion(claim("cnf", map[string]any{"jkt": key.Thumbprint()})) }
	wantOAuthError(t, o.bring(bound()), 400, "invalid_grant")
	wantOAuthError(t, o.bringWith(bound(), []issuertest.Auth{prove(o.Scene, other, "/oauth/token")}), 400, "invalid_grant")
	both := o.assertion(claim("cnf", map[string]any{"jkt": key.Thumbprint(), "x5t#S256": "x"})) // of which one is not proven
	wantOAuthError(t, o.bringWith(both, []issuertest.Auth{prove(o.Scene, key, "/oauth/token")}), 400, "invalid_grant")
	wantBound(t, o.bringWith(bound(), []issuertest.Auth{prove(o.Scene, key, "/oauth/token")}), key)
	wantBound(t, o.bringWith(o.assertion(), []issuertest.Auth{prove(o.Scene, other, "/oauth/token")}), other)
}

// JAG-12: such a session is no consent of the user and takes no place of the
// session limit; the user sees it and may end it, at once.
func TestAssertedSessionIsNoConsent(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	o.SQL(t, `INSERT INTO gpt_identities (authority, subject, user_id) VALUES ($1, 'grace-1', $2)`, o.issuer(), o.User.ID)
	token := o.bring(o.assertion()).Tokens().Access
	o.Clients.Change(t, agentID, func(c *issuer.Client) {
		c.Grants, c.RedirectURIs = append(c.Grants, "authorization_code"), []string{"https://agent.example/cb"}
	})
	b := o.Browser(t)
	p := b.Authorize(agentID).SignIn()
	if !p.Has("Allow") || strings.Contains(p.Text(), "before") || strings.Contains(p.Text(), "already") {
		t.Errorf("taken for something that the user allowed, or for the one place: %d %s", p.Status, p.Text())
	}
	apps := b.Get("/oauth/apps")
	if !strings.Contains(apps.Text(), "Allowed by "+o.host.Name()) || !strings.Contains(apps.Text(), "Agent") {
		t.Fatalf("%d %s", apps.Status, apps.Text())
	}
	apps.Press("Disconnect Agent").Follow()
	wantInactive(t, "ended by its user", introspect(o.Scene, agentID, token))
	// The provider decides, and it says so again.
	if r := o.bring(o.assertion()); r.Status != 200 || claimsOf(t, r.Tokens().Access)["sid"] == claimsOf(t, token)["sid"] {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}
