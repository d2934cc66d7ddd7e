package login_test

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
)

func TestUserOfAProviderMustBeOneWhoMaySignIn(t *testing.T) {
	t.Parallel()
	sub := func(value string) func(*provider) {
		return func(p *provider) { p.lie = func(claims map[string]any) { claims["sub"] = value } }
	}
	for name, c := range map[string]struct {
		config  func(*login.OIDCConfig)
		prepare func(*issuertest.Scene, *provider)
	}{
		"disabled": {prepare: func(s *issuertest.Scene, _ *provider) {
			signInAt(t, s.Browser(t))
			s.SQL(t, `UPDATE gpt_users SET disabled_at = now() WHERE id = 'ada-1'`)
		}},
		"id of a password user": {prepare: func(s *issuertest.Scene, p *provider) { p.set(sub(s.User.ID)) }},
		"id of a client":        {prepare: func(s *issuertest.Scene, p *provider) { p.set(sub("cli")) }},
		"address not verified": {
			config: func(c *login.OIDCConfig) { c.Claims.User = "email" },
			prepare: func(_ *issuertest.Scene, p *provider) {
				p.set(func(p *provider) { p.lie = func(claims map[string]any) { claims["email_verified"] = false } })
			},
		},
		"address handed to another subject": {
			config: func(c *login.OIDCConfig) { c.Claims.User = "email" },
			prepare: func(s *issuertest.Scene, p *provider) {
				signInAt(t, s.Browser(t))
				p.set(sub("eve-1"))
			},
		},
		"required claim": {config: func(c *login.OIDCConfig) { c.Claims.Require = map[string][]string{"roles": {"admin"}} }},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			var change []func(*login.OIDCConfig)
			if c.config != nil {
				change = append(change, c.config)
			}
			scene := newScene(t, p, change...)
			if c.prepare != nil {
				c.prepare(scene, p)
			}
			b := scene.Browser(t)
			if page := signInAt(t, b); page.Has("Allow") || b.Cookie("oauth_login") != "" {
				t.Errorf("signed in: %s", page.Text())
			}
		})
	}
}

// The id is chosen at first sight; afterwards the subject decides.
func TestUserKeepsTheIDOfFirstSight(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p, func(c *login.OIDCConfig) {
		c.Claims.User, c.UserInfo, c.Claims.Keep = "email", true, []string{"org"}
		c.Claims.Require = map[string][]string{"roles": {"admin", "recruiter"}, "email_verified": {"true"}}
	})
	signInAt(t, scene.Browser(t)).Allow().Code()
	p.set(func(p *provider) { p.lie = func(claims map[string]any) { claims["email"] = "new@provider.example" } })
	signInAt(t, scene.Browser(t)).Allow().Code()
	rows := scene.SQL(t, `SELECT id, name, claims->>'org' FROM gpt_users WHERE email IS NULL`)
	if len(rows) != 1 || rows[0][0] != "ada@provider.example" || rows[0][1] != "new@provider.example" || rows[0][2] != "acme" {
		t.Errorf("users: %v", rows)
	}
}

// DELETE FROM gpt_users, from any psql, ends logins and sessions at once and
// leaves an event.
func TestDeletedUserLosesEverythingAtOnce(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	scene := newScene(t, p)
	b := scene.Browser(t)
	query, verifier := scene.Authorization("cli")
	page := b.Get("/oauth/authorize?" + query.Encode())
	code := b.Get(b.Get(page.Location()).Location()).Follow().Allow().Code()
	tokens := scene.Redeem(t, "cli", code, url.Values{"code_verifier": {verifier}})

	scene.SQL(t, `DELETE FROM gpt_users WHERE id = 'ada-1'`)
	if r := scene.PostForm("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens.Refresh}, "client_id": {"cli"}}); r.Error() != "invalid_grant" {
		t.Errorf("refresh: %d %s", r.Status, r.Body)
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_sessions WHERE revoked_at IS NULL`) + scene.Count(t, `SELECT count(*) FROM gpt_logins`); n != 0 {
		t.Errorf("%d sessions and logins live on", n)
	}
	if n := scene.Count(t, `SELECT count(*) FROM gpt_oauth_events WHERE event_type = 'gpt.oauth.user_ended' AND user_id = 'ada-1' AND metadata->>'sessions' = '1'`); n != 1 {
		t.Errorf("%d events", n)
	}
}

// OIDC-16: with `openid`, what the provider says of its user is told on to
// clients, and the ID token says where the user signed in; without it nothing is kept.
func TestClientsAreToldWhatTheProviderSaid(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.set(func(p *provider) {
		p.lie = func(claims map[string]any) {
			claims["name"], claims["locale"], claims["phone_number"], claims["picture"] = "Ada Lovelace", "en-GB", "+1", strings.Repeat("p", 3000)
		}
	})
	off := newScene(t, p)
	signInAt(t, off.Browser(t)).Allow().Code()
	if rows := off.SQL(t, `SELECT profile::text FROM gpt_users WHERE id = 'ada-1'`); len(rows) != 1 || rows[0][0] != "{}" {
		t.Errorf("kept for nobody: %v", rows)
	}

	scene := issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		cfg.OpenID = true
		cfg.Methods = []issuer.LoginMethod{oidcMethod(t, "theirs", "Their ID", p, cfg.Now)}
	}))
	identity := func() map[string]any {
		t.Helper()
		b := scene.Browser(t)
		query, verifier := scene.Authorization(issuertest.Public, issuertest.Set("scope", "openid profile email"))
		page := b.Get("/oauth/authorize?" + query.Encode()).Press("Continue with Their ID")
		code := b.Get(b.Get(page.Location()).Location()).Follow().Allow().Code()
		r := scene.PostForm("/oauth/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {issuertest.Public}, "code": {code}, "code_verifier": {verifier}})
		raw, _ := r.JSON["id_token"].(string)
		var claims map[string]any
		if payload, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1]); err != nil || json.Unmarshal(payload, &claims) != nil {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		info := scene.Get("/oauth/userinfo", issuertest.Header("Authorization", "Bearer "+r.Tokens().Access))
		if info.JSON["sub"] != claims["sub"] || info.JSON["name"] != claims["name"] || info.JSON["email_verified"] != claims["email_verified"] {
			t.Errorf("UserInfo %s, ID token %v", info.Body, claims)
		}
		return claims
	}
	claims := identity()
	if claims["sub"] != "ada-1" || claims["name"] != "Ada Lovelace" || claims["locale"] != "en-GB" || claims["email"] != "ada@provider.example" || claims["email_verified"] != true {
		t.Errorf("%v", claims)
	}
	if claims["acr"] != scene.URL+"/oauth/login/theirs" || claims["amr"] != nil {
		t.Errorf("acr %v, amr %v", claims["acr"], claims["amr"])
	}
	for _, name := range []string{"phone_number", "picture", "roles"} { // nobody asked for it; too long; for the upstream only
		if claims[name] != nil {
			t.Errorf("%s is told", name)
		}
	}
	// What the provider says next holds, and no word about an address is none.
	p.set(func(p *provider) {
		p.lie = func(claims map[string]any) { claims["email"] = "ada@new.example"; delete(claims, "email_verified") }
	})
	if claims := identity(); claims["email"] != "ada@new.example" || claims["email_verified"] != false || claims["name"] != nil {
		t.Errorf("%v", claims)
	}
}
