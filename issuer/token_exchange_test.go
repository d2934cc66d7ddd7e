package issuer_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessType    = "urn:ietf:params:oauth:token-type:access_token"
	serviceID     = "jobs-api" // serves the scene's first resource and calls the second
)

// exchange is a service that a user's token came to.
type exchange struct {
	t     *testing.T
	scene *issuertest.Scene
	token string
}

func service(id, serves, calls string) issuer.Client {
	return issuer.Client{ID: id, SecretDigests: []issuer.Digest{issuer.HashClientSecret(issuertest.Secret)}, AuthMethods: []string{"client_secret_post"},
		Grants: []string{exchangeGrant}, Introspects: []string{serves}, Exchanges: []string{calls}}
}

func newExchange(t *testing.T, scene *issuertest.Scene) *exchange {
	t.Helper()
	scene.Clients.Register(t, service(serviceID, scene.URL, scene.MCP()))
	token := scene.Tokens(t, issuertest.Confidential, issuertest.Set("scope", "jobs:read applications:write")).Access
	return &exchange{t, scene, token}
}

// ask exchanges the token, by default for applications:read at the second
// resource.
func (e *exchange) ask(token string, params ...issuertest.Param) issuertest.Response {
	e.t.Helper()
	form := url.Values{"grant_type": {exchangeGrant}, "client_id": {serviceID}, "client_secret": {issuertest.Secret},
		"subject_token": {token}, "subject_token_type": {accessType}, "scope": {"applications:read"}, "resource": {e.scene.MCP()}}
	for _, param := range params {
		param(form)
	}
	return e.scene.PostForm("/oauth/token", form)
}

// alive reports whether the service's token is.
func (e *exchange) alive(token string) bool {
	e.t.Helper()
	return introspect(e.scene, serviceID, token).JSON["active"] == true
}

// the service gets a token of its own, for the user, for the other
// resource.
func TestServiceExchangesTheUsersToken(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	e := newExchange(t, scene)
	r := e.ask(e.token)
	if r.Status != 200 || r.JSON["issued_token_type"] != accessType || r.JSON["token_type"] != "Bearer" || r.JSON["scope"] != "applications:read" || r.JSON["refresh_token"] != nil {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	user, got := claimsOf(t, e.token), claimsOf(t, r.Tokens().Access)
	act, _ := got["act"].(map[string]any)
	if got["sub"] != scene.User.ID || got["client_id"] != serviceID || got["aud"] != scene.MCP() || got["sid"] == user["sid"] || len(act) != 1 || act["sub"] != serviceID {
		t.Errorf("%v", got)
	}
	if got["auth_time"] != user["auth_time"] {
		t.Errorf("signed in at %v, the user at %v", got["auth_time"], user["auth_time"])
	}
	if !e.alive(r.Tokens().Access) {
		t.Error("not alive")
	}
	// The only resource, by its other name, or by none.
	for _, param := range []issuertest.Param{issuertest.Omit("resource"), func(form url.Values) { form.Del("resource"); form.Set("audience", scene.MCP()) }} {
		if again := e.ask(e.token, param); claimsOf(t, again.Tokens().Access)["sid"] != got["sid"] {
			t.Errorf("another session: %d %s", again.Status, again.Body)
		}
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_sessions WHERE client_id = $1", serviceID); n != 1 {
		t.Errorf("%d sessions of the service", n)
	}

	// The next service calls on in turn.
	next := service("mcp-api", scene.MCP(), scene.URL)
	scene.Clients.Register(t, next)
	chained := e.ask(r.Tokens().Access, issuertest.Set("client_id", "mcp-api"), issuertest.Set("resource", scene.URL))
	act, _ = claimsOf(t, chained.Tokens().Access)["act"].(map[string]any)
	before, _ := act["act"].(map[string]any)
	if act["sub"] != "mcp-api" || before["sub"] != serviceID {
		t.Errorf("%d %s %v", chained.Status, chained.Body, act)
	}
}

// A token cannot be passed on without end.
func TestExchangesInACircleEnd(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	e := newExchange(t, scene)
	scene.Clients.Register(t, service("mcp-api", scene.MCP(), scene.URL))
	token, passed := e.token, 0
	for ; passed < 10; passed++ {
		client, resource := serviceID, scene.MCP()
		if passed%2 == 1 {
			client, resource = "mcp-api", scene.URL
		}
		r := e.ask(token, issuertest.Set("client_id", client), issuertest.Set("resource", resource))
		if r.Status != 200 {
			wantOAuthError(t, r, 400, "invalid_request")
			break
		}
		token = r.Tokens().Access
	}
	if passed != 5 {
		t.Errorf("passed on %d times", passed)
	}
}

// what the token does not allow is not given, and everything that is
// wrong with it looks the same.
func TestExchangeRefusals(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	e := newExchange(t, scene)
	scene.Clients.Register(t, service("mcp-api", scene.MCP(), scene.MCP()))
	set, omit := issuertest.Set, issuertest.Omit
	own := clientCredentials(scene, issuertest.Machine, set("resource", scene.URL), set("scope", "jobs:read")).Tokens().Access
	revoked := scene.Tokens(t, issuertest.Confidential, set("scope", "resume:read"))
	revoke(scene, issuertest.Confidential, revoked.Refresh)
	removed := scene.Tokens(t, issuertest.GPT).Access
	scene.Clients.Remove(issuertest.GPT)
	for name, c := range map[string]struct {
		token string
		param issuertest.Param
		code  string
	}{
		"no token":               {e.token, omit("subject_token"), "invalid_request"},
		"no type":                {e.token, omit("subject_token_type"), "invalid_request"},
		"a refresh token":        {e.token, set("subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request"},
		"an ID token wanted":     {e.token, set("requested_token_type", "urn:ietf:params:oauth:token-type:id_token"), "invalid_request"},
		"an actor token":         {e.token, set("actor_token", e.token), "invalid_request"},
		"garbage":                {"x", set("x", "y"), "invalid_request"},
		"cut":                    {e.token[:len(e.token)-4], set("x", "y"), "invalid_request"},
		"a client's own":         {own, set("scope", "jobs:read"), "invalid_request"},
		"revoked":                {revoked.Access, set("scope", "resume:read"), "invalid_request"},
		"a removed client's":     {removed, set("scope", "jobs:read"), "invalid_request"},
		"of another service":     {e.token, set("client_id", "mcp-api"), "invalid_request"},
		"another target":         {e.token, set("resource", scene.URL), "invalid_target"},
		"an unknown target":      {e.token, set("resource", "https://other.example"), "invalid_target"},
		"two targets":            {e.token, set("audience", scene.URL), "invalid_target"},
		"more than the token":    {e.token, set("scope", "resume:read"), "invalid_scope"},
		"an unknown scope":       {e.token, set("scope", "other:read"), "invalid_scope"},
		"nothing that fits both": {e.token, omit("scope"), "invalid_scope"}, // the target knows mcp:tools only
	} {
		r := e.ask(c.token, c.param)
		if r.Status != 400 || r.Error() != c.code {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	if n := scene.Count(t, "SELECT count(*) FROM gpt_delegated_sessions"); n != 0 {
		t.Errorf("%d sessions came of it", n)
	}
	scene.Clients.Change(t, serviceID, func(c *issuer.Client) { c.Scopes = oauth.NewScopeSet("jobs:read") })
	wantOAuthError(t, e.ask(e.token), 400, "invalid_scope")
	scene.Clients.Change(t, serviceID, func(c *issuer.Client) { c.SecretDigests, c.AuthMethods = nil, []string{"none"} })
	wantOAuthError(t, e.ask(e.token, omit("client_secret")), 400, "unauthorized_client")
}

// the session of the service ends with the user's, at once and however
// that ends, down the chain.
func TestExchangedTokenEndsWithTheUsersSession(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{
		"revoked":            "UPDATE gpt_sessions SET revoked_at = now() WHERE id = $1::text::uuid",
		"narrowed":           "UPDATE gpt_sessions SET scopes = '{jobs:read}' WHERE id = $1::text::uuid",
		"given away":         "UPDATE gpt_sessions SET user_id = 'another' WHERE id = $1::text::uuid",
		"expires sooner":     "UPDATE gpt_sessions SET expires_at = now() WHERE id = $1::text::uuid",
		"deleted":            "DELETE FROM gpt_sessions WHERE id = $1::text::uuid",
		"all of the user":    "UPDATE gpt_sessions SET revoked_at = now() WHERE user_id = (SELECT user_id FROM gpt_sessions WHERE id = $1::text::uuid)",
		"deleted all":        "DELETE FROM gpt_sessions WHERE user_id = (SELECT user_id FROM gpt_sessions WHERE id = $1::text::uuid)",
		"client disabled":    "UPDATE gpt_clients SET disabled_at = now() WHERE client_id = (SELECT client_id FROM gpt_sessions WHERE id = $1::text::uuid)",
		"user disabled":      "UPDATE gpt_users SET disabled_at = now() WHERE id = (SELECT user_id FROM gpt_sessions WHERE id = $1::text::uuid)",
		"the service itself": "UPDATE gpt_clients SET disabled_at = now() WHERE client_id = 'jobs-api' AND $1::text IS NOT NULL",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := issuertest.New(t)
			e := newExchange(t, scene)
			scene.Clients.Register(t, service("mcp-api", scene.MCP(), scene.URL))
			first := e.ask(e.token).Tokens().Access
			second := e.ask(first, issuertest.Set("client_id", "mcp-api"), issuertest.Set("resource", scene.URL)).Tokens().Access
			other := e.ask(scene.Tokens(t, issuertest.Public, issuertest.Set("scope", "applications:read")).Access).Tokens().Access
			for _, token := range []string{first, second} {
				if !introspectedAs(scene, t, token) {
					t.Fatal("not alive before")
				}
			}
			revocations := "SELECT count(DISTINCT session_id) FROM gpt_revocations WHERE session_id::text IN ($1, $2)"
			scene.SQL(t, end, claimsOf(t, e.token)["sid"])
			if n := scene.Count(t, revocations, claimsOf(t, first)["sid"], claimsOf(t, second)["sid"]); n != 2 {
				t.Errorf("the gates hear of %d of 2", n)
			}
			for _, token := range []string{first, second} {
				if introspectedAs(scene, t, token) {
					t.Error("alive after")
				}
			}
			if name == "revoked" && !introspectedAs(scene, t, other) {
				t.Error("another session's ended too")
			}
		})
	}
}

// introspectedAs asks as the token's own client.
func introspectedAs(scene *issuertest.Scene, t *testing.T, token string) bool {
	return introspect(scene, claimsOf(t, token)["client_id"].(string), token).JSON["active"] == true
}

// it lives no longer than the token it came from; and one that the service
// ended by itself does not come back, but can be had anew.
func TestExchangedTokenLivesNoLonger(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t)
	e := newExchange(t, scene)
	scene.Clock.Advance(10 * time.Minute)
	r := e.ask(e.token)
	if got, user := claimsOf(t, r.Tokens().Access)["exp"].(float64), claimsOf(t, e.token)["exp"].(float64); r.Status != 200 || got > user {
		t.Errorf("expires at %v, the user's at %v", got, user)
	}
	revoke(scene, serviceID, r.Tokens().Access)
	if e.alive(r.Tokens().Access) {
		t.Error("alive")
	}
	if introspect(scene, issuertest.Confidential, e.token).JSON["active"] != true {
		t.Error("the user's session ended with it")
	}
	if again := e.ask(e.token); again.Status != 200 || e.alive(r.Tokens().Access) || !e.alive(again.Tokens().Access) {
		t.Errorf("%d %s", again.Status, again.Body)
	}
	scene.Clock.Advance(6 * time.Minute)
	wantOAuthError(t, e.ask(e.token), 400, "invalid_request")
}

// A service's session is neither a consent to the service nor a place of
// session_limit.
func TestDelegatedSessionIsNoConsent(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.With(func(cfg *issuer.Config) { cfg.SessionLimit = 2 }))
	e := newExchange(t, scene)
	e.ask(e.token)
	sessions, err := scene.Store.UserSessions(t.Context(), scene.User.ID)
	if err != nil || len(sessions) != 1 {
		t.Errorf("%v %v", sessions, err)
	}
	scene.Clients.Change(t, serviceID, func(c *issuer.Client) {
		c.Grants, c.RedirectURIs = []string{"authorization_code", exchangeGrant}, []string{"https://service.example/cb"}
	})
	tokens := scene.Tokens(t, serviceID) // in the second place
	granted := scene.SQL(t, "SELECT granted_scopes FROM gpt_sessions WHERE id = $1::text::uuid", claimsOf(t, tokens.Access)["sid"])
	if got := granted[0][0].([]any); len(got) != 1 || got[0] != "jobs:read" {
		t.Errorf("granted %v", got)
	}
}
